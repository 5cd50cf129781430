"""`restore calibrate`: from measurements whose truth is known, how many times its spread an honest interval is wide."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from restore.errors import InputError
from restore.uncertainty.calibration import (
    Calibration,
    Entry,
    Judged,
    calibrate,
    exact_coverage,
    normal_factor,
    pictures_needed,
)

from .comparing import posed, read_recipe, true_picture
from .options import UsageError, split_overrides
from .planning import check_writable
from .restoring import drawing, undoing
from .settings import settings
from .working import restored

DRAWS = 8


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Restore, hold against the truth, fit and write; the exit status."""
    folders, overrides = split_overrides(options.inputs)
    if len(folders) != 1:
        raise UsageError("name one folder that `restore simulate` made")
    meas, out, level = Path(folders[0]), Path(options.output), options.level
    recipe = read_recipe(meas)
    composed = settings([*undoing(recipe["verb"], recipe["options"]), *drawing(options), *overrides])
    draws = composed["samples"] or DRAWS
    if draws < 2:
        raise UsageError("one draw has no spread: give --samples 8, for example")
    check_writable(out.parent)

    from restore.intervals import CLIPPED, clipped
    from restore.scoring import judged

    before = _before(out, level)
    if len(recipe["files"]) < pictures_needed(level):
        raise UsageError(
            f"the level {level:g} needs at least {pictures_needed(level)} pictures whose truth is known, and {meas} "
            f"has {len(recipe['files'])}: measure more, or give a lower --level"
        )
    counts = [k for k in (2**i for i in range(1, 20)) if k < draws] + [draws]
    found: dict[int, list[Judged]] = {k: [] for k in counts}
    failed = 0
    for entry in recipe["files"]:
        try:
            truth = true_picture(entry, options.ref)
            job, request = posed(meas, entry, recipe, composed, options, draws)
            with restored(job, request) as (prepared, outcome):
                if (share := clipped(prepared)) > CLIPPED:
                    print(f"{job.source.name}: left out, {share:.0%} of its pixels are black or white", flush=True)
                    continue
                for k in counts:
                    found[k].append(judged(prepared, outcome, request, truth, k, level))
        except InputError as error:
            print(f"restore: {error}", file=sys.stderr)
            failed += 1
            continue
        last = found[draws][-1]
        print(f"{job.source.name}: spread {last.spread:.3f}, its {100 * level:g} % covers {last.raw:.3f}", flush=True)
    entries = []
    for k in counts:
        try:
            entries.append(calibrate(found[k], level))
        except ValueError as error:
            print(f"restore: {k} draws: {error}", file=sys.stderr)
    if not entries:
        return 1
    before.updated(entries).save(out)
    print("\n" + summary(entries, level))
    print(f"wrote {out}; use it with --samples {draws} --calibration {out}")
    return 1 if failed else 0


def summary(entries: Sequence[Entry], level: float) -> str:
    """A table for people, and what is promised."""
    z, n = normal_factor(level), entries[0].pictures
    share, more = f"{100 * level:g} %", f"{200 / (n + 1):.2g} %"
    lines = [
        f"| draws | +- {z:.2f} spread covers | (exact draws) | factor | covers, left out | mean width |",
        "|------:|--------------------:|--------------:|-------:|-----------------:|-----------:|",
    ]
    for e in entries:
        left_out = "-" if e.covered is None else f"{e.covered:.3f}"
        exact = exact_coverage(e.condition.draws, level)
        lines.append(
            f"| {e.condition.draws:5d} | {e.raw:19.3f} | {exact:13.3f} | {e.factor:6.2f} | {left_out:>16} "
            f"| {e.width:10.4f} |"
        )
    promise = (
        f"mean +- factor * spread covers {share} of the values of a further picture on average, or more, if it is",
        f"to these {n} as they are to each other; with {n} it may be up to {more} more. (exact draws): of",
        "a normal distribution, in grey. Left out: each picture, with the factor of the others.",
    )
    return "\n".join([*lines, "", *promise, ""])


def _before(out: Path, level: float) -> Calibration:
    """The calibration to add to. Raises UsageError where something else is in the place."""
    if not out.exists():
        return Calibration(level, ())
    try:
        before = Calibration.load(out)
    except InputError as error:
        raise UsageError(f"{error} It will not be replaced: choose another name with -o") from error
    if before.level != level:
        raise UsageError(f"{out} is for the level {before.level:g}: choose another name with -o for {level:g}")
    return before

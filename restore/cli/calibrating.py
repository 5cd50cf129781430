"""`restore calibrate`: from measurements whose truth is known, how wide an honest interval is for its spread."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

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

from . import scanning
from .comparing import posed, read_recipe, true_picture
from .options import UsageError, split_overrides
from .planning import check_writable, counterpart
from .restoring import drawing, undoing
from .settings import Plain, settings
from .working import restored, tools

DRAWS = 8


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Restore, hold against the truth, fit and write; the exit status."""
    folders, overrides = split_overrides(options.inputs)
    if len(folders) != 1:
        raise UsageError("name one folder that `restore simulate` made")
    meas, out, level = Path(folders[0]), Path(options.output), options.level
    recipe = read_recipe(meas)
    scans = recipe["verb"] == "mri"
    words = scanning.preset(options) if scans else [*undoing(recipe["verb"], recipe["options"]), *drawing(options)]
    composed = settings([*words, *overrides])
    draws = composed["samples"] or DRAWS
    if draws < 2:
        raise UsageError("one draw has no spread: give --samples 8, for example")
    check_writable(out.parent)

    before = _before(out, level)
    there = sum(entry.get("slices", 1) for entry in recipe["files"])
    if there < pictures_needed(level):
        raise UsageError(
            f"the level {level:g} needs at least {pictures_needed(level)} pictures whose truth is known, and {meas} "
            f"has {there}: measure more, or give a lower --level"
        )
    counts = [k for k in (2**i for i in range(1, 20)) if k < draws] + [draws]
    found: dict[int, list[Judged]] = {k: [] for k in counts}
    failed = 0
    each = _scan if scans else _picture
    for entry in recipe["files"]:
        try:
            for name, rows in each(meas, entry, recipe, composed, options, counts):
                for k, row in rows.items():
                    found[k].append(row)
                spread, raw = fmean(rows[draws].spreads), rows[draws].raw
                print(f"{name}: spread {spread:.3f}, its {100 * level:g} % covers {raw:.3f}", flush=True)
        except InputError as error:
            print(f"restore: {error}", file=sys.stderr)
            failed += 1
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


def _picture(
    meas: Path, entry: Plain, recipe: Plain, composed: Plain, options: argparse.Namespace, counts: Sequence[int]
) -> Iterator[tuple[str, dict[int, Judged]]]:
    """A picture held against its truth, by number of draws; nothing where too much of it is black or white."""
    from restore.intervals import CLIPPED, clipped
    from restore.scoring import judged

    truth = true_picture(entry, options.ref)
    job, request = posed(meas, entry, recipe, composed, options, counts[-1])
    with restored(job, request) as (prepared, outcome):
        if (share := clipped(prepared)) > CLIPPED:
            print(f"{job.source.name}: left out, {share:.0%} of its pixels are black or white", flush=True)
            return
        yield job.source.name, {k: judged(prepared, outcome, request, truth, k, options.level) for k in counts}


def _scan(
    meas: Path, entry: Plain, recipe: Plain, composed: Plain, options: argparse.Namespace, counts: Sequence[int]
) -> Iterator[tuple[str, dict[int, Judged]]]:
    """The slices of a scan held against their truth, by number of draws; empty ones are left out."""
    from restore.scan_judge import judged_scan
    from restore.scan_prepare import ScanRequest

    from .printing import Bar

    name = Path(entry["scan"]).name
    truth = meas / "truths" / name if options.ref is None else counterpart(Path(options.ref), Path(name))
    # In units of the brightness of each slice, as `simulate` takes it.
    sigma = None if options.noise == "auto" else composed["noise"].get("sigma", recipe["noise"])
    kit, bar = tools(json.dumps(composed)), Bar(name, quiet=False)
    try:
        request = ScanRequest(settings=composed)
        for i, rows in judged_scan(meas / "scans" / name, truth, request, kit, options.level, counts, sigma, bar):
            bar.close()
            yield f"{name}, slice {i}", rows
    finally:
        bar.close()


def summary(entries: Sequence[Entry], level: float) -> str:
    """A table for people, and what is promised."""
    z, n = normal_factor(level), entries[0].pictures
    share, more = f"{100 * level:g} %", f"{200 / (n + 1):.2g} %"
    lines = [
        f"| draws | +- {z:.2f} spread covers | (exact draws) | factor | power | covers, left out | mean width |",
        "|------:|--------------------:|--------------:|-------:|------:|-----------------:|-----------:|",
    ]
    for e in entries:
        left_out = "-" if e.covered is None else f"{e.covered:.3f}"
        exact = exact_coverage(e.condition.draws, level)
        lines.append(
            f"| {e.condition.draws:5d} | {e.raw:19.3f} | {exact:13.3f} | {e.factor:6.2f} | {e.power:5.2f} "
            f"| {left_out:>16} | {e.width:10.4f} |"
        )
    promise = (
        f"mean +- factor sigma (spread / sigma)^power, sigma the noise, covers {share} of the values of a further",
        f"picture on average, or more, if it is to these {n} as they are to each other; with {n} it may be up to",
        f"{more} more. (exact draws): of a normal distribution, in grey. Left out: each picture, by the others.",
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

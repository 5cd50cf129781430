"""`restore compare`: simulated measurements, restored with several samplers and scored against the truth."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import InputError
from restore.modalities.image import read_picture

from .options import UsageError, split_overrides, suggestion
from .planning import check_writable, counterpart
from .restoring import DEFAULT_DRAWS, OPERATORS, calibration_named, drawing, undoing
from .settings import config_dir, names, settings
from .simulating import RECIPE
from .working import scored


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Restore, score and tabulate; the exit status."""
    folders, overrides = split_overrides(options.inputs)
    if len(folders) != 1:
        raise UsageError("name one folder that `restore simulate` made")
    meas = Path(folders[0])
    calibration = calibration_named(options.calibration)
    recipe = read_recipe(meas)
    if recipe["verb"] == "mri":
        raise UsageError(f"{meas} holds scans: restore them one by one by `restore mri`, with --ref")
    known, tuned = names("sampler"), OPERATORS[recipe["verb"]]
    samplers = options.samplers.split(",") if options.samplers else [options.sampler] if options.sampler else []
    samplers = samplers or [n for n in known if (config_dir() / f"recipe/{tuned}_{n}.yaml").is_file()] or known
    for name in samplers:
        if name not in known:
            raise UsageError(f"unknown sampler {name!r}{suggestion(name, known)} (known: {', '.join(known)})")
    options.sampler = None
    check_writable(Path(options.output))
    undo = undoing(recipe["verb"], recipe["options"])
    chosen = {n: settings([*undo, *drawing(options), f"sampler={n}", *overrides]) for n in samplers}

    from restore.scoring import write_tables

    rows, failed = [], 0
    shown: dict[str, np.ndarray] = {}
    for entry in recipe["files"]:
        try:
            truth = true_picture(entry, options.ref)
        except InputError as error:
            print(f"restore: {error}", file=sys.stderr)
            failed += 1
            continue
        for name, composed in chosen.items():
            try:
                draws = composed["samples"] or DEFAULT_DRAWS
                job, request = posed(meas, entry, recipe, composed, options, draws)
                request = replace(request, calibration=calibration)
                row, pictures = _one(job, request, truth, name, entry["picture"].removeprefix("pictures/"))
            except InputError as error:
                print(f"restore: {name}: {error}", file=sys.stderr)
                failed += 1
                continue
            rows.append(row)
            print(f"{row.picture}  {name}: {row}", flush=True)
            if row.picture == rows[0].picture:
                shown |= pictures
    if not rows:
        return 1
    from restore.report import panel

    out = Path(options.output)
    title = f"{recipe['operator']}, noise {recipe['noise']:g}, {len({row.picture for row in rows})} pictures"
    print("\n" + write_tables(out, title, rows), end="")
    panel(out / "panel.png", list(shown.items()))
    print(f"\nwrote {out / 'table.md'}, table.csv, table.json, panel.png")
    return 1 if failed else 0


def read_recipe(meas: Path) -> dict[str, Any]:
    """What `restore simulate` wrote of a folder. Raises UsageError where it wrote nothing."""
    try:
        recipe: dict[str, Any] = json.loads((meas / RECIPE).read_text())
        return {**recipe, "verb": recipe["verb"], "files": recipe["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{meas} holds no {RECIPE}: name a folder that `restore simulate` made") from error


def true_picture(entry: dict[str, Any], ref: str | None) -> np.ndarray:
    """The true picture: where `simulate` found it, or the one of `ref`. Raises InputError without one."""
    if ref is None:
        return read_picture(entry["truth"]).data
    return read_picture(counterpart(Path(ref), Path(entry["picture"]).relative_to("pictures"))).data


def posed(
    meas: Path, entry: dict[str, Any], recipe: dict[str, Any], composed: dict[str, Any], options: argparse.Namespace,
    draws: int,
) -> tuple[Any, Any]:  # fmt: skip
    """Job and request of one measurement."""
    from restore.jobs import Job, Request

    source = meas / entry["picture"]
    request = Request(
        verb=recipe["verb"],
        settings=composed,
        noise=None if options.noise == "auto" else composed["noise"].get("sigma", recipe["noise"]),
        mask=meas / entry["mask"] if entry["mask"] else None,
        draws=draws,
    )
    return Job(source, Path(options.output) / source.name, source.stem, Path(source.name)), request


def _one(job: Any, request: Any, truth: np.ndarray, name: str, picture: str) -> tuple[Any, dict[str, np.ndarray]]:
    row, data, mean = scored(job, request, truth, name, picture)
    shown = {
        "what was measured": data,
        f"truth\n{row.picture}": truth,
        f"{name}: mean of {row.draws}\nPSNR {row.psnr:.2f} dB": mean,
    }
    return row, shown

"""The calibration that ships with `photos`, and how it holds on pictures it has not seen.

    python tests/bench/calibrate_photos.py --data ../shared/data --write
    python tests/bench/calibrate_photos.py --data ../shared/data --test --write README.md

The first fits, and puts the factors beside the weights; the second holds them against test pictures.

Fitted on crops of the pictures that the card names as set aside and of photographs that come with scikit-image (all
CC0 or public domain), every other crop in grey. Neither trained the prior, nor are they in a test set. Crops of one
picture are more like each other than like those of another: the promise of `restore.uncertainty.calibration` is for one
more of these crops, and what holds for other pictures is measured on Set12 and CBSD68.

Every crop is measured by `restore simulate` and restored as the command line restores it, with the default sampler of
the verb. Results go to a JSON-lines file as they come; a run that was stopped goes on where it was, and what was
measured with another prior, sampler or crop is measured again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image
from report import write_between
from set_aside import CARD
from skimage import data as photographs
from tasks import find_pictures

from restore.cli import main as restore_command
from restore.cli.comparing import posed, read_recipe, true_picture
from restore.cli.options import parser as options_of
from restore.cli.restoring import drawing, undoing
from restore.cli.settings import settings
from restore.cli.working import restored
from restore.intervals import CLIPPED, clipped
from restore.memory import keep_freed_memory
from restore.priors.store import find_prior
from restore.scoring import judged
from restore.uncertainty import calibration
from restore.uncertainty.calibration import (
    CALIBRATION,
    Calibration,
    Condition,
    Entry,
    Judged,
    calibrate,
    half_width,
)

LEVEL, DRAWS = 0.9, (2, 4, 8)
BUNDLED = ("astronaut", "camera", "chelsea", "coffee", "coins", "motorcycle_left", "rocket")
# Operator and noise of `restore simulate`. An entry serves noise up to 1.6 times more or less than its own.
CONDITIONS = tuple(
    (operator, noise)
    for operator, levels in {
        "identity": (0.02, 0.05, 0.1, 0.2),
        "mask:0.7": (0.02, 0.05),
        "blur:gaussian:2.0": (0.02,),
        "downsample:2": (0.02,),
    }.items()
    for noise in levels
)
# What the test pictures are measured with: of each verb, the task of the table of photographs.
TESTED = (("identity", 0.1), ("mask:0.7", 0.05), ("blur:gaussian:2.0", 0.02), ("downsample:2", 0.02))
Row = dict[str, Any]


def crops(picture: Image.Image, count: int, side: int) -> list[Image.Image]:
    """From the middles of `count` equal parts of a picture, every other one in grey if the picture is colour."""
    columns = max(1, round((count * picture.width / picture.height) ** 0.5))
    rows = -(-count // columns)
    found = []
    for i in range(count):
        left, top = (
            max(0, min(round((k + 0.5) * n / parts - side / 2), n - side))
            for k, n, parts in ((i % columns, picture.width, columns), (i // columns, picture.height, rows))
        )
        crop = picture.crop((left, top, min(left + side, picture.width), min(top + side, picture.height)))
        found.append(crop.convert("L") if i % 2 else crop)
    return found


def fitted_on(data: Path) -> Iterator[tuple[str, Image.Image]]:
    """The pictures set aside, and scikit-image's."""
    names = re.search(r"^Set aside.*: (.*)\.$", CARD.read_text(), re.MULTILINE)
    assert names is not None, f"{CARD} does not say what was set aside"
    paths = {path.name: path for path in (data / "images" / "train").rglob("*")}
    for name in names[1].split(", "):
        yield Path(name).stem, Image.open(paths[name]).convert("RGB")
    for name in BUNDLED:
        path = Path(photographs.__file__).parent / name
        file = next(p for p in path.parent.glob(f"{name}.*") if p.suffix in (".png", ".jpg"))
        picture = Image.open(file)
        yield name, picture.convert("L" if picture.mode == "L" else "RGB")


def write_crops(folder: Path, pictures: Sequence[tuple[str, Image.Image]], count: int, side: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures:
        for i, crop in enumerate(crops(picture, count, side)):
            crop.save(folder / f"{name}_{i}.png")


def measured(truths: Path, operator: str, noise: float, results: Path) -> list[tuple[str, dict[int, Judged]]]:
    """Each crop, by number of draws; from the file of results where it has been done."""
    meas = truths.parent / f"{truths.name}_{operator.replace(':', '_')}_{noise:g}"
    told = ["--operator", operator, "--noise", str(noise), "--input", str(truths), "-o", str(meas), "--quiet"]
    if restore_command(["simulate", *told]):
        raise SystemExit(1)
    recipe, options = read_recipe(meas), options_of("calibrate").read([str(meas), "-o", "unused"])
    composed = settings([*undoing(recipe["verb"], recipe["options"]), *drawing(options)])
    known, found = known_rows(results), []
    for entry in recipe["files"]:
        job, request = posed(meas, entry, recipe, composed, options, max(DRAWS))
        how = [calibration.WINDOW, calibration.SAMPLED]
        key = json.dumps([operator, noise, entry["sha256"], composed, how, _prior(composed)])
        if key not in known:
            with restored(job, request) as (prepared, outcome):
                truth = true_picture(entry, None)
                rows = [asdict(judged(prepared, outcome, request, truth, k, LEVEL)) for k in DRAWS]
                known[key] = {"key": key, "clipped": clipped(prepared), "judged": rows}
            with results.open("a") as out:
                out.write(json.dumps(known[key]) + "\n")
        if known[key]["clipped"] > CLIPPED:
            continue
        found.append((job.source.stem.rpartition("_")[0], by_draws(known[key]["judged"])))
    return found


def known_rows(results: Path) -> dict[str, Row]:
    """What has been done, by its key."""
    return {row["key"]: row for row in map(json.loads, results.read_text().splitlines())} if results.exists() else {}


def by_draws(rows: Sequence[Row]) -> dict[int, Judged]:
    """From JSON."""
    each = [Judged(**{**row, "condition": Condition(**row["condition"])}) for row in rows]
    return {j.condition.draws: j for j in each}


def _prior(composed: Row) -> str:
    from restore.intervals import prior_checksum

    return prior_checksum(composed["prior"])


def covers(found: Sequence[Judged], entry: Entry) -> float:
    return fmean(j.covered(entry.factor, entry.power) for j in found)


def fit(
    found_of: Callable[[str, float], list[tuple[str, dict[int, Judged]]]], conditions: Sequence[tuple[str, float]],
    draws: Sequence[int] = DRAWS,
) -> Calibration:  # fmt: skip
    """One entry for each condition and number of draws; prints how a fit to half of the pictures does on the others."""
    entries = []
    print("| operator | noise | draws | crops | raw | fitted to half covers the others | factor | power | mean width |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for operator, noise in conditions:
        found = found_of(operator, noise)
        names = list(dict.fromkeys(name for name, _ in found))
        for k in draws:
            entries.append(entry := calibrate([j[k] for _, j in found], LEVEL))
            shares = []
            for first in (0, 1):  # whole pictures, so that none is on both sides
                half = [j[k] for name, j in found if names.index(name) % 2 == first]
                others = [j[k] for name, j in found if names.index(name) % 2 != first]
                if len(half) > calibration.pictures_needed(LEVEL):
                    shares.append(covers(others, calibrate(half, LEVEL)))
            half_covers = " / ".join(f"{s:.3f}" for s in shares) or "too few"
            print(
                f"| {operator} | {noise:g} | {k} | {entry.pictures} | {entry.raw:.3f} | {half_covers} "
                f"| {entry.factor:.2f} | {entry.power:.2f} | {entry.width:.4f} |",
                flush=True,
            )
    return Calibration(LEVEL, tuple(entries))


def test(truths: Path, results: Path, conditions: Sequence[tuple[str, float]], shipped: Calibration) -> str:
    """A table of how the shipped calibration does on pictures it was not fitted on."""
    lines = [
        "| task | draws | +- 1.645 sd covers | calibrated covers | of single pictures | factor | power | mean width |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for operator, noise in conditions:
        found = measured(truths, operator, noise, results)
        for k in DRAWS:
            here = [j[k] for _, j in found]
            entry = shipped.find(here[0].condition)
            title = f"{here[0].condition.verb}, {operator}, noise {noise:g}"
            if isinstance(entry, str):
                lines.append(f"| {title} | {k} | {fmean(j.raw for j in here):.3f} | {entry} | | | | |")
                continue
            each = [covers([j], entry) for j in here]
            widths = [half_width(np.array(j.spreads), j.condition.sigma, entry.factor, entry.power) for j in here]
            lines.append(
                f"| {title} | {k} | {fmean(j.raw for j in here):.3f} | {fmean(each):.3f} | {min(each):.2f} to "
                f"{max(each):.2f} | {entry.factor:.2f} | {entry.power:.2f} "
                f"| {2 * fmean(w.mean() for w in widths):.3f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with images/...")
    parser.add_argument("--crop", type=int, default=128, help="side of a crop")
    parser.add_argument("--crops", type=int, default=3, help="crops of each picture that is fitted on")
    parser.add_argument("--files", type=int, help="pictures, for a quick look")
    parser.add_argument("--operators", help="comma-separated beginnings of their names; what is fitted to others stays")
    parser.add_argument("--conditions", type=int, help="conditions, for a quick look")
    parser.add_argument("--window", type=int, default=calibration.WINDOW, help="side of the window of the spread")
    parser.add_argument("--work", type=Path, default=Path("outputs/bench/calibration"))
    parser.add_argument("--calibration", type=Path, default=find_prior("photos") / CALIBRATION)
    parser.add_argument("--test", action="store_true", help="hold the calibration against Set12 and CBSD68")
    parser.add_argument(
        "--write", type=Path, nargs="?", const=True, help="the calibration, or the table into this file"
    )
    args = parser.parse_args()

    torch.set_num_threads(1)
    keep_freed_memory()
    calibration.WINDOW = args.window
    pictures = (
        ((f"{path.parent.name}_{path.stem}", Image.open(path)) for path in find_pictures(args.data))
        if args.test
        else fitted_on(args.data)
    )
    pictures = list(pictures)[: args.files]
    truths = args.work.absolute() / f"{'test' if args.test else 'fit'}_{args.crop}_{args.crops}_{len(pictures)}"
    results = args.work / "results.jsonl"
    if not args.test:
        write_crops(truths, pictures, args.crops, args.crop)
        found_of = lambda operator, noise: measured(truths, operator, noise, results)  # noqa: E731
        wanted = [c for c in CONDITIONS if args.operators is None or c[0].startswith(tuple(args.operators.split(",")))]
        fitted = fit(found_of, wanted[: args.conditions])
        if args.write:
            if args.operators is not None:
                again = {entry.condition.verb for entry in fitted.entries}
                others = [e for e in Calibration.load(args.calibration).entries if e.condition.verb not in again]
                fitted = Calibration(LEVEL, (*fitted.entries, *others))
            fitted.save(args.calibration)
            print(f"wrote {args.calibration}")
        return
    write_crops(truths, pictures, 1, args.crop)
    text = test(truths, results, TESTED[: args.conditions], Calibration.load(args.calibration))
    print(text)
    if isinstance(args.write, Path):
        write_between(args.write, "calibration", text)


if __name__ == "__main__":
    main()

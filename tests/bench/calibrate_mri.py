"""The calibration that ships with `brain-mri`.

    python tests/bench/calibrate_mri.py --data ../shared/data --write

Fitted on slices of the two volumes that the card names as set aside, measured by `restore simulate` with coils, phase
and noise that are made up; coverage is counted over the pixels of the head. How it holds on scans whose coils, phase
and noise are real is in the table of `tests/bench/mri.py`. "Fitted to half": the factor of one volume on the other.

Every slice is restored as `restore mri` does, with the default sampler. Results go to a JSON-lines file as they come; a
run that was stopped goes on where it was, and what was measured with another prior or sampler is measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tifffile
import torch
from calibrate_photos import LEVEL, by_draws, fit, known_rows
from mri import VOLUMES

from restore.cli import main as restore_command
from restore.cli.comparing import read_recipe
from restore.cli.options import parser as options_of
from restore.cli.scanning import preset
from restore.cli.settings import settings
from restore.cli.working import tools
from restore.intervals import prior_checksum
from restore.learn.mri import read_slices
from restore.memory import keep_freed_memory
from restore.modalities.mri import fft2, ifft2
from restore.priors.store import find_prior
from restore.scan_judge import judged_scan
from restore.scan_prepare import ScanRequest
from restore.uncertainty.calibration import CALIBRATION, SAMPLED, Judged

DRAWS = (2, 4)
# Acceleration, coils and noise. An entry serves noise and share of k-space up to 1.6 times more or less than its own.
CONDITIONS = tuple(
    (f"mri:R={accel},coils={coils}", noise)
    for k in (0, 1)
    for coils, noise in ((8, (0.012, 0.03)[k]), (1, (0.03, 0.08)[k]))
    for accel in ("4", "2x2")
)
LARGE = 256  # pixels a side: slices of more are taken at half their resolution, for the time it takes


def evenly(slices: list[torch.Tensor], count: int) -> Iterator[np.ndarray]:
    """So many of the slices of a plane, without those at its ends."""
    for k in range(count):
        yield slices[int(len(slices) * (0.15 + 0.7 * (k + 0.5) / count))][0].numpy()


def halved(x: np.ndarray) -> np.ndarray:
    """A magnitude as the middle of its k-space shows it."""
    rows, columns = (slice(n // 4, n // 4 + n // 2) for n in x.shape)
    return np.abs(ifft2(fft2(x[None].astype(np.complex64))[:, rows, columns]))[0] / 2


def write_slices(folder: Path, data: Path) -> None:
    """Of the first volume 32 slices, eight of them in its other planes, and 16 of the second."""
    folder.mkdir(parents=True, exist_ok=True)
    for volume, (main, others) in zip(VOLUMES, ((24, 8), (16, 0)), strict=True):
        read = read_slices(data / "mri/volumes" / f"{volume}.nii.gz")
        for i, x in enumerate([*evenly(read.main, main), *evenly(read.others, others)]):
            x = halved(x) if min(x.shape) > LARGE else x
            tifffile.imwrite(folder / f"{volume}_{i:02d}.tif", x.astype(np.float32))


def measured(truths: Path, operator: str, noise: float, results: Path) -> list[tuple[str, dict[int, Judged]]]:
    """Each slice and the volume it is of, by number of draws; from the file of results where it has been done."""
    meas = truths.parent / f"{operator.replace(':', '_')}_{noise:g}"
    told = ["--operator", operator, "--noise", str(noise), "--input", str(truths), "-o", str(meas), "--quiet"]
    if restore_command(["simulate", *told]):
        raise SystemExit(1)
    composed = settings(preset(options_of("calibrate").read([str(meas), "-o", "unused"])))
    known, found = known_rows(results), []
    for entry in read_recipe(meas)["files"]:
        name = Path(entry["scan"]).name
        key = json.dumps([operator, noise, entry["sha256"], composed, SAMPLED, prior_checksum(composed["prior"])])
        if key not in known:
            request, kit = ScanRequest(settings=composed), tools(json.dumps(composed))
            scan, truth = meas / "scans" / name, meas / "truths" / name
            ((_, rows),) = judged_scan(scan, truth, request, kit, LEVEL, DRAWS, noise, lambda share: None)
            known[key] = {"key": key, "judged": [asdict(j) for j in rows.values()]}
            with results.open("a") as out:
                out.write(json.dumps(known[key]) + "\n")
        found.append((name.rpartition("_")[0], by_draws(known[key]["judged"])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with mri/volumes")
    parser.add_argument("--conditions", type=int, help="conditions, for a quick look")
    parser.add_argument("--work", type=Path, default=Path("outputs/bench/calibration_mri"))
    parser.add_argument("--write", action="store_true", help="put the calibration beside the weights")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    truths = args.work.absolute() / "slices"
    write_slices(truths, args.data)
    results = args.work / "results.jsonl"
    found_of = lambda operator, noise: measured(truths, operator, noise, results)  # noqa: E731
    fitted = fit(found_of, CONDITIONS[: args.conditions], DRAWS)
    if args.write:
        path = find_prior("brain-mri") / CALIBRATION
        fitted.save(path)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()

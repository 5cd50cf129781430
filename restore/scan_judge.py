"""Simulated scans, restored and held against their truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from restore.engine import Progress
from restore.jobs import Job, Tools
from restore.modalities.mri import read_images
from restore.scan_full import body_of
from restore.scan_interval import scan_condition
from restore.scan_pose import Slice, brightness, pose
from restore.scan_prepare import ScanRequest, prepare_scan
from restore.scans import drawn
from restore.uncertainty.calibration import Condition, Judged, judge

AXES = "slice,coil,y,x"  # of what `restore simulate` writes


def judged_scan(
    scan: Path, truth: Path, request: ScanRequest, tools: Tools, level: float, counts: Sequence[int],
    sigma: float | None, progress: Progress,
) -> Iterator[tuple[int, dict[int, Judged]]]:  # fmt: skip
    """The slices that hold data, restored as by `restore mri` and held against their truth, by number of draws.

    Args:
        sigma: the noise that was simulated, in units of the brightness of each slice; `None` estimates it.

    Raises:
        InputError: the scan or its truth cannot be used.
    """
    request = replace(request, axes=AXES, noise=sigma, draws=max(counts))
    prepared = prepare_scan(Job(scan, scan, scan.stem, Path(scan.name)), request, tools)
    truths = read_images(truth, prepared.scan)
    for i in prepared.chosen:
        x = np.asarray(truths[i])
        here = prepared if sigma is None else replace(prepared, sigma=sigma * brightness(x))
        posed = pose(here, request, i) if x.any() else None
        if posed is None:
            continue
        draws = posed.images(drawn(here, request, tools, i, posed, progress).samples)
        conditions = {k: scan_condition(here, request, posed, k) for k in counts}
        yield i, {k: judged_slice(conditions[k], posed, draws[:k], x, level) for k in counts}


def judged_slice(condition: Condition, posed: Slice, draws: np.ndarray, truth: np.ndarray, level: float) -> Judged:
    """How often the truth lies outside intervals around the mean, over the pixels of the body.

    Args:
        draws, truth: complex, `(sample, y, x)` and `(y, x)`, in the units of the file.
    """
    each, magnitude = np.abs(draws) / posed.scale, np.abs(truth) / posed.scale
    error, std = magnitude - each.mean(0), each.std(0, ddof=1)
    return judge(condition, error[None], std[None], level, body_of(magnitude))

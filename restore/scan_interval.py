"""Intervals of scans: which calibration serves one, and how wide they are."""

from __future__ import annotations

import numpy as np

from restore.intervals import Interval, prior_checksum, serving
from restore.scan_full import scanned
from restore.scan_pose import Slice
from restore.scan_prepare import PreparedScan, ScanRequest
from restore.scoring import LEVEL
from restore.uncertainty.calibration import Condition, normal_factor


def scan_interval(prepared: PreparedScan, request: ScanRequest, posed: Slice) -> Interval:
    """The interval of a scan, by one of its slices.

    Raises:
        InputError: the calibration cannot be read.
    """
    return serving(request, scan_condition(prepared, request, posed, request.draws))


def scan_condition(prepared: PreparedScan, request: ScanRequest, posed: Slice, draws: int) -> Condition:
    """What the calibration of a slice has to have been made for; the noise in units of its brightness."""
    return Condition(
        verb=request.verb,
        kind=kind_of(posed.used, prepared.scan.coils),
        strength=1.0 if posed.used is None else float(posed.used.mean()),
        sigma=prepared.sigma / posed.scale,
        draws=draws,
        sampler=request.settings["sampler"],
        prior=prior_checksum(request.settings["prior"]),
    )


def kind_of(used: np.ndarray | None, coils: int) -> str:
    """What was left out of k-space, and whether coils tell apart what folds onto each other."""
    if used is None:
        out = "off the grid"
    elif used.all():
        out = "nothing left out"
    else:
        lines = (used == used[:, :1]).all() or (used == used[:1]).all()
        out = "lines left out" if lines else "points left out"
    return f"{out}, {'one coil' if coils == 1 else 'several coils'}"


def half_width(found: Interval, std: np.ndarray, scale: float, noise: float) -> np.ndarray:
    """Of the interval of each pixel, `(y, x)`: the calibrated one, else that of a normal distribution.

    Args:
        scale: what a one of the prior is in the units of `std`.
        noise: of the data, in the units of `std`.
    """
    if found.entry is None:
        return np.float32(normal_factor(LEVEL)) * std
    return np.float32(scale) * found.map(std[None] / np.float32(scale), noise / scale)[0]


def predicted(posed: Slice, draws: np.ndarray, found: Interval) -> tuple[np.ndarray, np.ndarray | None]:
    """What a full scan would show: mean of its magnitude and half-width of its interval, `(y, x)`, units of the file.

    The half-widths of the anatomy and of the noise add up as standard deviations do; there is none of a single draw.
    """
    each, variance = scanned(posed, draws)
    if len(draws) < 2:
        return each.mean(0), None
    anatomy = half_width(found, each.std(0, ddof=1), posed.scale, posed.noise)
    noise = normal_factor(found.level or LEVEL) * np.sqrt(variance.mean(0))
    return each.mean(0), np.hypot(anatomy, noise)

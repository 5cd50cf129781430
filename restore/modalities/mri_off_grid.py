"""Scans off the grid: data with a trajectory, in whatever unit and with whatever size of the picture. No torch here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .mri_scan import Scan, ifft2

# Part of k-space, along an axis, that shows where the object is.
_CENTRE = 0.25
# What is darker than this, of the brightest, is not the object.
_DARK = 0.15


def off_grid(
    path: Path, format: str, data: np.ndarray, points: np.ndarray, density: np.ndarray | None,
    matrix: tuple[int, int] | None, **others: Any,
) -> Scan:  # fmt: skip
    """The scan of one slice off the grid: `data` is `(coil, ...)`, or `(...)` of one coil, `points` has `...` of them,
    complex or with two numbers each: y (imaginary) and x (real), the latter last.

    Raises:
        InputError: they do not fit each other, or neither says how large the picture is.
    """
    if points.dtype.kind == "c":
        points = np.stack([points.real, points.imag], -1)  # x, y: as most programs have it
    elif points.shape[-1] not in (2, 3) and points.shape[0] in (2, 3):
        points = np.moveaxis(points, 0, -1)
    if points.shape[-1] == 3 and not np.any(points[..., 2]):
        points = points[..., :2]
    inner = points.shape[:-1]
    if points.shape[-1] != 2 or data.shape[data.ndim - len(inner) :] != inner or data.ndim - len(inner) not in (0, 1):
        seen = f"data {' x '.join(map(str, data.shape))}, trajectory {' x '.join(map(str, points.shape))}"
        wanted = "two numbers (or one complex) for each point of each coil's data"
        raise InputError(path, seen, wanted, "save the trajectory with its x and y as the last axis")
    if data.dtype.kind != "c":
        raise InputError(path, "real numbers", "k-space, which is complex", "save the complex numbers as measured")
    if not np.isfinite(points).all():
        raise InputError(path, "NaN or infinite values in the trajectory", "finite numbers", "leave those points out")
    coils = data.reshape(-1, math.prod(inner)).astype(np.complex64)
    k = points.reshape(-1, 2)[:, ::-1].astype(np.float64)  # y before x
    if matrix is None:
        side = fitting(path, coils, k)
        matrix = side, side
        note = f"no size of the picture is given: {side} x {side} fits the data; --matrix says otherwise"
        others["notes"] = (*others.get("notes", ()), note)
    k, unit = _per_pixel(path, k, matrix)
    weights = None if density is None else np.broadcast_to(np.abs(density), inner).reshape(-1).astype(np.float32)
    return Scan(
        path=path,
        format=format,
        slices=1,
        coils=len(coils),
        shape=matrix,
        plane=lambda i: coils,
        axes=f"coil {len(coils)}, points {' x '.join(map(str, inner))}, trajectory in {unit}",
        trajectory=k,
        density=weights,
        **others,
    )


def fitting(path: Path, data: np.ndarray, k: np.ndarray) -> int:
    """The side of a square picture for a trajectory, which holds the object.

    A trajectory in cycles per field of view says it. Of one in cycles or radians per pixel the centre is put on the
    finest grid of which it fills nine cells in ten, and the object is looked for in the coarse picture that this gives.

    Args:
        data: `(coil, M)`.
        k: `(M, 2)`.

    Raises:
        InputError: the trajectory leaves out the centre.
    """
    top = float(np.abs(k).max())
    if top > 0.5001 and abs(top / np.pi - 1) >= 0.02:
        return 2 * math.ceil(top - 0.01)
    k = k if top <= 0.5001 else k / (2 * top)
    near = np.hypot(*k.T) < _CENTRE / 2
    k, data = k[near] / _CENTRE, data[:, near]  # from -1/2 to 1/2
    for n in range(160, 7, -4):
        cell = np.floor((k + 0.5) * n).astype(int) @ (n, 1)
        count = np.bincount(cell, minlength=n * n)
        radius = np.hypot(*np.meshgrid(*2 * [(np.arange(n) + 0.5) / n - 0.5]))
        if (count.reshape(n, n)[radius < 0.47] > 0).mean() > 0.9:
            break
    else:
        seen, wanted = "a trajectory that leaves out the centre of k-space, and no size of the picture", "a size"
        raise InputError(path, seen, wanted, "give it, as in --matrix 256,256 (y,x)")
    total = [np.bincount(cell, part, n * n) for coil in data for part in (coil.real, coil.imag)]
    gridded = (np.array(total) / np.maximum(count, 1)).reshape(-1, 2, n, n)
    window = 0.5 + 0.5 * np.cos(2 * np.pi * np.minimum(radius, 0.5))  # rings would be taken for the object
    x = np.square(np.abs(ifft2((gridded[:, 0] + 1j * gridded[:, 1]) * window))).sum(0) ** 0.5
    y, x = np.nonzero(x > _DARK * x.max())
    reach = max(np.abs(y - n // 2).max(), np.abs(x - n // 2).max()) + 1
    return 2 * math.ceil(min(1.1 * reach, n / 2) / _CENTRE)


def _per_pixel(path: Path, k: np.ndarray, matrix: tuple[int, int]) -> tuple[np.ndarray, str]:
    """A trajectory in cycles per pixel, whatever its unit was, wrapped into [-1/2, 1/2)."""
    top = float(np.abs(k).max())
    if top <= 0.5001:
        unit = "cycles per pixel"
    elif abs(top / np.pi - 1) < 0.02:
        k, unit = k / (2 * np.pi), "radians per pixel"
    elif (np.abs(k).max(0) <= np.asarray(matrix) / 2 + 0.51).all():
        k, unit = k / np.asarray(matrix), "cycles per field of view"
    else:
        seen = f"a trajectory up to {top:.4g}"
        raise InputError(path, seen, "cycles per pixel, at most 0.5", "divide it by the size of the picture in pixels")
    return (k + 0.5) % 1 - 0.5, unit

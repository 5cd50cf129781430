"""Which points of k-space a Cartesian scan samples: boolean `(H, W)`, zero frequency in the middle, entry `n // 2`.

The middle of k-space, from which coil maps are estimated (ACS), is always sampled. `centre` says how much: a whole
number of lines, or a fraction below one of the axis. Whole lines run along the axis that is not `axis`, the
phase-encoding axis: `"x"` (columns are kept or missing, as in fastMRI) or `"y"` (rows).
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Axis = Literal["x", "y"]


def equispaced(
    shape: tuple[int, int],
    accel: int | tuple[int, int],
    centre: float = 0.08,
    axis: Axis = "x",
    rng: torch.Generator | None = None,
) -> Tensor:
    """Every `accel`-th line and the centre, which makes the acceleration as a whole a little less than `accel`.

    Args:
        shape: `(H, W)`.
        accel: the spacing of lines; a pair is the spacing along y and along x (both phase-encoded, `axis` unused).
        centre: lines, or a fraction; for a pair the side of a rectangle.
        axis: the phase-encoding axis.
        rng: draws the first line; `None` takes one that goes through the zero frequency.

    Raises:
        ValueError: a spacing is not a whole number from 1 to the number of lines, or the centre is not possible.
    """
    one = int(isinstance(accel, tuple))
    steps = accel if isinstance(accel, tuple) else (1, accel) if axis == "x" else (accel, 1)
    kept = []
    for n, step in zip(shape, steps, strict=True):
        if int(step) != step or not 1 <= step <= n:
            raise ValueError(f"lines are spaced by a whole number from 1 to {n}, got {step}")
        first = n // 2 % step if rng is None else int(torch.randint(int(step), (), generator=rng))
        kept.append(torch.arange(n) % step == first)
    grid = kept[0][:, None] & kept[1]
    return grid | (_block(shape, centre) if one else _lines(shape, _middle(shape[_dim(axis)], centre), axis))


def random_lines(
    shape: tuple[int, int],
    accel: float,
    centre: float = 0.08,
    axis: Axis = "x",
    rng: torch.Generator | None = None,
) -> Tensor:
    """The centre and lines drawn uniformly from the rest, `n / accel` in all: the masks of fastMRI, their number fixed.

    Args:
        shape: `(H, W)`.
        accel: at least 1.
        centre: lines, or a fraction of them.
        axis: the phase-encoding axis.
        rng: `None` is a generator of seed 0.

    Raises:
        ValueError: the acceleration is below 1, or leaves fewer lines than the centre has.

    Source: Zbontar et al. 2018, "fastMRI: An open dataset and benchmarks for accelerated MRI".
    """
    n = shape[_dim(axis)]
    kept, wanted = _middle(n, centre), round(n / _checked(accel))
    rest = (~kept).nonzero().flatten()
    more = wanted - int(kept.sum())
    if more < 0:
        raise ValueError(
            f"{n} lines at an acceleration of {accel} are {wanted}, fewer than the {int(kept.sum())} of the centre: "
            "make the centre smaller"
        )
    kept[rest[torch.randperm(len(rest), generator=rng or torch.Generator().manual_seed(0))[:more]]] = True
    return _lines(shape, kept, axis)


def poisson_disc(
    shape: tuple[int, int],
    accel: float,
    centre: float = 0.08,
    rng: torch.Generator | None = None,
) -> Tensor:
    """Points no nearer to each other than a distance that grows from 1 at the centre: both axes are phase-encoded.

    The points are visited in random order, and each one kept blocks those within `1 + slope rho`, with `rho` from 0 in
    the middle to 1 at the edges; the slope is that which gives the acceleration, to within 2 %.

    Args:
        shape: `(H, W)`.
        accel: as a whole, the centre included; at least 1.
        centre: points, or a fraction, of each axis: the sides of a rectangle sampled in full.
        rng: `None` is a generator of seed 0.

    Raises:
        ValueError: the acceleration is below 1, or cannot be reached with this centre.

    Source: Lustig and Pauly 2010, "SPIRiT", for the use; dart throwing on the grid, as `sigpy.mri.poisson` finds the
    slope.
    """
    wanted = shape[0] * shape[1] / _checked(accel)
    block = _block(shape, centre)
    order = torch.randperm(block.numel(), generator=rng or torch.Generator().manual_seed(0)).numpy()
    y, x = (np.abs(2 * (np.arange(n) - n // 2) / n) for n in shape)
    rho = np.maximum(y[:, None], x)
    low, high = 0.0, float(max(shape))
    for _ in range(30):
        slope = (low + high) / 2
        mask = block | torch.from_numpy(_throw(1 + slope * rho, order))
        count = int(mask.sum())
        if abs(count - wanted) <= 0.02 * wanted:
            return mask
        low, high = (slope, high) if count > wanted else (low, slope)
    raise ValueError(
        f"an acceleration of {accel} was not reached: the nearest keeps {count} of {block.numel()} points, "
        f"{int(block.sum())} of them in the centre"
    )


def centre_block(mask: Tensor, most: int | None = None) -> tuple[slice, slice]:
    """A rectangle around the zero frequency without a gap, as long along each axis as that allows.

    Args:
        mask: boolean, `(H, W)`.
        most: the longest side.

    Returns:
        Where it lies along y and x; empty where the zero frequency was not sampled.
    """

    def window(n: int, width: int) -> slice:
        return slice(n // 2 - width // 2, n // 2 - width // 2 + width)

    def widest(line: Tensor) -> int:
        n = len(line)
        return next((w for w in range(min(n, most or n), 0, -1) if bool(line[window(n, w)].all())), 0)

    H, W = mask.shape
    h, w = widest(mask[:, W // 2]), widest(mask[H // 2])
    while not bool(mask[window(H, h), window(W, w)].all()):  # a disc, not a rectangle
        h, w = h - (h >= w), w - (w >= h)
    return window(H, h), window(W, w)


def _throw(radius: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Keep each point of the order that no point kept before it blocks."""
    H, W = radius.shape
    kept, blocked = np.zeros((H, W), bool), np.zeros((H, W), bool)
    for i in order:
        y, x = divmod(int(i), W)
        if blocked[y, x]:
            continue
        kept[y, x] = True
        disc, r = _disc(round(float(radius[y, x]), 1))
        top, left = max(y - r, 0), max(x - r, 0)
        part = disc[top - y + r : H - y + r, left - x + r : W - x + r]
        blocked[top : y + r + 1, left : x + r + 1] |= part
    return kept


@cache
def _disc(radius: float) -> tuple[np.ndarray, int]:
    """The grid points nearer than `radius` to the middle one, `(2 r + 1, 2 r + 1)`, and `r`."""
    r = int(radius)
    d = np.arange(-r, r + 1)
    return d[:, None] ** 2 + d**2 < radius**2, r


def _middle(n: int, centre: float) -> Tensor:
    """Which of `n` lines are the centre."""
    width = round(centre * n) if centre < 1 else centre
    if not 0 <= width <= n or int(width) != width:
        raise ValueError(f"the centre is a fraction below 1 or a whole number of lines up to {n}, got {centre}")
    start = n // 2 - int(width) // 2
    kept = torch.zeros(n, dtype=torch.bool)
    kept[start : start + int(width)] = True
    return kept


def _block(shape: tuple[int, int], centre: float) -> Tensor:
    return _middle(shape[0], centre)[:, None] & _middle(shape[1], centre)


def _lines(shape: tuple[int, int], kept: Tensor, axis: Axis) -> Tensor:
    return (kept if axis == "x" else kept[:, None]).expand(shape).clone()


def _dim(axis: Axis) -> int:
    if axis not in ("x", "y"):
        raise ValueError(f"the phase-encoding axis is 'x' or 'y', got {axis!r}")
    return 1 if axis == "x" else 0


def _checked(accel: float) -> float:
    if not accel >= 1:
        raise ValueError(f"the acceleration is at least 1, got {accel}")
    return accel

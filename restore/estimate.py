"""How noisy is a picture? The standard deviation of white noise, from the picture alone.

Two estimators that err upwards, by taking texture for noise; the smaller one is right more often.

- Chen, Zhu and Heng, "An Efficient Statistical Method for Image Noise Level Estimation", ICCV 2015: patches of a
  natural picture lie near a subspace, so the smallest eigenvalues of their covariance are the variance of the noise.
  Which ones are the smallest is decided by where mean and median of the tail agree (Algorithm 1). Strong for colour.
- Quiet blocks (ours): the mean squared difference of neighbouring pixels in the blocks where it is smallest. Strong for
  grey pictures, and possible where the measured pixels are scattered.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

MOST_PATCHES = 40_000
BLOCK = 16
# Of the blocks, the 15 % quantile is taken, which lies 1.036 standard deviations below the mean.
QUIET, QUIET_Z = 0.15, -1.036


def estimate_noise(
    data: np.ndarray, kept: np.ndarray | None = None, limits: tuple[float, float] | None = None
) -> float | None:
    """Standard deviation of the noise in `data`, in its units.

    Args:
        data: `(C, H, W)`.
        kept: `(H, W)` bool, the pixels that were measured; `None` means all.
        limits: the values at which the file clips; noise cannot be judged where it was cut off.

    Returns:
        The estimate, or `None` where the pixels are too few or too scattered for one.
    """
    kept = np.ones(data.shape[1:], bool) if kept is None else kept
    if limits is not None:
        clipped = np.logical_or.reduce([(plane <= limits[0]) | (plane >= limits[1]) for plane in data])
        kept = kept & _unclipped(clipped, kept)
    found = [e for e in (_subspace(data, kept), _quiet_blocks(data, kept)) if e is not None]
    return min(found, default=None)


def _unclipped(clipped: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The blocks in which hardly a pixel is clipped, `(H, W)` bool; at least the best tenth of all.

    Whole blocks go, because dropping single pixels would cut the tails off the noise that is to be measured.
    """
    height, width = kept.shape
    pad = ((0, -height % BLOCK), (0, -width % BLOCK))

    def per_block(flags: np.ndarray) -> np.ndarray:
        padded = np.pad(flags, pad)
        return padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).sum((1, 3))

    inside = per_block(kept)
    share = per_block(clipped & kept) / np.maximum(inside, 1)
    good = share <= max(0.01, float(np.quantile(share[inside > 0], 0.1)) if inside.any() else 0.0)
    return good.repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width]


def _subspace(data: np.ndarray, kept: np.ndarray) -> float | None:
    for side in (8, 6, 4):
        patches = _patches(data, kept, side)
        if len(patches) >= 8 * patches.shape[1]:
            return _tail(np.linalg.eigvalsh(np.cov(patches, rowvar=False)))
    return None


def _patches(data: np.ndarray, kept: np.ndarray, side: int) -> np.ndarray:
    """Patches without a missing pixel, `(n, C * side * side)` float64, evenly spread, about `MOST_PATCHES`."""
    size = data.shape[0] * side**2
    if min(data.shape[1:]) < side:
        return np.empty((0, size))
    stride = max(1, int((kept.size / MOST_PATCHES) ** 0.5))
    windows = sliding_window_view(data, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    whole = sliding_window_view(kept, (side, side))[::stride, ::stride].all((2, 3))
    return windows[:, whole].swapaxes(0, 1).reshape(-1, size).astype(np.float64)


def _tail(eigenvalues: np.ndarray) -> float:
    """The square root of the mean of the smallest eigenvalues (ascending order in)."""
    for count in range(len(eigenvalues), 0, -1):
        tail = eigenvalues[:count]
        mean = tail.mean()
        if np.count_nonzero(tail > mean) == np.count_nonzero(tail < mean):
            break
    return float(max(mean, 0.0) ** 0.5)


def _quiet_blocks(data: np.ndarray, kept: np.ndarray) -> float | None:
    channels, height, width = data.shape
    grid = (height // BLOCK + 1, width // BLOCK + 1)
    total, count = np.zeros(grid), np.zeros(grid)
    for down, right in ((1, 0), (0, 1)):
        # In strips of blocks, so that a large picture is never copied.
        for top in range(0, height - down, BLOCK):
            bottom = min(top + BLOCK, height - down)
            a, b = data[:, top + down : bottom + down, right:], data[:, top:bottom, : width - right]
            both = kept[top + down : bottom + down, right:] & kept[top:bottom, : width - right]
            squares = np.where(both, np.square(a - b, dtype=np.float64).sum(0) / 2, 0.0)
            starts = np.arange(0, width - right, BLOCK)
            row, blocks = top // BLOCK, slice(0, len(starts))
            total[row, blocks] += np.add.reduceat(squares, starts, axis=1).sum(0)
            count[row, blocks] += channels * np.add.reduceat(both, starts, axis=1, dtype=np.int64).sum(0)
    # A block without any difference at all is a painted area, not a quiet one.
    usable = (count >= 10) & (total > 0)
    if np.count_nonzero(usable) < 4:
        return None
    variances = total[usable] / count[usable]
    freedom = 0.8 * float(np.median(count[usable]))  # neighbouring differences share a pixel
    shrink = (1 - 2 / (9 * freedom) + QUIET_Z * (2 / (9 * freedom)) ** 0.5) ** 3  # Wilson and Hilferty 1931
    return float((np.quantile(variances, QUIET) / shrink) ** 0.5)

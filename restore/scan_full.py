"""What a scan of all of k-space would have shown: the picture, and the noise that comes with it.

Draws are of the clean anatomy. An image made of a full scan is not: it holds the noise of every line, which for a weak
signal is most of what two such images differ by. So held against one, intervals of the anatomy cover less than they say
even where they are right, and a clean picture is further from it than one that keeps the noise of the lines both share.
But the full image is a quantity with a posterior too: its measured lines are known, noise and all, and the others are
those of the anatomy, with fresh noise.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from restore.modalities.mri import fft2, ifft2
from restore.scan_pose import Slice, combined

# The body is where the smoothed magnitude, without that of noise alone, is above this share of its 99th percentile.
BODY = 0.1
_SMOOTHED = 2.0  # pixels, std
# Mean magnitude of complex noise of std 1 per part.
_MAGNITUDE = (np.pi / 2) ** 0.5


def scanned(posed: Slice, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`of_full_scan` of a slice on the grid; draws `(sample, y, x)` complex, in the units of the file."""
    assert posed.used is not None
    return of_full_scan(draws, posed.measured, posed.used, posed.maps, posed.noise)


def of_full_scan(
    draws: np.ndarray, k: np.ndarray, used: np.ndarray, maps: np.ndarray | None, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """The magnitude of the coil-combined image of all of k-space, given the lines that were used.

    A draw of that image is the coils' of `k_i = where(used, k, A x_i + n)`, combined: the lines that were used are
    kept as they are, the others are those that draw `x_i` predicts, with noise `n` of their own. In a pixel `n` adds a
    complex normal number, whose effect on the magnitude is known in closed form (S. O. Rice 1944): it is not drawn.

    Args:
        draws: complex, `(sample, y, x)`; a single one is any method's image.
        k: `(coil, y, x)`, read where `used`.
        used: `(y, x)` bool.
        maps: `(coil, y, x)`, `None` for one coil that sees all alike.
        sigma: standard deviation of the noise per real number, white and the same in all coils.

    Returns:
        Two arrays `(sample, y, x)`, float32: the mean over `n` of the magnitude for each draw, and its variance.
    """
    S = np.ones((1, *used.shape), np.complex64) if maps is None else maps
    images = np.stack([combined(ifft2(np.where(used, k, fft2(S * x))), S) for x in draws])
    variance = sigma**2 * (1 - used.mean()) * np.square(np.abs(S)).sum(0)
    return _rice(np.abs(images).astype(np.float64), np.broadcast_to(variance, images.shape))


def _rice(magnitude: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of `|z + n|` for complex noise of this variance per part."""
    noisy = variance > 1e-12 * np.square(magnitude)
    s2 = np.where(noisy, variance, 1.0)
    half = torch.from_numpy(np.where(noisy, np.square(magnitude) / (4 * s2), 0.0))
    laguerre = ((1 + 2 * half) * torch.special.i0e(half) + 2 * half * torch.special.i1e(half)).numpy()
    mean = np.where(noisy, _MAGNITUDE * np.sqrt(s2) * laguerre, magnitude)
    second = np.square(magnitude) + 2 * np.where(noisy, variance, 0.0)
    return mean.astype(np.float32), np.maximum(second - np.square(mean), 0).astype(np.float32)


def body_of(magnitude: np.ndarray, sigma: float = 0.0) -> np.ndarray:
    """Where a picture `(y, x)` is more than background: bool, holes filled.

    Args:
        sigma: standard deviation of its noise per real number.
    """
    smooth = np.maximum(ndimage.gaussian_filter(magnitude, _SMOOTHED) - _MAGNITUDE * sigma, 0)
    return ndimage.binary_fill_holes(smooth > BODY * np.quantile(smooth, 0.99))

"""Point spread functions and antialiasing kernels: float64 tensors `(kh, kw)` that sum to one."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def block(factor: int) -> Tensor:
    """The mean over `factor x factor` pixels."""
    return torch.full((factor, factor), 1 / factor**2, dtype=torch.float64)


def bicubic(factor: int) -> Tensor:
    """The cubic kernel stretched by `factor` against aliasing, as in `imresize`: `4 factor` taps, one less if odd.

    Source: Keys 1981, a = -1/2.
    """
    taps = 4 * factor - factor % 2
    t = ((torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / factor).abs()
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    w = torch.where(t <= 1, near, far)
    w = w / w.sum()
    return w[:, None] * w[None]


def gaussian(sigma: float, radius: int | None = None) -> Tensor:
    """A sampled Gaussian of standard deviation `sigma` pixels, cut at `radius` (default four sigma).

    Raises:
        ValueError: `sigma` is not positive.
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"the Gaussian kernel needs a positive sigma in pixels, got {sigma}")
    radius = math.ceil(4 * sigma) if radius is None else radius
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    w = torch.exp(-0.5 * (t / sigma) ** 2)
    w = w / w.sum()
    return w[:, None] * w[None]

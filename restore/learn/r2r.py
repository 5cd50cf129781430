"""Recorrupted-to-recorrupted: a denoiser for one noise level, from noisy pictures alone, without a divergence.

Pang, Zheng, Quan, Ji, *Recorrupted-to-Recorrupted: Unsupervised Deep Learning for Image Denoising*, CVPR 2021, in the
parameters of Monroy, Bacca and Tachella (GR2R): from `y = x + sigma n`,
`y1 = y + sqrt(alpha / (1 - alpha)) sigma w` and `y2 = (y - (1 - alpha) y1) / alpha` carry independent noise, so that
`E |D(y1) - y2|^2 = E |D(y1) - x|^2 + sigma^2 / alpha`.

A baseline: `D` is trained at the one level `sigma / sqrt(1 - alpha)` and wants `y1`; denoise by averaging several. It
is `restore.learn.ambient` held at that level. Departure: the constant is subtracted, so that the loss is the (weighted)
mean squared error. `alpha = 0.2` is the 0.5 of the authors' code, whose `y1` is `y + 0.5 sigma w`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from restore.priors.base import Denoiser, per_row

from .base import Batch
from .sure import SURE


@dataclass(frozen=True, kw_only=True)
class R2R(SURE):
    """`lambda (|D(y1) - y2|^2 / m - sigma^2 / alpha)`.

    Raises:
        ValueError: `alpha` is not between 0 and 1.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"R2R: alpha must lie between 0 and 1, got {self.alpha}")

    def own_level(self, sigma: Tensor) -> Tensor:
        """That of `y1`."""
        return sigma / (1 - self.alpha) ** 0.5

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        y, sigma, _ = batch
        w = torch.randn(y.shape, generator=rng, device=rng.device, dtype=y.dtype).to(y)
        y1 = y + (self.alpha / (1 - self.alpha)) ** 0.5 * per_row(sigma, y) * w
        y2 = (y - (1 - self.alpha) * y1) / self.alpha
        error = (denoiser(y1, self.own_level(sigma)) - y2).square().flatten(1).mean(1) - sigma**2 / self.alpha
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2 * error

"""Denoising score matching on clean pictures.

Vincent, *A connection between score matching and denoising autoencoders*, Neural Computation 2011; weighting and noise
levels of Karras et al. 2022 (arXiv:2206.00364, eq. 2, 8 and Table 1):
`E lambda(sigma) |D(x0 + sigma n, sigma) - x0|^2`, `lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2`,
`ln sigma ~ N(p_mean, p_std^2)`.

Departure: a share `wide` of the rows draws `ln sigma` uniformly between the denoiser's bounds. The normal law almost
never visits the large levels that samplers start from.

Pictures are taken as clean whatever the batch says: on noisy ones it learns to draw the noise too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.priors.base import Denoiser

from .base import Batch, Objective


@dataclass(frozen=True, kw_only=True)
class DSM(Objective):
    """Mean over pixels of `lambda(sigma) (D(x0 + sigma n, sigma) - x0)^2`; `sigma` in the units of the batch."""

    supervised: ClassVar[bool] = True
    needs_noise: ClassVar[bool] = False

    p_mean: float = -1.6
    p_std: float = 1.2
    wide: float = 0.15
    sigma_data: float = 0.5

    def levels(self, denoiser: Denoiser, count: int, rng: torch.Generator) -> Tensor:
        """`(count,)` noise levels, clipped to the bounds of the denoiser."""
        low, high = math.log(denoiser.sigma_min), math.log(denoiser.sigma_max)
        normal = self.p_mean + self.p_std * torch.randn(count, generator=rng, device=rng.device)
        uniform = low + (high - low) * torch.rand(count, generator=rng, device=rng.device)
        wide = torch.rand(count, generator=rng, device=rng.device) < self.wide
        return torch.where(wide, uniform, normal).clamp(low, high).exp()

    def levels_above(self, bottom: Tensor, denoiser: Denoiser, rng: torch.Generator) -> Tensor:
        """Noise levels of the same two laws, each above its row's `bottom`, `(B,)`."""
        low, high = bottom.log(), math.log(denoiser.sigma_max)
        u, v, w = torch.rand(3, len(bottom), generator=rng, device=rng.device).to(bottom)
        start = torch.special.ndtr((low - self.p_mean) / self.p_std)
        normal = self.p_mean + self.p_std * torch.special.ndtri(start + u * (1 - start))
        uniform = low + (high - low) * v
        return torch.where(w < self.wide, uniform, normal).clamp(max=high).exp().maximum(bottom)

    def weight(self, sigma: Tensor) -> Tensor:
        """`lambda(sigma)`."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        x0 = batch.x
        sigma = self.levels(denoiser, x0.shape[0], rng).to(x0)
        noise = torch.randn(x0.shape, generator=rng, device=rng.device, dtype=x0.dtype)
        noisy = x0 + sigma.reshape(-1, *(1,) * (x0.ndim - 1)) * noise
        return self.weight(sigma) * (denoiser(noisy, sigma) - x0).square().flatten(1).mean(1)

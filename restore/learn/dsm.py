"""Denoising score matching on clean pictures.

Vincent, *A connection between score matching and denoising autoencoders*, Neural Computation 2011; weighting and noise
levels of Karras et al. 2022 (arXiv:2206.00364, eq. 2, 8 and Table 1):
`E lambda(sigma) |D(x0 + sigma n, sigma) - x0|^2`, `lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2`,
`ln sigma ~ N(p_mean, p_std^2)`.

Departure: a share `wide` of the rows draws `ln sigma` uniformly between the denoiser's bounds. The normal law almost
never visits the large levels that samplers start from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.priors.base import Denoiser

from .base import Objective


@dataclass(frozen=True, kw_only=True)
class DSM(Objective):
    """Mean over pixels of `lambda(sigma) (D(x0 + sigma n, sigma) - x0)^2`; `sigma` in the units of the batch."""

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

    def loss(self, denoiser: Denoiser, batch: Tensor, rng: torch.Generator) -> Tensor:
        sigma = self.levels(denoiser, batch.shape[0], rng).to(batch)
        noise = torch.randn(batch.shape, generator=rng, device=rng.device, dtype=batch.dtype)
        noisy = batch + sigma.reshape(-1, *(1,) * (batch.ndim - 1)) * noise
        weight = (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
        return weight * (denoiser(noisy, sigma) - batch).square().flatten(1).mean(1)

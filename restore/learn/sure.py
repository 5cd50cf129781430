"""SURE: a denoiser for one noise level, from noisy pictures alone.

Stein, *Estimation of the mean of a multivariate normal distribution*, Annals of Statistics 1981; as a loss for networks
Soltanayev and Chun, NeurIPS 2018. With `y = x + sigma n` the loss is the estimate `restore.learn.base.sure` of the mean
squared error, times the constant `lambda(sigma)` of Karras et al. (arXiv:2206.00364).

A baseline: `D` is trained at the level of the data and nowhere else. It denoises, and no sampler can use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.priors.base import Denoiser

from .base import Batch, Objective


@dataclass(frozen=True, kw_only=True)
class SURE(Objective):
    """`lambda(sigma) ( |D(y) - y|^2 / m - sigma^2 + 2 sigma^2 div D(y) / m )`, the divergence by one random probe."""

    for_samplers: ClassVar[bool] = False

    sigma_data: float = 0.5

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        sigma = batch.sigma
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2 * self.risk(denoiser, batch, rng)

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        """From the level of the data to where the probe takes it, 1 % above."""
        every = [s for kind in noises.values() for s in kind]
        return min(every), float(self.own_level(torch.tensor(max(every), dtype=torch.float64)))

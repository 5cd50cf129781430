"""Noise2Score: the score of noisy pictures, from noisy pictures alone, whatever the noise.

Kim and Ye, *Noise2Score: Tweedie's Approach to Self-Supervised Image Denoising without Clean Images*, NeurIPS 2021,
with the amortised residual denoising autoencoder of Lim et al., *AR-DAE*, ICML 2020:

    E |u + sigma_a s(y + sigma_a u; sigma_a)|^2,   u ~ N(0, I),

whose minimiser is the score of noisy pictures with noise of std `sigma_a` on top. What follows from it is in
`restore.denoisers`. Trained on pictures of many noise levels it serves all of them.

Departure, by measurement. The paper anneals `sigma_a` towards zero, once (its code, in every epoch), and uses the
network as it is at the end. Of a step's gradient the noise grows as `1 / sigma_a`, so most of a training is lost in it.
Here each `u` comes with `-u`: what is odd in `u`, the largest part of that noise, cancels, at twice the calls.
And `sigma_a` is drawn for each picture, log-uniform around the noise of the data, and the network is told: what it
learns at larger `sigma_a`, where that noise is small, carries over smoothly to a fourth of the noise of the data, where
it is used and its smoothing corrected for (`ScoreNetwork.denoise`). Both are relative to the noise of the picture, as
well as it is known (`estimate_law`): of pictures of many levels each then counts alike, and the network is told which.

Departure, ours. One `sigma_a` cannot be right for dark and for bright pixels where the noise depends on the brightness.
With `rho` the score is that of `z = Variable(rho)(y)`, in which the noise is uniform: 1 for Poisson, 2 for Gamma noise.
The score of `y` follows by the chain rule (`ScoreNetwork`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from restore.denoisers.score import smoothed_score
from restore.denoisers.tweedie import Tweedie
from restore.denoisers.variable import Variable
from restore.priors.base import Denoiser, per_row

from .base import Batch, Objective


@dataclass(frozen=True, kw_only=True)
class Noise2Score(Objective):
    """Mean over pixels of `(u + sigma_a s(y + sigma_a u; sigma_a))^2`, with `s` as in `ScoreNetwork`.

    Args:
        low, high: bounds of `sigma_a` in units of the noise of each picture. Of short trainings on Gaussian noise, one
            with 0.25 to 1 has the same uPSNR, one with 1 to 4 half a dB less (`tests/bench/self_supervised.py`).
        annealed: the schedule of the paper, one `sigma_a` for all, from `high` at the start down to `low` at the end.
        rho: power of the brightness with which the variance of the noise grows; pictures are in `[-1, 1]`, from black.

    Raises:
        ValueError: unless `0 < low <= high` and `rho >= 0`.
    """

    for_samplers: ClassVar[bool] = False
    learns_score: ClassVar[bool] = True
    serves: ClassVar[tuple[float, ...] | None] = None

    low: float = 0.5
    high: float = 2.0
    annealed: bool = False
    rho: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"wanted 0 < low <= high, got {self.low} and {self.high}")
        if not self.rho >= 0:
            raise ValueError(f"rho must be 0 or more, got {self.rho}")

    def told(self, law: Tweedie) -> Noise2Score:
        return replace(self, rho=law.rho)

    def of_noise(self, law: Tweedie | None) -> dict[str, Any]:
        return {"rho": 0.0 if law is None else law.rho}

    def at(self, progress: float) -> Noise2Score:
        if not self.annealed:
            return self
        level = self.high * (self.low / self.high) ** progress
        return replace(self, low=level, high=level)

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        z, scale = self.variable(batch.x), self.in_z(batch.sigma)
        share = torch.rand(z.shape[0], generator=rng, device=rng.device).to(z)
        sigma_a = scale * self.low * (self.high / self.low) ** share
        u = torch.randn(z.shape, generator=rng, device=rng.device, dtype=z.dtype)
        u, sigma_a, scale = torch.cat([u, -u]), sigma_a.repeat(2), scale.repeat(2)
        scaled = per_row(sigma_a, u)
        missed = u + scaled * smoothed_score(denoiser, torch.cat([z, z]) + scaled * u, sigma_a, scale)
        return missed.square().flatten(1).mean(1).view(2, -1).mean(0)

    def variable(self, y: Tensor) -> Tensor:
        """`z` of pictures, both in `[-1, 1]`."""
        return 2 * Variable(self.rho)((y + 1) / 2) - 1 if self.rho else y

    def risk(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        """As of any denoiser, in `z`, where the noise is nearly Gaussian: the mean squared error of `z`."""
        return super().risk(denoiser, Batch(self.variable(batch.x), self.in_z(batch.sigma)), rng)

    def in_z(self, sigma: Tensor) -> Tensor:
        """The std of the noise of `z` where that of pictures is `sigma` at mid-grey."""
        return sigma * Variable(self.rho).slope(torch.tensor(0.5))

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        """The least and the most noise of the data in `z`, which scales the score."""
        every = self.in_z(torch.tensor([s for kind in noises.values() for s in kind]))
        return float(every.min()), float(every.max())

"""Ambient-Tweedie: a prior from noisy pictures of one or several noise levels, with or without clean ones.

Daras, Cherapanamjeri and Daskalakis, *How Much is a Noisy Image Worth?*, ICLR 2025, arXiv:2411.02780. A picture
`y = x + sigma_n n` is given more noise, `x_t = y + sqrt(sigma_t^2 - sigma_n^2) n'`. With `a = sigma_n^2 / sigma_t^2`,
`E[y | x_t] = a x_t + (1 - a) E[x | x_t]`, so that
`E |a x_t + (1 - a) D(x_t, sigma_t) - y|^2 = (1 - a)^2 E |D(x_t, sigma_t) - x|^2 + m (1 - a) sigma_n^2`.

Claim: unbiased at every `sigma_t > sigma_n`. A clean picture (`sigma_n = 0`) gives plain denoising score matching at
every level. Between the lowest `sigma_n` and zero only the clean ones teach; where there are none the prior begins at
`sigma_n`. A sampler needs nothing below: its ladder is clipped to the prior's range, and its last rung, which goes from
there to zero, ends in the mean of what is left.

The loss is divided by `(1 - a)^2`, which weighs levels as `dsm` does (*Ambient Diffusion Omni*, arXiv:2506.10038);
`1 / (1 - a)^2` is clipped at `clip`, since the noise of the target has the variance `sigma_n^2 / (1 - a)`.

Departures: the constant is subtracted; levels are drawn above `sigma_n` where the authors' code draws them anywhere and
raises those below; levels and weight are those of `dsm`. The consistency loss, which would teach below `sigma_n` by
steps of a sampler at every step of training, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.priors.base import Denoiser, per_row

from .base import Batch
from .dsm import DSM


@dataclass(frozen=True, kw_only=True)
class Ambient(DSM):
    """`lambda(sigma_t) min(1 / (1 - a)^2, clip) ( |a x_t + (1 - a) D - y|^2 / m - (1 - a) sigma_n^2 )`.

    Args:
        clip: largest factor by which a level next to `sigma_n` is raised.
    """

    supervised: ClassVar[bool] = False
    needs_noise: ClassVar[bool] = True
    takes_clean: ClassVar[bool] = True

    clip: float = 25.0

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        y, sigma, _ = batch
        level = self.levels_above(sigma.clamp(min=denoiser.sigma_min), denoiser, rng)
        a = (sigma / level) ** 2
        n = torch.randn(y.shape, generator=rng, device=rng.device, dtype=y.dtype).to(y)
        x_t = y + per_row((level**2 - sigma**2).clamp(min=0).sqrt(), y) * n
        mixed = per_row(a, y) * x_t + (1 - per_row(a, y)) * denoiser(x_t, level)
        error = (mixed - y).square().flatten(1).mean(1) - (1 - a) * sigma**2
        return self.weight(level) * (1 - a).pow(-2).clamp(max=self.clip) * error

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        """From the lowest noise of the pictures upwards."""
        return max(denoiser.sigma_min, *(min(kind) for kind in noises.values())), denoiser.sigma_max

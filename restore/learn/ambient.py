"""Ambient-Tweedie: a prior from noisy pictures of one or several noise levels, with or without clean ones.

Daras, Cherapanamjeri and Daskalakis, *How Much is a Noisy Image Worth?*, ICLR 2025, arXiv:2411.02780. A picture
`y = x + sigma_n n` is given more noise, `x_t = y + sqrt(sigma_t^2 - sigma_n^2) n'`. With `a = sigma_n^2 / sigma_t^2`,
`E[y | x_t] = a x_t + (1 - a) E[x | x_t]`, so that
`E |a x_t + (1 - a) D(x_t, sigma_t) - y|^2 = (1 - a)^2 E |D(x_t, sigma_t) - x|^2 + m (1 - a) sigma_n^2`.

Claim: unbiased at every `sigma_t > sigma_n`. A clean picture (`sigma_n = 0`) gives plain denoising score matching at
every level.

The loss is divided by `(1 - a)^2`, which weighs levels as `dsm` does (*Ambient Diffusion Omni*, arXiv:2506.10038);
`1 / (1 - a)^2` is clipped at `clip`, since the noise of the target has the variance `sigma_n^2 / (1 - a)`.

Departure: what is taught below `sigma_n`. The paper teaches nothing there, or by a consistency loss, with steps of a
sampler at every step of training. Here it is the second loss of SURE-Score: denoising score matching on
`h = D(y, sigma_n)`, which is not differentiated through, biased as that is towards smooth pictures. A prior that ends
at `sigma_n` serves samplers badly, and would if it were learnt from clean pictures (`tests/bench/noisy_priors.py` has
that row). `h` moves until the levels above have been learnt, and next to `sigma_n` it is what the network says already:
hence `begins` and `below`. In a batch with clean pictures they alone teach there, without
bias, and so it is with `below=0`; without any the prior then begins at `sigma_n`.

Other departures: the constant is subtracted; levels and weight are those of `dsm`, where the authors' code raises the
levels below `sigma_n`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from restore.priors.base import Denoiser, per_row

from .base import Batch
from .dsm import DSM


@dataclass(frozen=True, kw_only=True)
class Ambient(DSM):
    """`lambda(sigma_t) min(1 / (1 - a)^2, clip) ( |a x_t + (1 - a) D - y|^2 / m - (1 - a) sigma_n^2 )` above `sigma_n`,
    `lambda(sigma_t) |D(h + sigma_t n, sigma_t) - h|^2 / m`, `h = D(y, sigma_n)`, well below.

    Args:
        clip: largest factor by which a level next to `sigma_n` is raised.
        below: share of `sigma_n` below which levels are learnt from `h`; 0: none.
        begins: share of the training before that begins.
    """

    supervised: ClassVar[bool] = False
    needs_noise: ClassVar[bool] = True
    takes_clean: ClassVar[bool] = True

    clip: float = 25.0
    below: float = 0.7
    begins: float = 0.5

    def at(self, progress: float) -> Ambient:
        return self if progress >= self.begins else replace(self, below=0.0)

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        y, sigma, _ = batch
        level, above = self.levels(denoiser, len(y), rng).to(sigma), sigma.clamp(min=denoiser.sigma_min)
        rows = (level < self.below * sigma) & (sigma > 0).all()
        level = torch.where(rows, level, self.levels_above(above, denoiser, rng))
        if bool(rows.any()):
            with torch.no_grad():
                h = denoiser(y[rows], sigma[rows])
            y, sigma = y.index_put((rows,), h), sigma.masked_fill(rows, 0)
        a = (sigma / level) ** 2
        n = torch.randn(y.shape, generator=rng, device=rng.device, dtype=y.dtype).to(y)
        x_t = y + per_row((level**2 - sigma**2).clamp(min=0).sqrt(), y) * n
        mixed = per_row(a, y) * x_t + (1 - per_row(a, y)) * denoiser(x_t, level)
        error = (mixed - y).square().flatten(1).mean(1) - (1 - a) * sigma**2
        return self.weight(level) * (1 - a).pow(-2).clamp(max=self.clip) * error

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        """From the lowest noise of the pictures upwards, unless levels below are learnt."""
        lowest = [0.0] if self.below else [min(kind) for kind in noises.values()]
        return max(denoiser.sigma_min, *lowest), denoiser.sigma_max

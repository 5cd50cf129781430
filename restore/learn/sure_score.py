"""SURE-Score: a prior from noisy pictures alone, at every level.

Aali, Arvinte, Kumar and Tamir, *Solving Inverse Problems with Score-Based Generative Priors learned from Noisy Data*,
Asilomar 2023, arXiv:2305.01166. One denoiser of all levels is trained by two losses at once, on `y = x + sigma_n n`:
SURE at the level of the data, which makes `h(y) = D(y, sigma_n)` the posterior mean, and denoising score matching on
the denoised pictures `h(y)`.

Claim: unbiased at `sigma_n`, not elsewhere: what is learnt there is the prior of posterior means, narrower than that of
pictures. (For a Gaussian of variance `v` they have the variance `v^2 / (v + sigma_n^2)`.) That hardly shows far above
`sigma_n` and makes for smooth pictures below.

Departures: `h` is not differentiated through in the second loss, where the authors' code does. That loss falls with the
detail of `h`, so its gradient through `h` takes detail away, and the exact denoiser is no stationary point: for a
Gaussian of variance `sigma_n^2` the gain at `sigma_n`, which should be 1/2, becomes 0.33 to 0.38 (`sigma_n` from 0.1 to
0.4, the defaults below). `dsm` is a constant where the code raises it with the epoch. Levels, weights and
preconditioning are those of `restore.learn.dsm`, the divergence is that of `restore.learn.base.sure`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.priors.base import Denoiser

from .base import Batch, clean, sure
from .dsm import DSM


@dataclass(frozen=True, kw_only=True)
class SUREScore(DSM):
    """`lambda(sigma_n) SURE(sigma_n) + dsm E lambda(sigma) |D(h + sigma n, sigma) - h|^2 / m`, `h = D(y, sigma_n)`.

    Args:
        dsm: weight of the second loss.
    """

    supervised: ClassVar[bool] = False
    needs_noise: ClassVar[bool] = True

    dsm: float = 1.0

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        level = self.own_level(batch.sigma)
        risk, h = sure(denoiser, batch, level, rng)
        return self.weight(level) * risk + self.dsm * super().loss(denoiser, clean(h.detach()), rng)

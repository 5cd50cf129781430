"""GSURE: a prior from noisy pictures of which only some pixels were seen, others each time.

Kawar, Elata, Michaeli and Elad, *GSURE-Based Diffusion Model Training with Corrupted Data*, TMLR 2024,
arXiv:2305.13128. A picture is seen as `y = P (x + sigma_n n)`, `P` its mask. The network is given `y` with noise added
up to the level `sigma_t > sigma_n`, which leaves nothing but noise where nothing was seen, and is held to the rest:
`E |P (D(x_t) - x)|^2 = E |P (D(x_t) - y)|^2 - m sigma_n^2 + 2 sigma_n^2 E div P D(x_t)`, `m` the number seen.

Claim: unbiased, as an estimate of the error on the pixels seen of a denoiser of pictures with holes. As a prior it is
then asked for whole ones; that it carries over is what the paper shows in experiments, not a theorem. It needs every
pixel to be seen in some pictures. Below `sigma_n` nothing is learnt: the prior begins there.

Departures: the coefficient of the divergence is the unbiased one. The authors' code has `Lambda (1 - alpha_bar)`,
`Lambda = 1e-4`, which vanishes at low noise, where the term matters most, and does not know `sigma_n`. Noise is added
to the signal rather than mixed with it; levels and weights are those of `dsm`; masks of pixels, not of frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.priors.base import Denoiser

from .base import Batch, sure
from .dsm import DSM


@dataclass(frozen=True, kw_only=True)
class GSURE(DSM):
    """`lambda(sigma_t)` times the estimate of the mean squared error over the pixels seen, `sigma_t > sigma_n`."""

    supervised: ClassVar[bool] = False
    needs_noise: ClassVar[bool] = True
    takes_masks: ClassVar[bool] = True

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        bottom = self.own_level(batch.sigma).clamp(min=denoiser.sigma_min)
        level = self.levels_above(bottom, denoiser, rng)
        return self.weight(level) * sure(denoiser, batch, level, rng)[0]

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        """From the level of the data upwards."""
        return max(denoiser.sigma_min, *(min(kind) for kind in noises.values())), denoiser.sigma_max

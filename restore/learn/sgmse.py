"""Supervised enhancement of speech: score matching with the noisy recording beside it.

Richter et al., *Speech Enhancement and Dereverberation with Diffusion-Based Generative Models* (SGMSE+), IEEE/ACM TASLP
2023: the loss of `restore.learn.dsm` for a denoiser that is also given `y`, clean speech with a recorded noise. What it
learns is `restore.priors.enhancer.Enhancer`, where the task-adapted diffusion of the paper is treated. Noise of a kind
that was not among those of the training may be left as it is: that is the price of being supervised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restore.priors.base import Denoiser
from restore.priors.enhancer import Enhancer

from .base import Batch
from .dsm import DSM


@dataclass(frozen=True, kw_only=True)
class SGMSE(DSM):
    """Mean over numbers of `lambda(sigma) (D(x0 + sigma n, sigma; y) - x0)^2`, told as one of the noise `y - x0`; a
    batch is `x0` and then `y`, in channels. Levels are higher than without `y`, for it is at the highest that what was
    heard decides."""

    needs_recorded_noise: ClassVar[bool] = True

    p_mean: float = 2.0
    p_std: float = 1.5

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        assert isinstance(denoiser, Enhancer)
        x0, y = batch.x.chunk(2, 1)
        return super().loss(denoiser.noise_in(y), batch._replace(x=y - x0), rng)

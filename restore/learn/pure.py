"""PURE: a denoiser for Poisson noise of known gain, from noisy pictures alone.

Luisier, Blu and Unser, *Image denoising in mixed Poisson-Gaussian noise*, IEEE TIP 2011, with one random probe. With
`y = gain Poisson(x / gain)`, `v = gain y` and signs `b`:
`E |D(y) - x|^2 = E |D(y) - y|^2 - E sum(v) + 2 / c E <sqrt(v) b, D(y + c sqrt(v) b) - D(y)>`, exact for a `D` that is
linear in each pixel; otherwise to first order in the gain, as is usual.

A baseline. Departures: the probe is a share `c` of the noise at each pixel, not one number for all; `D` is told one
level, the std of the noise halfway up the range. Pictures in `[-1, 1]` are counted from `zero = -1`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from restore.denoisers.tweedie import Tweedie
from restore.priors.base import Denoiser

from .base import PROBE, Batch, Objective


@dataclass(frozen=True, kw_only=True)
class PURE(Objective):
    """PURE, over the variance of the noise halfway up the range.

    Args:
        gain: variance of the noise over the signal, in the units of the batch: twice that of pictures in `[0, 1]`.
        zero: the value of a pixel without light.

    Raises:
        ValueError: the gain is not positive.
    """

    needs_noise: ClassVar[bool] = False
    for_samplers: ClassVar[bool] = False
    serves: ClassVar[tuple[float, ...] | None] = (1.0,)
    one_law: ClassVar[bool] = True

    gain: float = 0.02
    zero: float = -1.0

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise ValueError(f"PURE: gain must be positive, got {self.gain}")

    @property
    def from_zero(self) -> bool:
        return True

    def told(self, law: Tweedie) -> PURE:
        return replace(self, gain=2 * law.phi)

    @property
    def level(self) -> float:
        """What `D` is told: the std of the noise at a signal of 1 above `zero`."""
        return self.gain**0.5

    def risk(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        y = batch.x
        v = self.gain * (y - self.zero).clamp(min=0)
        b = 2 * torch.randint(2, y.shape, generator=rng, device=rng.device).to(y) - 1
        probe = v.sqrt() * b
        D, D_probed = denoiser(torch.cat([y, y + PROBE * probe]), self.level).chunk(2)
        each = (D - y).square() - v + 2 / PROBE * probe * (D_probed - D)
        return each.flatten(1).mean(1)

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        return self.risk(denoiser, batch, rng) / self.gain

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        return self.level, self.level

"""Generalised recorrupted-to-recorrupted: a denoiser for Poisson, Gamma or Gaussian noise of known level.

Monroy, Bacca and Tachella, *Generalized Recorrupted-to-Recorrupted*, 2024. A noisy picture is split into two,
`y = (1 - alpha) y1 + alpha y2`, of independent noise of the same kind with mean `x` and variances
`Var[y | x] / (1 - alpha)` and `Var[y | x] / alpha`:

    Poisson    y1 = (y - gain w) / (1 - alpha),   w ~ Binomial(y / gain, alpha)
    Gamma      y1 = y (1 - w) / (1 - alpha),      w ~ Beta(k alpha, k (1 - alpha))
    Gaussian   y1 = y + sqrt(alpha / (1 - alpha)) sigma w,   w ~ N(0, 1)

so that `E |D(y1) - y2|^2 = E |D(y1) - x|^2 + E Var[y | x] / alpha`, exactly, without a divergence.

Departures: `alpha` is drawn for each picture and `D` is told; the constant is subtracted, estimated from `y`. What is
learnt serves `y` itself, in one call, at the lowest level: no average over splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from restore.denoisers.tweedie import Tweedie
from restore.priors.base import Denoiser, per_row

from .base import Batch, Objective

Kind = Literal["gaussian", "poisson", "gamma"]
POWER = {"gaussian": 0, "poisson": 1, "gamma": 2}  # of the brightness, in the variance of the noise


@dataclass(frozen=True, kw_only=True)
class GR2R(Objective):
    """`alpha (1 - alpha) / scale^2 (|D(y1) - y2|^2 - Var / alpha) / m`, `scale` the std of the noise at mid-grey.

    `D` is told `scale / sqrt(1 - alpha)`. Pictures are in `[-1, 1]`, from black.

    Args:
        kind: "gaussian", "poisson" or "gamma".
        phi: `sigma^2`, `gain` or `1 / k`, where pictures are in `[0, 1]`.
        low, high: bounds of `sqrt(alpha / (1 - alpha))`, drawn log-uniform.

    Raises:
        ValueError: another kind, `phi` not positive, or not `0 < low <= high`.
    """

    needs_noise: ClassVar[bool] = False
    for_samplers: ClassVar[bool] = False
    serves: ClassVar[tuple[float, ...] | None] = (0.0, 1.0, 2.0)
    one_law: ClassVar[bool] = True

    kind: Kind = "poisson"
    phi: float = 0.01
    low: float = 0.5
    high: float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in POWER:
            raise ValueError(f"GR2R: kind must be one of {', '.join(POWER)}, got {self.kind!r}")
        if not self.phi > 0:
            raise ValueError(f"GR2R: phi must be positive, got {self.phi}")
        if not 0 < self.low <= self.high:
            raise ValueError(f"GR2R: wanted 0 < low <= high, got {self.low} and {self.high}")

    @property
    def from_zero(self) -> bool:
        return self.kind != "gaussian"

    def told(self, law: Tweedie) -> GR2R:
        kinds: dict[float, Kind] = {0: "gaussian", 1: "poisson", 2: "gamma"}
        return replace(self, kind=kinds[law.rho], phi=law.phi)

    @property
    def scale(self) -> float:
        """Std of the noise at mid-grey, in `[-1, 1]`."""
        return 2 * (self.phi * 0.5 ** POWER[self.kind]) ** 0.5

    def split(self, y: Tensor, alpha: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """`y1` and `y2`, in `[0, 1]` as `y` is; `alpha` broadcasts."""
        alpha = alpha.to(y).expand_as(y)
        if self.kind == "gaussian":
            w = torch.randn(y.shape, generator=rng, device=rng.device, dtype=y.dtype)
            y1 = y + (alpha / (1 - alpha) * self.phi).sqrt() * w
        elif self.kind == "poisson":
            w = torch.binomial((y / self.phi).round().clamp(min=0), alpha, generator=rng)
            y1 = (y - self.phi * w) / (1 - alpha)
        else:
            a, b = (torch._standard_gamma(share / self.phi, generator=rng) for share in (alpha, 1 - alpha))
            y1 = y * b / (a + b) / (1 - alpha)
        return y1, (y - (1 - alpha) * y1) / alpha

    def error(self, denoiser: Denoiser, batch: Batch, alpha: Tensor, rng: torch.Generator) -> Tensor:
        """Unbiased estimate of the mean squared error of `D(y1)`, `(B,)`, in the units of the batch."""
        y, each = (batch.x + 1) / 2, per_row(alpha, batch.x)
        y1, y2 = self.split(y, each, rng)
        squared = {"gaussian": torch.ones_like(y), "poisson": y, "gamma": y**2 / (1 + self.phi)}[self.kind]
        D = denoiser(2 * y1 - 1, self.scale / (1 - alpha).sqrt())
        return ((D - 2 * y2 + 1).square() - 4 * self.phi * squared / each).flatten(1).mean(1)

    def risk(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        ratio = torch.full((len(batch.x),), self.low**2).to(batch.x)
        return self.error(denoiser, batch, ratio / (1 + ratio), rng)

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        share = torch.rand(len(batch.x), generator=rng, device=rng.device).to(batch.x)
        ratio = (self.low * (self.high / self.low) ** share) ** 2
        alpha = ratio / (1 + ratio)
        return alpha * (1 - alpha) / self.scale**2 * self.error(denoiser, batch, alpha, rng)

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        """The levels of the least and the most noisy `y1`; `y` itself is denoised at the first."""
        return self.scale * (1 + self.low**2) ** 0.5, self.scale * (1 + self.high**2) ** 0.5

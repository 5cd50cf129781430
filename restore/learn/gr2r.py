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
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from restore.denoisers.tweedie import Tweedie
from restore.priors.base import Denoiser, per_row

from .base import Batch, Objective

Kind = Literal["gaussian", "poisson", "gamma"]
POWER = {"gaussian": 0, "poisson": 1, "gamma": 2}  # of the brightness, in the variance of the noise


@dataclass(frozen=True, kw_only=True)
class GR2R(Objective):
    """`alpha (1 - alpha) / sigma^2 (|D(y1) - y2|^2 - Var / alpha) / m`, `sigma` the std of the noise at mid-grey.

    `D` is told `sigma / sqrt(1 - alpha)`. Pictures are in `[-1, 1]`, from black.

    Args:
        kind: "gaussian", "poisson" or "gamma".
        low, high: bounds of `sqrt(alpha / (1 - alpha))`, drawn log-uniform.

    Raises:
        ValueError: another kind, or not `0 < low <= high`.
    """

    for_samplers: ClassVar[bool] = False
    serves: ClassVar[tuple[float, ...] | None] = (0.0, 1.0, 2.0)

    kind: Kind = "poisson"
    low: float = 0.5
    high: float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in POWER:
            raise ValueError(f"GR2R: kind must be one of {', '.join(POWER)}, got {self.kind!r}")
        if not 0 < self.low <= self.high:
            raise ValueError(f"GR2R: wanted 0 < low <= high, got {self.low} and {self.high}")

    @property
    def from_zero(self) -> bool:
        return self.kind != "gaussian"

    @property
    def lowest(self) -> float:
        """What `D` is told for `y` itself, in units of the noise."""
        return (1 + self.low**2) ** 0.5

    def told(self, law: Tweedie) -> GR2R:
        kinds: dict[float, Kind] = {0: "gaussian", 1: "poisson", 2: "gamma"}
        return replace(self, kind=kinds[law.rho])

    def of_noise(self, law: Tweedie | None) -> dict[str, Any]:
        return {"rho": float(POWER[self.kind]), "told": self.lowest}

    def phi(self, sigma: Tensor) -> Tensor:
        """`sigma^2`, the gain or `1 / k` where pictures are in `[0, 1]`, by the std at mid-grey in `[-1, 1]`."""
        return (sigma / 2) ** 2 / 0.5 ** POWER[self.kind]

    def split(self, y: Tensor, alpha: Tensor, phi: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """`y1` and `y2`, in `[0, 1]` as `y` is; `alpha` and `phi` broadcast."""
        alpha, phi = alpha.to(y).expand_as(y), phi.to(y).expand_as(y)
        if self.kind == "gaussian":
            w = torch.randn(y.shape, generator=rng, device=rng.device, dtype=y.dtype)
            y1 = y + (alpha / (1 - alpha) * phi).sqrt() * w
        elif self.kind == "poisson":
            w = torch.binomial((y / phi).round().clamp(min=0), alpha, generator=rng)
            y1 = (y - phi * w) / (1 - alpha)
        else:
            a, b = (torch._standard_gamma(share / phi, generator=rng) for share in (alpha, 1 - alpha))
            y1 = y * b / (a + b) / (1 - alpha)
        return y1, (y - (1 - alpha) * y1) / alpha

    def error(self, denoiser: Denoiser, batch: Batch, alpha: Tensor, rng: torch.Generator) -> Tensor:
        """Unbiased estimate of the mean squared error of `D(y1)`, `(B,)`, in the units of the batch."""
        y, each = (batch.x + 1) / 2, per_row(alpha, batch.x)
        phi = per_row(self.phi(batch.sigma), y)
        y1, y2 = self.split(y, each, phi, rng)
        squared = {"gaussian": torch.ones_like(y), "poisson": y, "gamma": y**2 / (1 + phi)}[self.kind]
        D = denoiser(2 * y1 - 1, batch.sigma / (1 - alpha).sqrt())
        return ((D - 2 * y2 + 1).square() - 4 * phi * squared / each).flatten(1).mean(1)

    def risk(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        ratio = torch.full((len(batch.x),), self.low**2).to(batch.x)
        return self.error(denoiser, batch, ratio / (1 + ratio), rng)

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        share = torch.rand(len(batch.x), generator=rng, device=rng.device).to(batch.x)
        ratio = (self.low * (self.high / self.low) ** share) ** 2
        alpha = ratio / (1 + ratio)
        return alpha * (1 - alpha) / batch.sigma**2 * self.error(denoiser, batch, alpha, rng)

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        """The levels of the least and the most noisy `y1`; `y` itself is denoised at the first."""
        every = [sigma for kind in noises.values() for sigma in kind]
        return min(every) * self.lowest, max(every) * (1 + self.high**2) ** 0.5

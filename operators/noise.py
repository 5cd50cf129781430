"""Noise models `p(y | z)` of data `y` given their noiseless value `z = A x`: the one place for likelihoods."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from operators.random import Draws


class NoiseModel(ABC):
    """`p(y | z)`, independent over the entries of `y`."""

    @abstractmethod
    def sample(self, z: Tensor, rng: Draws) -> Tensor:
        """Draw `y` for noiseless data `z`: `(B, *oshape) -> (B, *oshape)`, one generator per row."""

    @abstractmethod
    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """`log p(y | z)` of each row: `(1|B, *oshape), (B, *oshape) -> (B,)`, constants included."""


@dataclass(frozen=True)
class Gaussian(NoiseModel):
    """White Gaussian noise, `y = z + sigma n`.

    Args:
        sigma: standard deviation per real number, in the units of the measurement.

    Raises:
        ValueError: `sigma` is not positive and finite.
    """

    sigma: float

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def sample(self, z: Tensor, rng: Draws) -> Tensor:
        return z + self.sigma * rng.normal(z.shape[1:], like=z)

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        r = ((y - z) / self.sigma).flatten(1)
        return -0.5 * r.square().sum(1) - r.shape[1] * math.log(self.sigma * math.sqrt(2 * math.pi))


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a positive number, got {value}")

"""Pictures in a variable in which their noise is as strong in the dark as in the light.

Noise of variance `phi x^rho` has nearly the same everywhere on `z = int y^(-rho / 2) dy`: `2 sqrt(y)` for Poisson
(Anscombe 1948), `log y` for Gamma noise. A score learnt with further noise of one std on top is then smoothed as much
in the dark as in the light. Here the axis starts at `-DARK` instead of zero, where the integral or its slope is
infinite, and `z` takes `[0, 1]` to `[0, 1]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

DARK = 0.01  # pictures in [0, 1]; below it the noise of the variable grows weaker


@dataclass(frozen=True)
class Variable:
    """`z(y) = int_0^y (t + DARK)^(-rho / 2) dt`, divided by its value at 1; negative `y` count as zero if `rho > 0`.

    Args:
        rho: power of the brightness with which the variance of the noise grows; 0: `z = y`.
    """

    rho: float = 0.0

    @property
    def dark(self) -> float:
        """What is added to the brightness."""
        return DARK if self.rho else 0.0

    def __call__(self, y: Tensor) -> Tensor:
        if self.rho == 0:
            return y
        t = y.clamp(min=0) + DARK
        p = 1 - self.rho / 2
        return ((t / DARK).log() if p == 0 else (t**p - DARK**p) / p) / self._range

    def inverse(self, z: Tensor) -> Tensor:
        """`y`; what is below zero or without end counts as the nearest that is not."""
        if self.rho == 0:
            return z
        z, p = z.clamp(min=0) * self._range, 1 - self.rho / 2
        return DARK * z.exp() - DARK if p == 0 else (p * z + DARK**p).clamp(min=1e-6) ** (1 / p) - DARK

    @property
    def _range(self) -> float:
        p = 1 - self.rho / 2
        return math.log(1 + 1 / DARK) if p == 0 else ((1 + DARK) ** p - DARK**p) / p

    def slope(self, y: Tensor) -> Tensor:
        """`dz / dy`."""
        return (y.clamp(min=0) + DARK) ** (-self.rho / 2) / self._range if self.rho else y.new_ones(y.shape)

    def log_slope(self, y: Tensor) -> Tensor:
        """`d / dy log (dz / dy)`."""
        return -self.rho / 2 / (y.clamp(min=0) + DARK)

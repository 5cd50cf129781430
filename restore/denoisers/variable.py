"""Pictures in a variable in which their noise is as strong in the dark as in the light.

Noise of variance `phi x^rho` has nearly the same everywhere on `z = int y^(-rho / 2) dy`: `2 sqrt(y)` for Poisson
(Anscombe 1948), `log y` for Gamma noise. A score learnt with further noise of one std on top is then smoothed as much
in the dark as in the light. Here the axis starts at `-dark` instead of zero, where the integral or its slope is
infinite, and `z` takes `[0, 1]` to `[0, 1]`. Below `dark` the noise of `z` grows weaker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Variable:
    """`z(y) = int_0^y (t + dark)^(-rho / 2) dt`, divided by its value at 1; negative `y` count as zero if `rho > 0`.

    Args:
        rho: power of the brightness with which the variance of the noise grows; 0: `z = y`.
    """

    rho: float = 0.0

    @property
    def dark(self) -> float:
        """What is added to the brightness. A logarithm that starts lower gives half of its range to what is black: of
        0.01 and 0.1 that with the better uPSNR, for short trainings on Gamma noise; for Poisson noise it is 0.01."""
        if self.rho == 0:
            return 0.0
        return 0.1 if self.rho >= 2 else 0.01

    def __call__(self, y: Tensor) -> Tensor:
        if self.rho == 0:
            return y
        t = y.clamp(min=0) + self.dark
        p = 1 - self.rho / 2
        return ((t / self.dark).log() if p == 0 else (t**p - self.dark**p) / p) / self._range

    @property
    def _range(self) -> float:
        p = 1 - self.rho / 2
        return math.log(1 + 1 / self.dark) if p == 0 else ((1 + self.dark) ** p - self.dark**p) / p

    def slope(self, y: Tensor) -> Tensor:
        """`dz / dy`."""
        return (y.clamp(min=0) + self.dark) ** (-self.rho / 2) / self._range if self.rho else y.new_ones(y.shape)

    def log_slope(self, y: Tensor) -> Tensor:
        """`d / dy log (dz / dy)`."""
        return -self.rho / 2 / (y.clamp(min=0) + self.dark) if self.rho else y.new_zeros(y.shape)

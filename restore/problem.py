"""What is asked: data `y`, the operator that made them and the noise they carry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from operators.base import Identity, LinearOperator, Operator
from operators.coloured import Coloured
from operators.diagonal import Diagonal
from operators.noise import Censored, Gaussian, NoiseModel


@dataclass(frozen=True)
class Problem:
    """`y = A x + noise`.

    Args:
        y: what was measured and nothing else, real, `(1, *oshape)`, or `(B, *oshape)` for `B` equal-sized problems.
        operator: `A`.
        noise: the noise model, in the units of `y`.

    Raises:
        ValueError: `y` does not have the operator's output shape, is empty, complex, or holds NaN or infinities.
    """

    y: Tensor
    operator: Operator
    noise: NoiseModel

    def __post_init__(self) -> None:
        y, A = self.y, self.operator
        if not y.is_floating_point():
            raise ValueError(
                f"y has dtype {y.dtype}: give real floating-point data (a complex number is two real channels)"
            )
        if tuple(y.shape[1:]) != A.oshape or y.ndim != len(A.oshape) + 1:
            wanted = ", ".join(map(str, A.oshape))
            raise ValueError(f"y has shape {tuple(y.shape)}, but {type(A).__name__} gives data of shape (B, {wanted})")
        if y.numel() == 0:
            raise ValueError("y is empty: nothing was measured, so there is nothing to restore from")
        if not bool(torch.isfinite(y).all()):
            bad = int((~torch.isfinite(y)).sum())
            raise ValueError(f"y holds {bad} NaN or infinite values of {y.numel()}: leave them out with a Mask")

    @property
    def white(self) -> Problem:
        """The problem of the same `p(x | y)` whose noise is white, if the noise is Gaussian: what samplers are given.

        Row `i` of data and operator is multiplied by `sigma / std_i`. Any `sigma` says the same; only DPS and RED-diff,
        whose steps know no scale, do better with the geometric mean of the std than with the smallest or largest.
        """
        if not isinstance(self.noise, Coloured):
            return self
        std = self.noise.variance.to(self.y.device).sqrt().expand(self.operator.oshape)
        sigma = float(std.log().mean().exp())
        weigh = Diagonal(sigma / std)
        A = weigh if isinstance(self.operator, Identity) else weigh @ self.operator
        return Problem(weigh(self.y), A, Gaussian(sigma))

    @property
    def linear_gaussian(self) -> tuple[LinearOperator, float]:
        """The operator and the noise std of a linear problem with Gaussian noise.

        Raises:
            TypeError: the operator is not linear or the noise is not Gaussian.
        """
        if not isinstance(self.operator, LinearOperator):
            raise TypeError(f"a linear operator is needed here, got {type(self.operator).__name__}")
        if not isinstance(self.noise, Gaussian):
            raise TypeError(f"Gaussian noise is needed here, got {self.noise!r}")
        return self.operator, self.noise.sigma

    def score(self, z: Tensor) -> Tensor:
        """`grad_z log p(y | z)` at noiseless data `z`: `(B, *oshape)`; `(y - z) / sigma^2` if Gaussian."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_prob = self.noise.log_prob(self.y, z).sum()
        return torch.autograd.grad(log_prob, z)[0]

    def data_fit(self, x: Tensor) -> Tensor:
        """`||y - A x|| / (sigma sqrt(m))` of each row, `(B,)`: 1 for draws from the posterior, on average.

        Each number of `y` counts in units of its own sigma, where those differ. What is censored, and drawn beyond the
        end of the range, fits wholly.

        Raises:
            TypeError: the noise is not Gaussian.
        """
        white = self.white
        if not isinstance(white.noise, Gaussian | Censored):
            raise TypeError(f"the data fit in units of sigma is defined for Gaussian noise, got {self.noise!r}")
        r = white.noise.residual(white.y, white.operator(x)).flatten(1)
        return r.square().mean(1).sqrt() / white.noise.sigma

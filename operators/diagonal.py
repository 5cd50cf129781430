"""A weight for each number: what makes noise of unequal strength white."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator, check_weights
from operators.linalg import SVD, tolerance


class Diagonal(LinearOperator):
    """`y = weights x`, number by number.

    Args:
        weights: of the shape of the signal.

    Raises:
        ValueError: a weight is NaN or infinite.
    """

    def __init__(self, weights: Tensor):
        weights = torch.as_tensor(weights).double()
        if not bool(torch.isfinite(weights).all()):
            raise ValueError("the weights hold NaN or infinite values")
        super().__init__(tuple(weights.shape), tuple(weights.shape))
        self.register_buffer("weights", weights)
        self.weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.weights.to(x) * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.weights.to(y) * y

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        return b / (alpha * self.weights.square() + beta).to(b)

    def pinv(self, y: Tensor) -> Tensor:
        """As in the base class; weights below `tolerance(y.dtype)` times the largest count as zero."""
        kept = self.weights.abs() > tolerance(y.dtype) * self.weights.abs().max()
        return torch.where(kept, 1 / self.weights, 0.0).to(y) * y

    def svd(self) -> SVD:
        def signed(v: Tensor) -> Tensor:
            return torch.where(self.weights < 0, -v, v)

        return SVD(
            s=self.weights.abs().flatten(),
            U=lambda z: signed(z.reshape(-1, *self.oshape)),
            Ut=lambda y: signed(y).flatten(1),
            V=lambda z: z.reshape(-1, *self.ishape),
            Vt=lambda x: x.flatten(1),
        )

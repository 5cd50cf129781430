"""How sure a denoiser is: models of `Cov[x0 | x_t]`, the spread of the clean signal around `D(x_t, sigma)`.

By Tweedie's second-order formula the exact one is `sigma^2 dD/dx` (Efron 2011; Peng et al. 2024, eq. 6). A model is
symmetric and positive semi-definite, row by row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from operators.base import LinearOperator, pull
from operators.linalg import cg


class Covariance(ABC):
    """`C`, one matrix for each row of the batch it was asked for, or one for all."""

    @abstractmethod
    def __call__(self, v: Tensor) -> Tensor:
        """`C v`: `(B, *shape) -> (B, *shape)`."""

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        """`C A' (A C A' + sigma_y^2 I)^-1 r`: what a residual `r` of the data says about the signal.

        `(B, *oshape) -> (B, *ishape)`, with the `B` that the covariance was asked for. Default: conjugate gradients in
        the space of the data.

        Raises:
            ConvergenceError: conjugate gradients did not converge.
        """
        z = cg(lambda v: A.forward(self(A.adjoint(v))) + sigma_y**2 * v, r)
        return self(A.adjoint(z))


class Scalar(Covariance):
    """`C = variance I`: every number of the signal equally unsure, none linked to another."""

    def __init__(self, variance: float):
        self.variance = variance

    def __call__(self, v: Tensor) -> Tensor:
        return self.variance * v

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        return pull(A, r, sigma_y**2 / self.variance)


class Times(Covariance):
    """`factor C`: the same in other units."""

    def __init__(self, C: Covariance, factor: float):
        self.C, self.factor = C, factor

    def __call__(self, v: Tensor) -> Tensor:
        return self.factor * self.C(v)

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        return self.C.gain(A, r, sigma_y / math.sqrt(self.factor))


class Mixture(Covariance):
    """Covariance of a Gaussian mixture, `sum_k w_k (C_k + d_k d_k')`, for each row.

    Args:
        weights: `(K, B)`, summing to one over `k`.
        deviations: `d_k`, means of the components minus the overall mean, `(K, B, n)`.
        eigenvectors, eigenvalues: of `C_k`, `(K, n, n)` and `(K, 1|B, n)`.
    """

    def __init__(self, weights: Tensor, deviations: Tensor, eigenvectors: Tensor, eigenvalues: Tensor):
        self.weights, self.deviations, self.Q, self.eigenvalues = weights, deviations, eigenvectors, eigenvalues

    def __call__(self, v: Tensor) -> Tensor:
        flat = v.flatten(1)
        within = ((flat[None] @ self.Q) * self.eigenvalues) @ self.Q.mT  # (K, B, n)
        between = self.deviations * (self.deviations * flat).sum(-1, keepdim=True)
        return torch.einsum("kb,kbn->bn", self.weights, within + between).reshape(v.shape)

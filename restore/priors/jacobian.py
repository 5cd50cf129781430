"""How sure a denoiser is by its own account: the covariances that can be read off its Jacobian `J = dD/dx`."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.linalg import cg

from .base import Denoiser
from .covariance import Covariance, Diagonal


class Jacobian(Covariance):
    """`C = sigma^2 (J + J') / 2`: Tweedie's second-order formula, `Cov[x0 | x_t] = sigma^2 J`.

    Of the true posterior mean `J` is symmetric and positive; of a learnt denoiser it is neither. Hence the symmetric
    part, at a product by forward and one by backward differentiation for each `C v`, and a solver that stops before a
    direction in which `C` is so negative that less variance is left than half of the noise's.

    Args:
        prior, x, sigma: where the denoiser was asked, `x` of shape `(B, *shape)`.
        D: what it said, with the graph from `x`.
        tol: relative residual at which conjugate gradients end; `None` takes that of `operators.linalg.cg`.
        max_iter: iterations after which they end all the same.
    """

    def __init__(
        self, prior: Denoiser, x: Tensor, sigma: float, D: Tensor, *, tol: float | None = None, max_iter: int = 1000
    ):
        self.prior, self.x, self.sigma, self.D, self.tol, self.max_iter = prior, x, sigma, D, tol, max_iter

    def __call__(self, v: Tensor) -> Tensor:
        from_left = torch.autograd.grad(self.D, self.x, v, retain_graph=True)[0]
        return self.sigma**2 / 2 * (from_left + self.prior.jvp(self.x.detach(), self.sigma, v))

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        """Never raises for the sake of `C`: where conjugate gradients cannot go on, their last iterate is used."""
        z = cg(
            lambda v: A.forward(self(A.adjoint(v))) + sigma_y**2 * v,
            r,
            tol=self.tol,
            max_iter=self.max_iter,
            floor=sigma_y**2,
        )
        return self(A.adjoint(z))


def row_sums(x: Tensor, sigma: float, D: Tensor) -> Diagonal:
    """`C = diag(sigma^2 J' 1)`, at one product: exact if no number of the signal tells of another.

    Source: Boys et al. 2023 (TMPD), arXiv:2310.06721. Departure: kept within `[1e-6, 1] sigma^2`, where a variance
    given `x_t` alone can be.
    """
    sums = torch.autograd.grad(D, x, torch.ones_like(D))[0]
    return Diagonal(sigma**2 * sums.clamp(1e-6, 1))

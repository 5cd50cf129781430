"""Linear algebra shared by the operators: conjugate gradients, an implicit SVD, dense matrices for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class ConvergenceError(RuntimeError):
    """An iterative solver stopped before it reached its tolerance."""


_LONG, _PIECE = 2**12, 2**18  # numbers of a row


@dataclass(frozen=True)
class SVD:
    """A thin, implicit singular value decomposition `A = U diag(s) V'`.

    Attributes:
        s: singular values, `(r,)`, float64, non-negative, in the order of the transforms (not sorted).
        U, V: orthonormal columns: `(B, r) -> (B, *oshape)` and `(B, r) -> (B, *ishape)`.
        Ut, Vt: their transposes: `(B, *oshape) -> (B, r)` and `(B, *ishape) -> (B, r)`.

    What `V` does not span (`x - V(Vt(x))`) is in the null space of `A`.
    """

    s: Tensor
    U: Callable[[Tensor], Tensor]
    Ut: Callable[[Tensor], Tensor]
    V: Callable[[Tensor], Tensor]
    Vt: Callable[[Tensor], Tensor]

    def mix(self, weigh: Callable[[Tensor], Sequence[Tensor]], y: Tensor, *xs: Tensor) -> Tensor:
        """`V (g(s) U'y + w_1(s) V'x_1 + w_2(s) V'x_2 + ...)`, `(B, *ishape)`.

        Args:
            weigh: from singular values, of any shape, to `g, w_1, w_2, ...`, one number for each of them.
            y: `(B, *oshape)`, or one row for all.
            xs: `(B, *ishape)` each.
        """
        g, *w = weigh(self.s.to(y))
        parts = self.Vt(torch.cat(xs)).chunk(len(xs))
        return self.V(g * self.Ut(y) + torch.stack([a * b for a, b in zip(w, parts, strict=True)]).sum(0))

    def weighted_norm(self, weigh: Callable[[Tensor], Tensor], y: Tensor, x: Tensor | None = None) -> Tensor:
        """`sum_i w(s_i) (U'(y - A x))_i^2` of each row, accumulated in float64, `(B,)`; `weigh` as above, not negative,
        `y` as there."""
        z = self.Ut(y) if x is None else self.Ut(y) - self.s.to(x) * self.Vt(x)
        return dot(z, weigh(self.s.to(y)) * z)

    @property
    def rank(self) -> int:
        """The number of singular values."""
        return len(self.s)

    def coloured(self, weigh: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
        """`U w(s) U' y`, `(B, *oshape) -> (B, *oshape)`; `weigh` from singular values, of any shape, to `w`."""
        return self.U(weigh(self.s.to(y)) * self.Ut(y))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each row, accumulated in float64: `(B, ...), (B, ...) -> (B,)`."""
    a, b = a.flatten(1), b.flatten(1)
    if a.shape[1] < _LONG:
        return (a * b).sum(1, dtype=torch.float64)
    # One pass over memory; in single precision a piece loses no digits that matter.
    rows = (zip(p.split(_PIECE), q.split(_PIECE), strict=True) for p, q in zip(a, b, strict=True))
    return torch.stack([torch.stack([torch.dot(p, q) for p, q in row]).sum(dtype=torch.float64) for row in rows])


def norm(a: Tensor) -> Tensor:
    """Euclidean norm of each row, accumulated in float64: `(B, ...) -> (B,)`."""
    return dot(a, a).sqrt()


def tolerance(dtype: torch.dtype) -> float:
    """Relative residual to ask of an iterative solver working in `dtype`."""
    return 1e-10 if dtype == torch.float64 else 1e-5


def cg(
    matvec: Callable[[Tensor], Tensor] | Callable[[Tensor], tuple[Tensor, Tensor]],
    b: Tensor,
    *,
    onto: Tensor | None = None,
    precondition: Callable[[Tensor], Tensor] | None = None,
    tol: float | None = None,
    max_iter: int = 1000,
    floor: float | None = None,
) -> Tensor:
    """Solve `M x = b` for a symmetric positive (semi-)definite `M`, each row of the batch on its own.

    Started from zero, so for a singular but consistent system the answer is the minimum-norm solution. With `floor`
    set, `M` may be anything: where it is not what it should be, a row stops with what it has.

    Args:
        matvec: `M`, mapping `(B, ...)` to `(B, ...)`.
        b: right-hand sides, `(B, ...)`.
        onto: where given, `matvec` maps `p` to `(M p, S p)` with a linear `S`, and the answer is `onto + S x`: what `M`
            does on its way need not be done again for `x`.
        precondition: an approximation of `M^-1`, symmetric and positive.
        tol: relative residual `||b - M x|| / ||b||` to reach; `None` takes 1e-10 in float64 and 1e-5 otherwise.
        max_iter: iterations after which the solver gives up.
        floor: the smallest eigenvalue `M` should have. A row stops before its first direction of less curvature than
            half of it, and after `max_iter`, without an error; `None` raises.

    Raises:
        ConvergenceError: the tolerance was not reached, or `M` is seen not to be positive.

    Source: Hestenes and Stiefel 1952.
    """
    tol = tolerance(b.dtype) if tol is None else tol

    def column(v: Tensor, like: Tensor = b) -> Tensor:
        return v.to(b.dtype).reshape(-1, *(1,) * (like.ndim - 1))

    x, r = torch.zeros_like(b) if onto is None else onto, b
    rr = rz = dot(r, r)
    p = r
    if precondition is not None:
        p = precondition(r)
        rz = dot(r, p)
    target = rr * tol**2
    if not bool(torch.isfinite(rr).all()):
        raise ConvergenceError(
            "the right-hand side holds NaN or infinite values, or values whose square overflows: mend the data first"
        )
    stopped = torch.zeros_like(rr, dtype=torch.bool)
    for _ in range(max_iter):
        active = ~(rr <= target) & ~stopped  # NaN is active, so that the test of curvature sees it
        if not active.any():
            return x
        product = matvec(p)
        q, way = product if isinstance(product, tuple) else (product, p)
        curvature = dot(p, q)
        if floor is not None:
            stopped |= ~(curvature > floor / 2 * dot(p, p))
            active &= ~stopped
            q = q.masked_fill(column(stopped).bool(), 0)  # so that no infinite number of theirs is multiplied by zero
        elif not bool((torch.minimum(curvature, rz)[active] > 0).all()):
            worst = torch.minimum(curvature, rz)[active].min().item()
            raise ConvergenceError(
                f"conjugate gradients met a direction of curvature {worst:.3g}, where a positive matrix has only "
                "positive ones: check that the operator's adjoint is its transpose and that alpha, beta >= 0"
            )
        step = torch.where(active, rz / torch.where(active, curvature, 1.0), 0.0)
        x = torch.addcmul(x, column(step, x), way)
        r = torch.addcmul(r, column(-step), q)
        rr = dot(r, r)
        if bool((rr <= target).all()):
            return x
        z, rz_new = r, rr
        if precondition is not None:
            z = precondition(r)
            rz_new = dot(r, z)
        p = torch.addcmul(z, column(torch.where(active, rz_new / torch.where(active, rz, 1.0), 0.0)), p)
        rz = rz_new
    if floor is not None:
        return x
    reached = (rr / dot(b, b)).max().sqrt().item()
    raise ConvergenceError(
        f"conjugate gradients stopped after {max_iter} iterations at a relative residual of {reached:.2g}, "
        f"wanted {tol:.1g}: the system is badly conditioned; a larger noise level (beta / alpha) or float64 data helps"
    )


def dense(operator: Callable[[Tensor], Tensor], ishape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear map, `(m, n)` in float64, column by column: for tests and small exact computations."""
    n = int(torch.Size(ishape).numel())
    return operator(torch.eye(n, dtype=torch.float64).reshape(n, *ishape)).reshape(n, -1).T

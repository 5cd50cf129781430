"""What an operator is: a map from a signal `x` of shape `ishape` to noiseless data `A x` of shape `oshape`.

Every tensor at the border is real and carries a leading batch axis of independent draws. Operators keep nothing
between calls, are never rescaled, and hold their constants in float64: they are cast to the dtype of the argument.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from operators.linalg import SVD, cg, norm, tolerance

Shape = tuple[int, ...]


class ShapeError(ValueError):
    """A tensor or an operator does not fit the operator it was given to."""


class Operator(nn.Module, ABC):
    """A map `(B, *ishape) -> (B, *oshape)`, linear or not, differentiable wherever mathematics allows.

    Raises:
        ShapeError: called with a tensor whose shape is not `(B, *ishape)`.
    """

    def __init__(self, ishape: Shape, oshape: Shape):
        super().__init__()
        self.ishape, self.oshape = tuple(map(int, ishape)), tuple(map(int, oshape))

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """`A x`."""

    def __call__(self, x: Tensor) -> Tensor:
        _check(self, x, "ishape")
        return super().__call__(x)

    def __matmul__(self, other: Operator) -> Operator:
        """`A @ B`: first `B`, then `A`."""
        from operators.compose import Chain, compose

        if not isinstance(other, Operator):
            return NotImplemented
        if isinstance(self, LinearOperator) and isinstance(other, LinearOperator):
            return compose(self, other)
        return Chain(self, other)

    def extra_repr(self) -> str:
        return f"{self.ishape} -> {self.oshape}"


def _takes(space: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """A method whose first argument has the shape `(B, *space)`, refused in words where it has not."""

    def decorate(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(method)
        def checked(self: Operator, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            _check(self, v, space)
            return method(self, v, *args, **kwargs)

        return checked

    return decorate


SPACES = {"adjoint": "oshape", "solve": "ishape", "normal": "ishape", "pull": "oshape", "pinv": "oshape"}


class LinearOperator(Operator):
    """A linear map with its transpose and the inversions that posterior samplers are made of.

    A subclass writes `forward`; whatever else it knows in closed form it overrides. An operator whose rows are
    orthogonal and of equal norm (a mask, a transform, a block average) only sets `gram`, and the rest follows.

    Attributes:
        gram: the number `c` with `A A' = c I` if there is one, else `None`.
        shift_invariant: whether `A'A` is a circular filter, the same for all channels, so that `response` says it all.

    Raises:
        ShapeError: a method of `SPACES` called with a tensor that does not fit.
    """

    gram: float | None = None
    shift_invariant: bool = False

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name, space in SPACES.items():
            if name in vars(cls):  # what it overrides is held to the same shapes
                setattr(cls, name, _takes(space)(vars(cls)[name]))

    @_takes("oshape")
    def adjoint(self, y: Tensor) -> Tensor:
        """`A' y`: `(B, *oshape) -> (B, *ishape)`. Default: the vector-Jacobian product of `forward`."""
        with torch.enable_grad():
            x = y.new_zeros(y.shape[0], *self.ishape, requires_grad=True)
            out = self.forward(x)
        return torch.autograd.grad(out, x, y, create_graph=torch.is_grad_enabled() and y.requires_grad)[0]

    @_takes("ishape")
    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        """`(alpha A'A + beta I)^-1 b` for `alpha >= 0`, `beta > 0`: `(B, *ishape) -> (B, *ishape)`.

        The one primitive of DDNM, DiffPIR, PiGDM, DAPS, PnP-DM and moment matching. Default: closed form when `gram`
        is known (Woodbury), else conjugate gradients.

        Raises:
            ConvergenceError: conjugate gradients did not converge.
        """
        check_weights(alpha, beta)
        if self.gram is not None:
            seen = self.adjoint(self.forward(b)) / self.gram  # the part of b that A sees; kept apart for its digits
            return (b - seen) / beta + seen / (beta + alpha * self.gram)
        return cg(lambda v: alpha * self.normal(v) + beta * v, b)

    @_takes("ishape")
    def normal(self, x: Tensor) -> Tensor:
        """`A'A x`: `(B, *ishape) -> (B, *ishape)`. Default: `forward`, then `adjoint`."""
        return self.adjoint(self.forward(x))

    def response(self) -> Tensor | None:
        """How much `A'A` passes at each spatial frequency, on average over the places of a picture.

        The diagonal of `F A'A F'`, the same for all channels, `(H, W // 2 + 1)` in float64 in the layout of
        `torch.fft.rfft2`, or `(1, 1)` where it is the same for all. `None` where it is not known in closed form.
        """
        return None

    @_takes("oshape")
    def pull(self, r: Tensor, beta: float) -> Tensor:
        """`(A'A + beta I)^-1 A' r`, `(B, *oshape) -> (B, *ishape)`: what a residual `r` of the data moves a signal by.

        Samplers write their data step as a current signal plus this. In single precision a tiny `beta` (high noise,
        precise data) costs no digits where the SVD is known: `solve` would divide by it what rounding leaves outside
        the range.
        """
        if self.gram is not None:
            return self.adjoint(r) / (self.gram + beta)
        svd = self.svd()
        if svd is not None:
            return svd.V((svd.s / (svd.s.square() + beta)).to(r) * svd.Ut(r))
        return self.solve(self.adjoint(r), 1.0, beta)

    @_takes("oshape")
    def pinv(self, y: Tensor) -> Tensor:
        """Minimum-norm least squares `A^+ y`: `(B, *oshape) -> (B, *ishape)`.

        Default: closed form when `gram` is known, else conjugate gradients on the normal equations.

        Raises:
            ConvergenceError: conjugate gradients did not converge (`A` is badly conditioned: use `solve`).
        """
        if self.gram is not None:
            return self.adjoint(y) / self.gram
        b = self.adjoint(y)
        # A row that is all rounding may be nothing that A'A can produce, and would keep CG from converging.
        rounding = norm(b) <= tolerance(y.dtype) ** 2 * norm(y)
        b = b.masked_fill(rounding.reshape(-1, *(1,) * (b.ndim - 1)), 0)
        return cg(self.normal, b)

    def svd(self) -> SVD | None:
        """The implicit SVD, or `None` when it is not known in closed form."""
        if self.gram is None:
            return None
        c, m = self.gram, int(torch.Size(self.oshape).numel())
        return SVD(
            s=torch.full((m,), c**0.5, dtype=torch.float64),
            U=lambda z: z.reshape(-1, *self.oshape),
            Ut=lambda y: y.flatten(1),
            V=lambda z: self.adjoint(z.reshape(-1, *self.oshape)) / c**0.5,
            Vt=lambda x: self.forward(x).flatten(1) / c**0.5,
        )

    @property
    def H(self) -> LinearOperator:
        """The transpose as an operator."""
        return Adjoint(self)


class Adjoint(LinearOperator):
    """`A'` as an operator of its own."""

    def __init__(self, operator: LinearOperator):
        super().__init__(operator.oshape, operator.ishape)
        self.operator = operator
        n, m = (int(torch.Size(s).numel()) for s in (operator.ishape, operator.oshape))
        self.gram = operator.gram if n == m else None

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.forward(y)

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        """`(alpha A A' + beta I)^-1 b`: in closed form wherever `A` solves in closed form (Woodbury)."""
        check_weights(alpha, beta)
        if self.operator.gram is not None:
            return b / (alpha * self.operator.gram + beta)
        A = self.operator
        return (b - alpha * A.forward(A.solve(A.adjoint(b), alpha, beta))) / beta

    def pinv(self, y: Tensor) -> Tensor:
        if self.operator.gram is not None:
            return self.operator.forward(y) / self.operator.gram
        return super().pinv(y)

    def svd(self) -> SVD | None:
        svd = self.operator.svd()
        return None if svd is None else SVD(s=svd.s, U=svd.V, Ut=svd.Vt, V=svd.U, Vt=svd.Ut)

    @property
    def H(self) -> LinearOperator:
        return self.operator


class Identity(LinearOperator):
    """`A = I`: the operator of denoising."""

    gram = 1.0

    def __init__(self, ishape: Shape):
        super().__init__(ishape, ishape)
        self.shift_invariant = len(ishape) == 3

    def forward(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def normal(self, x: Tensor) -> Tensor:
        return x

    def response(self) -> Tensor | None:
        if len(self.ishape) != 3:
            return None
        return torch.ones(1, 1, dtype=torch.float64)


def check_weights(alpha: Any, beta: Any) -> None:
    """Refuse the weights of `solve` that make its matrix singular or indefinite.

    Raises:
        ValueError: `alpha < 0` or `beta <= 0`.
    """
    if not (alpha >= 0 and beta > 0):
        raise ValueError(f"solve needs alpha >= 0 and beta > 0, got alpha={alpha}, beta={beta}; for beta = 0 use pinv")


def _check(operator: Operator, v: Tensor, space: str) -> None:
    shape = getattr(operator, space)
    if tuple(v.shape[1:]) != shape or v.ndim != len(shape) + 1:
        kind = "signals" if space == "ishape" else "data"
        raise ShapeError(
            f"{type(operator).__name__} takes {kind} of shape (B, {', '.join(map(str, shape))}), got {tuple(v.shape)}"
            + ("; add a batch axis with x[None]" if tuple(v.shape) == shape else "")
        )

"""Operators made of operators: composition, vertical and horizontal stacks. They use the structure of their parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from operators.base import LinearOperator, Operator, Shape, ShapeError, check_weights
from operators.linalg import SVD


def _size(shape: Shape) -> int:
    return int(torch.Size(shape).numel())


def _check_chain(outer: Operator, inner: Operator) -> None:
    if inner.oshape != outer.ishape:
        raise ShapeError(
            f"{type(outer).__name__} @ {type(inner).__name__}: the inner operator gives {inner.oshape}, "
            f"the outer one takes {outer.ishape}"
        )


class Chain(Operator):
    """`outer(inner(x))` where at least one of the two is not linear."""

    def __init__(self, outer: Operator, inner: Operator):
        _check_chain(outer, inner)
        super().__init__(inner.ishape, outer.oshape)
        self.outer, self.inner = outer, inner

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(x))


def compose(outer: LinearOperator, inner: LinearOperator) -> LinearOperator:
    """`outer @ inner`, re-associated so that a closed form of the two innermost or outermost parts is found."""
    _check_chain(outer, inner)
    if isinstance(outer, Compose):
        return compose(outer.outer, compose(outer.inner, inner))
    return Compose(outer, inner)


class Compose(LinearOperator):
    """`A @ B`. Where the columns of `A` or the rows of `B` are orthogonal and of one norm (a rotation, a frame, for `B`
    also a mask), `solve`, `pull`, `pinv` and `svd` are those of the other part."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator):
        _check_chain(outer, inner)
        super().__init__(inner.ishape, outer.oshape)
        self.outer, self.inner = outer, inner
        if outer.gram is not None and inner.gram is not None:
            self.gram = outer.gram * inner.gram
        self._isometry = outer.H.gram  # c with A'A = c I
        self._tight = inner.gram  # c with B B' = c I

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        if self.gram is None and self._isometry is not None:
            return self.inner.solve(b, alpha * self._isometry, beta)
        if self.gram is None and self._tight is not None:
            c, seen = self._tight, self.inner.forward(b)
            found = self.inner.adjoint(self.outer.solve(seen, alpha * c, beta)) / c
            if _size(self.inner.ishape) == _size(self.inner.oshape):
                return found
            return found + (b - self.inner.adjoint(seen) / c) / beta  # what B does not see
        return super().solve(b, alpha, beta)

    def pull(self, r: Tensor, beta: float) -> Tensor:
        if self.gram is None and self._isometry is not None:
            c = self._isometry
            return self.inner.pull(self.outer.adjoint(r) / c, beta / c)
        if self.gram is None and self._tight is not None:
            c = self._tight
            return self.inner.adjoint(self.outer.pull(r, beta / c)) / c
        return super().pull(r, beta)

    def pinv(self, y: Tensor) -> Tensor:
        if self.gram is None and self._isometry is not None:
            return self.inner.pinv(self.outer.adjoint(y)) / self._isometry
        if self.gram is None and self._tight is not None:
            return self.inner.adjoint(self.outer.pinv(y)) / self._tight
        return super().pinv(y)

    def svd(self) -> SVD | None:
        if self.gram is None and self._isometry is not None:
            return self._rotated(self.inner.svd(), self._isometry**0.5, outer=True)
        if self.gram is None and self._tight is not None:
            return self._rotated(self.outer.svd(), self._tight**0.5, outer=False)
        return super().svd()

    def _rotated(self, part: SVD | None, root: float, *, outer: bool) -> SVD | None:
        """The SVD of one part carried through the other, orthonormal but for the factor `root`."""
        if part is None:
            return None
        if outer:
            U = lambda z: self.outer.forward(part.U(z)) / root  # noqa: E731
            Ut = lambda y: part.Ut(self.outer.adjoint(y)) / root  # noqa: E731
            return SVD(part.s * root, U, Ut, part.V, part.Vt)
        V = lambda z: self.inner.adjoint(part.V(z)) / root  # noqa: E731
        Vt = lambda x: part.Vt(self.inner.forward(x)) / root  # noqa: E731
        return SVD(part.s * root, part.U, part.Ut, V, Vt)


class Pack:
    """Several tensors as one: joined along the channels when their spatial sizes agree, else flattened and joined."""

    def __init__(self, shapes: Sequence[Shape]):
        self.shapes = [tuple(s) for s in shapes]
        self.by_channel = len({s[1:] for s in self.shapes}) == 1
        self.sizes = [s[0] if self.by_channel else _size(s) for s in self.shapes]
        self.shape: Shape = (sum(self.sizes), *(self.shapes[0][1:] if self.by_channel else ()))

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([p if self.by_channel else p.flatten(1) for p in parts], dim=1)

    def split(self, x: Tensor) -> list[Tensor]:
        parts = x.split(self.sizes, dim=1)
        return [p.reshape(p.shape[0], *s) for p, s in zip(parts, self.shapes, strict=True)]


class VStack(LinearOperator):
    """Several measurements of one signal, `y = (A_1 x, ..., A_k x)`.

    Where all parts but one, or all, are multiples of rotations, `solve` and `pinv` are those of the one.

    Raises:
        ShapeError: the operators take signals of different shapes.
    """

    def __init__(self, *operators: LinearOperator):
        if len({a.ishape for a in operators}) != 1:
            raise ShapeError(f"VStack needs operators of one input shape, got {[a.ishape for a in operators]}")
        pack = Pack([a.oshape for a in operators])
        super().__init__(operators[0].ishape, pack.shape)
        self.parts: Iterable[LinearOperator] = nn.ModuleList(operators)  # type: ignore[assignment]
        self.pack = pack
        rotations = [_size(a.oshape) == _size(a.ishape) and a.gram is not None for a in operators]
        self._rotated = sum(a.gram or 0.0 for a, easy in zip(operators, rotations, strict=True) if easy)  # c: sum R'R
        self._hard = [i for i, easy in enumerate(rotations) if not easy]

    def forward(self, x: Tensor) -> Tensor:
        return self.pack.join([a.forward(x) for a in self.parts])

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.stack([a.adjoint(v) for a, v in zip(self.parts, self.pack.split(y), strict=True)]).sum(0)

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        if len(self._hard) > 1:
            return super().solve(b, alpha, beta)
        return self._solve(b, alpha, beta + alpha * self._rotated)

    def pinv(self, y: Tensor) -> Tensor:
        if len(self._hard) > 1 or not self._rotated:
            return super().pinv(y)
        return self._solve(self.adjoint(y), 1.0, self._rotated)

    def _solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        """With what the rotations add to `A'A` already in `beta`."""
        return list(self.parts)[self._hard[0]].solve(b, alpha, beta) if self._hard else b / beta


class HStack(LinearOperator):
    """A sum of sources, `y = A_1 x_1 + ... + A_k x_k`, with `x = (x_1, ..., x_k)` packed.

    `HStack(A, Identity(A.oshape))` is the operator of structured noise: its second source is the noise itself.
    Where all parts but one know their `gram`, `solve` and `pinv` need only the `solve` of the one, and the SVD is that
    of the one with `s^2 + c` for `s^2` if its `U` spans the data.

    Raises:
        ShapeError: the operators give data of different shapes.
    """

    def __init__(self, *operators: LinearOperator):
        if len({a.oshape for a in operators}) != 1:
            raise ShapeError(f"HStack needs operators of one output shape, got {[a.oshape for a in operators]}")
        pack = Pack([a.ishape for a in operators])
        super().__init__(pack.shape, operators[0].oshape)
        self.parts: Iterable[LinearOperator] = nn.ModuleList(operators)  # type: ignore[assignment]
        self.pack = pack
        self._tight = sum(a.gram or 0.0 for a in operators)  # c: the sum of A A' over the parts with a gram
        self._hard = [i for i, a in enumerate(operators) if a.gram is None]
        if not self._hard:
            self.gram = self._tight

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([a.forward(v) for a, v in zip(self.parts, self.pack.split(x), strict=True)]).sum(0)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.pack.join([a.adjoint(y) for a in self.parts])

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        if len(self._hard) != 1:
            return super().solve(b, alpha, beta)
        # Woodbury in the data space, where H H' = A A' + c I with A the one part that has no gram.
        hard = list(self.parts)[self._hard[0]]
        return (b - alpha * self.adjoint(hard.H.solve(self.forward(b), alpha, beta + alpha * self._tight))) / beta

    def pinv(self, y: Tensor) -> Tensor:
        if len(self._hard) != 1 or not self._tight:
            return super().pinv(y)
        return self.adjoint(list(self.parts)[self._hard[0]].H.solve(y, 1.0, self._tight))  # H^+ = H' (H H')^-1

    def svd(self) -> SVD | None:
        if len(self._hard) != 1 or not self._tight:
            return super().svd()
        part = list(self.parts)[self._hard[0]].svd()
        if part is None or len(part.s) < _size(self.oshape):  # the data that it does not reach have no basis
            return None
        s = (part.s.square() + self._tight).sqrt()  # H H' = U (s^2 + c) U'
        V = lambda z: self.adjoint(part.U(z / s.to(z)))  # noqa: E731
        Vt = lambda x: part.Ut(self.forward(x)) / s.to(x)  # noqa: E731
        return SVD(s, part.U, part.Ut, V, Vt)

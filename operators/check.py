"""The laws of a linear operator, checked against its dense matrix in float64. They raise, and say by how much.

For operators small enough that the matrix fits in memory; try odd and non-square sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.fourier import filter2
from operators.linalg import dense, norm
from operators.random import generator


class LawError(AssertionError):
    """An operator breaks one of the laws that samplers rely on."""


def assert_linear(A: LinearOperator, *, tol: float = 1e-9, seed: int = 0) -> None:
    """`A(a x + b z) = a A x + b A z`, row by row, and the result has the declared shape.

    Raises:
        LawError: it does not hold to the relative tolerance.
    """
    x, z = _random(A.ishape, seed), _random(A.ishape, seed + 1)
    y = A(x)
    if tuple(y.shape) != (3, *A.oshape):
        raise LawError(f"{_name(A)} declares output (B, {A.oshape}) but gives {tuple(y.shape)} for a batch of 3")
    _close(A, "A(2 x - 3 z) and 2 A x - 3 A z", A(2 * x - 3 * z), 2 * y - 3 * A(z), tol)
    _close(A, "A of a batch and A of its rows", y, torch.cat([A(row[None]) for row in x]), tol)


def assert_adjoint(A: LinearOperator, *, tol: float = 1e-9, seed: int = 0) -> None:
    """`<A x, y> = <x, A'y>` for random vectors, and the matrix of the adjoint is the transpose.

    Raises:
        LawError: with the ratio of the two sides, whose value often names the fault (2, -1, a sampling factor).
    """
    x, y = _random(A.ishape, seed), _random(A.oshape, seed + 1)
    z = A.adjoint(y)
    if tuple(z.shape) != (3, *A.ishape):
        raise LawError(f"{_name(A)} has input (B, {A.ishape}) but its adjoint gives {tuple(z.shape)} for a batch of 3")
    left, right = (A(x) * y).sum(), (x * z).sum()
    scale = (norm(A(x)) * norm(y)).sum()
    if not abs(left - right) <= tol * scale:
        raise LawError(f"{_name(A)}: <x, A'y> / <A x, y> = {right / left:.6g}, wanted 1 to within {tol:.0e}")
    _close(A, "the matrix of the adjoint and the transpose", dense(A.adjoint, A.oshape), dense(A, A.ishape).T, tol)


def assert_solve(
    A: LinearOperator,
    *,
    weights: tuple[tuple[float, float], ...] = ((1.0, 0.1), (30.0, 2.0), (0.0, 0.5)),
    tol: float = 1e-7,
    seed: int = 0,
) -> None:
    """`solve(b, alpha, beta)` is `(alpha A'A + beta I)^-1 b` for each `(alpha, beta)` in `weights`, `pull(y, beta)` is
    `(A'A + beta I)^-1 A'y` and `normal(b)` is `A'A b`.

    Raises:
        LawError: it differs from the dense solution.
    """
    M, b = dense(A, A.ishape), _random(A.ishape, seed)
    for alpha, beta in weights:
        wanted = torch.linalg.solve(alpha * M.T @ M + beta * torch.eye(M.shape[1], dtype=M.dtype), b.flatten(1).T).T
        what = f"solve(b, alpha={alpha}, beta={beta}) and the dense solution"
        _close(A, what, A.solve(b, alpha, beta), wanted.reshape(b.shape), tol)
    _close(A, "normal(b) and A'A b", A.normal(b), (b.flatten(1) @ M.T @ M).reshape(b.shape), tol)
    y, beta = _random(A.oshape, seed + 1), weights[0][1]
    moved = torch.linalg.solve(M.T @ M + beta * torch.eye(M.shape[1], dtype=M.dtype), M.T @ y.flatten(1).T).T
    _close(A, f"pull(y, {beta}) and the dense solution", A.pull(y, beta), moved.reshape(b.shape), tol)


def assert_pinv(A: LinearOperator, *, tol: float = 1e-6) -> None:
    """`pinv` obeys the four Moore-Penrose conditions and agrees with the dense pseudo-inverse.

    Raises:
        LawError: naming the condition.
    """
    M, P = dense(A, A.ishape), dense(A.pinv, A.oshape)
    _close(A, "A A^+ A and A", M @ P @ M, M, tol)
    _close(A, "A^+ A A^+ and A^+", P @ M @ P, P, tol)
    _close(A, "A A^+ and its transpose", M @ P, (M @ P).T, tol)
    _close(A, "A^+ A and its transpose", P @ M, (P @ M).T, tol)
    _close(A, "A^+ and the dense pseudo-inverse", P, torch.linalg.pinv(M, rtol=1e-10), tol)


def assert_response(A: LinearOperator, *, tol: float = 1e-9) -> None:
    """`response()` is `None`, or the diagonal of `F A'A F'`, averaged over the channels; with `shift_invariant` that is
    all of `A'A`.

    Raises:
        LawError: it differs.
    """
    response = A.response()
    if response is None:
        if A.shift_invariant:
            raise LawError(f"{_name(A)} calls itself shift-invariant, but does not know its response")
        return
    H, W = A.ishape[-2:]
    M = dense(A.normal, A.ishape).reshape(A.ishape[0], H, W, A.ishape[0], H, W)
    within = torch.stack([M[c, :, :, c] for c in range(A.ishape[0])]).mean(0)  # (H, W, H, W)
    turned = torch.fft.fft2(torch.fft.ifft2(within), dim=(0, 1)).reshape(H * W, H * W).diagonal().real
    turned = turned.reshape(H, W)[:, : W // 2 + 1]
    _close(A, "response() and the diagonal of F A'A F'", response.expand_as(turned), turned, tol)
    if A.shift_invariant:
        x = _random(A.ishape, 0)
        _close(A, "normal(x) and response()", A.normal(x), filter2(x, response), tol)


def assert_svd(A: LinearOperator, *, tol: float = 1e-9, seed: int = 0) -> None:
    """`svd()` is `None`, or `A = U diag(s) V'` with orthonormal columns, `s >= 0`, `Ut`, `Vt` the transposes, and
    `mix`, `weighted_norm` what they say.

    Raises:
        LawError: naming what differs.
    """
    svd = A.svd()
    if svd is None:
        return
    s, I = svd.s, torch.eye(len(svd.s), dtype=torch.float64)
    if s.dtype != torch.float64 or bool((s < 0).any()):
        raise LawError(f"{_name(A)}: singular values must be float64 and >= 0, got {s.dtype}, smallest {s.min():.3g}")
    U, V = svd.U(I).flatten(1).T, svd.V(I).flatten(1).T
    _close(A, "U'U and I", U.T @ U, I, tol)
    _close(A, "V'V and I", V.T @ V, I, tol)
    _close(A, "U diag(s) V' and A", U * s @ V.T, dense(A, A.ishape), tol)
    x, y = _random(A.ishape, seed), _random(A.oshape, seed + 1)
    _close(A, "Vt(x) and V'x", svd.Vt(x), x.flatten(1) @ V, tol)
    _close(A, "Ut(y) and U'y", svd.Ut(y), y.flatten(1) @ U, tol)
    n, Uy, Vx = _random(A.ishape, seed + 2), y.flatten(1) @ U, x.flatten(1) @ V
    mixed = (s + 1) * Uy + s.square() * Vx - 2.0 * (n.flatten(1) @ V)
    got = svd.mix(lambda s: (s + 1, s.square(), torch.full_like(s, -2.0)), y, x, n)
    _close(A, "mix() and V (g U'y + ...)", got.flatten(1), mixed @ V.T, tol)
    _close(A, "coloured() and U w U'y", svd.coloured(lambda s: s + 1, y).flatten(1), ((s + 1) * Uy) @ U.T, tol)
    if svd.rank != len(s):
        raise LawError(f"{_name(A)}: a rank of {svd.rank}, but {len(s)} singular values")
    for at, left in ((None, Uy), (x, Uy - s * (x.flatten(1) @ V))):
        found = svd.weighted_norm(lambda s: s + 1, y, at)
        _close(A, "weighted_norm() and sum w (U'(y - A x))^2", found, ((s + 1) * left.square()).sum(1), tol)


def assert_laws(A: LinearOperator) -> None:
    """All of the above.

    Raises:
        LawError: the first law broken.
    """
    for law in (assert_linear, assert_adjoint, assert_solve, assert_svd, assert_pinv, assert_response):
        law(A)


def _random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(3, *shape, generator=generator(seed), dtype=torch.float64)


def _close(A: LinearOperator, what: str, got: Tensor, wanted: Tensor, tol: float) -> None:
    scale = max(float(wanted.abs().max()), 1e-300)
    error = float((got - wanted).abs().max()) / scale
    if not error <= tol:  # also catches NaN
        raise LawError(f"{_name(A)}: {what} differ by {error:.3g} of the largest entry, wanted {tol:.0e}")


def _name(A: LinearOperator) -> str:
    return f"{type(A).__name__}({A.ishape} -> {A.oshape})"

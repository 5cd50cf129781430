"""The two closed forms behind blur and downsampling: circular filters by FFT, separable filters by dense 1-D matrices.

Both act on the last two axes of `(C, H, W)` and know their SVD, hence `solve` and `pinv`. Up to about a thousand pixels
a side the separable form is the faster one; the circular form takes any kernel and any size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from operators import fourier
from operators.base import LinearOperator, Shape, check_weights
from operators.linalg import SVD, dot, tolerance

ZERO = 1e-12  # singular values below this share of the largest are rounding, and count as zero
_DENSE = 1024  # pixels a side up to which matrix products beat FFTs (measured)


class CircularFilter(LinearOperator):
    """A circular filter followed by decimation.

    It is `A = S W`: `W` has orthonormal rows and `S` is a symmetric positive circular filter on the small grid, whose
    square has the spectrum `lambda(k) = mean_m |otf(k + m N / factor)|^2` over the frequencies that alias to `k`
    (Zhao et al. 2016, "Fast single image super-resolution using a new analytical solution for l2-l2 problems").

    Args:
        kernel: `(kh, kw)`, centred as `operators.fourier.impulse_response` says, wrapped where it is too large.
        ishape: `(C, H, W)`, sizes divisible by `factor`.
        factor: keep every `factor`-th pixel of each axis; two numbers for rows and columns of pixels.
    """

    def __init__(self, kernel: Tensor, ishape: Shape, factor: int | tuple[int, int] = 1):
        H, W = ishape[-2:]
        fh, fw = (factor, factor) if isinstance(factor, int) else factor
        super().__init__(ishape, (*ishape[:-2], H // fh, W // fw))
        self.factors, self.shift_invariant = (fh, fw), fh == fw == 1
        columns = [fourier.impulse_response(column, H, fh) for column in kernel.double().T]
        response = torch.stack([fourier.impulse_response(row, W, fw) for row in torch.stack(columns, 1)])
        otf = torch.fft.fft2(response)
        power = otf.abs().square().reshape(fh, H // fh, fw, W // fw).mean((0, 2))
        s = power.sqrt()
        s = torch.where(s > ZERO * s.max(), s, 0.0)
        tiled = s.repeat(fh, fw)
        rows = torch.where(
            tiled > 0, otf / tiled, 1.0
        )  # any orthonormal rows will do where S is zero: plain decimation
        self.register_buffer("otf", fourier.half(otf))
        self.register_buffer("passed", otf.abs().square()[:, : W // 2 + 1] / (fh * fw))
        self.register_buffer("rows", fourier.half(rows))  # the filter of W
        self.register_buffer("s", s)  # the full spectrum of S
        self.otf: Tensor
        self.rows: Tensor
        self.s: Tensor
        self.passed: Tensor

    @property
    def half_s(self) -> Tensor:
        """The half spectrum of `S`."""
        return self.s[:, : self.s.shape[1] // 2 + 1]

    def forward(self, x: Tensor) -> Tensor:
        return fourier.filter_down(x, fourier.as_complex(self.otf, x), self.factors)

    def adjoint(self, y: Tensor) -> Tensor:
        return fourier.filter_up(y, fourier.as_complex(self.otf, y), self.factors)

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        power = self.half_s**2
        if self.shift_invariant:
            return fourier.filter2(b, (1 / (alpha * power + beta)).to(b))
        return (b - self.adjoint(fourier.filter2(self.forward(b), (alpha / (alpha * power + beta)).to(b)))) / beta

    def normal(self, x: Tensor) -> Tensor:
        return fourier.filter2(x, (self.half_s**2).to(x)) if self.shift_invariant else super().normal(x)

    def response(self) -> Tensor:
        return self.passed

    def pull(self, r: Tensor, beta: float) -> Tensor:
        if not self.shift_invariant:
            return super().pull(r, beta)
        weight = (self.half_s / (self.half_s**2 + beta)).to(r)
        return fourier.filter2(r, fourier.as_complex(self.rows, r).conj() * weight)

    def pinv(self, y: Tensor) -> Tensor:
        """As in the base class; singular values below `tolerance(y.dtype)` times the largest count as zero."""
        s = self.half_s
        inverse = torch.where(s > tolerance(y.dtype) * s.max(), 1 / s, 0.0).to(y)
        rows = fourier.as_complex(self.rows, y)
        if self.shift_invariant:
            return fourier.filter2(y, rows.conj() * inverse)
        return fourier.filter_up(fourier.filter2(y, inverse), rows, self.factors)

    def svd(self) -> SVD:
        """Hartley modes of the small grid; a filter merges with their transform."""

        def rows(like: Tensor) -> Tensor:
            return fourier.as_complex(self.rows, like)

        def V(z: Tensor) -> Tensor:
            z = z.reshape(-1, *self.oshape)
            if not self.shift_invariant:
                return fourier.filter_up(fourier.hartley(z), rows(z), self.factors)
            X = rows(z).conj() * fourier.half_spectrum_of_hartley(z)
            return fourier.irfft2(X, self.ishape[-1], norm="ortho")

        def Vt(x: Tensor) -> Tensor:
            if not self.shift_invariant:
                return fourier.hartley(fourier.filter_down(x, rows(x), self.factors)).flatten(1)
            X = rows(x) * torch.fft.rfft2(x, norm="ortho")
            return fourier.hartley_of(X, self.ishape[-1]).flatten(1)

        def U(z: Tensor) -> Tensor:
            return fourier.hartley(z.reshape(-1, *self.oshape))

        def Ut(y: Tensor) -> Tensor:
            return fourier.hartley(y).flatten(1)

        if self.shift_invariant:
            return FilterSVD(U, Ut, V, Vt, self)
        return SVD(self.s.expand(self.oshape).flatten(), U, Ut, V, Vt)


Map = Callable[[Tensor], Tensor]


class FilterSVD(SVD):
    """Of a circular filter: all that depends on singular values alone is one, of half spectra."""

    def __init__(self, U: Map, Ut: Map, V: Map, Vt: Map, filter: CircularFilter):
        for name, value in {"U": U, "Ut": Ut, "V": V, "Vt": Vt, "filter": filter}.items():
            object.__setattr__(self, name, value)
        self.filter: CircularFilter

    @property
    def s(self) -> Tensor:  # type: ignore[override]
        """Of all channels: made when asked for, since few ask."""
        return self.filter.s.expand(self.filter.oshape).flatten()

    @property
    def rank(self) -> int:
        return math.prod(self.filter.oshape)

    def coloured(self, weigh: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
        return fourier.filter2(y, weigh(self.filter.half_s.to(y)))

    def mix(self, weigh: Callable[[Tensor], Sequence[Tensor]], y: Tensor, *xs: Tensor) -> Tensor:
        g, *w = weigh(self.filter.half_s.to(y))
        total = fourier.as_complex(self.filter.rows, y).conj() * g * torch.fft.rfft2(y)
        for weight, x in zip(w, xs, strict=True):
            total = torch.addcmul(total, weight.to(total), torch.fft.rfft2(x))
        return fourier.irfft2(total, y.shape[-1])

    def weighted_norm(self, weigh: Callable[[Tensor], Tensor], y: Tensor, x: Tensor | None = None) -> Tensor:
        w = (fourier.twice(y.shape[-1], y) * weigh(self.filter.half_s.to(y))).sqrt()
        Z = w * torch.fft.rfft2(y, norm="ortho")
        if x is not None:
            otf = w * fourier.as_complex(self.filter.otf, x)
            Z = torch.addcmul(Z, otf, torch.fft.rfft2(x, norm="ortho"), value=-1)
        z = torch.view_as_real(Z)
        return dot(z, z)


class Separable(LinearOperator):
    """`y = R x C'` on each channel, for dense matrices `R` (on columns of pixels) and `C` (on rows of pixels).

    Args:
        R: `(h, H)`.
        C: `(w, W)`.
        lead: the leading axes, such as `(channels,)`.
    """

    def __init__(self, R: Tensor, C: Tensor, lead: Shape):
        super().__init__((*lead, R.shape[1], C.shape[1]), (*lead, R.shape[0], C.shape[0]))
        for name, M in {"R": R.double(), "C": C.double()}.items():
            U, s, Vt = torch.linalg.svd(M, full_matrices=False)
            passed = torch.fft.fft(torch.fft.ifft(M.T @ M), dim=0).diagonal().real  # of F M'M F'
            for part, value in {"": M, "_U": U, "_s": s, "_Vt": Vt, "_passed": passed}.items():
                self.register_buffer(name + part, value.contiguous())
        self._bands = {name: _bands(M) for name, M in (("R", R), ("C", C), ("R'", R.T), ("C'", C.T))}
        self.R: Tensor
        self.C: Tensor
        self.R_U: Tensor
        self.C_U: Tensor
        self.R_Vt: Tensor
        self.C_Vt: Tensor

    @property
    def s(self) -> Tensor:
        """Singular values on the grid of the small picture, `(min(h, H), min(w, W))`."""
        s = self.get_buffer("R_s")[:, None] * self.get_buffer("C_s")
        return torch.where(s > ZERO * s.max(), s, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return _banded(self.R.to(x), self._bands["R"], self.C.to(x), self._bands["C"], x)

    def adjoint(self, y: Tensor) -> Tensor:
        return _banded(self.R.to(y).T, self._bands["R'"], self.C.to(y).T, self._bands["C'"], y)

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        # (alpha A'A + beta I)^-1 = (I - V diag(alpha s^2 / (alpha s^2 + beta)) V') / beta, the last product fused with
        # the subtraction.
        power = alpha * self.s**2
        left, right = self.R_Vt.to(b), self.C_Vt.to(b)
        z = _both(left, b, right.T) * (power / (power + beta)).to(b)
        flat, z = b.flatten(0, -3), (z @ right).flatten(0, -3)
        return torch.baddbmm(flat, left.T.expand(len(flat), -1, -1), z, beta=1 / beta, alpha=-1 / beta).view_as(b)

    def response(self) -> Tensor:
        rows, columns = self.get_buffer("R_passed"), self.get_buffer("C_passed")
        return rows[:, None] * columns[: len(columns) // 2 + 1]

    def pinv(self, y: Tensor) -> Tensor:
        """As in the base class; singular values below `tolerance(y.dtype)` times the largest count as zero."""
        s = self.s
        inverse = torch.where(s > tolerance(y.dtype) * s.max(), 1 / s, 0.0).to(y)
        z = _both(self.R_U.to(y).T, y, self.C_U.to(y)) * inverse
        return _both(self.R_Vt.to(y).T, z, self.C_Vt.to(y))

    def svd(self) -> SVD:
        lead, s = self.oshape[:-2], self.s

        def spread(z: Tensor) -> Tensor:
            return z.reshape(-1, *lead, *s.shape)

        return SVD(
            s=s.expand(*lead, *s.shape).flatten(),
            U=lambda z: _both(self.R_U.to(z), spread(z), self.C_U.to(z).T),
            Ut=lambda y: _both(self.R_U.to(y).T, y, self.C_U.to(y)).flatten(1),
            V=lambda z: _both(self.R_Vt.to(z).T, spread(z), self.C_Vt.to(z)),
            Vt=lambda x: _both(self.R_Vt.to(x), x, self.C_Vt.to(x).T).flatten(1),
        )


def _both(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """`left x right`, in the order that costs least."""
    (m, H), (W, n) = left.shape, right.shape
    if m * H * W + m * W * n <= H * W * n + m * H * n:
        return (left @ x) @ right
    return left @ (x @ right)


Bands = list[tuple[slice, list[slice]]]


def _bands(M: Tensor) -> Bands:
    """For each chunk of rows the runs of columns that are not zero: two where a filter wraps around."""
    chunk = 32 if min(M.shape) > 96 else len(M)  # measured; products of small matrices are not worth cutting
    out = []
    for rows in (slice(i, min(i + chunk, len(M))) for i in range(0, len(M), chunk)):
        used = M[rows].abs().sum(0).nonzero().flatten()
        runs = used.tensor_split((used.diff() > chunk).nonzero().flatten() + 1)
        out.append((rows, [slice(int(r[0]), int(r[-1]) + 1) for r in runs if len(r)] or [slice(0, 1)]))
    return out


def _banded(R: Tensor, R_bands: Bands, C: Tensor, C_bands: Bands, x: Tensor) -> Tensor:
    """`R x C'` without most of the products with zero, in the order that costs least."""

    def left(x: Tensor) -> Tensor:
        return joined([total(R[r, c] @ x[..., c, :] for c in runs) for r, runs in R_bands], -2)

    def right(x: Tensor) -> Tensor:
        return joined([total(x[..., c] @ C[r, c].T for c in runs) for r, runs in C_bands], -1)

    def total(terms: Iterable[Tensor]) -> Tensor:
        return functools.reduce(torch.add, terms)

    def joined(parts: list[Tensor], dim: int) -> Tensor:
        return torch.cat(parts, dim) if len(parts) > 1 else parts[0]

    return right(left(x)) if len(R) <= len(C) else left(right(x))


def split(kernel: Tensor) -> tuple[Tensor, Tensor] | None:
    """`(u, v)` with `kernel = u v'`, or `None` if the kernel is not separable."""
    U, s, Vt = torch.linalg.svd(kernel.double())
    if len(s) > 1 and s[1] > ZERO * s[0]:
        return None
    return U[:, 0] * s[0], Vt[0]


def decimated(kernel: Tensor, ishape: Shape, factor: int) -> LinearOperator:
    """Circular filter and decimation, in the form that is faster for this kernel and size."""
    *lead, H, W = ishape
    parts = split(kernel)
    if parts is None or max(H, W) > _DENSE:
        return CircularFilter(kernel, ishape, factor)
    matrices = []
    for taps, n in zip(parts, (H, W), strict=True):
        h = fourier.impulse_response(taps, n, factor)
        matrices.append(h[(factor * torch.arange(n // factor)[:, None] - torch.arange(n)) % n])
    return Separable(matrices[0], matrices[1], tuple(lead))


def cropped(kernel: Tensor, ishape: Shape) -> Separable | None:
    """The part of a convolution that needs no boundary; `None` where the kernel or the size has no fast closed form."""
    *lead, H, W = ishape
    parts = split(kernel)
    if parts is None or max(H, W) > _DENSE:
        return None
    matrices = []
    for taps, n in zip(parts, (H, W), strict=True):
        m, k = n - len(taps) + 1, len(taps)
        matrices.append(torch.zeros(m, n, dtype=torch.float64))
        for j in range(k):
            matrices[-1].diagonal(k - 1 - j)[:m] = taps[j]
    return Separable(matrices[0], matrices[1], tuple(lead))

"""Convolution as a camera does it: the photograph sees only a part of the scene that was blurred into it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from operators import fourier
from operators.base import LinearOperator, Shape, check_weights
from operators.filters import CircularFilter
from operators.linalg import cg


def frame(kernel: Tensor, ishape: Shape) -> tuple[slice, slice]:
    """Where, in `x`, the pixels of `y` lie whose blur needs no boundary."""
    rows, columns = (slice(k - 1 - k // 2, n - k // 2) for k, n in zip(kernel.shape, ishape[-2:], strict=True))
    return rows, columns


class ValidFilter(LinearOperator):
    """`y = P K x`: a circular filter `K` and the restriction `P` to the pixels that no boundary reaches.

    Args:
        kernel: `(kh, kw)`, its middle is entry `(kh // 2, kw // 2)`.
        ishape: `(C, H, W)`; `y` is `(C, H - kh + 1, W - kw + 1)`.
    """

    def __init__(self, kernel: Tensor, ishape: Shape):
        self_frame = frame(kernel, ishape)
        super().__init__(ishape, (*ishape[:-2], *(s.stop - s.start for s in self_frame)))
        self.frame = self_frame
        self.circular = CircularFilter(kernel, ishape)
        border = torch.ones(ishape[-2:], dtype=torch.float64)
        border[self.frame] = 0
        self.register_buffer("border", border)
        self.border: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.circular.forward(x)[..., self.frame[0], self.frame[1]]

    def adjoint(self, y: Tensor) -> Tensor:
        (top, bottom), (left, right) = (
            (s.start, n - s.stop) for s, n in zip(self.frame, self.ishape[-2:], strict=True)
        )
        return self.circular.adjoint(F.pad(y, (left, right, top, bottom)))

    def solve(self, b: Tensor, alpha: float, beta: float, tol: float | None = None) -> Tensor:
        """As in the base class, by conjugate gradients on the border only, to `tol` as `operators.linalg.cg` takes it.

        With `Q = I - P`, `M = alpha K'K + beta I` and `T` the circular filter of spectrum
        `beta / (alpha |otf|^2 + beta)`, Woodbury gives `(M - alpha K'QK)^-1 = M^-1 + M^-1 K' Q u` with
        `(Q T Q) u = alpha Q K M^-1 b`. `Q T^-1 Q` is an excellent preconditioner: tens of iterations where
        conjugate gradients on `A'A` need hundreds.
        """
        check_weights(alpha, beta)
        otf, Q = fourier.as_complex(self.circular.otf, b), self.border.to(b)
        inverse = 1 / (alpha * self.circular.half_s**2 + beta)
        T, T_inverse, inverse = ((beta * inverse).to(b), (1 / (beta * inverse)).to(b), inverse.to(b))
        z = torch.fft.rfft2(b) * inverse
        u = cg(
            lambda v: Q * fourier.filter2(v, T),
            alpha * Q * torch.fft.irfft2(z * otf, s=b.shape[-2:]),
            precondition=lambda v: Q * fourier.filter2(v, T_inverse),
            tol=tol,
        )
        return torch.fft.irfft2(z + torch.fft.rfft2(u) * otf.conj() * inverse, s=b.shape[-2:])


class FullFilter(LinearOperator):
    """`y = K E x`: a convolution that gives all it can, for a signal that is zero outside, which `E` appends.

    Args:
        kernel: `(kh, kw)`.
        ishape: `(C, H, W)`; `y` is `(C, H + kh - 1, W + kw - 1)`.
    """

    def __init__(self, kernel: Tensor, ishape: Shape):
        size = tuple(n + k - 1 for n, k in zip(ishape[-2:], kernel.shape, strict=True))
        super().__init__(ishape, (*ishape[:-2], *size))
        self.circular = CircularFilter(kernel, self.oshape)
        rows, columns = (slice(k // 2, k // 2 + n) for n, k in zip(ishape[-2:], kernel.shape, strict=True))
        self.inside = (..., rows, columns)  # so that y begins with the first sample of the kernel
        border = torch.ones(size, dtype=torch.float64)
        border[self.inside] = 0
        self.register_buffer("border", border)
        self.border: Tensor

    def _padded(self, x: Tensor) -> Tensor:
        _, rows, columns = self.inside
        H, W = self.oshape[-2:]
        return F.pad(x, (columns.start, W - columns.stop, rows.start, H - rows.stop))

    def forward(self, x: Tensor) -> Tensor:
        return self.circular.forward(self._padded(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.circular.adjoint(y)[self.inside]

    def solve(self, b: Tensor, alpha: float, beta: float, tol: float | None = None) -> Tensor:
        """As in the base class, by conjugate gradients on the border only, to `tol` as `operators.linalg.cg` takes it.

        With `M = alpha K'K + beta I` and `Q` the border, the inverse of a block of `M` is
        `(E'ME)^-1 = E' (M^-1 - M^-1 Q (Q M^-1 Q)^-1 Q M^-1) E`, and `Q M Q` an excellent preconditioner.
        """
        check_weights(alpha, beta)
        Q, power = self.border.to(b), alpha * self.circular.half_s**2 + beta
        M, inverse = (power / beta).to(b), (beta / power).to(b)
        z = fourier.filter2(self._padded(b), inverse)
        u = cg(
            lambda v: Q * fourier.filter2(v, inverse),
            Q * z,
            precondition=lambda v: Q * fourier.filter2(v, M),
            tol=tol,
        )
        return (z - fourier.filter2(u, inverse))[self.inside] / beta

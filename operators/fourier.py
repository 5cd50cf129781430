"""Real orthonormal transforms on the last axes of a picture, and circular filters as half spectra."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hartley(x: Tensor) -> Tensor:
    """Discrete Hartley transform `Re F x - Im F x`, orthonormal and its own inverse: `(..., H, W) -> (..., H, W)`.

    It diagonalises every circular filter with a real spectrum.
    """
    return hartley_of(torch.fft.rfft2(x, norm="ortho"), x.shape[-1])


def hartley_of(X: Tensor, width: int) -> Tensor:
    """`hartley(x)` from the half spectrum of `x`, `(..., H, W // 2 + 1) -> (..., H, W)`."""
    mirrored = (X.real + X.imag)[..., 1 : (width + 1) // 2]  # Re X is even, Im X odd
    return torch.cat([X.real - X.imag, negated(mirrored.flip(-1))], -1)


def half_spectrum_of_hartley(z: Tensor) -> Tensor:
    """The half spectrum of `hartley(z)`: the even part of `z` less `i` times its odd part, no transform needed."""
    n = z.shape[-1] // 2 + 1
    there, back = z[..., :n], negated(torch.cat([z[..., :1], z[..., z.shape[-1] - n + 1 :].flip(-1)], -1))
    return torch.complex((there + back) / 2, (back - there) / 2)


def negated(X: Tensor) -> Tensor:
    """Rows at the opposite frequency: row `k` goes to `-k` modulo their number."""
    return torch.cat([X[..., :1, :], X[..., 1:, :].flip(-2)], -2)


def hadamard(x: Tensor) -> Tensor:
    """Walsh-Hadamard transform in natural order, orthonormal and its own inverse: `(..., N) -> (..., N)`, `N = 2^k`."""
    n, done = x.shape[-1], 1
    while done < n:  # a Kronecker product of smaller ones: products with dense 256 x 256 are the fastest on a CPU
        H = _hadamard_matrix(min(256, n // done), x)
        x = (x.unflatten(-1, (-1, len(H))) @ H if done == 1 else H @ x.unflatten(-1, (-1, len(H), done))).reshape(
            x.shape
        )
        done *= len(H)
    return x


def _hadamard_matrix(n: int, like: Tensor) -> Tensor:
    H = like.new_ones(1, 1)
    while len(H) < n:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H / math.sqrt(n)


def dct(x: Tensor, dim: int = -1) -> Tensor:
    """Orthonormal DCT-II along one axis of any length.

    Source: Makhoul 1980, by one real FFT of the same length.
    """
    x = x.movedim(dim, -1)
    n = x.shape[-1]
    V = torch.fft.rfft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)) * _twiddle(n, x)
    X = torch.cat([V.real, -V.imag[..., 1 : (n + 1) // 2].flip(-1)], -1)
    return X.movedim(-1, dim)


def idct(X: Tensor, dim: int = -1) -> Tensor:
    """The inverse, which is the transpose, of `dct`."""
    X = X.movedim(dim, -1)
    n = X.shape[-1]
    mirrored = torch.cat([X.new_zeros(*X.shape[:-1], 1), X[..., n - n // 2 :].flip(-1)], -1)
    v = torch.fft.irfft(torch.complex(X[..., : n // 2 + 1], -mirrored) / _twiddle(n, X), n=n)
    x = torch.empty_like(v)
    x[..., ::2], x[..., 1::2] = v[..., : (n + 1) // 2], v[..., (n + 1) // 2 :].flip(-1)
    return x.movedim(-1, dim)


def _twiddle(n: int, like: Tensor) -> Tensor:
    k = torch.arange(n // 2 + 1, dtype=torch.float64, device=like.device)
    scale = torch.full_like(k, math.sqrt(2 / n))
    scale[0] = math.sqrt(1 / n)
    w = torch.polar(scale, -math.pi * k / (2 * n))
    return w.to(torch.promote_types(like.dtype, torch.complex64))


def impulse_response(taps: Tensor, n: int, factor: int = 1) -> Tensor:
    """A one-dimensional kernel on a grid of `n`, wrapped around: `(k,) -> (n,)`.

    The middle of the kernel lies on the middle of the first block of `factor` samples (half-pixel alignment); where
    parities do not allow it, half a sample late. For `factor = 1` the middle is tap `k // 2`.
    """
    k = len(taps)
    at = (torch.arange(k) - (k - 1 - (k - factor) // 2)) % n
    return taps.new_zeros(n).index_add_(0, at, taps)


def half(spectrum: Tensor) -> Tensor:
    """What `rfft2` keeps of a full spectrum, as real numbers `(H, W // 2 + 1, 2)`.

    Real, so that a module's `.to(dtype)` cannot throw the imaginary part away.
    """
    return torch.view_as_real(spectrum[..., : spectrum.shape[-1] // 2 + 1].contiguous())


def as_complex(spectrum: Tensor, like: Tensor) -> Tensor:
    """A stored spectrum in the precision and on the device of `like`."""
    return torch.view_as_complex(spectrum.to(like))


def twice(width: int, like: Tensor) -> Tensor:
    """How many modes each column of a half spectrum stands for, `(width // 2 + 1,)`: column 0 and, of an even width,
    the last are their own mirrors."""
    count = like.new_full((width // 2 + 1,), 2.0)
    count[:: width // 2 if width % 2 == 0 else width] = 1
    return count


def irfft2(X: Tensor, width: int, norm: str | None = None) -> Tensor:
    """`torch.fft.irfft2` to `width` columns; axis by axis is the faster way on a CPU."""
    return torch.fft.irfft(torch.fft.ifft(X, dim=-2, norm=norm), n=width, norm=norm)


def filter2(x: Tensor, spectrum: Tensor) -> Tensor:
    """Multiply the half spectrum of `x` by `spectrum`, real or complex: `(..., H, W) -> (..., H, W)`."""
    return irfft2(torch.fft.rfft2(x) * spectrum, x.shape[-1])


def filter_down(x: Tensor, otf: Tensor, factors: tuple[int, int]) -> Tensor:
    """`filter2` and every so manieth pixel of each axis: `(..., H, W) -> (..., H / factors[0], W / factors[1])`."""
    if factors == (1, 1):
        return filter2(x, otf)
    (H, W), (fh, fw) = x.shape[-2:], factors
    X = torch.fft.rfft2(x) * otf
    X = X.unflatten(-2, (fh, H // fh)).sum(-3) / fh  # rows alias
    return irfft2(X, W)[..., ::fw]


def filter_up(y: Tensor, otf: Tensor, factors: tuple[int, int]) -> Tensor:
    """The transpose of `filter_down`."""
    if factors == (1, 1):
        return filter2(y, otf.conj())
    w, (fh, fw) = y.shape[-1], factors
    x = y.new_zeros(*y.shape[:-1], w, fw)
    x[..., 0] = y
    X = torch.fft.rfft2(x.flatten(-2)).repeat(*(1,) * (y.ndim - 2), fh, 1) * otf.conj()
    return irfft2(X, w * fw)

"""Orthonormal transforms of real pictures and circular filters followed by decimation, on the last two axes.

A circular filter with decimation by `f` is `A = S W`: `W` has orthonormal rows, `S` is a symmetric positive circular
filter on the small grid. Its square `A A' = S^2` has the spectrum `lambda(k) = mean_m |otf(k + m N / f)|^2` over the
`f x f` frequencies that alias to `k` (Zhao et al. 2016, "Fast single image super-resolution", Lemma 1).
"""

from __future__ import annotations

import torch
from torch import Tensor


def hartley(x: Tensor) -> Tensor:
    """Discrete Hartley transform `Re F x - Im F x`, orthonormal and its own inverse: `(..., H, W)` real to real.

    It diagonalises every circular filter with a real spectrum.
    """
    X = torch.fft.fft2(x, norm="ortho")
    return X.real - X.imag


def impulse_response(kernel: Tensor, size: tuple[int, int], factor: int = 1) -> Tensor:
    """The kernel on the picture's grid, wrapped around: `(kh, kw) -> (H, W)`, float64.

    The kernel's centre is put on the centre of the first `factor x factor` block (half-pixel alignment); where parities
    do not allow it, half a pixel towards the start. For `factor = 1` the centre is entry `(kh // 2, kw // 2)`.
    """
    out = torch.zeros(size, dtype=torch.float64)
    rows, columns = (
        (torch.arange(k) - (k - 1 - (k - factor) // 2)) % n for k, n in zip(kernel.shape, size, strict=True)
    )
    return out.index_put_((rows[:, None], columns[None]), kernel.double(), accumulate=True)


def half(spectrum: Tensor) -> Tensor:
    """What `rfft2` keeps of a full spectrum, as real numbers `(H, W // 2 + 1, 2)`.

    Real, so that a module's `.to(dtype)` cannot throw the imaginary part away.
    """
    return torch.view_as_real(spectrum[..., : spectrum.shape[-1] // 2 + 1].contiguous())


def as_complex(spectrum: Tensor, like: Tensor) -> Tensor:
    """A stored spectrum in the precision and on the device of `like`."""
    return torch.view_as_complex(spectrum.to(like))


def filter2(x: Tensor, spectrum: Tensor) -> Tensor:
    """Multiply the half spectrum of `x` by `spectrum`, real or complex: `(..., H, W) -> (..., H, W)`."""
    return torch.fft.irfft2(torch.fft.rfft2(x) * spectrum, s=x.shape[-2:])


def filter_down(x: Tensor, otf: Tensor, factor: int) -> Tensor:
    """`filter2` and every `factor`-th pixel: `(..., H, W) -> (..., H / factor, W / factor)`."""
    if factor == 1:
        return filter2(x, otf)
    H, W = x.shape[-2:]
    X = torch.fft.rfft2(x) * otf
    X = X.unflatten(-2, (factor, H // factor)).sum(-3) / factor  # rows alias
    return torch.fft.irfft2(X, s=(H // factor, W))[..., ::factor]


def filter_up(y: Tensor, otf: Tensor, factor: int) -> Tensor:
    """The transpose of `filter_down`."""
    if factor == 1:
        return filter2(y, otf.conj())
    h, w = y.shape[-2:]
    x = y.new_zeros(*y.shape[:-1], w, factor)
    x[..., 0] = y
    X = torch.fft.rfft2(x.flatten(-2)).repeat(*(1,) * (y.ndim - 2), factor, 1) * otf.conj()
    return torch.fft.irfft2(X, s=(h * factor, w * factor))


def factorise(response: Tensor, factor: int, zero: float) -> tuple[Tensor, Tensor, Tensor]:
    """Split filter-and-decimate into `S W`.

    Args:
        response: `(H, W)`, the impulse response.
        zero: singular values below this share of the largest count as zero.

    Returns:
        The full spectra of the filter `(H, W)`, of the filter of `W` `(H, W)`, and of `S`, `(H / factor, W / factor)`,
        real and non-negative. Where `S` is zero, `W` is plain decimation.
    """
    H, W = response.shape
    otf = torch.fft.fft2(response)
    power = otf.abs().square().reshape(factor, H // factor, factor, W // factor).mean((0, 2))
    s = power.sqrt()
    s = torch.where(s > zero * s.max(), s, 0.0)
    tiled = s.repeat(factor, factor)
    return otf, torch.where(tiled > 0, otf / tiled, 1.0), s

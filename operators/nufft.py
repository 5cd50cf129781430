"""Scans off the grid: radial, spiral, any trajectory, by finufft (Barnett, Magland, af Klinteberg 2019).

A trajectory is `(M, 2)`, y before x, in cycles per pixel, from -1/2 to 1/2: the point `k = (j - n // 2) / n` of each
axis is entry `j` of `operators.mri.FFT2`. finufft runs on the processor; tensors that live elsewhere are carried there
and back. `normal`, and so every iteration of `solve`, is padded fast Fourier transforms (Toeplitz) and stays there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators.base import LinearOperator, Shape, ShapeError, check_weights
from operators.mri import Coils, _Encoding, solve_complex, to_channels, to_complex


class NUFFT(LinearOperator):
    """The Fourier transform of complex images at any points, `(C, H, W) -> (C, M)`, scaled as `FFT2`.

    `y_m = sum_p x_p exp(-2 pi i k_m . (p - n // 2)) / sqrt(H W)`, to 1e-6 in single, 1e-12 in double precision.

    Args:
        trajectory: `(M, 2)`, y before x, in cycles per pixel.
        ishape: `(C, H, W)`, `C` even: real and imaginary parts in turn.

    Raises:
        ImportError: finufft is not installed.
        ShapeError: the trajectory is not `(M, 2)`, or the number of channels is odd.
        ValueError: points that are NaN, or outside of -1/2 to 1/2: not in cycles per pixel.
    """

    def __init__(self, trajectory: Tensor, ishape: Shape):
        trajectory = check_trajectory(trajectory)
        if len(ishape) != 3 or ishape[0] % 2:
            raise ShapeError(f"NUFFT takes complex images as (2 N, H, W), got {tuple(ishape)}")
        super().__init__(ishape, (ishape[0], len(trajectory)))
        self.register_buffer("trajectory", trajectory)
        self.trajectory: Tensor
        H, W = self.ishape[-2:]
        ones = torch.ones(1, len(trajectory), dtype=torch.complex128, device=trajectory.device)
        psf = _type1(ones, trajectory, (2 * H, 2 * W))[0] / (H * W)  # of lags from -H to H - 1
        psf[0], psf[:, 0] = 0, 0  # lags that no two pixels have
        self.register_buffer("spectrum", torch.fft.fft2(torch.fft.ifftshift(psf)).real.contiguous())
        self.spectrum: Tensor

    def forward(self, x: Tensor) -> Tensor:
        H, W = self.ishape[-2:]
        y = _Transform.apply(to_complex(x), self.trajectory, (H, W), 2) / math.sqrt(H * W)
        return to_channels(y[..., None, :]).squeeze(-2)

    def adjoint(self, y: Tensor) -> Tensor:
        H, W = self.ishape[-2:]
        z = to_complex(y[..., None, :]).squeeze(-2)
        return to_channels(_Transform.apply(z, self.trajectory, (H, W), 1) / math.sqrt(H * W))

    def convolved(self, z: Tensor) -> Tensor:
        """`A'A z` on complex images: it depends on the difference of positions only (Fessler et al. 2005)."""
        H, W = self.ishape[-2:]
        k = torch.fft.fft2(z, s=(2 * H, 2 * W)) * self.spectrum.to(z.real)
        return torch.fft.ifft2(k)[..., :H, :W]

    def circulant(self) -> Tensor:
        """The spectrum, `(H, W)`, of the circulant matrix nearest to `A'A` (T. Chan 1988).

        As a filter `c_l = ((n - l) t_l + l t_(l - n)) / n` along an axis, from the lags `t` of `A'A`.
        """
        lags = torch.fft.ifft2(self.spectrum)
        for dim in (0, 1):
            n = lags.shape[dim] // 2
            share = (torch.arange(n, device=lags.device).double() / n).view(-1, *(1,) * (1 - dim))
            lags = (1 - share) * lags.narrow(dim, 0, n) + share * lags.narrow(dim, n, n)
        return torch.fft.fft2(lags).real.clamp(min=0)

    def normal(self, x: Tensor) -> Tensor:
        return to_channels(self.convolved(to_complex(x)))

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        return solve_complex(self.convolved, b, alpha, beta)


class SenseNUFFT(_Encoding):
    """`NUFFT @ Coils`: `(2, H, W) -> (2 N, M)`, with the Toeplitz form of `A'A` in `solve`.

    Args:
        trajectory: `(M, 2)`, y before x, in cycles per pixel.
        maps: complex sensitivities, `(N, H, W)`.

    Raises:
        ImportError, ShapeError, TypeError, ValueError: as `NUFFT` and `Coils`.
    """

    def __init__(self, trajectory: Tensor, maps: Tensor):
        coils = Coils(maps)
        nufft = NUFFT(trajectory, coils.oshape)
        super().__init__(nufft, coils)
        self.nufft = nufft
        S = coils.complex_maps(nufft.spectrum)
        seen = (S != 0).any(0)
        # The diagonal of A'A in Fourier modes: the density of the points, blurred by the spectra of the maps.
        power = torch.fft.fft2(torch.fft.fft2(S).abs().square().sum(0)).conj()
        passed = torch.fft.ifft2(torch.fft.fft2(nufft.circulant()) * power).real.clamp(min=0)
        self.register_buffer("seen", seen)
        self.register_buffer("passed", passed / (seen.numel() * seen.sum()))
        self.seen: Tensor
        self.passed: Tensor

    def convolved(self, z: Tensor) -> Tensor:
        return self.nufft.convolved(z)

    def preconditioner(self, alpha: float, beta: float) -> Callable[[Tensor], Tensor]:
        """The inverse of what `alpha A'A + beta I` does to Fourier modes, between restrictions to where a coil sees.

        Without the blur by the maps, or without the restriction, it slows conjugate gradients down.
        """
        weight = 1 / (alpha * self.passed + beta)

        def precondition(z: Tensor) -> Tensor:
            inside = torch.fft.ifft2(torch.fft.fft2(z * self.seen) * weight.to(z.real))
            return torch.where(self.seen, inside, z / beta)

        return precondition


def density(trajectory: Tensor, shape: tuple[int, int], iterations: int = 30) -> Tensor:
    """Density compensation: how much of k-space each point stands for, `(M,)`, 1 for the points of the grid.

    `A'(w y)` is the image by gridding: `A' diag(w) A` is near to `I` for a trajectory that samples all. Where `w` goes
    into a fit the noise is no longer white, so `solve` uses none.

    Args:
        trajectory: `(M, 2)`, y before x, in cycles per pixel.
        shape: `(H, W)` of the image.
        iterations: of `w <- w / (K w)`, with a positive kernel `K` one field of view wide.

    Raises:
        ImportError, ShapeError, ValueError: as `NUFFT`.

    Source: Pipe and Menon 1999, "Sampling density compensation in MRI".
    """
    trajectory = check_trajectory(trajectory)
    H, W = shape
    y, x = (1 - (2 * (torch.arange(n, device=trajectory.device) - n // 2).double() / n).abs() for n in shape)
    window = y[:, None] * x  # a triangle, whose transform sinc^2 is nowhere negative
    w = torch.ones(1, len(trajectory), dtype=torch.complex128, device=trajectory.device)
    for _ in range(iterations):
        w = w / (_type2(window * _type1(w, trajectory, shape), trajectory) / (H * W)).real
    return w[0].real


def check_trajectory(trajectory: Tensor) -> Tensor:
    """A trajectory in double precision.

    Raises:
        ShapeError: it is not `(M, 2)`, or empty.
        ValueError: points that are NaN, or outside of -1/2 to 1/2.
    """
    trajectory = torch.as_tensor(trajectory).double()
    if trajectory.ndim != 2 or trajectory.shape[1] != 2 or len(trajectory) == 0:
        raise ShapeError(f"a trajectory is (points, 2), y before x, got {tuple(trajectory.shape)}")
    top = float(trajectory.abs().max())
    if not top <= 0.5 + 1e-6:
        raise ValueError(
            f"a trajectory is in cycles per pixel, from -1/2 to 1/2, but its largest number is {top:.4g}: divide by "
            "2 pi if it is in radians, or by the size of the image if it is in cycles per field of view"
        )
    return trajectory


class _Transform(torch.autograd.Function):
    """finufft's type 2 (images to points) or 1 (points to images): each is the adjoint of the other."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, trajectory: Tensor, shape: tuple[int, int], kind: int) -> Tensor:  # type: ignore[override]
        ctx.trajectory, ctx.shape, ctx.kind = trajectory, shape, kind
        return _type2(z, trajectory) if kind == 2 else _type1(z, trajectory, shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return _Transform.apply(grad, ctx.trajectory, ctx.shape, 3 - ctx.kind), None, None, None


def _type2(z: Tensor, trajectory: Tensor) -> Tensor:
    """`sum_p z_p exp(-2 pi i k . p)`: `(..., H, W) -> (..., M)`."""
    return _finufft("nufft2d2", z.flatten(0, -3), trajectory, isign=-1).unflatten(0, z.shape[:-2])


def _type1(c: Tensor, trajectory: Tensor, shape: tuple[int, int]) -> Tensor:
    """`sum_m c_m exp(2 pi i k_m . p)`: `(..., M) -> (..., H, W)`."""
    return _finufft("nufft2d1", c.flatten(0, -2), trajectory, isign=1, n_modes=shape).unflatten(0, c.shape[:-1])


def _finufft(name: str, data: Tensor, trajectory: Tensor, **kwargs: Any) -> Tensor:
    try:
        import finufft
    except ImportError:
        raise ImportError("scans off the grid need finufft: pip install finufft") from None
    y, x = (2 * math.pi * trajectory.double()).T.contiguous().cpu().numpy()
    # In double precision for single too: points rounded to single cost a digit of the sums over large images.
    eps = 1e-12 if data.dtype == torch.complex128 else 1e-6
    array = data.detach().resolve_conj().to(torch.complex128).contiguous().cpu().numpy()
    out = getattr(finufft, name)(y, x, array, eps=eps, **kwargs, nthreads=torch.get_num_threads(), showwarn=0)
    return torch.from_numpy(out).to(data)

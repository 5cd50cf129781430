"""How a scanner sees a slice: coil sensitivities, the Fourier transform, the lines of k-space that were sampled.

Trajectories that are not on the grid are in `operators.nufft`.

A complex image is two channels, real and imaginary part; `N` coils are `2 N` channels, `(re_1, im_1, re_2, ...)`.
`H` is the axis y and `W` the axis x; k-space has its zero frequency in the middle, entry `n // 2`.

The rows of a batch share one operator. The slices of a stack have coil maps of their own, so a stack is a loop over
slices; a 3-D scan is one too, after an inverse transform along an axis that was fully sampled.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from operators import fourier
from operators.base import LinearOperator, Shape, ShapeError, check_weights
from operators.compose import compose
from operators.image import Mask
from operators.linalg import SVD, cg, tolerance

_FACTORED = 2**27  # numbers of the largest factorisation to hold: 1 GB in single precision
_ROUNDING = 1e-7  # share of the largest below which the root of an eigenvalue of A'A is rounding


def to_channels(z: Tensor) -> Tensor:
    """Complex images as real channels: `(..., N, H, W) -> (..., 2 N, H, W)`."""
    return torch.view_as_real(z.resolve_conj()).movedim(-1, -3).flatten(-4, -3)


def to_complex(x: Tensor) -> Tensor:
    """The inverse of `to_channels`: `(..., 2 N, H, W) -> (..., N, H, W)`."""
    return torch.complex(x[..., 0::2, :, :], x[..., 1::2, :, :])


class FFT2(LinearOperator):
    """The Fourier transform of complex images, centred and orthonormal: `(C, H, W) -> (C, H, W)`.

    Args:
        ishape: `(C, H, W)`, `C` even: real and imaginary parts in turn.

    Raises:
        ShapeError: the number of channels is odd.
    """

    gram = 1.0

    def __init__(self, ishape: Shape):
        if len(ishape) != 3 or ishape[0] % 2:
            raise ShapeError(
                f"FFT2 takes complex images as an even number of channels (2 N, H, W), got {tuple(ishape)}; "
                "operators.mri.to_channels makes them"
            )
        super().__init__(ishape, ishape)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.fft.ifftshift(to_complex(x), dim=(-2, -1))
        return to_channels(torch.fft.fftshift(torch.fft.fft2(z, norm="ortho"), dim=(-2, -1)))

    def adjoint(self, y: Tensor) -> Tensor:
        z = torch.fft.ifftshift(to_complex(y), dim=(-2, -1))
        return to_channels(torch.fft.fftshift(torch.fft.ifft2(z, norm="ortho"), dim=(-2, -1)))


class Coils(LinearOperator):
    """What each coil sees of a complex image, `y_c = S_c x`: `(2, H, W) -> (2 N, H, W)`.

    Args:
        maps: complex sensitivities `S`, `(N, H, W)`. Kept in their own precision, and cast to that of the argument.

    Raises:
        TypeError: the maps are not complex.
        ShapeError: the maps are not `(N, H, W)`, or there is no coil.
        ValueError: the maps hold NaN or infinite values, or are zero everywhere.
    """

    def __init__(self, maps: Tensor):
        maps = torch.as_tensor(maps)
        if not maps.is_complex():
            raise TypeError(f"coil maps are complex, got {maps.dtype}")
        if maps.ndim != 3 or len(maps) == 0:
            raise ShapeError(f"coil maps have the shape (coils, H, W), at least one coil, got {tuple(maps.shape)}")
        if not bool(torch.isfinite(torch.view_as_real(maps)).all()):
            raise ValueError("the coil maps hold NaN or infinite values")
        if not bool(maps.any()):
            raise ValueError("the coil maps are zero everywhere: no coil would see anything")
        N, H, W = maps.shape
        super().__init__((2, H, W), (2 * N, H, W))
        self.register_buffer("maps", torch.view_as_real(maps.resolve_conj()).contiguous())
        self.maps: Tensor

    def complex_maps(self, like: Tensor) -> Tensor:
        """`S`, `(N, H, W)`, in the precision and on the device of `like`."""
        return fourier.as_complex(self.maps, like)

    def power(self, like: Tensor) -> Tensor:
        """`sum_c |S_c|^2`, `(H, W)`: the diagonal of `A'A`."""
        return self.maps.double().square().sum((0, -1)).to(like)

    def forward(self, x: Tensor) -> Tensor:
        return to_channels(self.complex_maps(x) * to_complex(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return to_channels((self.complex_maps(y).conj() * to_complex(y)).sum(1, keepdim=True))

    def normal(self, x: Tensor) -> Tensor:
        return self.power(x) * x

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        return b / (alpha * self.power(b) + beta)

    def pinv(self, y: Tensor) -> Tensor:
        d = self.power(y)
        return self.adjoint(y) * torch.where(d > 0, 1 / d, 0.0)

    def svd(self) -> SVD:
        """One singular value `sqrt(sum_c |S_c|^2)` for each number of a pixel that some coil sees."""
        s = self.power(torch.empty(0, dtype=torch.float64)).sqrt().expand(self.ishape).flatten()
        kept = s.nonzero().flatten().to(self.maps.device)
        return _svd_of_normal(self, s, kept, V=lambda z: z.unflatten(1, self.ishape), Vt=lambda x: x.flatten(1))


class _Encoding(LinearOperator):
    """`transform @ Coils`, where the normal operator of the transform is a convolution of complex images."""

    def __init__(self, transform: LinearOperator, coils: Coils):
        full = compose(transform, coils)
        super().__init__(full.ishape, full.oshape)
        self.full, self.coils = full, coils

    @abstractmethod
    def convolved(self, z: Tensor) -> Tensor:
        """The convolution, `(B, N, H, W) -> (B, N, H, W)`, complex."""

    def preconditioner(self, alpha: float, beta: float) -> Callable[[Tensor], Tensor]:
        """An approximation of `(alpha A'A + beta I)^-1` on complex images."""
        return lambda z: z

    def forward(self, x: Tensor) -> Tensor:
        return self.full.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.full.adjoint(y)

    def normal(self, x: Tensor) -> Tensor:
        return to_channels(self._normal(self.coils.complex_maps(x), to_complex(x)))

    def _normal(self, S: Tensor, z: Tensor) -> Tensor:
        return (S.conj() * self.convolved(S * z)).sum(1, keepdim=True)

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        S = self.coils.complex_maps(b)
        return solve_complex(lambda z: self._normal(S, z), b, alpha, beta, self.preconditioner(alpha, beta))


def solve_complex(
    normal: Callable[[Tensor], Tensor],
    b: Tensor,
    alpha: float,
    beta: float,
    precondition: Callable[[Tensor], Tensor] = lambda z: z,
) -> Tensor:
    """`(alpha A'A + beta I)^-1 b` by conjugate gradients, for `A'A` on complex images: real in, real out.

    Raises:
        ConvergenceError: as `cg`.
    """

    def matvec(v: Tensor) -> Tensor:  # (B, N, H, W, 2): complex numbers without a copy
        return torch.view_as_real(normal(torch.view_as_complex(v))).mul_(alpha).add_(v, alpha=beta)

    x = cg(
        matvec,
        torch.view_as_real(to_complex(b)),
        precondition=lambda v: torch.view_as_real(precondition(torch.view_as_complex(v))),
    )
    return to_channels(torch.view_as_complex(x))


class Sense(_Encoding):
    """`Mask @ FFT2 @ Coils` for any mask; made by `sense`.

    `solve` runs conjugate gradients on complex images. Neither the shifts nor the axes along which the mask is constant
    matter to `A'A`, so neither is computed. There is no preconditioner: a circulant one (Koolstra et al. 2019,
    "Accelerating compressed sensing in parallel imaging reconstructions using an efficient circulant preconditioner
    for Cartesian trajectories") was measured, and on maps that are zero outside the head it takes more iterations.

    Args:
        mask: boolean, `(H, W)`.
        maps: complex, `(N, H, W)`.
    """

    def __init__(self, mask: Tensor, maps: Tensor):
        coils = Coils(maps)
        super().__init__(compose(Mask(mask, channels=coils.oshape[0]), FFT2(coils.oshape)), coils)
        self.register_buffer("kept", torch.fft.ifftshift(mask))
        self.kept: Tensor
        self.axes = tuple(axis for axis in (-2, -1) if bool((mask != mask.select(axis, 0).unsqueeze(axis)).any()))

    def convolved(self, z: Tensor) -> Tensor:
        return torch.fft.ifftn(torch.fft.fftn(z, dim=self.axes) * self.kept, dim=self.axes)


class SenseLines(Sense):
    """`Sense` where whole lines were sampled, with its SVD; made by `sense`.

    The transform along the lines is a rotation and drops out of `A'A`, which becomes one Hermitian matrix for each
    position `q` along them, `K_q = sum_c S_c' C S_c` with `C` the circular convolution that the sampled lines are.
    Their eigenvectors are computed when the operator is made (3 s and 134 MB for 256 x 256 in single precision); then
    `solve`, `pull`, `pinv` and `svd` are two products with them, whatever the noise, for all draws at once.
    """

    def __init__(self, mask: Tensor, maps: Tensor):
        super().__init__(mask, maps)
        (self.axis,) = self.axes  # along which lines are missing
        S = self.coils.complex_maps(torch.empty(0, dtype=torch.float64)).movedim(self.axis, 0).movedim(-1, 0)
        S = S.transpose(1, 2)  # (q, N, p)
        n = S.shape[-1]
        psf = torch.fft.ifft(self.kept.select(-1 if self.axis == -2 else -2, 0).double())
        p = torch.arange(n, device=S.device)
        C = psf[(p[:, None] - p) % n]
        V, s = [], []
        for part in S.split(16):  # a few positions at a time, for the memory
            values, vectors = torch.linalg.eigh(part.mH @ part * C)
            V.append(torch.view_as_real(vectors).to(self.coils.maps.dtype))
            s.append(values.clamp(min=0).sqrt())
        self.register_buffer("V", torch.cat(V))  # (q, p, mode, 2)
        self.register_buffer("s", torch.cat(s))  # (q, mode)
        self.V: Tensor
        self.s: Tensor

    def to_modes(self, x: Tensor) -> Tensor:
        """`V' x`: `(B, 2, H, W) -> (q, B, mode)`, complex."""
        z = to_complex(x)[:, 0].movedim(self.axis, -1).transpose(0, 1)
        return z @ fourier.as_complex(self.V, x).conj()

    def from_modes(self, z: Tensor, like: Tensor) -> Tensor:
        """`V z`: `(q, B, mode) -> (B, 2, H, W)`."""
        x = (z @ fourier.as_complex(self.V, like).mT).transpose(0, 1)
        return to_channels(x.movedim(-1, self.axis)[:, None])

    def filtered(self, x: Tensor, weight: Tensor) -> Tensor:
        """`V diag(weight) V' x` for a weight of each mode, `(q, mode)`."""
        return self.from_modes(self.to_modes(x) * weight[:, None].to(x), x)

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        return self.filtered(b, 1 / (alpha * self.s.square() + beta))

    def pull(self, r: Tensor, beta: float) -> Tensor:
        return self.filtered(self.adjoint(r), 1 / (self.s.square() + beta))

    def pinv(self, y: Tensor) -> Tensor:
        """As in the base class; singular values below `tolerance(y.dtype)` times the largest count as zero."""
        seen = self.s > max(tolerance(y.dtype), _ROUNDING) * self.s.max()
        return self.filtered(self.adjoint(y), torch.where(seen, 1 / self.s.square(), 0.0))

    def svd(self) -> SVD:
        s = torch.where(self.s > _ROUNDING * self.s.max(), self.s, 0.0)
        s = s[..., None].expand(*s.shape, 2).flatten()
        kept = s.nonzero().flatten()

        def V(z: Tensor) -> Tensor:
            modes = torch.view_as_complex(z.reshape(len(z), *self.s.shape, 2))
            return self.from_modes(modes.transpose(0, 1), z)

        def Vt(x: Tensor) -> Tensor:
            return torch.view_as_real(self.to_modes(x).transpose(0, 1).contiguous()).flatten(1)

        return _svd_of_normal(self, s, kept, V, Vt)


def sense(mask: Tensor, maps: Tensor | None = None) -> LinearOperator:
    """The operator of a Cartesian scan, `Mask @ FFT2 @ Coils`: `(2, H, W) -> (2 N, M)` with `M` sampled points.

    `solve` is in closed form for one coil without maps, for whole lines, and for a mask that keeps all; else conjugate
    gradients.

    Args:
        mask: boolean, `(H, W)`, true where k-space was sampled, zero frequency in the middle.
        maps: complex sensitivities, `(N, H, W)`; `None` is one coil that sees all alike.

    Raises:
        TypeError: the mask is not boolean, or the maps are not complex.
        ShapeError: the mask is not `(H, W)`, or the maps are not `(N, H, W)` of the same size.
        ValueError: the mask keeps nothing, or the maps are NaN, infinite, or zero everywhere.
    """
    mask = torch.as_tensor(mask)
    if mask.ndim != 2:
        raise ShapeError(f"the mask has the shape (H, W), the same for all coils, got {tuple(mask.shape)}")
    if maps is None:
        return compose(Mask(mask, channels=2), FFT2((2, *mask.shape)))
    maps = torch.as_tensor(maps)
    if maps.ndim != 3 or maps.shape[1:] != mask.shape:
        raise ShapeError(
            f"the mask {tuple(mask.shape)} does not match the coil maps {tuple(maps.shape)}: both are of one size, "
            "(H, W) and (coils, H, W)"
        )
    if bool(mask.all()):  # a rotation after the coils, whose closed form the composition finds
        coils = Coils(maps)
        return compose(Mask(mask, channels=coils.oshape[0]), compose(FFT2(coils.oshape), coils))
    operator = Sense(mask, maps)
    if len(operator.axes) == 1 and mask.numel() * mask.shape[operator.axes[0]] <= _FACTORED:
        return SenseLines(mask, maps)
    return operator


def _svd_of_normal(
    A: LinearOperator, s: Tensor, kept: Tensor, V: Callable[[Tensor], Tensor], Vt: Callable[[Tensor], Tensor]
) -> SVD:
    """The SVD of `A` from the eigenvectors `V` of `A'A = V diag(s^2) V'`: those `kept`, whose `s` is not zero."""
    s, all_modes = s[kept], len(s)

    def spread(z: Tensor) -> Tensor:
        return V(z.new_zeros(len(z), all_modes).index_copy_(1, kept, z))

    return SVD(
        s=s,
        U=lambda z: A.forward(spread(z / s.to(z))),
        Ut=lambda y: Vt(A.adjoint(y))[:, kept] / s.to(y),
        V=spread,
        Vt=lambda x: Vt(x)[:, kept],
    )

"""How pictures are damaged: missing pixels, blur, low resolution. Pictures are `(C, H, W)`."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from operators import fourier, kernels
from operators.base import LinearOperator, Shape, ShapeError, check_weights
from operators.linalg import SVD, tolerance

_ZERO = 1e-12  # singular values below this share of the largest are rounding, and count as zero


class Mask(LinearOperator):
    """Keep some of the entries of a signal, `y = x[kept]`: a restriction, so what is missing is not in `y`.

    Args:
        mask: boolean, true where the entry is kept. Of shape `ishape`, giving `y` of shape `(B, n)`; or, with
            `channels`, of the shape of one channel, giving `y` of shape `(B, channels, n)`.
        channels: the number of channels that share the mask.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: the mask keeps nothing.
    """

    gram = 1.0

    def __init__(self, mask: Tensor, channels: int | None = None):
        mask = torch.as_tensor(mask)
        if mask.dtype != torch.bool:
            raise TypeError(f"the mask must be boolean (true = kept), got {mask.dtype}; compare it, as in mask > 0.5")
        kept = mask.flatten().nonzero().flatten()
        if len(kept) == 0:
            raise ValueError(
                f"the mask {tuple(mask.shape)} keeps nothing: all is missing, so there is nothing to restore from "
                "(is the mask inverted?)"
            )
        lead = () if channels is None else (channels,)
        super().__init__((*lead, *mask.shape), (*lead, len(kept)))
        self.register_buffer("kept", kept)
        self.kept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(len(self.oshape)).index_select(-1, self.kept)

    def adjoint(self, y: Tensor) -> Tensor:
        n = int(torch.Size(self.ishape[len(self.oshape) - 1 :]).numel())
        x = y.new_zeros(*y.shape[:-1], n).index_copy(-1, self.kept, y)
        return x.reshape(-1, *self.ishape)


class _CircularFilter(LinearOperator):
    """A circular filter followed by decimation, with everything in closed form; see `operators.fourier`."""

    def __init__(self, kernel: Tensor, ishape: Shape, factor: int):
        H, W = ishape[-2:]
        super().__init__(ishape, (*ishape[:-2], H // factor, W // factor))
        self.factor = factor
        response = fourier.impulse_response(kernel, (H, W), factor)
        otf, rows, s = fourier.factorise(response, factor, _ZERO)
        for name, value in {"otf": fourier.half(otf), "rows": fourier.half(rows), "s": s}.items():
            self.register_buffer(name, value)
        self.otf: Tensor
        self.rows: Tensor
        self.s: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return fourier.filter_down(x, fourier.as_complex(self.otf, x), self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        return fourier.filter_up(y, fourier.as_complex(self.otf, y), self.factor)

    def _half_s(self) -> Tensor:
        return self.s[:, : self.s.shape[1] // 2 + 1]

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        check_weights(alpha, beta)
        power = self._half_s() ** 2
        if self.factor == 1:
            return fourier.filter2(b, (1 / (alpha * power + beta)).to(b))
        low = fourier.filter2(self.forward(b), (alpha / (alpha * power + beta)).to(b))
        return (b - self.adjoint(low)) / beta

    def pinv(self, y: Tensor) -> Tensor:
        s = self._half_s()
        inverse = torch.where(s > tolerance(y.dtype) * s.max(), 1 / s, 0.0)
        rows = fourier.as_complex(self.rows, y)
        if self.factor == 1:
            return fourier.filter2(y, rows.conj() * inverse.to(y))
        return fourier.filter_up(fourier.filter2(y, inverse.to(y)), rows, self.factor)

    def svd(self) -> SVD:
        shape = self.oshape
        channels = int(torch.Size(shape[:-2]).numel())

        def U(z: Tensor) -> Tensor:
            return fourier.hartley(z.reshape(-1, *shape))

        def Ut(y: Tensor) -> Tensor:
            return fourier.hartley(y).flatten(1)

        return SVD(
            s=self.s.flatten().repeat(channels),
            U=U,
            Ut=Ut,
            V=lambda z: fourier.filter_up(U(z), fourier.as_complex(self.rows, z), self.factor),
            Vt=lambda x: Ut(fourier.filter_down(x, fourier.as_complex(self.rows, x), self.factor)),
        )


class Blur(LinearOperator):
    """Convolution of each channel with a point spread function.

    Args:
        kernel: `(kh, kw)`; its centre is entry `(kh // 2, kw // 2)`. Used as given: make it sum to one.
        ishape: `(C, H, W)` of the unknown sharp picture.
        boundary: `circular`: the picture continues on its other side, `y` has the size of `x`, all is closed form.
            `valid`: the photograph sees a part of the scene: `y` is `(C, H - kh + 1, W - kw + 1)`, `x` reaches beyond
            it by the kernel, `frame` is where. `solve` and `pinv` are then iterative.

    Raises:
        ShapeError: the kernel is not two-dimensional or larger than the picture.
        ValueError: an unknown boundary.
    """

    def __init__(self, kernel: Tensor, ishape: Shape, boundary: Literal["circular", "valid"] = "circular"):
        kernel = _check_kernel(kernel, ishape)
        if boundary not in ("circular", "valid"):
            raise ValueError(f"boundary must be 'circular' or 'valid', got {boundary!r}")
        (kh, kw), (*lead, H, W) = kernel.shape, ishape
        if boundary == "circular":
            frame = (slice(0, H), slice(0, W))
        else:
            frame = (slice(kh - 1 - kh // 2, H - kh // 2), slice(kw - 1 - kw // 2, W - kw // 2))
        super().__init__(ishape, (*lead, frame[0].stop - frame[0].start, frame[1].stop - frame[1].start))
        self.boundary, self.frame = boundary, frame
        self.circular = _CircularFilter(kernel, ishape, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.circular.forward(x)[..., self.frame[0], self.frame[1]]

    def adjoint(self, y: Tensor) -> Tensor:
        if self.boundary == "valid":
            (top, bottom), (left, right) = (
                (s.start, n - s.stop) for s, n in zip(self.frame, self.ishape[-2:], strict=True)
            )
            y = F.pad(y, (left, right, top, bottom))
        return self.circular.adjoint(y)

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        return self.circular.solve(b, alpha, beta) if self.boundary == "circular" else super().solve(b, alpha, beta)

    def pinv(self, y: Tensor) -> Tensor:
        return self.circular.pinv(y) if self.boundary == "circular" else super().pinv(y)

    def svd(self) -> SVD | None:
        return self.circular.svd() if self.boundary == "circular" else None


class Downsample(_CircularFilter):
    """Circular filter, then every `factor`-th pixel; the pixels of `y` sit on the centres of blocks of `x`.

    Args:
        ishape: `(C, H, W)` of the large picture.
        factor: how many times smaller `y` is, in each direction.
        kernel: `block`: the mean of each block. `bicubic`: cubic with antialiasing, the weights of `imresize`. Or any
            `(kh, kw)` tensor, used as given.

    Raises:
        ShapeError: the picture's size is not a multiple of `factor`, or the kernel does not fit it.
        ValueError: an unknown kernel or a factor below one.
    """

    def __init__(self, ishape: Shape, factor: int, kernel: Literal["block", "bicubic"] | Tensor = "bicubic"):
        if int(factor) != factor or factor < 1:
            raise ValueError(f"the factor must be a whole number of at least 1, got {factor}")
        H, W = ishape[-2:]
        if H % factor or W % factor:
            raise ShapeError(
                f"a picture of {H} x {W} pixels cannot be made {factor} times smaller: crop it to "
                f"{H // factor * factor} x {W // factor * factor}"
            )
        if isinstance(kernel, str):
            if kernel not in ("block", "bicubic"):
                raise ValueError(f"kernel must be 'block', 'bicubic' or a (kh, kw) tensor, got {kernel!r}")
            weights = kernels.block(factor) if kernel == "block" else kernels.bicubic(factor)
        else:
            weights = _check_kernel(kernel, ishape)
        super().__init__(weights, ishape, int(factor))
        if isinstance(kernel, str) and kernel == "block":
            self.gram = 1 / factor**2


def _check_kernel(kernel: Tensor, ishape: Shape) -> Tensor:
    kernel = torch.as_tensor(kernel)
    if kernel.ndim != 2 or len(ishape) < 2:
        raise ShapeError(f"a (kh, kw) kernel and (C, H, W) pictures are needed, got {tuple(kernel.shape)} and {ishape}")
    (kh, kw), (H, W) = kernel.shape, ishape[-2:]
    if kh > H or kw > W:
        raise ShapeError(f"the kernel ({kh} x {kw}) is larger than the picture ({H} x {W}): crop the kernel")
    return kernel.double()

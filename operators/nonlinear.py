"""Damage that is not linear: clipping, quantisation, JPEG, lost phase."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.base import Operator, Shape, ShapeError


class Clip(Operator):
    """Saturation, `y = min(max(x, lo), hi)`.

    Args:
        ishape: of the signal.
        lo, hi: the ends of the range.

    Raises:
        ValueError: the range is empty.
    """

    def __init__(self, ishape: Shape, lo: float = 0.0, hi: float = 1.0):
        _check_range(lo, hi)
        super().__init__(ishape, ishape)
        self.lo, self.hi = lo, hi

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.lo, self.hi)


class Quantize(Operator):
    """Rounding to `2^bits` equally spaced levels from `lo` to `hi`, after clipping to them.

    The gradient passes straight through the rounding (Bengio et al. 2013), and is zero where the signal is clipped.

    Args:
        ishape: of the signal.
        bits: 1 to 16.
        lo, hi: the lowest and the highest level.

    Raises:
        ValueError: `bits` is not a whole number from 1 to 16, or the range is empty.
    """

    def __init__(self, ishape: Shape, bits: int = 8, lo: float = 0.0, hi: float = 1.0):
        if bits not in range(1, 17):
            raise ValueError(f"bits must be a whole number from 1 to 16, got {bits}")
        _check_range(lo, hi)
        super().__init__(ishape, ishape)
        self.lo, self.hi, self.levels = lo, hi, 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        scale = self.levels / (self.hi - self.lo)
        z = x.clamp(self.lo, self.hi).sub_(self.lo).mul_(scale)  # in place on a tensor of our own
        return _StraightThrough.apply(z).div_(scale).add_(self.lo)


class _StraightThrough(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


class JPEG(Operator):
    """JPEG compression of pictures in [0, 1], differentiable.

    Sizes that are not a multiple of 16 are padded with their edge inside, as an encoder does.

    Args:
        ishape: `(3, H, W)` in colour, `(1, H, W)` in grey.
        quality: 1 to 100.

    Raises:
        ShapeError: the picture does not have one or three channels.
        ValueError: the quality is out of range.

    Source: kornia's codec, after Reich et al. 2024, "Differentiable JPEG: the devil is in the details".
    """

    def __init__(self, ishape: Shape, quality: float = 30.0):
        if len(ishape) != 3 or ishape[0] not in (1, 3):
            raise ShapeError(f"JPEG takes pictures of shape (1, H, W) or (3, H, W), got {tuple(ishape)}")
        if not 1 <= quality <= 100:
            raise ValueError(f"JPEG quality goes from 1 to 100, got {quality}")
        super().__init__(ishape, ishape)
        self.quality = quality

    def forward(self, x: Tensor) -> Tensor:
        from kornia.enhance import jpeg_codec_differentiable  # slow to import

        C, H, W = self.ishape
        padded = F.pad(x, (0, -W % 16, 0, -H % 16), mode="replicate").expand(-1, 3, -1, -1)
        y = jpeg_codec_differentiable(padded, padded.new_tensor([self.quality]))[..., :H, :W]
        return y if C == 3 else y.mean(1, keepdim=True)


class Magnitude(Operator):
    """Phase retrieval, `y = |F pad(x)|`: the modulus of the orthonormal 2-D Fourier transform, zero frequency first.

    Args:
        ishape: `(C, H, W)`.
        oversampling: the picture is zero-padded to this many times its size (rounded up) on each axis; from 2 on, `y`
            determines the autocorrelation of `x`.

    Raises:
        ValueError: the oversampling is below one.
    """

    def __init__(self, ishape: Shape, oversampling: float = 2.0):
        if not (oversampling >= 1 and math.isfinite(oversampling)):
            raise ValueError(f"oversampling must be at least 1, got {oversampling}")
        super().__init__(ishape, (*ishape[:-2], *(math.ceil(oversampling * n) for n in ishape[-2:])))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, s=self.oshape[-2:], norm="ortho").abs()  # abs has gradient zero at zero


def _check_range(lo: float, hi: float) -> None:
    if not lo < hi:
        raise ValueError(f"the range needs lo < hi, got lo={lo}, hi={hi}")

"""How pictures `(C, H, W)` are damaged: missing pixels, blur, low resolution, no colour, few coefficients."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from operators import filters, fourier, kernels, valid
from operators.base import LinearOperator, Shape, ShapeError
from operators.linalg import SVD

_DENSE = 512  # pixels a side up to which products with dense matrices beat fast transforms (measured on a CPU)


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
        self.size = mask.numel()
        self.register_buffer("kept", kept)
        self.register_buffer("mask", mask)
        self.kept: Tensor
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(len(self.oshape))
        return x.gather(-1, self.kept.expand(*x.shape[:-1], -1))  # ten times as fast on a CPU as index_select

    def adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(*y.shape[:-1], self.size).index_copy_(-1, self.kept, y)
        return x.reshape(-1, *self.ishape)

    def normal(self, x: Tensor) -> Tensor:
        return x * self.mask.to(x)

    def response(self) -> Tensor | None:
        if len(self.ishape) != 3:
            return None
        return torch.full((1, 1), self.oshape[-1] / self.size, dtype=torch.float64, device=self.kept.device)


class _Delegate(LinearOperator):
    """An operator that picks, when it is made, the form it computes with."""

    def __init__(self, core: LinearOperator):
        super().__init__(core.ishape, core.oshape)
        self.core, self.gram, self.shift_invariant = core, core.gram, core.shift_invariant

    def forward(self, x: Tensor) -> Tensor:
        return self.core.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.core.adjoint(y)

    def solve(self, b: Tensor, alpha: float, beta: float) -> Tensor:
        return self.core.solve(b, alpha, beta)

    def normal(self, x: Tensor) -> Tensor:
        return self.core.normal(x)

    def pull(self, r: Tensor, beta: float) -> Tensor:
        return self.core.pull(r, beta)

    def response(self) -> Tensor | None:
        return self.core.response()

    def pinv(self, y: Tensor) -> Tensor:
        return self.core.pinv(y)

    def svd(self) -> SVD | None:
        return self.core.svd()


class Blur(_Delegate):
    """Convolution of each channel with a point spread function.

    Args:
        kernel: `(kh, kw)`; its middle is entry `(kh // 2, kw // 2)`. Used as given: make it sum to one.
        ishape: `(C, H, W)` of the unknown sharp picture.
        boundary: `circular`: the picture continues on its other side, `y` has the size of `x`, all is closed form.
            `valid`: the photograph sees a part of the scene: `y` is `(C, H - kh + 1, W - kw + 1)`, `x` reaches beyond
            it by the kernel. Closed form for separable kernels (a Gaussian), conjugate gradients for others.

    Attributes:
        frame: the rows and columns of `x` that `y` shows.

    Raises:
        ShapeError: the kernel is not two-dimensional, or larger than the picture.
        ValueError: an unknown boundary.
    """

    def __init__(self, kernel: Tensor, ishape: Shape, boundary: Literal["circular", "valid"] = "circular"):
        kernel = _check_kernel(kernel, ishape)
        if boundary == "circular":
            super().__init__(filters.CircularFilter(kernel, ishape))
            self.frame = (slice(0, ishape[-2]), slice(0, ishape[-1]))
        elif boundary == "valid":
            super().__init__(filters.cropped(kernel, ishape) or valid.ValidFilter(kernel, ishape))
            self.frame = valid.frame(kernel, ishape)
        else:
            raise ValueError(f"boundary must be 'circular' or 'valid', got {boundary!r}")


class Downsample(_Delegate):
    """Circular filter, then every `factor`-th pixel; the pixels of `y` sit on the centres of blocks of `x`.

    Args:
        ishape: `(C, H, W)` of the large picture.
        factor: how many times smaller `y` is, in each direction.
        kernel: `block`: the mean of each block. `bicubic`: cubic with antialiasing, the weights of `imresize`. Or any
            `(kh, kw)` tensor, used as given.

    Raises:
        ShapeError: the picture's size is not a multiple of `factor`, or the kernel does not fit it.
        ValueError: an unknown kernel, or a factor that is not a whole number of at least one.
    """

    def __init__(self, ishape: Shape, factor: int, kernel: Literal["block", "bicubic"] | Tensor = "bicubic"):
        if int(factor) != factor or factor < 1:
            raise ValueError(f"the factor must be a whole number of at least 1, got {factor}")
        factor = int(factor)
        H, W = ishape[-2:]
        if H % factor or W % factor:
            raise ShapeError(
                f"a picture of {H} x {W} pixels cannot be made {factor} times smaller: crop it to "
                f"{H // factor * factor} x {W // factor * factor}"
            )
        if isinstance(kernel, Tensor):
            super().__init__(filters.decimated(_check_kernel(kernel, ishape), ishape, factor))
        elif kernel == "block":
            super().__init__(BlockMean(ishape, factor))
        elif kernel == "bicubic":
            super().__init__(filters.decimated(kernels.bicubic(factor), ishape, factor))
        else:
            raise ValueError(f"kernel must be 'block', 'bicubic' or a (kh, kw) tensor, got {kernel!r}")


class BlockMean(LinearOperator):
    """The mean of each `factor x factor` block."""

    def __init__(self, ishape: Shape, factor: int):
        super().__init__(ishape, (*ishape[:-2], ishape[-2] // factor, ishape[-1] // factor))
        self.factor, self.gram = factor, 1 / factor**2

    def forward(self, x: Tensor) -> Tensor:
        f = self.factor
        for dim in (-2, -1):  # sums of slices: faster on a CPU than pooling or a mean over split axes
            x = functools.reduce(torch.add, x.unflatten(dim, (-1, f)).unbind(dim))
        return x / f**2

    def adjoint(self, y: Tensor) -> Tensor:
        return (y / self.factor**2).repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)


class Grayscale(LinearOperator):
    """A weighted sum of the channels, `y = sum_c weights[c] x_c`: to be undone by colourisation.

    Args:
        ishape: `(C, H, W)`.
        weights: one per channel; the default is luma, ITU-R BT.601.

    Raises:
        ShapeError: there is not one weight per channel.
        ValueError: all weights are zero.
    """

    def __init__(self, ishape: Shape, weights: Sequence[float] = (0.299, 0.587, 0.114)):
        if len(weights) != ishape[0]:
            raise ShapeError(f"{len(weights)} weights were given for {ishape[0]} channels; give one per channel")
        if not any(weights):
            raise ValueError("all weights are zero: nothing would be measured")
        super().__init__(ishape, (1, *ishape[1:]))
        self.weights = tuple(map(float, weights))
        self.gram = sum(w * w for w in self.weights)

    def forward(self, x: Tensor) -> Tensor:
        return (x.new_tensor(self.weights)[None] @ x.flatten(2)).unflatten(2, self.ishape[1:])

    def adjoint(self, y: Tensor) -> Tensor:
        return y * y.new_tensor(self.weights).view(-1, *(1,) * (y.ndim - 2))


class SubsampledOrthogonal(LinearOperator):
    """Compressed sensing: some of the coefficients of an orthonormal transform of each channel.

    Args:
        ishape: `(C, H, W)`; powers of two for `hadamard`, any size for `dct`.
        transform: `dct`, two-dimensional DCT-II; `hadamard`, Walsh-Hadamard in natural order.
        fraction: the share of coefficients kept, chosen uniformly at random with `seed`.
        seed: of the choice.
        indices: which coefficients of the flattened `(H, W)` to keep, instead of a random choice.

    Raises:
        ShapeError: a size is not a power of two for `hadamard`.
        ValueError: an unknown transform, a fraction that keeps nothing, or indices repeated or out of range.
    """

    gram = 1.0

    def __init__(
        self,
        ishape: Shape,
        transform: Literal["dct", "hadamard"] = "dct",
        fraction: float = 0.5,
        seed: int = 0,
        indices: Tensor | None = None,
    ):
        H, W = ishape[-2:]
        n = H * W
        if transform not in ("dct", "hadamard"):
            raise ValueError(f"transform must be 'dct' or 'hadamard', got {transform!r}")
        if transform == "hadamard" and n & (n - 1):
            raise ShapeError(f"the Hadamard transform needs sizes that are powers of two, got {H} x {W}; use 'dct'")
        if indices is None:
            count = round(fraction * n)
            if not 1 <= count <= n:
                raise ValueError(f"fraction must keep between 1 and all of {n} coefficients, got {fraction}")
            indices = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:count].sort().values
        indices = torch.as_tensor(indices)
        if len(indices) == 0 or len(indices.unique()) < len(indices) or indices.min() < 0 or indices.max() >= n:
            raise ValueError(f"indices must be distinct and between 0 and {n - 1}, and at least one")
        super().__init__(ishape, (*ishape[:-2], len(indices)))
        self.transform = transform
        self.register_buffer("indices", indices)
        self.indices: Tensor
        # On small pictures products with the dense matrices of the transform are faster than the fast transform.
        for name, n in (("rows", H), ("columns", W)):
            one = fourier.dct if transform == "dct" else fourier.hadamard
            self.register_buffer(name, one(torch.eye(n, dtype=torch.float64)).T if max(H, W) <= _DENSE else None)
        self.rows: Tensor | None
        self.columns: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        if self.rows is not None and self.columns is not None:
            z = (self.rows.to(x) @ x @ self.columns.to(x).T).flatten(-2)
        elif self.transform == "hadamard":
            z = fourier.hadamard(x.flatten(-2))
        else:
            z = fourier.dct(fourier.dct(x), -2).flatten(-2)
        return z.gather(-1, self.indices.expand(*z.shape[:-1], -1))

    def adjoint(self, y: Tensor) -> Tensor:
        H, W = self.ishape[-2:]
        z = y.new_zeros(*y.shape[:-1], H * W).index_copy_(-1, self.indices, y)
        if self.rows is not None and self.columns is not None:
            return self.rows.to(y).T @ z.unflatten(-1, (H, W)) @ self.columns.to(y)
        if self.transform == "hadamard":
            return fourier.hadamard(z).unflatten(-1, (H, W))
        return fourier.idct(fourier.idct(z.unflatten(-1, (H, W)), -2))


def _check_kernel(kernel: Tensor, ishape: Shape) -> Tensor:
    kernel = torch.as_tensor(kernel).double()
    if kernel.ndim != 2 or len(ishape) < 2:
        raise ShapeError(f"a (kh, kw) kernel and (C, H, W) pictures are needed, got {tuple(kernel.shape)} and {ishape}")
    if not bool(torch.isfinite(kernel).all()):
        raise ValueError("the kernel holds NaN or infinite values")
    (kh, kw), (H, W) = kernel.shape, ishape[-2:]
    if kh > H or kw > W:
        raise ShapeError(f"the kernel ({kh} x {kw}) is larger than the picture ({H} x {W}): crop the kernel")
    return kernel

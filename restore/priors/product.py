"""Independent sources side by side: `p(x_1, ..., x_k) = p_1(x_1) ... p_k(x_k)`, packed as `HStack` packs them.

With `y = A x + n` as `HStack(A, Identity)` this is the prior of structured noise (joint conditional diffusion: Stevens,
van Gorp, Meral, Shin, Yu, Robert, van Sloun, "Removing Structured Noise with Diffusion Models", 2023,
arXiv:2302.05290): the denoiser of a product is that of each source by itself, all at the same sigma.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from operators.base import LinearOperator, Shape
from operators.compose import HStack, Pack
from operators.linalg import cg
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.priors.covariance import Covariance, filtered


class Product(Denoiser):
    """The joint prior of independent sources.

    Args:
        parts: the prior of each source.
        shapes: shape of each source; by default the priors' own. `HStack(...).pack.shapes` names them.

    Raises:
        ValueError: a source's shape is not known, or not one that its prior takes.
    """

    def __init__(self, *parts: Denoiser, shapes: Sequence[Shape] | None = None):
        super().__init__()
        found = [part.shape for part in parts] if shapes is None else [tuple(s) for s in shapes]
        if len(found) != len(parts):
            raise ValueError(f"{len(parts)} priors but {len(found)} shapes: give one of each for every source")
        for part, shape in zip(parts, found, strict=True):
            if None in shape or not part.accepts(cast(Shape, shape)):
                raise ValueError(f"a source of shape {shape}, but its prior takes {part.shape}: name the shape it has")
        self.parts = nn.ModuleList(parts)
        self.pack = Pack(cast(list[Shape], found))
        self.shape = self.pack.shape
        self.sigma_min = max(part.sigma_min for part in parts)
        self.sigma_max = min(part.sigma_max for part in parts)
        sizes = [math.prod(cast(Shape, shape)) for shape in found]
        self.signal_std = math.sqrt(
            sum(n * part.signal_std**2 for n, part in zip(sizes, parts, strict=True)) / sum(sizes)
        )

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        sources = zip(self.parts, self.pack.split(x), strict=True)
        return self.pack.join([part(v, sigma) for part, v in sources])

    def sources(self) -> list[Denoiser]:
        return [cast(Denoiser, part) for part in self.parts]

    def covariance(self, x: Tensor, sigma: float) -> Covariance:
        """Block-diagonal: each source's own."""
        sources = zip(self.parts, self.pack.split(x), strict=True)
        return Blocks(self.pack, [cast(Denoiser, part).covariance(v, sigma) for part, v in sources])


class Blocks(Covariance):
    """`diag(C_1, ..., C_k)`: unsure of each source on its own.

    Args:
        pack: how the sources are packed.
        parts: the covariance of each.
    """

    def __init__(self, pack: Pack, parts: Sequence[Covariance]):
        self.pack, self.parts = pack, parts

    def __call__(self, v: Tensor) -> Tensor:
        return self.pack.join([C(part) for C, part in zip(self.parts, self.pack.split(v), strict=True)])

    def sample(self, rng: Draws, like: Tensor) -> Tensor:
        sources = zip(self.parts, self.pack.split(like), strict=True)
        return self.pack.join([C.sample(rng, part) for C, part in sources])

    def gain(self, A: LinearOperator, r: Tensor, sigma_y: float) -> Tensor:
        """For a sum of sources `H = (A_1, ..., A_k)`: conjugate gradients on `sum A_i C_i A_i' + sigma_y^2 I`,
        preconditioned by its diagonal in Fourier where all parts know theirs; one step where that is all there is to
        it, as for stationary priors in denoising."""
        if not isinstance(A, HStack) or A.pack.shapes != self.pack.shapes:
            return super().gain(A, r, sigma_y)
        known = [C.seen_through(own, r) for C, own in zip(self.parts, A.parts, strict=True)]
        spectra = [p for p in known if p is not None]
        if len(spectra) < len(known):
            return super().gain(A, r, sigma_y)
        inverse = 1 / (torch.stack(spectra).sum(0) + sigma_y**2)
        z = cg(lambda v: A.forward(self(A.adjoint(v))) + sigma_y**2 * v, r, precondition=lambda v: filtered(v, inverse))
        return self(A.adjoint(z))

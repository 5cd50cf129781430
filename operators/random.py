"""Randomness that belongs to the draw: draw `i` of file `f` is the same in any batch, order or process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from operators.base import LinearOperator


def generator(*key: int) -> torch.Generator:
    """A CPU generator seeded by a tuple of non-negative integers.

    Torch's CPU generator takes 32 bits of seed: two of 10,000 different tuples share a stream with a chance of 1 %.
    """
    # The length goes in because SeedSequence takes (3,) and (3, 0) for the same.
    return torch.Generator().manual_seed(int(np.random.SeedSequence((len(key), *key)).generate_state(1)[0]))


class Draws:
    """The random numbers of a batch of draws: row `i` has a generator of its own, seeded by `(seed, file, draws[i])`.

    Numbers are made on the CPU and moved, so that a draw is the same on every device.

    Attributes:
        tiled: this is one tile of several, which have to agree where they overlap.
    """

    tiled = False

    def __init__(self, seed: int, draws: Sequence[int] = (0,), file: int = 0):
        self.generators = [generator(seed, file, i) for i in draws]

    def __len__(self) -> int:
        return len(self.generators)

    def each(self, sample: Callable[[torch.Generator, int], Tensor]) -> Tensor:
        """Stack `sample(generator_i, i)` over the rows."""
        rows = [sample(g, i)[None] for i, g in enumerate(self.generators)]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal numbers, `(B, *shape)`, in the dtype and on the device of `like`."""
        return self.each(lambda g, _: torch.randn(*shape, generator=g, dtype=like.dtype)).to(like.device)


def white_data(A: LinearOperator, rng: Draws, like: Tensor) -> Tensor:
    """White noise of the data, `(B, *oshape)`; for tiles, where possible, the image of noise on the signal: they agree
    on it."""
    if rng.tiled and A.gram is not None:
        return A.forward(rng.normal(A.ishape, like=like)) / math.sqrt(A.gram)
    return rng.normal(A.oshape, like=like)


class TileDraws(Draws):
    """The random numbers of one tile of a picture too large to be held: tiles that overlap see the same noise there.

    The `k`-th request for noise of the tile's own size is a window of a field over the whole plane, made of blocks
    whose seed is `(seed, file, draw, k, row, column)`. Requests of another size have no place in the plane and come
    from a stream of the tile's own.

    Args:
        seed, draws, file: as for `Draws`.
        origin: row and column of the tile's first pixel in the picture (may be negative).
        window: height and width of the tile.
    """

    tiled = True
    block = 64
    _far = 1 << 20  # makes block numbers non-negative, as seeds must be

    def __init__(self, seed: int, draws: Sequence[int], file: int, *, origin: tuple[int, int], window: tuple[int, int]):
        self.keys = [(seed, file, i) for i in draws]
        self.origin, self.window, self.calls = origin, tuple(window), 0
        self.generators = [generator(*key, *(self._far + o for o in origin)) for key in self.keys]

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        self.calls += 1
        if tuple(shape[-2:]) != self.window:
            return super().normal(shape, like)
        (top, left), (height, width), b = self.origin, self.window, self.block
        rows, columns = range(top // b, -(-(top + height) // b)), range(left // b, -(-(left + width) // b))
        channels = math.prod(shape[:-2])
        out = torch.empty(len(self.keys), channels, len(rows) * b, len(columns) * b, dtype=like.dtype)
        for n, key in enumerate(self.keys):
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    g = generator(*key, self.calls, self._far + row, self._far + column)
                    out[n, :, i * b : (i + 1) * b, j * b : (j + 1) * b] = torch.randn(
                        channels, b, b, generator=g, dtype=like.dtype
                    )
        y, x = top - rows[0] * b, left - columns[0] * b
        return out[..., y : y + height, x : x + width].reshape(-1, *shape).to(like.device)

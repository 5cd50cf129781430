"""Randomness that belongs to the draw: draw `i` of file `f` is the same in any batch, order or process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def generator(*key: int) -> torch.Generator:
    """A CPU generator seeded by a tuple of non-negative integers.

    Torch's CPU generator takes 32 bits of seed: two of 10,000 different tuples share a stream with a chance of 1 %.
    """
    # The length goes in because SeedSequence takes (3,) and (3, 0) for the same.
    return torch.Generator().manual_seed(int(np.random.SeedSequence((len(key), *key)).generate_state(1)[0]))


class Draws:
    """The random numbers of a batch of draws: row `i` has a generator of its own, seeded by `(seed, file, draws[i])`.

    Numbers are made on the CPU and moved, so that a draw is the same on every device.
    """

    def __init__(self, seed: int, draws: Sequence[int] = (0,), file: int = 0):
        self.generators = [generator(seed, file, i) for i in draws]

    def __len__(self) -> int:
        return len(self.generators)

    def each(self, sample: Callable[[torch.Generator, int], Tensor]) -> Tensor:
        """Stack `sample(generator_i, i)` over the rows."""
        return torch.stack([sample(g, i) for i, g in enumerate(self.generators)])

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal numbers, `(B, *shape)`, in the dtype and on the device of `like`."""
        return self.each(lambda g, _: torch.randn(*shape, generator=g, dtype=like.dtype)).to(like.device)

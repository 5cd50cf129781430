"""`restore`: a problem, a prior and a sampler in, draws from `p(x | y)` out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.random import Draws
from restore.priors.base import Denoiser, Wrapper
from restore.problem import Problem
from restore.samplers.base import Callback, Sampler


@dataclass(frozen=True)
class Restoration:
    """Draws from `p(x | y)` and what they cost.

    Attributes:
        samples: `(S, *ishape)`.
        problem: what was asked.
        nfe: denoiser calls per draw.
        backward: products with the denoiser's Jacobian per draw, by backward or by forward differentiation.
        seconds: wall time of all draws together.
        seed: the seed that gives the same draws again.
    """

    samples: Tensor
    problem: Problem
    nfe: float
    backward: float
    seconds: float
    seed: int

    @property
    def mean(self) -> Tensor:
        """Posterior mean, `ishape`: the best single answer in mean squared error."""
        return self.samples.mean(0)

    @property
    def std(self) -> Tensor:
        """Spread of the draws, `ishape`, in the units of `x`; zero for a single draw."""
        return self.samples.std(0, correction=1) if len(self.samples) > 1 else torch.zeros_like(self.samples[0])

    def quantile(self, q: float) -> Tensor:
        """Pointwise quantile of the draws, `ishape`."""
        return torch.quantile(self.samples, q, dim=0)

    def residual(self) -> Tensor:
        """`||y - A x|| / (sigma sqrt(m))` of each draw, `(S,)`: about 1 when the draws fit the data as they should."""
        return self.problem.data_fit(self.samples)


@dataclass
class _Calls:
    """What was asked of a prior, in rows."""

    forwards: float = 0.0
    backwards: float = 0.0


class _Counted(Wrapper):
    """A denoiser that counts its calls, and products with its Jacobian: local to one call of `restore`, so that nothing
    else keeps state. Each of `k` sources asked by itself counts as a `share` of `1 / k`."""

    def __init__(self, prior: Denoiser, calls: _Calls, share: float = 1.0):
        super().__init__(prior)
        self.calls, self.share = calls, share

    def sources(self) -> list[Denoiser]:
        found = super().sources()
        return [_Counted(D, self.calls, self.share / len(found)) for D in found]

    def jvp(self, x: Tensor, sigma: float, v: Tensor) -> Tensor:
        self.calls.backwards += self.share * x.shape[0]
        return super().jvp(x, sigma, v)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        self.calls.forwards += self.share * x.shape[0]
        out = super().forward(x, sigma)
        if out.requires_grad:
            out.register_hook(lambda g: self._count_backward(x.shape[0]))
        return out

    def _count_backward(self, rows: int) -> None:
        self.calls.backwards += self.share * rows


def restore(
    problem: Problem,
    prior: Denoiser,
    sampler: Sampler,
    *,
    num_samples: int = 8,
    chunk: int | None = None,
    seed: int = 0,
    file: int = 0,
    draws: Callable[[int, Sequence[int], int], Draws] = Draws,
    callback: Callback | None = None,
) -> Restoration:
    """Draw from `p(x | y)`.

    Args:
        problem: data, operator and noise. If `y` has several rows, there is one draw for each.
        prior: `D(x, sigma)` in the units of `x`.
        num_samples: draws; ignored when `y` has several rows.
        chunk: draws run at a time, to bound memory; `None` runs all together.
        seed, file: draw `i` is determined by `(seed, file, i)` alone, whatever the chunk.
        draws: makes the random numbers of a chunk from `(seed, numbers of its draws, file)`.
        callback: called as `callback(step, steps, sigma, x)` after each step of each chunk.

    Raises:
        SamplerError: the sampler cannot serve this problem, or met NaN.
        ValueError: `num_samples` or `chunk` is not positive.
    """
    rows = len(problem.y)
    total = rows if rows > 1 else num_samples
    chunk = total if chunk is None else chunk
    if total < 1 or chunk < 1:
        raise ValueError(f"num_samples and chunk must be at least 1, got {num_samples} and {chunk}")
    calls = _Calls()
    counted, start, parts = _Counted(prior, calls), time.perf_counter(), []
    for first in range(0, total, chunk):
        numbers = range(first, min(first + chunk, total))
        part = problem if rows == 1 else Problem(problem.y[first : numbers.stop], problem.operator, problem.noise)
        parts.append(sampler(part, counted, draws(seed, numbers, file), callback))
    return Restoration(
        samples=torch.cat(parts),
        problem=problem,
        nfe=calls.forwards / total,
        backward=calls.backwards / total,
        seconds=time.perf_counter() - start,
        seed=seed,
    )

"""Sequential Monte Carlo (Doucet, de Freitas and Gordon 2001), one population of weighted particles for each draw.

A population is `P` consecutive rows of a batch of `B P`, with log weights `(B, P)` known up to a constant of each row.
How it fares is seen by taking the steps oneself: `effective_sample_size(state.log_w)` after each `sampler.step`.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.linalg import dot
from operators.random import Draws
from restore.problem import Problem
from restore.samplers.base import Sampler


@dataclass(frozen=True, kw_only=True)
class ParticleSampler(Sampler, ABC):
    """One draw is one particle of a population of its own, chosen by the final weights.

    Its state has `x`, `(B P, *ishape)`, and `log_w`, `(B, P)`; at the end one particle of each population is left.

    Args:
        particles: `P`, of each draw; so many times more calls of the denoiser.
        ess_threshold: particles are resampled where the effective sample size is below this share of them.
    """

    particles: int = 16
    ess_threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(1, None, "particles")
        self._limit(0, 1, "ess_threshold")

    def signal(self, x: Any) -> Tensor:
        """The weighted mean of each population: the particle itself once it is chosen."""
        B, P = x.log_w.shape
        each = x.x.reshape(B, P, -1)
        mean = (x.log_w.softmax(1)[..., None].to(each) * each).sum(1)
        return mean.reshape(B, *x.x.shape[1:])

    def everyone(self, problem: Problem) -> Problem:
        """The problem with a row of data for each particle, or one for all."""
        return Problem(self.each(problem.y), problem.operator, problem.noise)

    def each(self, v: Tensor) -> Tensor:
        """Rows of populations as rows of particles; one row stays one, for all."""
        return v if len(v) == 1 or self.particles == 1 else v.repeat_interleave(self.particles, 0)


class Particles(Draws):
    """The random numbers of `B` populations of `P` particles, as those of `B P` rows."""

    def __init__(self, rng: Draws, particles: int):
        self.rng, self.particles, self.tiled = rng, particles, rng.tiled

    def __len__(self) -> int:
        return len(self.rng) * self.particles

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self.rng.normal((self.particles, *shape), like).flatten(0, 1)


def effective_sample_size(log_w: Tensor) -> Tensor:
    """`1 / sum_p W_p^2` of the normalised weights of each population, from 1 to `P`: `(B, P) -> (B,)` (Kong 1992)."""
    return 1 / log_w.softmax(1).square().sum(1)


def resample(log_w: Tensor, threshold: float, rng: Draws) -> tuple[Tensor | slice, Tensor]:
    """Systematic resampling (Kitagawa 1996) of the populations whose effective sample size is below `threshold P`.

    Returns:
        The rows that are kept, `(B P,)`, or a slice of all, and the log weights they then have, `(B, P)`.
    """
    P = log_w.shape[1]
    points = (torch.arange(P, device=log_w.device) + _uniform(rng, log_w)) / P
    worn = (effective_sample_size(log_w) < threshold * P)[:, None]
    if not bool(worn.any()):
        return slice(None), log_w
    chosen = torch.where(worn, _quantiles(log_w, points), torch.arange(P, device=log_w.device))
    return _rows(chosen), torch.where(worn, 0.0, log_w)


def choose(log_w: Tensor, rng: Draws) -> Tensor:
    """The row of one particle of each population, drawn by its weight: `(B, P) -> (B,)`."""
    return _rows(_quantiles(log_w, _uniform(rng, log_w)), log_w.shape[1])


def _uniform(rng: Draws, like: Tensor) -> Tensor:
    return rng.each(lambda g, _: torch.rand(1, generator=g, dtype=torch.float64)).to(like.device)


def _quantiles(log_w: Tensor, points: Tensor) -> Tensor:
    """Of the distribution over particles, at `points` in [0, 1): `(B, P), (B, n) -> (B, n)`."""
    steps = log_w.double().softmax(1).cumsum(1)
    return torch.searchsorted(steps / steps[:, -1:], points, right=True).clamp(max=log_w.shape[1] - 1)


def _rows(chosen: Tensor, particles: int | None = None) -> Tensor:
    """From numbers within the population, `(B, n)`, to rows of the batch, `(B n,)`."""
    B, P = len(chosen), particles or chosen.shape[1]
    return (chosen + P * torch.arange(B, device=chosen.device)[:, None]).flatten()


def evidence(
    A: LinearOperator, y: Tensor, variance: float, sigma_y: float, *, x: Tensor | None = None, u: Tensor | None = None
) -> Tensor:
    """Of data `y`, or of the residual `y - A x`, where the signal is known to `variance` in each number.

    Args:
        y: `(B, *oshape)`; with `x`, `(B, *ishape)`, also one row for all.
        u: what `y` moves the signal by, `A.pull(y, sigma_y^2 / variance)`, if it is at hand.

    Returns:
        `log N(y - A x; 0, variance A A' + sigma_y^2 I)` up to a constant, `(B,)`.
    """
    svd = A.svd() if u is None else None
    if svd is not None and svd.rank == math.prod(A.oshape):
        return -0.5 * svd.weighted_norm(lambda s: 1 / (variance * s.square() + sigma_y**2), y, x)
    # The exponent by way of u: no digits are lost where sigma_y is small.
    r = y if x is None else y - A.forward(x)
    u = A.pull(r, sigma_y**2 / variance) if u is None else u
    rest = r - A.forward(u)
    return -0.5 * (dot(rest, rest) / sigma_y**2 + dot(u, u) / variance)

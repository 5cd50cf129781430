"""Are draws what they claim to be? Tests over many problems whose truth is known, and what a correlated chain is worth.

- Rank statistics: S. Talts, M. Betancourt, D. Simpson, A. Vehtari, A. Gelman, "Validating Bayesian inference algorithms
  with simulation-based calibration", 2018, arXiv:1804.06788. The rank of the truth among exact draws is uniform.
- TARP: P. Lemos, A. Coogan, Y. Hezaveh, L. Perreault-Levasseur, "Sampling-Based Accuracy Testing of Posterior
  Estimators for General Inference", ICML 2023, arXiv:2302.03026. The share of exact draws that lie nearer to a random
  point than the truth does is uniform.
- Effective sample size of a chain: C. J. Geyer, "Practical Markov chain Monte Carlo", Statistical Science 7(4), 1992:
  the initial positive sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """How often the truth had each rank.

    Attributes:
        counts: `(K + 1,)`. A valley in the middle: the draws spread too little. A hill: too much. A slope: a bias.
        p: of the chi-square test that the ranks are uniform, which takes them as independent; a guide only where a rank
            is expected fewer than five times.
    """

    counts: Tensor
    p: float


def ranks(truth: Tensor, draws: Tensor) -> Tensor:
    """How many of the draws `(K, *shape)` lie below the truth `(*shape)`, for each element (a test function): 0 to `K`.

    Raises:
        ValueError: the shapes do not fit.
    """
    if draws.ndim != truth.ndim + 1 or draws.shape[1:] != truth.shape:
        raise ValueError(f"truth of shape {tuple(truth.shape)} wants draws (K, ...), got {tuple(draws.shape)}")
    return (draws < truth).sum(0)


def rank_statistics(ranks: Tensor, draws: int) -> Ranks:
    """Histogram and uniformity of ranks among `draws`, of any shape.

    Raises:
        ValueError: no rank, or one that is not from 0 to `draws`.
    """
    flat = ranks.flatten().long()
    if not len(flat) or flat.min() < 0 or flat.max() > draws:
        raise ValueError(f"ranks among {draws} draws run from 0 to {draws}; got {flat.unique().tolist() or 'none'}")
    counts = torch.bincount(flat, minlength=draws + 1)
    expected = len(flat) / (draws + 1)
    chi2 = (counts.double() - expected).square().sum() / expected
    return Ranks(counts, float(torch.special.gammaincc(torch.tensor(draws / 2).double(), chi2 / 2)))


def nearer(truth: Tensor, draws: Tensor, reference: Tensor) -> int:
    """How many of the draws `(K, *shape)` lie nearer to the reference point `(*shape)` than the truth does.

    The reference must not depend on the truth; with one that depends on nothing at all, draws from the prior pass too.
    """
    return int(((draws - reference).flatten(1).norm(dim=1) < (truth - reference).norm()).sum())


@dataclass(frozen=True)
class TARP:
    """Expected coverage of the regions around random points.

    Attributes:
        level, coverage: `(K,)`: regions that hold `level` of the mass of the draws hold the truth in `coverage` of the
            problems. Draws that spread too little give an S: below the diagonal on the right, above it on the left.
        deviation: largest distance from the diagonal.
        chance: what exact draws stay below in 95 % of such tests (Kolmogorov's asymptotic bound).
    """

    level: Tensor
    coverage: Tensor
    deviation: float
    chance: float


def tarp(counts: Tensor, draws: int) -> TARP:
    """The curve for `(N,)` counts of `nearer`, one of each problem.

    Raises:
        ValueError: no count, or one that is not from 0 to `draws`.
    """
    found = rank_statistics(counts, draws).counts
    level = torch.arange(1, draws + 1).double() / (draws + 1)
    coverage = found.cumsum(0)[:-1].double() / found.sum()
    return TARP(level, coverage, float((coverage - level).abs().max()), 1.36 * float(found.sum()) ** -0.5)


def effective_sample_size(chain: Tensor) -> Tensor:
    """Independent draws that would give means as precise as the chain's: `(T, *shape) -> (*shape)`, float64.

    1 for a chain that does not move, `T` at most: steps that alternate are not counted as a gain.

    Raises:
        ValueError: fewer than 4 states.
    """
    T = len(chain)
    if T < 4:
        raise ValueError(f"a chain of at least 4 states is wanted, got {T}")
    x = chain.double() - chain.double().mean(0)
    spectrum = torch.fft.rfft(x, n=2 * T, dim=0).abs().square()
    covariance = torch.fft.irfft(spectrum, n=2 * T, dim=0)[: T // 2 * 2] / T
    moves = covariance[0] > 0
    rho = covariance / torch.where(moves, covariance[0], 1.0)
    pairs = rho.unflatten(0, (-1, 2)).sum(1)
    first = (pairs > 0).cumprod(0)
    tau = 2 * (pairs * first).sum(0) - 1
    return torch.where(moves, T / tau.clamp(min=1.0), 1.0)

"""Unknown noise parameters: expectation maximisation around any sampler (Dempster, Laird and Rubin 1977).

Draw the signal given the data and the noise as it is known so far (E step, by Monte Carlo), fit the noise to data and
draws (M step, `NoiseModel.fit`), and again. With exact draws it climbs to the maximum of `p(y | noise)`.

What a sampler gets wrong, EM multiplies: at its rest the draws fit the data with the noise they were told, so a data
fit of 0.95 at the true level moves the estimate by 0.05 divided by the share that one round corrects, and a sampler
that fits too closely at every level leads down to no noise at all. Where the operator is the identity no draws are
needed (`fit_denoising`), and this error is the denoiser's alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.noise import NoiseModel
from operators.random import Draws
from restore.core import restore
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler


def fit_noise(
    problem: Problem,
    prior: Denoiser,
    sampler: Sampler,
    *,
    rounds: int = 10,
    num_samples: int = 4,
    chunk: int | None = None,
    seed: int = 0,
) -> list[NoiseModel]:
    """The noise of `problem.noise`'s class under which `y` is likeliest, starting from `problem.noise`.

    Every round has the same random numbers, so that what changes from one to the next is the noise.

    Args:
        rounds: of EM.
        num_samples, chunk, seed: as in `restore`; few draws do where there are many data.

    Returns:
        The model at the start and after each round; the last is the answer.

    Raises:
        TypeError: the noise model has no `fit`.
        ValueError: no parameter fits: the draws reproduce the noise.
        SamplerError: as in `restore`.
    """
    history = [problem.noise]
    for _ in range(rounds):
        told = Problem(problem.y, problem.operator, history[-1])
        x = restore(told, prior, sampler, num_samples=num_samples, chunk=chunk, seed=seed).samples
        history.append(told.noise.fit(problem.y, problem.operator(x)))
    return history


def fit_denoising(y: Tensor, prior: Denoiser, sigma: float, *, jumps: int = 2, seed: int = 0) -> list[float]:
    """EM for the std of white Gaussian noise on a signal that was measured as it is, `y = x + sigma n`: no draws.

    The E step is `E|y - x|^2 = |y - D|^2 + tr Cov[x | y]` with `Cov[x | y] = sigma^2 dD/dy` (Efron 2011), its trace by
    a probe of random signs and a finite difference (Ramani, Blu and Unser 2008): two calls of the denoiser. Where
    signal and noise are much alike EM is slow, so two steps and Aitken's extrapolation of their logarithm make a jump.

    Args:
        y: `(1, C, *spatial)`.
        sigma: where to start, in the units of `y`.
        jumps: each of four calls of the denoiser.

    Returns:
        The start and the estimate after each jump, kept within the levels that the prior knows.
    """
    b = Draws(seed).normal(y.shape[1:], like=y).sign()
    history = [min(max(sigma, prior.sigma_min), prior.sigma_max)]
    for _ in range(jumps):
        logs = [math.log(history[-1])]
        for _ in range(2):
            logs.append(_denoising_round(y, prior, logs[-1], b))
        first, second = logs[1] - logs[0], logs[2] - logs[1]
        rate = min(max(second / first, 0.0), 0.9) if first else 0.0
        found = math.exp(logs[2] + second * rate / (1 - rate))
        history.append(min(max(found, prior.sigma_min), prior.sigma_max))
    return history


@torch.no_grad()
def _denoising_round(y: Tensor, prior: Denoiser, log_sigma: float, b: Tensor) -> float:
    sigma = math.exp(log_sigma)
    step = 0.1 * sigma
    D, moved = prior(torch.cat([y, y + step * b]), sigma).double().chunk(2)
    trace = float((b * (moved - D)).sum()) / step
    variance = (float((y - D).square().sum()) + sigma**2 * max(trace, 0.0)) / y.numel()
    return max(math.log(max(variance, prior.sigma_min**2)) / 2, math.log(prior.sigma_min))

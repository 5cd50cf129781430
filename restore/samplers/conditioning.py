"""The draw that split samplers take: of a Gaussian around a guess, given the data. Exact where it can be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.noise import Gaussian
from operators.random import Draws, white_data
from restore.priors.base import per_row
from restore.problem import Problem
from restore.samplers.base import SamplerError


def draw_given_data(problem: Problem, guess: Tensor, variance: float, rng: Draws, langevin_steps: int) -> Tensor:
    """A draw of `x ~ N(guess, variance I)` given `y`, `(B, *ishape)`: exact for a linear operator and Gaussian noise,
    else the end of `langevin_steps` steps of Langevin dynamics."""
    if isinstance(problem.operator, LinearOperator) and isinstance(problem.noise, Gaussian):
        return exact_draw(*problem.linear_gaussian, problem.y, guess, variance, rng)
    return langevin_draw(problem, guess, variance, rng, langevin_steps)


def exact_draw(A: LinearOperator, sigma_y: float, y: Tensor, guess: Tensor, variance: float, rng: Draws) -> Tensor:
    """An exact draw of `x ~ N(guess, variance I)` given `y = A x + N(0, sigma_y^2 I)`, `(B, *ishape)`."""
    return guess + exact_move(A, sigma_y, y, guess, variance, rng)


def exact_move(A: LinearOperator, sigma_y: float, y: Tensor, x: Tensor, variance: float, rng: Draws) -> Tensor:
    """An exact draw of `d ~ N(0, variance I)` given `y = A (x + d) + N(0, sigma_y^2 I)`, `(B, *ishape)`.

    Perturb and solve (Papandreou and Yuille 2010): draw `d` and `y` from the joint law, then move by the difference.
    Where `A` is a circular filter its modes are independent, and each is drawn by itself.
    """
    n = rng.normal(A.ishape, like=x)
    svd = A.svd() if A.shift_invariant and sigma_y > 0 else None
    if svd is not None and svd.rank == math.prod(A.ishape):

        def weights(s: Tensor) -> list[Tensor]:
            left = variance / (variance * s.square() + sigma_y**2)
            return [left * s, -left * s.square(), sigma_y * left.sqrt()]

        return svd.mix(weights, y, x, n)
    d = math.sqrt(variance) * n
    seen = y.add(white_data(A, rng, x), alpha=sigma_y)
    return d + A.pull(seen - A.forward(x + d), sigma_y**2 / variance)


def langevin_draw(problem: Problem, guess: Tensor, variance: float, rng: Draws, steps: int) -> Tensor:
    """`steps` steps of Langevin dynamics on `log p(y | A x) - |x - guess|^2 / (2 variance)`, `(B, *ishape)`; any
    operator with a gradient, any noise model.

    `x' = x + h grad + sqrt(h / 2) (n + n')` with `n'` the `n` of the next step (Leimkuhler and Matthews 2013): on a
    Gaussian its variance is right for every stable `h`, where independent noise leaves `1 / (1 - h lambda / 2)` times
    too much in a direction of precision `lambda`. So `h` may be as large as it is stable, and nobody has to choose it:
    it starts at `variance`, right for the prior alone, and is halved, row by row, wherever a step is refused because it
    lowers the log density by more than chance does at rest. It is halved once more at half time, for at the edge of
    stability nothing comes to rest. The start is a draw of the prior Gaussian: what the data do
    not see is right from there on, for no number of small steps would spread it.
    """
    deviation = math.sqrt(variance)
    x = guess + deviation * rng.normal(guess.shape[1:], like=guess)
    # At rest the log density of n numbers has a variance of n / 2: five deviations of a change, and a bit for n = 1.
    slack = 5 * math.sqrt(x[0].numel()) + 5
    value, grad = _log_density(problem, x, guess, variance)
    if not bool(torch.isfinite(value).all()):
        raise SamplerError(
            f"the likelihood is not finite at noise {deviation:.4g} around the guess: are the data right?"
        )
    h = torch.full((len(x),), variance, dtype=torch.float64)
    n = rng.normal(x.shape[1:], like=x)
    for i in range(steps):
        if 2 * i == steps - steps % 2:
            h = h / 2
        fresh = rng.normal(x.shape[1:], like=x)
        moved = x + per_row(h, x) * grad + per_row((h / 2).sqrt(), x) * (n + fresh)
        new_value, new_grad = _log_density(problem, moved, guess, variance)
        taken = new_value > value - slack  # NaN is refused
        keep = taken.reshape(-1, *(1,) * (x.ndim - 1))
        x, grad, n = (torch.where(keep, a, b) for a, b in ((moved, x), (new_grad, grad), (fresh, n)))
        value, h = torch.where(taken, new_value, value), torch.where(taken.cpu(), h, h / 2)
    return x


def _log_density(problem: Problem, x: Tensor, guess: Tensor, variance: float) -> tuple[Tensor, Tensor]:
    """`log p(y | A x) - |x - guess|^2 / (2 variance)` of each row in float64, `(B,)`, and its gradient."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = problem.operator.forward(x)
        if not z.requires_grad:
            raise SamplerError(f"{type(problem.operator).__name__} gives no gradient to follow: mend its forward")
        likelihood = problem.noise.log_prob(problem.y.double(), z.double())
        value = likelihood - (x - guess).double().flatten(1).square().sum(1) / (2 * variance)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

"""What Langevin samplers share: the gradient of a likelihood, how fast it changes, and a step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from operators.linalg import norm
from operators.random import Draws
from restore.priors.base import Denoiser, per_row
from restore.problem import Problem
from restore.samplers.base import differentiable_data


def likelihood_gradient(problem: Problem, x: Tensor, name: str) -> Tensor:
    """`grad_x log p(y | A x)` for any operator with a gradient and any noise, `(B, *ishape)`.

    Raises:
        SamplerError: the operator gives no gradient; `name` is the sampler that asked.
    """
    x = x.detach().requires_grad_()
    z = differentiable_data(problem.operator, x, name)
    return torch.autograd.grad(z, x, problem.score(z))[0]


def curvature(problem: Problem, x: Tensor, distance: float, rng: Draws, name: str) -> Tensor:
    """How much the gradient of the log-likelihood changes at most, per unit that `x` is moved: `(B,)`.

    By power iteration on differences over `distance`, a length small enough for any one number of `x` to go: `||A||^2 /
    sigma_y^2`, from below by a few percent, where the problem is linear with Gaussian noise; elsewhere what it is
    around `x`.
    """
    g, v = likelihood_gradient(problem, x, name), rng.normal(problem.operator.ishape, like=x)
    steepest = x.new_zeros(len(x), dtype=torch.float64)
    for _ in range(20):
        v = v * per_row(distance / norm(v).clamp(min=torch.finfo(v.dtype).tiny), v)
        v = likelihood_gradient(problem, x + v, name) - g
        steepest = torch.maximum(steepest, norm(v) / distance)
    return steepest


class Chain(NamedTuple):
    """Where a chain is, and the curvature of its log-likelihood."""

    x: Tensor  # (B, *ishape)
    L: Tensor  # (B,)


def langevin(
    x: Tensor, sigma: float, delta: Tensor, power: Tensor, problem: Problem, prior: Denoiser, rng: Draws, name: str
) -> Tensor:
    """`x + delta (grad log p(x; sigma) + power grad log p(y | A x)) + sqrt(2 delta) n`; `delta`, `power`: `(B,)`."""
    drift = (prior(x, sigma) - x) / sigma**2 + per_row(power, x) * likelihood_gradient(problem, x, name)
    delta = per_row(delta, x)
    return x + delta * drift + (2 * delta).sqrt() * rng.normal(problem.operator.ishape, like=x)

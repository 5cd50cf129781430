"""TDS: particles led by a guess at the likelihood of `x_t`, weighted so that the guess does no harm.

Use: small problems, nonlinear ones too, where being exact is worth thousands of calls; not pictures.

Wu, Trippe, Naesseth, Blei, Cunningham, "Practical and Asymptotically Exact Conditional Sampling in Diffusion Models",
NeurIPS 2023 (Twisted Diffusion Sampler).

With `tau = sigma_next`, the prior's own step `p(x' | x) = N(mean, v I)` and a twisting function `psi` that guesses
`p(y | x_t)` and is the likelihood itself at the end:

- `x' ~ q(x' | x) = N(mean + (sigma^2 - tau^2) grad log psi(x), v I)`, the gradient taken through the denoiser,
- `w' = w p(x' | x) psi'(x') / (q(x' | x) psi(x))`,
- particles are resampled where the weights have become uneven; in the end one is chosen by its weight.

`psi(x) = N(y; A D, r^2 A A' + sigma_y^2 I)` where the problem is linear and Gaussian, with `r^2 = sigma^2 s^2 /
(sigma^2 + s^2)`, `s` the prior's `signal_std`; elsewhere `p(y | A D)` to the power `1 / (1 + r^2 L)`, `L` the
curvature of the log-likelihood: the same where `A A'` is a multiple of `I`.

Claim: exact as particles and steps grow. With many particles a draw has the law of what the prior's chain of `steps`
steps ends in (the denoised state of its last level), times its likelihood; that chain tends to the prior as steps
grow. The particles this takes grow with the dimension, exponentially where `psi` is poor: log weights vary by the sum
over all numbers in the data of what `psi` has wrong. On pictures one particle soon carries all the weight, and a draw
is then as good as guidance by `grad log psi`, not better; `effective_sample_size` tells. Tiles of one picture choose
their particles by themselves, so that seams may show.

Departures: EDM coordinates; the shift is the full one of the guided process, where the paper has `v grad log psi`,
which tends to it as steps grow; the mean of the step is extrapolated (rule `sde` of the integrators), so that the
chain comes close to the prior in fewer steps; the paper's `p(y | A D)` of other problems is tempered, as it is far
too sure at high noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator, Operator
from operators.linalg import dot
from operators.noise import Gaussian
from operators.random import Draws
from restore.priors.base import Denoiser, per_row
from restore.problem import Problem
from restore.samplers.base import differentiable, differentiable_data
from restore.samplers.integrators import State, extrapolated, kernel
from restore.samplers.langevin import curvature
from restore.samplers.particles import Particles, ParticleSampler, choose, evidence, resample


class Twist(NamedTuple):
    """What is known at `x`."""

    D: Tensor  # (B P, *ishape)
    log_psi: Tensor  # (B P,)
    gradient: Tensor  # of log psi in x, (B P, *ishape)


class Twisted(NamedTuple):
    """Populations of particles."""

    x: Tensor  # (B P, *ishape)
    log_w: Tensor  # (B, P)
    twist: Twist
    before: State  # where the particles come from
    L: Tensor | None  # (B P,), the same within a population


@dataclass(frozen=True, kw_only=True)
class TDS(ParticleSampler):
    """TDS. One backward pass through the denoiser at each step of each particle.

    Raises SamplerError where the prior or the operator gives no gradient.
    """

    exact: ClassVar[bool] = True
    needs: ClassVar[type] = Operator

    def init(self, problem: Problem, prior: Denoiser, rng: Draws) -> Twisted:
        sigma = float(self.ladder(prior)[0])
        x = sigma * Particles(rng, self.particles).normal(problem.operator.ishape, like=problem.y)
        L = None
        if not _is_linear_gaussian(problem):
            middle = prior(x[:: self.particles], sigma)  # at the top the same for all particles
            L = curvature(problem, middle, prior.signal_std, rng, "TDS").repeat_interleave(self.particles)
        twist = _twist(x, sigma, self.everyone(problem), prior, L)
        return Twisted(x, twist.log_psi.reshape(len(rng), self.particles), twist, State(x), L)

    def step(
        self, x: Twisted, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws
    ) -> Twisted:
        A, tau, everyone = problem.operator, sigma_next, self.everyone(problem)
        if tau == 0:
            log_p = everyone.noise.log_prob(everyone.y, A.forward(x.twist.D))
            log_w = x.log_w + (log_p - x.twist.log_psi).reshape(x.log_w.shape)
            chosen = x.twist.D[choose(log_w, rng)]
            return x._replace(x=chosen, log_w=torch.zeros_like(log_w[:, :1]))
        rows, log_w = resample(x.log_w, self.ess_threshold, rng)
        here, twist = x.x[rows], Twist(*(v[rows] for v in x.twist))
        before = x.before if x.before.m is None else x.before._replace(m=x.before.m[rows])
        mean, std = kernel(here, extrapolated(before, twist.D, sigma, tau), sigma, tau)
        shift = (sigma**2 - tau**2) / std * twist.gradient
        n = Particles(rng, self.particles).normal(A.ishape, like=here)
        there = mean + std * (n + shift)
        log_p_over_q = -dot(n, shift) - dot(shift, shift) / 2
        new = _twist(there, tau, everyone, prior, x.L)
        gained = (log_p_over_q + new.log_psi - twist.log_psi).reshape(log_w.shape)
        return Twisted(there, log_w + gained, new, State(here, twist.D, sigma), x.L)


def _is_linear_gaussian(problem: Problem) -> bool:
    return isinstance(problem.operator, LinearOperator) and isinstance(problem.noise, Gaussian)


def _twist(x: Tensor, sigma: float, problem: Problem, prior: Denoiser, L: Tensor | None) -> Twist:
    """`L`: curvature of the log-likelihood, `None` for a linear-Gaussian problem. Raises SamplerError."""
    A, s = problem.operator, prior.signal_std
    r2 = sigma**2 * s**2 / (sigma**2 + s**2)
    x, D = differentiable(prior, x, sigma, "TDS")
    if L is None:
        linear, sigma_y = problem.linear_gaussian
        r = problem.y - linear.forward(D.detach())
        u = linear.pull(r, sigma_y**2 / r2)
        log_psi = evidence(linear, r, r2, sigma_y, u=u)
        return Twist(D.detach(), log_psi, torch.autograd.grad(D, x, u / r2)[0])
    z = differentiable_data(A, D, "TDS")
    power = 1 / (1 + r2 * L)
    log_psi = power * problem.noise.log_prob(problem.y, z.detach())
    return Twist(D.detach(), log_psi, torch.autograd.grad(z, x, per_row(power, z) * problem.score(z))[0])

"""RED-diff: fit a point to the data, held by what the denoiser says of noisy copies of it.

Use: one answer by optimisation, for any operator and noise. Its draws are not draws of the posterior.

Mardani, Song, Kautz, Vahdat, "A Variational Perspective on Solving Inverse Problems with Diffusion Models", ICLR
2024 (Alg. 1, eqs. 8-11).

Update: one Adam step on `mu` down `obs_weight grad_mu (data misfit) + lambda w(sigma) (eps(x_t) - n)`, where
`x_t = mu + sigma n`. With the paper's weight `w = sigma` the second term is `lambda (mu - D(x_t, sigma))`.

Claim: not exact. A distribution of no width is fitted to the posterior, so the draws are near one of its modes, and
what they differ by is the noise of the optimisation.

Departures: the data misfit is `-min(sigma_y^2, sigma^2) log p(y | A mu)`, a sum over the data. The paper has `||y -
A mu||^2 / (2 m)` beside a mean over the signal at every rung: its lambda depends on how many data there are, and its
fit does not know `sigma_y` (at the end the noise is reproduced). Here the gradient is, for `lambda = 1` and `sigma <
sigma_y`, exactly `-sigma^2 grad log p(y | mu) p_sigma(mu)`, so the last rungs look for the mode. `sigma_y^2` stands
for `||y - z|| / ||grad_z log p(y | z)||` at `z = A mu`: the variance if the noise is Gaussian, an average of it
otherwise. `mu` starts at the prior's answer to noise, where the paper has `A^+ y`, which amplifies noise and does
not exist for nonlinear operators. The result is `mu` after the last Adam step; the released code returns the one
before.

Defaults: betas as published. lambda and lr by the mean error on the Gaussian and mixture posteriors of the exactness
table (the published lr 0.1, in [-1, 1], is 0.05 here and leaves more noise after 100 steps).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from operators.base import Operator
from operators.linalg import norm
from operators.random import Draws
from restore.priors.base import Denoiser, per_row
from restore.problem import Problem
from restore.samplers.base import Sampler


class Fit(NamedTuple):
    """`mu` and Adam's memory of its gradient: first and second moment, `(B, *ishape)`, and the number of steps."""

    mu: Tensor
    m: Tensor
    v: Tensor
    t: int


@dataclass(frozen=True, kw_only=True)
class REDdiff(Sampler):
    """RED-diff.

    Args:
        lambda_: weight of the prior; 1 is that of Bayes' rule.
        obs_weight: weight of the data.
        lr, beta1, beta2: of Adam; `lr` is in the units of `x`.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = Operator

    lambda_: float = 1.0
    obs_weight: float = 1.0
    lr: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, None, "lambda_", "obs_weight", "lr", open=True)
        self._limit(0, 1, "beta1", "beta2")

    def init(self, problem: Problem, prior: Denoiser, rng: Draws) -> Fit:
        noise = super().init(problem, prior, rng)
        mu = prior(noise, float(self.ladder(prior)[0]))
        return Fit(mu, torch.zeros_like(mu), torch.zeros_like(mu), 0)

    def signal(self, x: Fit) -> Tensor:
        return x.mu

    def step(self, x: Fit, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Fit:
        A, mu = problem.operator, x.mu
        D = prior(mu.add(rng.normal(A.ishape, like=mu), alpha=sigma), sigma)
        g = (mu - D).mul_(self.lambda_).sub_(self._towards_data(mu, sigma, problem), alpha=self.obs_weight)
        t = x.t + 1  # Kingma and Ba 2015, Alg. 1
        m, v = x.m.lerp(g, 1 - self.beta1), (self.beta2 * x.v).addcmul_(g, g, value=1 - self.beta2)
        spread = (v / (1 - self.beta2**t)).sqrt_().add_(1e-8)
        return Fit(mu.addcdiv(m, spread, value=-self.lr / (1 - self.beta1**t)), m, v, t)

    def _towards_data(self, mu: Tensor, sigma: float, problem: Problem) -> Tensor:
        """`min(sigma_y^2, sigma^2) grad_mu log p(y | A mu)`, `(B, *ishape)`."""
        with torch.enable_grad():
            mu = mu.detach().requires_grad_()
            z = problem.operator.forward(mu)
        score = problem.score(z)
        variance = norm(problem.y - z.detach()) / norm(score).clamp(min=torch.finfo(torch.float64).tiny)  # (B,)
        return torch.autograd.grad(z, mu, per_row(variance.clamp(max=sigma**2), score) * score)[0]

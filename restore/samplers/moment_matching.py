"""Moment matching: condition a Gaussian with the denoiser's mean and covariance on the data.

Use: the default wherever the operator is linear and the noise Gaussian. Its spread can be believed as far as the
prior's can.

Peng, Zhu, Zhou, Zheng, "Improving Diffusion Models for Inverse Problems Using Optimal Posterior Covariance", ICML 2024
(type II: no gradient through the network); also Boys et al. 2023 (TMPD), Rozet et al. 2024.

`p(x0 | x_t)` is taken as `N(D, C)` with `D = D(x, sigma)` and `C` a model of `Cov[x0 | x_t]`; given `y` it is then a
Gaussian again, of mean `D + C A' (A C A' + sigma_y^2 I)^-1 (y - A D)`. A step from `sigma` to `tau > 0`:

- `draw`: `x0 ~ N(D, C)` given `y`, `x' = x0 + c tau / sigma (x - x0) + tau sqrt(1 - c^2) n`, `c = (tau / sigma)^alpha`;
- any rule of `restore.samplers.integrators`, with that mean.

Claim: not exact. For a Gaussian prior with its own covariance `draw` is, in any number of steps (but for where the
ladder begins and ends), the rules are as the ladder is refined; otherwise both are as good as the Gaussian is. With a
scalar `C` the rules are PiGDM's guidance without its gradient, and `draw` tends to DAPS with `alpha`.

Departures: the papers put the mean into a rule. A draw in its place lets a step move by as much as the denoiser is
unsure, and forgets at a rate `alpha` what earlier steps, with their cruder Gaussians, decided. Where `A` is a multiple
of a rotation, as in denoising, `y` is a noisy signal like `x_t`: both together are one with less noise, whose mean the
denoiser knows without any Gaussian. A learnt prior errs more on what it drew itself than on the pictures that its `C`
was measured on: `inflation` makes up for that in the pull of the data, as ensemble Kalman filters do (Anderson 2007),
and `temperature` keeps what it invents from being taken for what it knows. Both are 1 where the prior is exact. Where
`A` is a rotation `inflation` has no say: `x_t` and `y` are then one noisy signal, and no data are weighed against `D`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.base import LinearOperator
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.priors.covariance import Covariance, Times
from restore.priors.jacobian import Jacobian, row_sums
from restore.problem import Problem
from restore.samplers.base import differentiable
from restore.samplers.guided import Guided
from restore.samplers.integrators import RULES, State

COVARIANCES = ("model", "jacobian", "diagonal", "scalar")


@dataclass(frozen=True, kw_only=True)
class MomentMatching(Guided):
    """Moment matching, by default with the covariance that the prior offers: exact for analytic priors, stationary for
    learnt ones.

    Steps, rule and `alpha` were chosen on the exactness problems.

    Args:
        integrator: `draw`, or a rule of `restore.samplers.integrators`.
        alpha: rate at which `draw` renews the noise: 0 keeps it, 1 as the reverse diffusion does, infinity fresh noise.
        covariance: `model`, what the prior offers; `jacobian`, `sigma^2 dD/dx` by products with it (Rozet et al. 2024),
            which needs a rule, since nothing can be drawn with it; `diagonal`, its row sums (Boys et al. 2023);
            `scalar`, that of white signals of the prior's `signal_std`.
        products: with `jacobian`, iterations of conjugate gradients at each call of the denoiser, two products each.
        inflation: factor of `C` where data are weighed against the denoiser; without effect where `A` is a rotation.
        temperature: share of their spread that the draws of `draw` are given.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = LinearOperator
    rules: ClassVar[tuple[str, ...]] = ("draw", *RULES)

    steps: int = 49
    integrator: str = "draw"
    alpha: float = 5.0
    covariance: str = "model"
    products: int = 10
    inflation: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, None, "alpha", "temperature")
        self._limit(0, None, "inflation", open=True)
        self._limit(1, None, "products")
        if self.covariance not in COVARIANCES:
            known = ", ".join(COVARIANCES)
            raise ValueError(f"MomentMatching: covariance must be one of {known}, got {self.covariance!r}")
        if (self.covariance, self.integrator) == ("jacobian", "draw"):
            raise ValueError("MomentMatching: nothing can be drawn with covariance=jacobian: choose integrator=heun")

    def moments(self, x: Tensor, sigma: float, prior: Denoiser) -> tuple[Tensor, Covariance]:
        """`D` and `C`."""
        if self.covariance == "model":
            return prior(x, sigma), prior.covariance(x, sigma)
        if self.covariance == "scalar":
            return prior(x, sigma), Denoiser.covariance(prior, x, sigma)
        x, D = differentiable(prior, x, sigma, "MomentMatching with this covariance")
        if self.covariance == "diagonal":
            return D.detach(), row_sums(x, sigma, D)
        return D.detach(), Jacobian(prior, x, sigma, D, tol=1e-4, max_iter=self.products)

    def posterior_mean(self, x: Tensor, sigma: float, problem: Problem, prior: Denoiser) -> Tensor:
        A, sigma_y = problem.linear_gaussian
        if is_rotation(A):
            return self.moments(*both(x, sigma, problem), prior)[0]
        D, C = self.moments(x, sigma, prior)
        return D + Times(C, self.inflation).gain(A, problem.y - A.forward(D), sigma_y)

    def posterior_draw(self, x: Tensor, sigma: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        """`x0` given `x_t` and `y`, `(B, *ishape)`: perturb and solve."""
        A, sigma_y = problem.linear_gaussian
        if is_rotation(A):
            D, C = self.moments(*both(x, sigma, problem), prior)
            return D + self.temperature * C.sample(rng, D)
        D, C = self.moments(x, sigma, prior)
        T = self.temperature
        C = Times(C, self.inflation)
        return C.draw(A, D, problem.y, sigma_y, rng, spread=T / math.sqrt(self.inflation), fresh=T * sigma_y)

    def step(self, x: State, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> State:
        if self.integrator != "draw" or sigma_next == 0:
            return super().step(x, sigma, sigma_next, problem, prior, rng)
        tau, c = sigma_next, (sigma_next / sigma) ** self.alpha
        x0 = self.posterior_draw(x.x, sigma, problem, prior, rng)
        fresh = rng.normal(problem.operator.ishape, like=x0)
        return State(x0.lerp(x.x, c * tau / sigma).add_(fresh, alpha=tau * math.sqrt(1 - c**2)))


def is_rotation(A: LinearOperator) -> bool:
    """Whether `A` is a multiple of a rotation: square, with orthogonal rows of one norm."""
    return A.gram is not None and math.prod(A.ishape) == math.prod(A.oshape)


def both(x: Tensor, sigma: float, problem: Problem) -> tuple[Tensor, float]:
    """`x_t` and `y = A x0 + sigma_y n`, `A` a multiple of a rotation, as one noisy signal, and its noise level."""
    A, sigma_y = problem.linear_gaussian
    assert A.gram is not None
    precision = 1 / sigma**2 + A.gram / sigma_y**2
    return (x / sigma**2 + A.adjoint(problem.y) / sigma_y**2) / precision, precision**-0.5

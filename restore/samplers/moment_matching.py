"""Moment matching: condition a Gaussian with the denoiser's mean and covariance on the data.

Peng, Zhu, Zhou, Zheng, "Improving Diffusion Models for Inverse Problems Using Optimal Posterior Covariance", ICML 2024
(type II: no gradient through the network); also Boys et al. 2023 (TMPD), Rozet et al. 2024.

`p(x0 | x_t)` is taken as `N(D, C)` with `D = D(x, sigma)` and `C` the prior's model of `Cov[x0 | x_t]`; then

- `E[x0 | x_t, y] = D + C A' (A C A' + sigma_y^2 I)^-1 (y - A D)`.

Claim: not exact, except for a Gaussian prior with its own covariance as the ladder is refined; otherwise as good as the
Gaussian is. With a scalar `C` this is PiGDM's guidance without its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.base import LinearOperator
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.guided import Guided


@dataclass(frozen=True, kw_only=True)
class MomentMatching(Guided):
    """Moment matching with the covariance that the prior offers: exact for analytic priors, stationary for learnt ones.

    Steps and rule were chosen on the exactness problems.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = LinearOperator

    steps: int = 49

    def posterior_mean(self, x: Tensor, sigma: float, problem: Problem, prior: Denoiser) -> Tensor:
        A, sigma_y = problem.linear_gaussian
        D = prior(x, sigma)
        return D + prior.covariance(x, sigma).gain(A, problem.y - A.forward(D), sigma_y)

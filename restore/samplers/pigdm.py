"""PiGDM: the gradient of a Gaussian likelihood of `x_t`, through the denoiser.

Use: to compare with what is published: moment matching comes closer without a gradient.

Song, Vahdat, Mardani, Kautz, "Pseudoinverse-Guided Diffusion Models for Inverse Problems", ICLR 2023.

With `p(x0 | x_t) = N(D, r^2 I)`, `r^2 = sigma^2 scale^2 / (sigma^2 + scale^2)` and `tau = sigma_next`:

- `g = (dD/dx)' A' (r^2 A A' + sigma_y^2 I)^-1 (y - A D)`,
- `x' = D + sqrt(tau^2 - c^2) eps + c n + r^2 g`, with `eps = (x - D) / sigma`, `c = eta tau sqrt(1 - tau^2/sigma^2)`.

Claim: not exact. The covariance is one number; and each step adds `r^2 g` in full, however short it is, where the score
of that likelihood would add `(1 - (tau/sigma)^p) sigma^2 g`, `p` from 1 (`eta = 0`) to 2 (`eta = 1`): draws fit the
data too well, the more so the more steps.

Departures: EDM coordinates and ladder, hence `scale` where the paper, in its units, has 1. No clipping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler, differentiable


@dataclass(frozen=True, kw_only=True)
class PiGDM(Sampler):
    """PiGDM. One backward pass through the denoiser at each step.

    Raises SamplerError where the prior gives no gradient.

    Args:
        eta: share of fresh noise, as in DDIM: 0 deterministic, 1 ancestral.
        scale: standard deviation that the signal will not exceed, in the units of `x`.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = LinearOperator

    eta: float = 1.0
    scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, 1, "eta")
        self._limit(0, None, "scale", open=True)

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        A, sigma_y = problem.linear_gaussian
        tau, r2 = sigma_next, sigma**2 * self.scale**2 / (sigma**2 + self.scale**2)
        x, D = differentiable(prior, x, sigma, "PiGDM")
        v = A.pull(problem.y - A.forward(D.detach()), sigma_y**2 / r2) / r2
        g = torch.autograd.grad(D, x, v)[0]
        x, D = x.detach(), D.detach()
        if tau == 0:
            return D + r2 * g
        c = self.eta * tau * math.sqrt(1 - (tau / sigma) ** 2)
        eps = (x - D) / sigma
        return D + math.sqrt(tau**2 - c**2) * eps + c * rng.normal(A.ishape, like=x) + r2 * g

"""Projection: at each rung the measured directions are drawn towards data noised to that rung.

Use: to compare with what is published on MRI and structured noise. Too little spread.

Song, Shen, Xing, Ermon, "Solving Inverse Problems in Medical Imaging with Score-Based Generative Models", ICLR 2022,
arXiv:2111.08005.

With data noised as the state is, `y_hat = y + sigma A z`, and `D = D(x, sigma)`, `tau = sigma_next`:

- `x <- x + lambda A^+ (y_hat - A x)`,
- `x' = D + (tau/sigma)^2 (x - D) + tau sqrt(1 - tau^2/sigma^2) n`.

On `HStack(A, Identity)` with `A A' = I` this is the projection of joint diffusion (Stevens et al. 2023,
arXiv:2302.05290), `x <- x - l A' r`, `n <- n - k r`, `r = A x + n - y_hat`, with `l = k = lambda / 2`; 0.5 there is 1
here.

Claim: not exact. Data replace, as in DDNM, and they replace the noisy state, whose direction in the null space of `A`
then belongs to another signal.

Departures: EDM coordinates and ladder; the ancestral step for the unconditional one, of which the paper leaves the
choice. `A^+` is `(A'A + sigma_y^2/sigma^2 I)^-1 A'`, the pseudo-inverse in the limit of no noise: a direction in which
the data are less sure than the rung is left to the prior, and any linear operator will do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.base import LinearOperator
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler


@dataclass(frozen=True, kw_only=True)
class Projection(Sampler):
    """Projection on noised data.

    Args:
        lambda_: how far towards them: 1 projects, 0 ignores them.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = LinearOperator

    lambda_: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, 1, "lambda_")

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        A, sigma_y = problem.linear_gaussian
        tau = sigma_next
        y_hat = problem.y + sigma * A.forward(rng.normal(A.ishape, like=x))
        x = x + self.lambda_ * A.pull(y_hat - A.forward(x), (sigma_y / sigma) ** 2)
        D = prior(x, sigma)
        if tau == 0:
            return D
        fresh = tau * math.sqrt(1 - (tau / sigma) ** 2)
        return D + (tau / sigma) ** 2 * (x - D) + fresh * rng.normal(A.ishape, like=x)

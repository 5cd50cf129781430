"""DAPS: guess the clean signal, draw it given the data, add noise again: rungs that forget where they were.

Zhang, Chu, Berner, Meng, Anandkumar, Song, "Improving Diffusion Inverse Problem Solving with Decoupled Noise
Annealing", CVPR 2025 (Alg. 1).

Update, with `tau = sigma_next`:

- `x0hat`: the probability flow from `(x, sigma)` down to zero, `ode_steps` Euler steps on a ladder of its own,
- `x0 ~ N(x0hat, sigma^2 I)` given `y`,
- `x' = x0 + tau n`.

Claim: not exact. `p(x0 | x_t)` is taken as a Gaussian of variance `sigma^2`, too wide wherever the prior knows more.

Departures: the draw is exact (perturb and solve) where the paper runs 100 steps of Langevin dynamics with a noise level
that was tuned instead of the true one; so the operator has to be linear, and there is nothing to tune.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.base import LinearOperator
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.samplers.conditioning import draw_given_data
from restore.samplers.integrators import run_down


@dataclass(frozen=True, kw_only=True)
class DAPS(Sampler):
    """DAPS for linear operators.

    Args:
        ode_steps: calls of the denoiser for each guess.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = LinearOperator

    steps: int = 200
    ode_steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(1, None, "ode_steps")

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        x0hat = run_down("euler", x, sigma, self.ode_steps, self.rho, prior, lambda: x)
        x0 = draw_given_data(problem, x0hat, sigma**2, rng)
        if sigma_next == 0:
            return x0
        return x0 + sigma_next * rng.normal(problem.operator.ishape, like=x)

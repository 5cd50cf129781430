"""DAPS: guess the clean signal, draw it given the data, add noise again: rungs that forget where they were.

Use: nonlinear operators, when one good signal is wanted. Too much spread.

Zhang, Chu, Berner, Meng, Anandkumar, Song, "Improving Diffusion Inverse Problem Solving with Decoupled Noise
Annealing", CVPR 2025 (Alg. 1).

Update, with `tau = sigma_next`:

- `x0hat`: the probability flow from `(x, sigma)` down to zero, `ode_steps` Euler steps on a ladder of its own,
- `x0 ~ N(x0hat, sigma^2 I)` given `y`,
- `x' = x0 + tau n`.

Claim: not exact. `p(x0 | x_t)` is taken as a Gaussian of variance `sigma^2`, too wide wherever the prior knows more.

Departures: for a linear operator and Gaussian noise the draw is exact (perturb and solve). Otherwise it is Langevin
dynamics as in the paper, but with the true noise where the paper has a level that was tuned, and with a step size that
is found in each draw where the paper has one for each task (`conditioning.langevin_draw`): there is nothing to tune.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.base import Operator
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.samplers.conditioning import draw_given_data
from restore.samplers.integrators import run_down


@dataclass(frozen=True, kw_only=True)
class DAPS(Sampler):
    """DAPS.

    Args:
        ode_steps: calls of the denoiser for each guess.
        langevin_steps: of the draw, where it cannot be exact.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = Operator

    steps: int = 200
    ode_steps: int = 5
    langevin_steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(1, None, "ode_steps", "langevin_steps")

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        x0hat = run_down("euler", x, sigma, self.ode_steps, self.rho, prior, lambda: x)
        x0 = draw_given_data(problem, x0hat, sigma**2, rng, self.langevin_steps)
        if sigma_next == 0:
            return x0
        return x0 + sigma_next * rng.normal(problem.operator.ishape, like=x)

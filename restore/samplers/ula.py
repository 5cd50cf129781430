"""ULA: Langevin dynamics with the score of the prior at one small noise level.

Use: to check another sampler where there is one mode. It does not find its way between modes.

Laumont, De Bortoli, Almansa, Delon, Durmus, Pereyra, "Bayesian Imaging Using Plug & Play Priors: When Langevin Meets
Tweedie", SIAM Journal on Imaging Sciences 2022 (PnP-ULA).

At each step, with `sigma` the same throughout:

- `x' = x + delta ((D(x, sigma) - x) / sigma^2 + grad log p(y | A x)) + sqrt(2 delta) n`.

Claim: not exact. With many steps the law of `x` is that of `p(x; sigma) p(y | A x)`, the prior blurred by noise of
`sigma`, up to an error that grows with `delta`; with few, it remembers where it began: what the data and the prior
leave open to a standard deviation `s` takes some `s^2 / delta` steps, and a mode apart from the others may take for
ever.

Departures: `delta` is given as a share of `1 / L`, `L = 1 / sigma^2 + ||A||^2 / sigma_y^2` the bound on how fast the
drift changes (of other problems, the curvature of the likelihood around the start is taken for the second term);
signals are not kept in a box. One draw is the end of one chain, denoised: the noise of `sigma` is then taken off
again. It starts from the mean of the prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.base import Operator
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.samplers.langevin import Chain, curvature, langevin


@dataclass(frozen=True, kw_only=True)
class ULA(Sampler):
    """ULA for any operator with a gradient and any noise. `sigma_min`: the one level; `rho` is not used.

    Steps, level and step size were chosen on the exactness problems, for signals in [0, 1].

    Args:
        step_size: `delta L`; the iteration is stable below 2.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = Operator

    steps: int = 1000
    sigma_min: float | None = 0.01
    step_size: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, 2, "step_size", open=True)

    def ladder(self, prior: Denoiser) -> Tensor:
        """The one level, for all steps, and 0."""
        sigmas = torch.full((self.steps,), self.ends(prior)[1], dtype=torch.float64)
        return torch.cat([sigmas, sigmas.new_zeros(1)])

    def init(self, problem: Problem, prior: Denoiser, rng: Draws) -> Chain:
        top = self.ends(prior)[0]
        x = prior(top * rng.normal(problem.operator.ishape, like=problem.y), top)
        return Chain(x, curvature(problem, x, prior.signal_std, rng, "ULA"))

    def signal(self, x: Chain) -> Tensor:
        return x.x

    def step(self, x: Chain, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Chain:
        if sigma_next == 0:
            return x._replace(x=prior(x.x, sigma))
        delta = self.step_size / (1 / sigma**2 + x.L)
        there = langevin(x.x, sigma, delta, torch.ones_like(delta), problem, prior, rng, "ULA")
        return x._replace(x=there)

"""PnP-DM: a Gibbs sampler between a signal that fits the data and one that the prior finds plausible.

Use: nonlinear operators such as JPEG; linear ones with noise well above its last coupling, in a thousand calls; noise
of few strong parts, such as writing, that has a prior of its own.

Wu, Sun, Chen, Zhang, Yue, Bouman, "Principled Probabilistic Imaging using Diffusion Models as Plug-and-Play Priors",
NeurIPS 2024 (Alg. 1).

With the coupling `exp(-|x - z|^2 / (2 rho^2))` between `x` and `z`, at each rung `rho = sigma`:

- `z ~ N(x, rho^2 I)` given `y`: exact for a linear operator and Gaussian noise, else Langevin dynamics,
- `x ~ p(x0 | x0 + rho n = z)`: the reverse diffusion of the prior from `(z, rho)`.

Claim: not exact. At rest the law of `x` is the posterior with noise of covariance `sigma_y^2 I + rho^2 A A'`: wider
than it should be, the less so the smaller the last `rho`, where the two signals move slowly.

Departures: the reverse diffusion starts at `rho` itself, where the released code takes the nearest level of a fixed
grid; it is integrated by a second-order rule. Langevin dynamics find their own step size and start from a draw of the
coupling (`conditioning.langevin_draw`). One draw is the end of one chain. Default of `sigma_min`: for signals in [0,
1], chosen on the exactness problems. Independent sources (`HStack` and `Product`) take their turns, each given what is
left of the data without the others: where the coupling is well above `sigma_y`, all the residual is put to each of
them, where both at once would share it and hardly move. Where their operators are not rotations, the turns agree on
one law only as `rho` falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.base import Operator
from operators.compose import HStack
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.samplers.conditioning import draw_given_data
from restore.samplers.integrators import run_down


@dataclass(frozen=True, kw_only=True)
class PnPDM(Sampler):
    """PnP-DM. `sigma_max`, `sigma_min`: first and last coupling; `rho` curves the inner ladder.

    Args:
        decay: factor from each coupling to the next, until `sigma_min` is reached and kept; less where the steps would
            not get there.
        sde_steps: calls of the denoiser in each reverse diffusion.
        langevin_steps: of the draw of `z`, where it cannot be exact.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = Operator

    sigma_min: float | None = 0.03
    decay: float = 0.9
    sde_steps: int = 10
    langevin_steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, 1, "decay", open=True)
        self._limit(1, None, "sde_steps", "langevin_steps")

    def ladder(self, prior: Denoiser) -> Tensor:
        """Couplings: a geometric descent that stays at the last one, then 0, `(steps + 1,)`."""
        top, bottom = self.ends(prior)
        decay = min(self.decay, (bottom / top) ** (1 / max(self.steps - 1, 1)))  # few steps get down all the same
        sigmas = (top * decay ** torch.arange(self.steps, dtype=torch.float64)).clamp(min=bottom)
        return torch.cat([sigmas, sigmas.new_zeros(1)])

    def init(self, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        """What the prior makes of noise at the first coupling."""
        return prior(super().init(problem, prior, rng), float(self.ladder(prior)[0]))

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        H, priors = problem.operator, prior.sources()
        if not (isinstance(H, HStack) and len(priors) == len(list(H.parts))):
            return self.turn(x, sigma, problem, prior, rng)
        sources = H.pack.split(x)
        for i, (A, own) in enumerate(zip(H.parts, priors, strict=True)):
            left = problem.y - H.forward(H.pack.join(sources)) + A.forward(sources[i])
            sources[i] = self.turn(sources[i], sigma, Problem(left, A, problem.noise), own, rng)
        return H.pack.join(sources)

    def turn(self, x: Tensor, rho: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        """`z` given `x` and `y`, then `x` given `z`: `(B, *ishape) -> (B, *ishape)`."""
        z = draw_given_data(problem, x, rho**2, rng, self.langevin_steps)
        return run_down(
            "sde", z, rho, self.sde_steps, self.rho, prior, lambda: rng.normal(problem.operator.ishape, like=x)
        )

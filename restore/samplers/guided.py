"""Samplers that know, or model, `E[x0 | x_t, y]`: with it in place of the denoiser, the reverse process of the prior
becomes that of `p(x0 | y)`. How it is integrated is independent of where the mean comes from.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.samplers.integrators import RULES, State, advance


@dataclass(frozen=True, kw_only=True)
class Guided(Sampler):
    """A subclass says what `E[x0 | x_t, y]` is.

    Args:
        integrator: a rule of `restore.samplers.integrators`: `heun`, `euler`, `multistep`, `ancestral` or `sde`.
    """

    rules: ClassVar[tuple[str, ...]] = RULES

    integrator: str = "sde"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.integrator not in self.rules:
            known = ", ".join(self.rules)
            raise ValueError(f"{type(self).__name__}: integrator must be one of {known}, got {self.integrator!r}")

    @abstractmethod
    def posterior_mean(self, x: Tensor, sigma: float, problem: Problem, prior: Denoiser) -> Tensor:
        """`E[x0 | x_t, y]`, `(B, *ishape)`."""

    def init(self, problem: Problem, prior: Denoiser, rng: Draws) -> State:
        """Noise around what the data say at the top of the ladder.

        Where the data say nothing, that is the prior's mean only if the top is far above the spread of whole regions,
        which is many times that of a pixel: hence no lower `sigma_max` than the prior's own by default.
        """
        sigma = float(self.ladder(prior)[0])
        noise = sigma * rng.normal(problem.operator.ishape, like=problem.y)
        return State(self.posterior_mean(noise, sigma, problem, prior) + noise)

    def signal(self, x: State) -> Tensor:
        return x.x

    def step(self, x: State, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> State:
        return advance(
            self.integrator,
            x,
            sigma,
            sigma_next,
            lambda v, s: self.posterior_mean(v, s, problem, prior),
            lambda: rng.normal(problem.operator.ishape, like=x.x),
        )

"""CSGM: annealed Langevin dynamics, the data counting the more the lower the noise.

Use: to check another sampler: any operator and noise, near the posterior in 900 calls without a gradient of the
network.

Jalal, Arvinte, Daras, Price, Dimakis, Tamir, "Robust Compressed Sensing MRI with Deep Generative Priors", NeurIPS
2021.

At each level `sigma` of the ladder, `repeat` times:

- `x' = x + alpha ((D(x, sigma) - x) / sigma^2 + A'(y - A x) / (sigma_y^2 + gamma^2)) + sqrt(2 alpha) n`,

with `alpha = step_size sigma^2` and `gamma = ||A|| sigma`, the noise of `A x`.

Claim: not exact. At each level the chain draws from the prior at that level times a likelihood widened by its noise,
which is not the law of `x_t` given `y` wherever the prior knows more; as levels and repeats grow the last one
decides, which is the posterior blurred by its `sigma`. With few repeats what the data and the prior leave open to `s`
is no longer moved once `sigma` is far below `s`, and keeps the width of the level where it came to rest. Where data
leave several signals open (`x^2` two signs), it may rest at one that the prior holds unlikely.

Departures: `gamma` is not tuned (the released code rescales the data term to a multiple of the norm of the score
instead); any operator with a gradient and any noise, with the data term `grad log p(y | A x) / (1 + sigma^2 L)`, `L`
the curvature of the log-likelihood, `||A||^2 / sigma_y^2` if linear and Gaussian: the same as above. The ladder is
that of the other samplers, not geometric; the end is denoised. Published: 2311 levels, of which the lower half is
run, with 3 steps on each.
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
from restore.samplers.langevin import Chain, curvature, langevin


@dataclass(frozen=True, kw_only=True)
class CSGM(Sampler):
    """CSGM for any operator with a gradient and any noise. `step_size` was chosen on the exactness problems.

    Args:
        repeat: Langevin steps, and calls of the denoiser, at each level.
        step_size: `alpha / sigma^2`; the iteration is stable up to 1.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = Operator

    steps: int = 300
    sigma_min: float | None = 0.005
    repeat: int = 3
    step_size: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(1, None, "repeat")
        self._limit(0, 1, "step_size", open=True)

    def init(self, problem: Problem, prior: Denoiser, rng: Draws) -> Chain:
        sigma = float(self.ladder(prior)[0])
        x = sigma * rng.normal(problem.operator.ishape, like=problem.y)
        return Chain(x, curvature(problem, prior(x, sigma), prior.signal_std, rng, "CSGM"))

    def signal(self, x: Chain) -> Tensor:
        return x.x

    def step(self, x: Chain, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Chain:
        power, there = 1 / (1 + sigma**2 * x.L), x.x
        alpha = self.step_size * sigma**2 * power.new_ones(len(there))
        for _ in range(self.repeat):
            there = langevin(there, sigma, alpha, power, problem, prior, rng, "CSGM")
        return x._replace(x=prior(there, sigma) if sigma_next == 0 else there)

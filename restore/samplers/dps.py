"""DPS: an ancestral step of the prior, then a step down the gradient of the data misfit through the denoiser.

Use: nonlinear operators, when a thousand differentiated calls do not matter and its step can be tuned on known truths.

Chung, Kim, McCann, Klasky, Ye, "Diffusion Posterior Sampling for General Noisy Inverse Problems", ICLR 2023 (Alg.
1).

Update, in the paper's VP coordinates `x_vp = sqrt(abar) x`, `abar = 1 / (1 + sigma^2)`, signals in [-1, 1]:
`x_vp' = ancestral(x_vp, D) - zeta grad_{x_vp} ||y - A D||`, the gradient taken through `D`. In EDM coordinates:

- `x' = D + (tau/sigma)^2 (x - D) + tau sqrt(1 - tau^2/sigma^2) n`, with `tau = sigma_next`,
- minus `zeta sqrt((1 + sigma^2) (1 + tau^2)) grad_x ||y - A D||`.

Claim: not exact. The likelihood of `x_t` is replaced by that of `D(x_t)`, and a step of fixed length replaces
`sigma_y`.

Departures: `scale` is one unit of the paper in ours (0.5 for pictures in [0, 1]); sigmas and the step are converted
by it. The published zeta belongs to 1000 steps and 3 x 256 x 256 numbers: it is multiplied by `(1000 / steps) sqrt(n
/ 196608)`, so that each number is moved as far as in the paper whatever the size (the norm grows as its root). Any
noise model: `grad ||y - A D||` is the pull-back of the unit vector along `y - A D`; here along the gradient of `log
p(y | A D)`, which is the same for Gaussian noise and reweights the residual for any other. Norms are per row; the
released code couples the batch. Fixed variance of the ancestral step (the paper's networks learn it); no clipping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.base import Operator
from operators.linalg import norm
from operators.random import Draws
from restore.priors.base import Denoiser, per_row
from restore.problem import Problem
from restore.samplers.base import Sampler, differentiable, differentiable_data


@dataclass(frozen=True, kw_only=True)
class DPS(Sampler):
    """DPS. One backward pass through the denoiser at each step.

    Raises SamplerError where the prior gives no gradient.

    Args:
        zeta: length of the data step, as in the paper.
        scale: one unit of the paper's signals, which lie in [-1, 1], in the units of `x`.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = Operator

    steps: int = 1000
    zeta: float = 0.5
    scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, None, "zeta", "scale", open=True)

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        A, tau = problem.operator, sigma_next
        x, D = differentiable(prior, x, sigma, "DPS")
        z = differentiable_data(A, D, "DPS")
        v = problem.score(z)
        u = v / per_row(norm(v).clamp(min=torch.finfo(v.dtype).tiny), v)
        downhill = torch.autograd.grad(z, x, u)[0]  # - grad_x ||y - A D||
        x, D = x.detach(), D.detach()
        coordinates = math.sqrt((1 + (sigma / self.scale) ** 2) * (1 + (tau / self.scale) ** 2))
        size = (1000 / self.steps) * math.sqrt(math.prod(A.ishape) / (3 * 256**2))
        x = D + (tau / sigma) ** 2 * (x - D) + self.zeta * size * self.scale * coordinates * downhill
        if tau == 0:
            return x
        return x + tau * math.sqrt(1 - (tau / sigma) ** 2) * rng.normal(A.ishape, like=x)

"""DiffPIR: denoise, pull towards the data by a proximal step, add noise again.

Use: photographs, when the picture counts and not its uncertainty: as good a mean in half the time, too little spread.

Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool, "Denoising Diffusion Models for Plug-and-Play Image Restoration",
NTIRE at CVPR 2023 (Alg. 1, eqs. 12-14).

Update, with `D = D(x, sigma)`, `tau = sigma_next` and `rho = sigma_y^2 (lambda / sigma^2 + 1 / scale^2)`:

- `x0 = argmin ||y - A x0||^2 + rho ||x0 - D||^2`,
- `x' = x0 + tau ( sqrt(1 - zeta) (x - x0) / sigma + sqrt(zeta) n )`.

Claim: not exact. `x0` is `E[x0 | x_t, y]` if the clean signal given `x_t` has the covariance `sigma_y^2 / rho I =
(lambda / sigma^2 + 1 / scale^2)^-1 I`. With `lambda = 1` that is right for `sigma` far below and far above the scale
of the signal, and too wide between: hence `lambda > 1`.

Departures: the paper has `rho = lambda sigma_y^2 / sigma^2`. The term of `scale` is the variance of PiGDM (Song et
al. 2023) at high noise; it lets the system stay well conditioned there, and hardly shows otherwise. `sigma_y` and
`sigma` are in the same units: the released code has `sigma_y` in [0, 1] and `sigma` in [-1, 1], so its lambda is
four of ours (7 there is 1.75 here). The data step is taken in the last rung too, where `rho` is large. No clipping,
which would bias the noise. The ladder of EDM in place of the quadratic one. Data that are censored pull `D` as far as
the end of the range: for orthogonal rows of `A` the proximal step of that one-sided square, number by number.

Defaults: lambda between the published 1.75 and the 1.25 that fits the data best on the Gaussian and mixture
posteriors of the exactness table; zeta as published for deblurring (1.0, as published for inpainting, makes the
draws too alike).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.base import LinearOperator
from operators.noise import Censored, Gaussian, NoiseModel
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler, SamplerError


@dataclass(frozen=True, kw_only=True)
class DiffPIR(Sampler):
    """DiffPIR.

    Args:
        lambda_: weight of the denoised signal against the data.
        zeta: share of fresh noise in the variance, 0 (deterministic) to 1.
        scale: standard deviation that the signal will not exceed, in the units of `x`.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = LinearOperator
    noises: ClassVar[tuple[type[NoiseModel], ...]] = (Gaussian, Censored)

    lambda_: float = 1.5
    zeta: float = 0.3
    scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, None, "lambda_", "scale", open=True)
        self._limit(0, 1, "zeta")

    def check(self, problem: Problem, prior: Denoiser) -> None:
        super().check(problem, prior)
        A = problem.operator
        if isinstance(problem.noise, Censored) and not (isinstance(A, LinearOperator) and A.gram is not None):
            raise SamplerError("DiffPIR takes censored data of operators with orthogonal rows only: choose DPS or TDS")

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        A, noise = problem.operator, problem.noise
        assert isinstance(A, LinearOperator) and isinstance(noise, Gaussian | Censored)
        D = prior(x, sigma)
        rho = noise.sigma**2 * (self.lambda_ / sigma**2 + 1 / self.scale**2)
        x0 = D + A.pull(noise.residual(problem.y, A.forward(D)), rho)
        if sigma_next == 0:
            return x0
        eps = (x - x0) / sigma
        n = rng.normal(A.ishape, like=x)
        return x0 + sigma_next * (math.sqrt(1 - self.zeta) * eps + math.sqrt(self.zeta) * n)

"""DDRM: a diffusion in the singular basis of `A`, each direction told by the data as far as its noise allows.

Use: a first look in 20 calls, where the SVD of the operator is known. Far too little spread.

Kawar, Elad, Ermon, Song, "Denoising Diffusion Restoration Models", NeurIPS 2022.

Update of a direction of singular value `s`, with `D = D(x, sigma)`, `eps = (x - D) / sigma`, `tau = sigma_next`:

- `D + tau (sqrt(1 - eta^2) eps + eta n)`                                    where `s = 0`,
- `D + sqrt(1 - eta^2) (tau/sigma_y) (y - s D) + eta tau n`                  where `s tau < sigma_y`,
- `(1 - eta_b) D + eta_b y/s + sqrt(tau^2 - eta_b^2 sigma_y^2/s^2) n`        otherwise.

Claim: not exact, for the reason that DDNM is not; with `eta_b = 1` the updates are those of DDNM+.

Departures: EDM coordinates and ladder. The start is the paper's: `y/s` with noise up to the rung where the data
are surer than the rung, pure noise elsewhere. In the last step, where the paper has `D`, directions that the data know
better than the last rung are those of the data: what is hardly noisy must not become as noisy as that rung.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.linalg import SVD
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler, SamplerError
from restore.samplers.spectral import replace_measured


@dataclass(frozen=True, kw_only=True)
class DDRM(Sampler):
    """DDRM. Raises SamplerError where the operator's SVD is not known.

    Args:
        eta: share of fresh noise; its std is `eta * sigma_next`.
        eta_b: weight of the data where they are surer than the rung.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = LinearOperator

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, 1, "eta", "eta_b")

    def check(self, problem: Problem, prior: Denoiser) -> None:
        super().check(problem, prior)
        A = problem.linear_gaussian[0]
        if A.svd() is None:
            raise SamplerError(
                f"DDRM needs the SVD of the operator, and that of {type(A).__name__} is not known: choose a sampler "
                "that solves instead, such as DDNM or DiffPIR"
            )

    def init(self, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        A, sigma_y = problem.linear_gaussian
        top = float(self.ladder(prior)[0])
        n = rng.normal(A.ishape, like=problem.y)

        def weigh(s: Tensor) -> tuple[Tensor, Tensor]:
            sure = s * top >= sigma_y
            fresh = (top**2 - (sigma_y / s).square()).clamp(min=0).sqrt()
            return torch.where(sure, 1 / s, 0.0), torch.where(sure, fresh, top)

        return replace_measured(_svd(A), problem.y, torch.zeros_like(n), n, top * n, weigh)

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        A, sigma_y = problem.linear_gaussian
        D, tau = prior(x, sigma), sigma_next
        svd = _svd(A)
        if tau == 0:

            def replaced(s: Tensor) -> list[Tensor]:
                surer = (s * sigma >= sigma_y) & (s > 1e-6 * s.max())
                return [torch.where(surer, w, 0.0) for w in (1 / s, s.new_tensor(-1.0))]

            return D + svd.mix(replaced, problem.y, D)
        n = rng.normal(A.ishape, like=x)
        carried = math.sqrt(1 - self.eta**2)
        noise = tau * (self.eta * n + (carried / sigma) * (x - D))

        def weigh(s: Tensor) -> tuple[Tensor, Tensor]:
            sure = s * tau >= sigma_y
            told = (self.eta_b * sigma_y / s).square()
            fresh = torch.where(sure, (tau**2 - told).clamp(min=0).sqrt(), self.eta * tau)
            return torch.where(sure, self.eta_b / s, carried * tau / sigma_y), fresh

        return replace_measured(svd, problem.y, D, n, noise, weigh)


def _svd(A: LinearOperator) -> SVD:
    svd = A.svd()
    assert svd is not None  # `check` has seen to it
    return svd

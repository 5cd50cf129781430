"""DDNM and DDNM+: replace what was measured, let the prior fill the rest.

Use: missing pixels and block averages with little noise. Too little spread; blur with noise goes wrong.

Wang, Yu, Zhang, "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model", ICLR 2023 (eqs. 13-19).

Update, with `D = D(x, sigma)`, `eps = (x - D) / sigma`, `tau = sigma_next`: the null space of `A` takes the DDIM
step `D + tau (eta n + sqrt(1 - eta^2) eps)`, and a direction of singular value `s` takes

- `y/s + sqrt(tau^2 - sigma_y^2/s^2) n`                           where `s tau >= sigma_y`,
- `D + sqrt(1 - eta^2) (tau/sigma_y) (y - s D) + eta tau n`       otherwise; both carry noise of std `tau` in all.

Where no SVD is known (departure, ours): `x' = z + (A'A + beta I)^-1 A'(y - A z + tau A n3)` with
`z = D + tau (kappa n3 + c eps + f n)`, `beta = max(sigma_y^2 / (2 tau^2), sigma_y^2 / scale^2)`,
`kappa = 1 - sigma_y^2 / (2 tau^2 beta)` and `kappa^2 + c^2 + f^2 = 1`. Per singular value the noise, with what `y`
carries counted in, has the variance `[s^2 sigma_y^2 + (tau s^2 + tau beta kappa)^2 + tau^2 beta^2 (1 - kappa^2)] /
(s^2 + beta)^2 = tau^2`: that of the rung in every direction. It tends to DDNM as `sigma_y -> 0` (`kappa = 0` below
`scale / sqrt 2`), needs one solve, and its right-hand side lies in the range of `A'`, where CG converges best.

Claim: not exact. `D` is replaced by data, not conditioned on it: no step knows how sure the prior is.

Departures: EDM coordinates and ladder; time travel re-noises the state as RePaint does (Lugmayr et al. 2022), where
the released code re-noises the unprojected `D`; singular values below 1e-6 of the largest count as zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.random import Draws
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.samplers.spectral import replace_measured


@dataclass(frozen=True, kw_only=True)
class DDNM(Sampler):
    """DDNM+ (DDNM in the limit of no noise).

    Args:
        eta: share of fresh noise; its std is `eta * sigma_next` in the null space.
        scale: standard deviation that the signal will not exceed, in the units of `x`. Only where no SVD is known: it
            keeps the linear system well conditioned at noise levels above it.
        travel_length, travel_repeat: every `travel_length` rungs go back up as many and come down again, until each
            stretch was walked `travel_repeat` times; 1 is off.
    """

    exact: ClassVar[bool] = False
    needs: ClassVar[type] = LinearOperator

    eta: float = 0.85
    scale: float = 0.5
    travel_length: int = 10
    travel_repeat: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._limit(0, 1, "eta")
        self._limit(0, None, "scale", open=True)
        self._limit(1, None, "travel_length", "travel_repeat")

    def ladder(self, prior: Denoiser) -> Tensor:
        """The shared ladder, with the climbs of time travel in it."""
        sigmas = super().ladder(prior)
        walk = [sigmas[:1]]
        for start in range(0, self.steps, self.travel_length):
            down = sigmas[start + 1 : start + 1 + self.travel_length]
            walk += [down] + [sigmas[start : start + 1], down] * (self.travel_repeat - 1)
        return torch.cat(walk)

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior: Denoiser, rng: Draws) -> Tensor:
        A, sigma_y = problem.linear_gaussian
        y, tau = problem.y, sigma_next
        if tau > sigma:  # time travel
            return x + math.sqrt(tau**2 - sigma**2) * rng.normal(A.ishape, like=x)
        D = prior(x, sigma)
        if tau == 0:
            return D
        n = rng.normal(A.ishape, like=x)
        carried = math.sqrt(1 - self.eta**2)
        noise = tau * self.eta * n + (tau * carried / sigma) * (x - D)
        if A.gram is not None:  # one singular value: its SVD without the transforms
            s = A.gram**0.5
            gain, fresh = (v.item() for v in self._gains(torch.tensor([s], dtype=torch.float64), tau, sigma_y))
            lam = gain * s
            return D + noise + A.adjoint(lam * y + A.forward(fresh * n - noise - lam * D)) / A.gram
        svd = A.svd()
        if svd is not None:
            return replace_measured(svd, y, D, n, noise, lambda s: self._gains(s, tau, sigma_y))
        beta = sigma_y**2 * max(1 / (2 * tau**2), 1 / self.scale**2)
        kappa = 1 - sigma_y**2 / (2 * tau**2 * beta)
        carried = min(carried, math.sqrt(1 - kappa**2))
        fresh = math.sqrt(max(1 - kappa**2 - carried**2, 0))
        n3 = rng.normal(A.ishape, like=x)
        z = D + tau * (kappa * n3 + (carried / sigma) * (x - D) + fresh * n)
        return z + A.pull(y - A.forward(z - tau * n3), beta)

    def _gains(self, s: Tensor, tau: float, sigma_y: float) -> tuple[Tensor, Tensor]:
        """Weight of `U'y - s V'D` and std of the fresh noise for each singular value (eqs. 18-19)."""
        sure = s * tau >= sigma_y
        gain = torch.where(sure, 1 / s, tau * math.sqrt(1 - self.eta**2) / sigma_y)
        fresh = torch.where(sure, (tau**2 - (sigma_y / s).square()).clamp(min=0).sqrt(), tau * self.eta)
        return gain, fresh

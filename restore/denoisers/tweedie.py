"""From the score of noisy pictures to the posterior mean, for Gaussian, Poisson, Gamma and every Tweedie noise.

Kim and Ye, *Noise2Score*, NeurIPS 2021 (Gaussian, Poisson, Gamma); Kim, Kwon and Ye, *Noise Distribution Adaptive
Self-Supervised Image Denoising using Tweedie Distribution and Score Matching*, CVPR 2022 (the family, by the saddle
point approximation). With `Var[y | x] = phi x^rho` and `s(y) = grad log p(y)`:

    rho = 0, Gaussian   y + phi s                        phi = sigma^2
    rho = 1, Poisson    (y + phi / 2) exp(phi s)         phi = gain
    rho = 2, Gamma      y / (1 - phi - phi y s)          phi = 1 / k
    any other           y (1 + (1 - rho) a)^(1 / (1 - rho)),   a = phi (rho / 2 y^(rho - 2) + y^(rho - 1) s)

These are `mu(E[theta | y])` with `theta` the natural parameter: a geometric mean for Poisson and a harmonic one for
Gamma, below the posterior mean that the papers mean to compute; only the Gaussian is exact. The "shifted" form is ours:

    x = mu(y + phi rho / 2 mu^(rho - 1)),   pixel by pixel,

the published form at a pixel that is brighter by a small shift. To first order it adds the missing
`mu''(theta) Var[theta | y] / 2`; for Poisson it is the midpoint rule of Robbins' exact `(y + phi) p(y + phi) / p(y)`;
for Gamma it is the same of `k int_y^inf p(t) (y / t)^(k - 1) dt / p(y)`, and nearer to the truth than the expansion by
the derivative of the score.

Each pixel has to be shifted alone: a score that looks at neighbours hardly changes where all pixels grow brighter
together. Half of the pixels, at random, go up and the others down, and then the reverse; only those that went up are
read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

import torch
from torch import Tensor

from operators.noise import Gamma, Gaussian, NoiseModel, Poisson

from .variable import Variable

Score = Callable[[Tensor], Tensor]  # (B, *shape) -> (B, *shape), in the units of y
Form = Literal["shifted", "published"]

LARGEST = 8.0  # times brighter than the data: beyond it the score is wrong
DARKEST = 1e-6  # where powers of y are taken
PLAIN = Variable()


@dataclass(frozen=True)
class Tweedie:
    """Noise with `E[y | x] = x` and `Var[y | x] = phi x^rho`.

    Raises:
        ValueError: `phi` is not positive and finite, or `rho` lies between 0 and 1, where there is no such law.
    """

    rho: float
    phi: float

    def __post_init__(self) -> None:
        if not (self.phi > 0 and math.isfinite(self.phi)):
            raise ValueError(f"phi must be a positive number, got {self.phi}")
        if self.rho < 0 or 0 < self.rho < 1:
            raise ValueError(f"rho must be 0 or at least 1, got {self.rho}")

    def variance(self, x: Tensor) -> Tensor:
        return self.phi * x.clamp(min=0) ** self.rho


@singledispatch
def as_tweedie(noise: NoiseModel | Tweedie) -> Tweedie:
    """The member of the family that a noise model is. Raises TypeError where it is none."""
    raise TypeError(f"{noise} is not of the Tweedie family: Gaussian, Poisson and Gamma noise are")


@as_tweedie.register
def _(noise: Tweedie) -> Tweedie:
    return noise


@as_tweedie.register
def _(noise: Gaussian) -> Tweedie:
    return Tweedie(0, noise.sigma**2)


@as_tweedie.register
def _(noise: Poisson) -> Tweedie:
    return Tweedie(1, noise.gain)


@as_tweedie.register
def _(noise: Gamma) -> Tweedie:
    return Tweedie(2, 1 / noise.k)


def posterior_mean(
    score: Score,
    y: Tensor,
    noise: NoiseModel | Tweedie,
    *,
    form: Form = "shifted",
    smoothing: float = 0.0,
    variable: Variable = PLAIN,
    pairs: int = 4,
    seed: int = 0,
) -> Tensor:
    """`E[x | y]`, `(B, *shape)`, in one call of the score for the published form and Gaussian noise, else `1 + 2
    pairs`.

    Args:
        score: `s(y)`, the gradient of the log density of noisy pictures.
        y: `(B, *shape)`, noisy pictures.
        noise: Gaussian, Poisson, Gamma or `Tweedie`, in the units of `y`.
        form: "shifted" or "published", see above; the same for Gaussian noise.
        smoothing: standard deviation `sigma_a` of the Gaussian noise on top with which the score was learnt. To first
            order that is the score of data with a `phi` larger by `(V + sigma_a^2) / V`, with `V` the variance of the
            noise; such a `phi` (twice the true one at most) is used.
        variable: which that noise was put on; `V` is that of this variable too.
        pairs: of random patterns of pixels that are shifted; more cost more and leave less noise.
        seed: of these patterns.

    Raises:
        TypeError: the noise is not of the family.
        ValueError: negative data and noise that has none; unknown form.
    """
    law = as_tweedie(noise)
    if form not in ("shifted", "published"):
        raise ValueError(f"form must be 'shifted' or 'published', got {form!r}")
    if law.rho and bool((y < 0).any()):
        raise ValueError(f"{noise} cannot give negative data, but the smallest value of y is {float(y.min()):.3g}")

    def phi(at: Tensor) -> Tensor:
        """Of the noise and what is on top of it."""
        if not smoothing:
            return torch.full_like(at, law.phi)
        own = law.variance(at + variable.dark) * variable.slope(at) ** 2
        return law.phi * (1 + smoothing**2 / own.clamp(min=smoothing**2))

    plain = _mean_of_natural(score(y), y, law.rho, phi(y))
    if form == "published" or law.rho == 0:
        return plain
    shift = phi(y) * law.rho / 2 * plain.clamp(min=DARKEST) ** (law.rho - 1)
    rng, total = torch.Generator().manual_seed(seed), torch.zeros_like(y)
    for _ in range(pairs):
        sign = (2 * torch.randint(2, y.shape, generator=rng) - 1).to(y)
        s = torch.where(sign > 0, score(y + sign * shift), score(y - sign * shift))
        total += _mean_of_natural(s, y + shift, law.rho, phi(y + shift))
    return total / pairs


def _mean_of_natural(s: Tensor, y: Tensor, rho: float, phi: Tensor) -> Tensor:
    """`mu(E[theta | y])`: the published formulas."""
    if rho == 0:
        return y + phi * s
    if rho == 1:
        return (y + phi / 2) * (phi * s).clamp(max=math.log(LARGEST)).exp()
    floored = y.clamp(min=DARKEST)
    a = phi * (rho / 2 * floored ** (rho - 2) + floored ** (rho - 1) * s)
    return y * (1 - (rho - 1) * a).clamp(min=LARGEST ** (1 - rho)) ** (1 / (1 - rho))

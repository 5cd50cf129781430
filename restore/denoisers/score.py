"""The score of noisy pictures, held by a network of the same make as a prior's, in the same files."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from operators.noise import NoiseModel
from restore.priors.base import Denoiser, per_row

from .tweedie import Form, Tweedie, as_tweedie, posterior_mean
from .variable import Variable

# sigma_a / scale where a score is used: of 0, 1/4 and 1/2 that with the best uPSNR (restore.metrics), for short
# trainings on Poisson and Gamma noise and noisy copies of photographs of no test set. No clean picture had a say.
SMOOTHING = 0.25


def smoothed_score(denoiser: Denoiser, z: Tensor, sigma_a: Tensor | float, scale: Tensor | float) -> Tensor:
    """`(D(z, tau) - z) / tau^2`, `tau^2 = scale^2 + sigma_a^2`; `sigma_a` and `scale` one number or `(B,)`."""
    tau = (per_row(scale, z) ** 2 + per_row(sigma_a, z) ** 2).sqrt()
    return (denoiser(z, tau.reshape(-1)) - z) / tau**2


@dataclass(frozen=True)
class ScoreNetwork:
    """`s(y) = grad log p` of noisy pictures, by that of their `z = Variable(denoiser.rho)(y)` with further Gaussian
    noise of std `sigma_a` on top:

        s(y) = z' s_z(z(y); sigma_a) + (log z')',   s_z(z; sigma_a) = (D(z, tau) - z) / tau^2.

    `scale`, the `tau` without noise on top, should be near the standard deviation of the noise of `z`: then what the
    network inside `D` has to learn is of order one, and it is told how noisy the picture is, as far as that is known.
    It is a choice of units, not knowledge of the noise: any score can be written so. Where `z = y` and the noise is
    Gaussian of that very std, `D` is the denoiser of clean pictures for every level from `scale` on, a prior like
    another; else it is not, and only the score means something. `denoiser.sigma_min` and `sigma_max` are the smallest
    and the largest `scale` of the pictures that it was learnt on.

    `save_prior` and `load_prior` keep a `ScoreNetwork`'s denoiser: `ScoreNetwork(load_prior(folder))` is in `[0, 1]`
    units.

    Args:
        denoiser: of noisy pictures in `[0, 1]`, as learnt by `restore.learn.noise2score`; of any units if its `rho` is
            0.
    """

    denoiser: Denoiser

    def scale(self, noise: NoiseModel | Tweedie) -> float:
        """That of pictures with such noise: its std in `z` at mid-grey, or the nearest that was learnt."""
        grey = torch.tensor(0.5)
        std = float(as_tweedie(noise).variance(grey).sqrt() * self.variable.slope(grey))
        return min(max(std, self.denoiser.sigma_min), self.denoiser.sigma_max)

    @property
    def variable(self) -> Variable:
        return Variable(self.denoiser.rho)

    def __call__(self, y: Tensor, sigma_a: Tensor | float = 0.0, scale: Tensor | float | None = None) -> Tensor:
        """`(B, C, *spatial)`; `sigma_a` and `scale` (the smallest) one number or `(B,)`, in the units of `z`."""
        scale = self.denoiser.sigma_min if scale is None else scale
        of_z = smoothed_score(self.denoiser, self.variable(y), sigma_a, scale)
        return self.variable.slope(y) * of_z + self.variable.log_slope(y)

    def denoise(self, y: Tensor, noise: NoiseModel | Tweedie, *, form: Form = "shifted") -> Tensor:
        """`E[x | y]`, `(B, C, *spatial)`: `posterior_mean` with this score, a little smoothed. Raises as it does."""
        scale = self.scale(noise)
        sigma_a = SMOOTHING * scale
        return posterior_mean(
            lambda y: self(y, sigma_a, scale), y, noise, form=form, smoothing=sigma_a, variable=self.variable
        )

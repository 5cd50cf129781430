"""What was learnt for one type of noise as a denoiser like another, told how strong it is by its std at mid-grey."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.noise import Gamma, Gaussian, NoiseModel, Poisson
from restore.priors.base import Denoiser
from restore.priors.store import CONFIG, find_prior, load_prior, read_config

from .score import ScoreNetwork
from .tweedie import Tweedie
from .variable import Variable

KINDS: dict[str, type[NoiseModel]] = {"gaussian": Gaussian, "poisson": Poisson, "gamma": Gamma}
REACH = 4.0  # times weaker or stronger noise than the score was learnt on


def at_mid_grey(law: Tweedie) -> float:
    """The std of the noise of a pixel of 0.5."""
    return math.sqrt(law.phi * 0.5**law.rho)


def of_std(rho: float, sigma: float) -> Tweedie:
    """The law of that type whose std at mid-grey is `sigma`."""
    return Tweedie(rho, sigma**2 / 0.5**rho)


def in_units(law: Tweedie, scale: float) -> Tweedie:
    """The law of `y / scale`."""
    return Tweedie(law.rho, law.phi * scale ** (law.rho - 2))


def in_words(law: Tweedie) -> str:
    """`Gaussian, std 0.1 (25.5/255)` and the like."""
    if law.rho == 0:
        return f"Gaussian, std {law.phi**0.5:.3g} ({255 * law.phi**0.5:.3g}/255)"
    parameter = f"gain {law.phi:.3g}" if law.rho == 1 else f"k {1 / law.phi:.3g}"
    return f"{'Poisson' if law.rho == 1 else 'Gamma'}, {parameter} (std {at_mid_grey(law):.3g} at mid-grey)"


class PosteriorMean(Denoiser):
    """`E[x | y]`. It denoises; no sampler can use it.

    Args:
        denoiser: in `[0, 1]` units; that of the score of noisy pictures, for `ScoreNetwork.denoise`, unless `told`.
        rho: the type of the noise, 0 (Gaussian), 1 (Poisson) or 2 (Gamma).
        told: the denoiser gives `E[x | y]` itself, and is told this many times the std (`restore.learn.gr2r`).
    """

    rho: float

    def __init__(self, denoiser: Denoiser, rho: float = 0.0, told: float | None = None):
        super().__init__()
        self.denoiser, self.rho, self.told = denoiser, float(rho), told
        self.shape = denoiser.shape
        per_std = told or float(Variable(denoiser.rho).slope(torch.tensor(0.5)))
        self.usual = denoiser.sigma_min / per_std  # the least that pictures it was learnt on have at mid-grey
        most = self.usual if told else denoiser.sigma_max / per_std
        self.sigma_min, self.sigma_max = self.usual / REACH, most * REACH

    def forward(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """`(B, C, H, W)`; `sigma`, one number or `(B,)`: the std of the noise at mid-grey. Raises as `posterior_mean`
        does."""
        if self.told is not None:
            return self.denoiser(y, sigma * self.told)
        score, levels = ScoreNetwork(self.denoiser), torch.as_tensor(sigma).reshape(-1).tolist()
        if len(levels) == 1:
            return score.denoise(y, of_std(self.rho, levels[0]))
        return torch.cat([score.denoise(row[None], of_std(self.rho, s)) for row, s in zip(y, levels, strict=True)])

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return self.denoiser.accepts(shape)


def load_score(name: str, rho: float = 0.0) -> PosteriorMean:
    """What was learnt for noise of type `rho` only, such as by `restore denoise --self-supervised`: a folder. Raises
    InputError as `load_prior` does."""
    prior = load_prior(name)
    return PosteriorMean(prior, rho, read_config(find_prior(name) / CONFIG).get("score", {}).get("told"))

"""Small problems whose posterior is known exactly: what every sampler is measured on."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
import yaml
from torch import Tensor

from operators import kernels
from operators.base import LinearOperator
from operators.image import Blur, Downsample, Mask
from operators.noise import Gaussian as GaussianNoise
from operators.random import Draws
from restore.core import Restoration, restore
from restore.priors.analytic import Gaussian, GaussianMixture
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.uncertainty.exact import Exactness, exactness

NOISE = 0.05
PRIORS = ("gaussian", "mixture", "skewed")
OPERATORS = ("mask", "blur", "downsample", "downsample4")


def covariance(size: int) -> Tensor:
    """Stationary covariance with a power-law spectrum and a standard deviation of 0.2, `(size^2, size^2)`."""
    f = torch.fft.fftfreq(size, dtype=torch.float64) * size
    spectrum = (1 + f[:, None].square() + f.square()) ** -1.5
    c = torch.fft.ifft2(spectrum).real
    lag = (torch.arange(size)[:, None] - torch.arange(size)) % size
    C = c[lag[:, None, :, None], lag[None, :, None, :]].reshape(size**2, size**2)
    return C * (0.2**2 / C[0, 0])


def prior(name: str, size: int) -> GaussianMixture:
    """A Gaussian around 0.5, four of them that differ in fine patterns, or three that differ in spread too.

    The fine patterns are hidden from any of the operators. In the skewed mixture the rarer a component, the farther and
    wider it is: along checks, which averages hide, and along a wave of eight pixels, which they do not.
    """
    D = _prior(name, size)
    D.sigma_min, D.sigma_max = 0.001, 10.0  # the range of a prior learnt on pictures in [0, 1]
    return D


def _prior(name: str, size: int) -> GaussianMixture:
    C, mean = covariance(size), torch.full((1, size, size), 0.5, dtype=torch.float64)
    if name == "gaussian":
        return Gaussian(mean, C)
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    checks, stripes = (-1.0) ** (i + j), (-1.0) ** i
    if name == "skewed":
        fine, wave = (a * v.double() / v.norm() for a, v in ((0.12, checks), (0.2, torch.cos(torch.pi * j / 4))))
        apart = torch.stack([torch.zeros_like(fine), fine, fine + wave])[:, None]
        wider = torch.stack([torch.zeros_like(C), outer(fine), outer(fine) + outer(wave)])
        return GaussianMixture(torch.tensor([0.6, 0.3, 0.1]), mean + apart, C / 4 + wider)
    patterns = torch.stack([checks, -checks, stripes, -stripes]).double()[:, None]
    # 8 / size: the same distance between the modes in standard deviations of the noise, whatever the size
    return GaussianMixture(torch.tensor([0.4, 0.3, 0.2, 0.1]), mean + 0.015 * 8 / size * patterns, C / 4)


def outer(v: Tensor) -> Tensor:
    """`v v'`, `(n, n)`."""
    return v.flatten()[:, None] * v.flatten()


def operator(name: str, size: int) -> LinearOperator:
    """A random half of the pixels, a circular Gaussian blur of one pixel, or the means of 2 x 2 or 4 x 4 blocks."""
    if name == "mask":
        kept = torch.randperm(size**2, generator=torch.Generator().manual_seed(1))[: size**2 // 2]
        return Mask(torch.zeros(size**2, dtype=torch.bool).index_fill(0, kept, True).reshape(1, size, size))
    if name == "blur":
        kernel = kernels.gaussian(1.0)[2:-2, 2:-2]
        return Blur(kernel / kernel.sum(), (1, size, size))
    return Downsample((1, size, size), 4 if name == "downsample4" else 2, "block")


def problem(prior_name: str, operator_name: str, size: int) -> tuple[Problem, GaussianMixture]:
    """Data made from one draw of the prior, `(problem, prior)`, in float64."""
    D, A = prior(prior_name, size), operator(operator_name, size)
    noise = GaussianNoise(NOISE)
    return Problem(noise.sample(A(D.sample(Draws(7))), Draws(8)), A, noise), D


def rows(size: int) -> Gaussian:
    """A prior on noise of std 0.1 that is nearly one number in each row."""
    block = 0.9 * torch.ones(size, size, dtype=torch.float64) + 0.1 * torch.eye(size, dtype=torch.float64)
    D = Gaussian(torch.zeros(1, size, size, dtype=torch.float64), 0.01 * torch.block_diag(*[block] * size))
    D.sigma_min, D.sigma_max = 0.001, 10.0
    return D


def two_sources(A: LinearOperator, prior_name: str = "gaussian") -> tuple[Problem, GaussianMixture, Gaussian]:
    """Data with row noise and white noise on them, the prior of the signal and that of the rows."""
    X, N, white = prior(prior_name, A.ishape[-1]), rows(A.oshape[-1]), GaussianNoise(NOISE)
    z = A(X.sample(Draws(7))) + N.sample(Draws(9))
    return Problem(white.sample(z, Draws(8)), A, white), X, N


def samplers() -> dict[str, Sampler]:
    """Every sampler of `configs/sampler` with its defaults, by the name of its file."""
    found = {}
    for path in sorted((Path(__file__).parents[1] / "configs" / "sampler").glob("*.yaml")):
        config = yaml.safe_load(path.read_text())
        module, name = config.pop("_target_").rsplit(".", 1)
        found[path.stem] = getattr(importlib.import_module(module), name)(**config)
    return found


def compare(sampler: Sampler, problem: Problem, prior: GaussianMixture, draws: int) -> tuple[Exactness, Restoration]:
    """The sampler's draws against the exact posterior, and the draws themselves."""
    R = restore(problem, prior, sampler, num_samples=draws)
    return exactness(R.samples, prior.posterior(problem)), R

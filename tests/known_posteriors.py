"""Small problems whose posterior is known exactly: what every sampler is measured on (tests and tests/bench/exact.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.noise import Gaussian as GaussianNoise
from operators.random import Draws
from restore.priors.analytic import Gaussian, GaussianMixture
from restore.problem import Problem

NOISE = 0.05
PRIORS = ("gaussian", "mixture")
OPERATORS = ("mask", "blur", "downsample")


def covariance(size: int) -> Tensor:
    """Stationary covariance of pictures with a power-law spectrum and a standard deviation of 0.2, `(size^2, size^2)`."""
    f = torch.fft.fftfreq(size, dtype=torch.float64) * size
    spectrum = (1 + f[:, None].square() + f.square()) ** -1.5
    c = torch.fft.ifft2(spectrum).real
    lag = (torch.arange(size)[:, None] - torch.arange(size)) % size
    C = c[lag[:, None, :, None], lag[None, :, None, :]].reshape(size**2, size**2)
    return C * (0.2**2 / C[0, 0])


def prior(name: str, size: int) -> GaussianMixture:
    """A Gaussian around 0.5, or four of them that differ in fine patterns, which data of any of the operators hide."""
    C, mean = covariance(size), torch.full((1, size, size), 0.5, dtype=torch.float64)
    if name == "gaussian":
        return Gaussian(mean, C)
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    checks, stripes = (-1.0) ** (i + j), (-1.0) ** i
    patterns = torch.stack([checks, -checks, stripes, -stripes]).double()[:, None]
    # 3 x 8 / size: the same distance between the modes in standard deviations of the noise, whatever the size
    return GaussianMixture(torch.tensor([0.4, 0.3, 0.2, 0.1]), mean + 0.03 * 8 / size * patterns, C / 4)

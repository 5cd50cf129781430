"""Generalised recorruption: two halves as they should be, a loss that is the true error, the best line its minimum."""

import pytest
import torch
from torch import nn

from operators.noise import Gamma, Gaussian, Poisson
from operators.random import Draws
from restore.learn.base import Batch
from restore.learn.gr2r import GR2R
from restore.priors.base import Denoiser

NOISES = [("gaussian", Gaussian(0.1), 0.01), ("poisson", Poisson(0.02), 0.02), ("gamma", Gamma(50), 0.02)]
N, POWER = 100_000, {"gaussian": 0, "poisson": 1, "gamma": 2}


@pytest.mark.parametrize(("kind", "noise", "phi"), NOISES, ids=str)
def test_the_halves_are_independent_noisy_pictures(kind, noise, phi):
    x, alpha = 0.6, 0.3
    y = noise.sample(torch.full((1, N), x, dtype=torch.float64), Draws(0))
    y1, y2 = GR2R(kind=kind).split(y, torch.tensor(alpha), torch.tensor(phi), torch.Generator().manual_seed(0))
    assert torch.allclose((1 - alpha) * y1 + alpha * y2, y)
    variance = phi * x ** POWER[kind]
    for half, share in ((y1, 1 - alpha), (y2, alpha)):
        assert float(half.mean()) == pytest.approx(x, abs=4 * (variance / share / N) ** 0.5)
        assert float(half.var()) == pytest.approx(variance / share, rel=0.03)
    assert abs(float(torch.corrcoef(torch.cat([y1, y2]))[0, 1])) < 4 / N**0.5


class Wiener(Denoiser):
    """`shift + slope (x - mean)`, with the best straight line at `(0, 0)` for two brightnesses, half of each."""

    shape, sigma_min, sigma_max = (None, None, None), 0.01, 5.0

    def __init__(self, theta, kind, phi, alpha):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))
        p = POWER[kind]
        noise = 4 * phi * (0.3**p + 0.8**p) / 2 / (1 - alpha)
        self.mean, self.slope = 0.1, 0.25 / (0.25 + noise)  # of 2 * (0.3, 0.8) - 1: variance 0.25
        self.answer = None

    def forward(self, x, sigma):
        self.answer = self.mean + self.theta[0] + (self.slope + self.theta[1]) * (x - self.mean)
        return self.answer


def mid_grey(kind, phi):
    """The std at mid-grey, in `[-1, 1]`."""
    return 2 * (phi * 0.5 ** POWER[kind]) ** 0.5


def pictures(noise, sigma):
    x = torch.tensor([0.3, 0.8], dtype=torch.float64).repeat(N // 4, 2).reshape(-1, 1, 2, 2)
    return 2 * x - 1, Batch(
        2 * noise.sample(x.reshape(1, -1), Draws(0)).reshape(x.shape) - 1, torch.full((len(x),), sigma)
    )


@pytest.mark.parametrize(("kind", "noise", "phi"), NOISES, ids=str)
def test_the_risk_is_the_true_error_and_the_best_line_is_stationary(kind, noise, phi):
    objective = GR2R(kind=kind, low=1.0, high=1.0)
    x, batch = pictures(noise, mid_grey(kind, phi))

    def off(batch, theta):
        """The risk less the true error, and the gradient of the loss, in standard errors."""
        denoiser = Wiener(theta, kind, phi, 0.5)
        rng = torch.Generator().manual_seed(1)
        risk = objective.risk(denoiser, batch, rng)
        error = (risk - (denoiser.answer - x).square().flatten(1).mean(1)).detach()
        parts = objective.loss(denoiser, batch, rng).split(500)
        each = torch.stack([torch.autograd.grad(p.mean(), denoiser.theta, retain_graph=True)[0] for p in parts])
        gradient = each.mean(0) / (each.std(0) / len(each) ** 0.5)
        return abs(float(error.mean() / error.std() * len(error) ** 0.5)), float(gradient.abs().max())

    assert off(batch, (0.0, 0.0))[0] < 4 and off(batch, (0.05, 0.1))[0] < 4
    assert off(batch, (0.0, 0.0))[1] < 4
    assert off(batch, (0.02, 0.0))[1] > 6 and off(batch, (0.0, -0.05))[1] > 6
    assert off(batch._replace(sigma=2**0.5 * batch.sigma), (0.0, 0.0))[0] > 8


STRONGER = {"gaussian": Gaussian(0.1 * 2**0.5), "poisson": Poisson(0.04), "gamma": Gamma(25)}


@pytest.mark.parametrize(("kind", "noise", "phi"), NOISES, ids=str)
def test_each_picture_may_have_a_level_of_its_own(kind, noise, phi):
    x, weak = pictures(noise, mid_grey(kind, phi))
    _, strong = pictures(STRONGER[kind], mid_grey(kind, 2 * phi))
    half = len(x) // 2
    y = torch.cat([weak.x[:half], strong.x[half:]])
    told = Batch(y, torch.cat([weak.sigma[:half], strong.sigma[half:]]))
    denoiser = Wiener((0.05, 0.1), kind, phi, 0.5)

    def off(batch):
        """The risk of the second half less the true error, in standard errors."""
        risk = GR2R(kind=kind, low=1.0, high=1.0).risk(denoiser, batch, torch.Generator().manual_seed(1))
        error = (risk - (denoiser.answer - x).square().flatten(1).mean(1))[half:].detach()
        return abs(float(error.mean() / error.std() * half**0.5))

    assert off(told) < 4 and off(Batch(y, weak.sigma)) > 8


def test_strong_speckle_does_not_bias_the_risk():
    objective = GR2R(kind="gamma", low=1.0, high=1.0)
    x, batch = pictures(Gamma(5), mid_grey("gamma", 0.2))
    denoiser = Wiener((0.0, 0.0), "gamma", 0.2, 0.5)
    error = objective.risk(denoiser, batch, torch.Generator().manual_seed(1)).detach()
    error -= (denoiser.answer - x).square().flatten(1).mean(1).detach()
    assert abs(float(error.mean() / error.std() * len(error) ** 0.5)) < 4


def test_the_level_for_noisy_pictures_is_the_lowest():
    lowest, highest = GR2R().trusted(Wiener((0.0, 0.0), "poisson", 0.05, 0.5), {1: [0.3, 0.2]})
    assert (lowest, highest) == pytest.approx((0.2 * 1.25**0.5, 0.3 * 5**0.5))
    assert GR2R().of_noise(None) == {"rho": 1.0, "told": 1.25**0.5}


@pytest.mark.parametrize("wrong", [{"kind": "speckle"}, {"low": 3.0}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="GR2R"):
        GR2R(**wrong)

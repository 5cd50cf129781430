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
    y1, y2 = GR2R(kind=kind, phi=phi).split(y, torch.tensor(alpha), torch.Generator().manual_seed(0))
    assert torch.allclose((1 - alpha) * y1 + alpha * y2, y)
    variance = phi * x ** POWER[kind]
    for half, share in ((y1, 1 - alpha), (y2, alpha)):
        assert float(half.mean()) == pytest.approx(x, abs=4 * (variance / share / N) ** 0.5)
        assert float(half.var()) == pytest.approx(variance / share, rel=0.03)
    assert abs(float(torch.corrcoef(torch.cat([y1, y2]))[0, 1])) < 4 / N**0.5


class Wiener(Denoiser):
    """`shift + slope (x - mean)`, with the best straight line at `(0, 0)` for two brightnesses, half of each."""

    shape, sigma_min, sigma_max = (None, None, None), 0.01, 5.0

    def __init__(self, theta, objective, alpha):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))
        p = POWER[objective.kind]
        noise = 4 * objective.phi * (0.3**p + 0.8**p) / 2 / (1 - alpha)
        self.mean, self.slope = 0.1, 0.25 / (0.25 + noise)  # of 2 * (0.3, 0.8) - 1: variance 0.25
        self.answer = None

    def forward(self, x, sigma):
        self.answer = self.mean + self.theta[0] + (self.slope + self.theta[1]) * (x - self.mean)
        return self.answer


def pictures(noise):
    x = torch.tensor([0.3, 0.8], dtype=torch.float64).repeat(N // 4, 2).reshape(-1, 1, 2, 2)
    return 2 * x - 1, Batch(2 * noise.sample(x.reshape(1, -1), Draws(0)).reshape(x.shape) - 1, torch.zeros(len(x)))


@pytest.mark.parametrize(("kind", "noise", "phi"), NOISES, ids=str)
def test_the_risk_is_the_true_error_and_the_best_line_is_stationary(kind, noise, phi):
    objective = GR2R(kind=kind, phi=phi, low=1.0, high=1.0)
    x, batch = pictures(noise)

    def off(objective, theta):
        """The risk less the true error, and the gradient of the loss, in standard errors."""
        denoiser = Wiener(theta, GR2R(kind=kind, phi=phi), 0.5)
        rng = torch.Generator().manual_seed(1)
        risk = objective.risk(denoiser, batch, rng)
        error = (risk - (denoiser.answer - x).square().flatten(1).mean(1)).detach()
        parts = objective.loss(denoiser, batch, rng).split(500)
        each = torch.stack([torch.autograd.grad(p.mean(), denoiser.theta, retain_graph=True)[0] for p in parts])
        gradient = each.mean(0) / (each.std(0) / len(each) ** 0.5)
        return abs(float(error.mean() / error.std() * len(error) ** 0.5)), float(gradient.abs().max())

    assert off(objective, (0.0, 0.0))[0] < 4 and off(objective, (0.05, 0.1))[0] < 4
    assert off(objective, (0.0, 0.0))[1] < 4
    assert off(objective, (0.02, 0.0))[1] > 6 and off(objective, (0.0, -0.05))[1] > 6
    assert off(GR2R(kind=kind, phi=2 * phi, low=1.0, high=1.0), (0.0, 0.0))[0] > 8


def test_strong_speckle_does_not_bias_the_risk():
    objective = GR2R(kind="gamma", phi=0.2, low=1.0, high=1.0)
    x, batch = pictures(Gamma(5))
    denoiser = Wiener((0.0, 0.0), objective, 0.5)
    error = objective.risk(denoiser, batch, torch.Generator().manual_seed(1)).detach()
    error -= (denoiser.answer - x).square().flatten(1).mean(1).detach()
    assert abs(float(error.mean() / error.std() * len(error) ** 0.5)) < 4


def test_the_level_for_noisy_pictures_is_the_lowest():
    objective = GR2R(kind="poisson", phi=0.05)
    lowest, highest = objective.trusted(Wiener((0.0, 0.0), objective, 0.5), {})
    assert (lowest, highest) == pytest.approx((0.3162 * 1.25**0.5, 0.3162 * 5**0.5), rel=1e-3)


@pytest.mark.parametrize("wrong", [{"kind": "speckle"}, {"phi": 0.0}, {"low": 3.0}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="GR2R"):
        GR2R(**wrong)

"""Foreign denoisers: an analytic prior sent through each wrapper must come back as itself."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from operators.base import Identity
from operators.noise import Gaussian as GaussianNoise
from operators.random import Draws
from restore.priors.analytic import Gaussian
from restore.priors.base import Rescaled
from restore.priors.external import NoisePredictor, from_deepinv, linear_schedule, to_deepinv
from restore.problem import Problem

SHAPE = (3, 4, 5)


@pytest.fixture
def gaussian() -> Gaussian:
    factor = torch.randn(60, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Gaussian(torch.linspace(-1, 1, 60).reshape(SHAPE), 0.3 * factor @ factor.T / 60)


def pictures(rows: int = 2) -> torch.Tensor:
    return torch.rand(rows, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


class AnalyticEps(nn.Module):
    """The noise predictor of a VP diffusion of a Gaussian, from the DDPM equations alone (no sigma anywhere)."""

    def __init__(self, prior: Gaussian, form: str):
        super().__init__()
        self.mean, self.cov, self.form = prior.mean.flatten(), prior.covariance_matrix, form
        self.abar = linear_schedule()

    def forward(self, x_vp, t):
        rows = []
        for x, step in zip(x_vp.flatten(1), t, strict=True):
            a = self.abar[round(float(step))]
            v = a * self.cov + (1 - a) * torch.eye(60, dtype=torch.float64)  # Cov[x_vp]
            # E[eps | x_vp] = sqrt(1 - a) Cov[x_vp]^-1 (x_vp - sqrt(a) mean)
            rows.append((1 - a).sqrt() * torch.linalg.solve(v, x - a.sqrt() * self.mean))
        eps = torch.stack(rows).reshape(x_vp.shape)
        if self.form == "learnt variance":
            return torch.cat([eps, torch.full_like(eps, 9.0)], 1)
        return SimpleNamespace(sample=eps) if self.form == "diffusers" else eps


@pytest.mark.parametrize("form", ["plain", "learnt variance", "diffusers"])
@pytest.mark.parametrize("step", [0, 300, 999])
def test_an_analytic_noise_predictor_gives_back_the_analytic_denoiser(gaussian, form, step):
    prior = NoisePredictor(AnalyticEps(gaussian, form), SHAPE)
    sigma = float(((1 - prior_abar(step)) / prior_abar(step)) ** 0.5)
    x = pictures() + sigma * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(prior(x, sigma), gaussian(x, sigma), rtol=1e-8, atol=1e-8 * (1 + sigma))


def prior_abar(step: int) -> torch.Tensor:
    return linear_schedule()[step]


def test_time_inverts_the_schedule_and_is_fractional_in_between():
    prior = NoisePredictor(nn.Identity(), SHAPE)
    sigmas = prior.log_sigmas.exp()
    torch.testing.assert_close(prior.time(sigmas), torch.arange(1000.0).double(), rtol=0, atol=1e-6)
    between = (sigmas[10] * sigmas[11]).sqrt()[None]
    assert float(prior.time(between)) == pytest.approx(10.5)
    assert prior.time(torch.tensor([1e-6, 1e6])).tolist() == pytest.approx([0, 999])
    assert prior.sigma_min == pytest.approx(0.01, rel=0.01) and prior.sigma_max == pytest.approx(157, rel=0.01)


def test_each_row_has_its_own_noise_level(gaussian):
    prior, x = NoisePredictor(AnalyticEps(gaussian, "plain"), SHAPE), pictures()
    sigmas = prior.log_sigmas.exp()[[100, 700]]
    apart = torch.cat([prior(x[i : i + 1], float(sigmas[i])) for i in range(2)])
    torch.testing.assert_close(prior(x, sigmas), apart)


def test_a_float32_network_serves_float64_data():
    network = nn.Conv2d(3, 6, 3, padding=1)
    prior = NoisePredictor(Timed(network), (3, None, None))
    assert prior(pictures(), 0.5).dtype == torch.float64
    assert prior.accepts((3, 17, 9)) and not prior.accepts((1, 17, 9))


class Timed(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t):
        return self.network(x)


def test_wrong_channels_and_wrong_schedules_are_refused_in_words():
    with pytest.raises(ValueError, match="returned 4 channels for 3"):
        NoisePredictor(Timed(nn.Conv2d(3, 4, 1)), SHAPE)(pictures(), 0.5)
    with pytest.raises(ValueError, match="decreasing"):
        NoisePredictor(nn.Identity(), SHAPE, linear_schedule().flip(0))


def test_deepinv_there_and_back_is_the_same_denoiser(gaussian):
    from deepinv.models import Denoiser as DeepinvDenoiser

    there = to_deepinv(gaussian)
    back = from_deepinv(there, channels=3, sigma_min=0.01, sigma_max=1.0)
    assert isinstance(there, DeepinvDenoiser)
    x, sigma = pictures(), torch.tensor([0.1, 0.7])
    torch.testing.assert_close(there(x, sigma), gaussian(x, sigma))
    torch.testing.assert_close(there(x, sigma.reshape(2, 1, 1, 1)), gaussian(x, sigma))
    torch.testing.assert_close(back(x, 0.3), gaussian(x, 0.3))
    assert (back.shape, back.sigma_min, back.sigma_max) == ((3, None, None), 0.01, 1.0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        from_deepinv(there, 3, sigma_min=1.0, sigma_max=0.1)


def test_deepinv_runs_its_dpir_on_our_prior(gaussian):
    """One HQS step of DPIR on plain denoising, against the same step written out by hand."""
    import deepinv
    from deepinv.optim.dpir import get_DPIR_params

    unit = Rescaled(gaussian, scale=2, shift=-1)
    y = unit_problem(unit).y
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.1))
    got = deepinv.optim.DPIR(sigma=0.1, denoiser=to_deepinv(unit))(y, physics)

    sigmas, gammas, steps = get_DPIR_params(0.1)
    x = y
    for sigma, gamma in zip(sigmas.double(), gammas.double(), strict=True):
        x = unit((x + gamma * y) / (1 + gamma), sigma)
    assert steps == 8 and math.isfinite(float(got.sum()))
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)


def unit_problem(prior: Rescaled) -> Problem:
    truth = (prior.prior.sample(Draws(0)) + 1) / 2
    noise = GaussianNoise(0.1)
    return Problem(noise.sample(truth, Draws(1)), Identity(SHAPE), noise)

"""What noisy pictures alone tell: how sure a denoiser is, how well a score denoises, in which units they stand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from operators.noise import Gamma, Gaussian, Poisson
from operators.random import Draws
from restore.denoisers.posterior import REACH, PosteriorMean, at_mid_grey, in_units, in_words, of_std
from restore.denoisers.tweedie import as_tweedie
from restore.errors import InputError
from restore.learn.noise2score import Noise2Score
from restore.learn.sure import SURE
from restore.learn.validation import validate_noisy
from restore.modalities.image_picture import Picture
from restore.modalities.units import Units, own_units
from restore.priors.base import Denoiser, Rescaled, per_row
from restore.priors.covariance import averaged, frequency_cells
from restore.priors.spectra import ABOVE, modes_per_cell, residual_spectra_of_noisy
from restore.priors.stationary import StationaryGaussian

SIDE, COUNT, SIGMA = 64, 96, 0.3


def field(channels):
    """Pictures of a power law, with noise `SIGMA`: spectrum, denoiser, batches."""
    f = (torch.fft.fftfreq(SIDE)[:, None] ** 2 + torch.fft.rfftfreq(SIDE) ** 2).sqrt()
    spectrum = torch.stack([(0.02 + 0.01 * c) / (f + 0.1) ** 2 for c in range(channels)])
    D = StationaryGaussian(spectrum, SIDE)
    x = D.sample(Draws(0, range(COUNT)))
    y = x + SIGMA * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return (
        spectrum,
        D,
        [(y[: COUNT // 2], torch.full((COUNT // 2,), SIGMA)), (y[COUNT // 2 :], torch.full((COUNT // 2,), SIGMA))],
    )


class Shrunk(Denoiser):
    """`share D`: a denoiser that is wrong."""

    shape = (None, None, None)

    def __init__(self, D, share):
        super().__init__()
        self.D, self.share = D, share

    def forward(self, x, sigma):
        return self.share * self.D(x, sigma)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_the_power_of_what_is_wrong_is_known_from_noisy_pictures(channels, share):
    """Of the exact denoiser of a Gaussian and of a wrong one, whose gain is `share` of what it should be."""
    spectrum, D, pictures = field(channels)
    sigmas = [0.1, 0.3, 0.5, 0.8, 2.0]
    table = residual_spectra_of_noisy(Shrunk(D, share), pictures, sigmas)
    count = COUNT * modes_per_cell(SIDE, SIDE)
    for i, s in enumerate(sigmas[2:], 2):
        g = share * spectrum / (spectrum + s**2)
        wrong = (1 - g) ** 2 * spectrum + g**2 * s**2
        exact = averaged(wrong, frequency_cells(SIDE, SIDE)).unflatten(1, (17, 17))
        noise = SIGMA**2 / (1 - SIGMA**2 / s**2)
        z = (table[i] - exact) / ((noise + exact) / count.sqrt())
        assert (table[i] >= 0.99 * noise / count.sqrt()).all()  # the floor
        inner = z[:, 1:-1, 1:-1][exact[:, 1:-1, 1:-1] > 4 * (noise / count.sqrt())[1:-1, 1:-1]]
        assert abs(float(inner.mean())) < 6 / len(inner) ** 0.5 + 0.1 and 0.5 < float(inner.std()) < 1.1
    if share == 1:  # below the noise, the modes of a Gaussian
        assert ABOVE * SIGMA > 0.3
        exact = averaged(0.01 * spectrum / (spectrum + 0.01), frequency_cells(SIDE, SIDE)).unflatten(1, (17, 17))
        assert float((table[0] / exact).log().abs().median()) < 0.1
        assert bool((table[0] <= 0.01).all()) and bool((table[0] <= table[2]).all())
    assert residual_spectra_of_noisy(D, pictures, [0.1, 0.2]) is None


class Blend(Denoiser):
    """Blends in the mean of 3 x 3 pixels, the more the noisier: no posterior mean, but smooth in what it is given."""

    shape, sigma_min, sigma_max = (None, None, None), 0.1, 0.4

    def forward(self, x, sigma):
        smooth = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return x + (smooth - x) * per_row(sigma, x).square() * 25


NOISES = [Gaussian(0.1), Poisson(0.03), Gamma(40)]


@pytest.mark.parametrize("noise", NOISES, ids=str)
def test_the_error_of_a_score_is_known_without_truth(noise):
    row, column = torch.meshgrid(*2 * [torch.linspace(0, 3, 400, dtype=torch.float64)], indexing="ij")
    x = (0.5 + 0.25 * row.sin() * (2 * column).cos())[None, None]
    y, law = noise.sample(x, Draws(0)), as_tweedie(noise)
    sigma, inner = at_mid_grey(law), Rescaled(Blend(), 0.5, 0.5)  # in [-1, 1]
    half = y[..., ::2, ::2]
    error = float((PosteriorMean(Blend(), law.rho)(half, sigma) - x[..., ::2, ::2]).square().mean())
    found = validate_noisy(inner, Noise2Score(), [(2 * y - 1, 2 * sigma)], law)
    assert found == {"grey": pytest.approx(-10 * math.log10(error), abs=0.3)}
    assert error < 0.75 * float((y - x).square().mean())


def test_the_error_of_a_denoiser_is_known_without_truth():
    _, D, batches = field(1)
    x, y = D.sample(Draws(0, range(COUNT))), torch.cat([batch for batch, _ in batches])
    found = validate_noisy(D, SURE(), [(row[None], SIGMA) for row in y])
    error = float((D(y, SIGMA) - x).square().mean()) / 4  # in [0, 1]
    assert found == {"grey": pytest.approx(-10 * math.log10(error), abs=0.2)}


@pytest.mark.parametrize("noise", NOISES, ids=str)
def test_a_score_is_a_denoiser_told_the_noise_at_mid_grey(noise):
    law, y = as_tweedie(noise), torch.rand(2, 1, 12, 12)
    sigma = at_mid_grey(law)
    assert of_std(law.rho, sigma).phi == pytest.approx(law.phi)
    D = PosteriorMean(Blend(), law.rho)
    assert torch.equal(D(y, sigma), D(y, torch.tensor([sigma])))
    rows = D(y, torch.tensor([sigma, 2 * sigma]))
    assert torch.allclose(rows[:1], D(y[:1], sigma)) and torch.allclose(rows[1:], D(y[1:], 2 * sigma))
    assert D.sigma_min < sigma * 4 and D.accepts((1, 9, 9)) and not D.accepts((9, 9))
    x, rng = torch.full((1, 1, 50, 50), 200.0), Draws(0)
    scaled = {0: Gaussian(0.1 * 400), 1: Poisson(0.03 * 400), 2: Gamma(40)}[int(law.rho)]
    own = in_units(as_tweedie(scaled), 400)  # the law of y / 400
    assert own.phi == pytest.approx(law.phi)
    assert float((scaled.sample(x, rng) / 400).std()) == pytest.approx(sigma, rel=0.05)
    assert type(noise).__name__ in in_words(law)


def test_a_denoiser_of_one_type_of_noise_is_told_what_it_was_learnt_with():
    y, inner = torch.rand(2, 1, 12, 12), Blend()
    D = PosteriorMean(inner, 1, told=1.25)
    assert torch.equal(D(y, 0.2), inner(y, 0.25))
    assert torch.allclose(D(y, torch.tensor([0.2, 0.1])), inner(y, torch.tensor([0.25, 0.125])))
    assert D.usual == pytest.approx(inner.sigma_min / 1.25) and D.rho == 1


def test_a_score_of_many_levels_serves_from_below_the_least_to_above_the_most():
    inner = Blend()
    inner.sigma_min, inner.sigma_max = 0.1, 0.3
    D = PosteriorMean(inner)
    assert (D.sigma_min, D.sigma_max) == pytest.approx((0.1 / REACH, 0.3 * REACH))


def picture(data, depth="float32"):
    return Picture(Path("a.tif"), np.float32(data).reshape(1, 1, -1), None, "TIFF", depth)


@pytest.mark.parametrize(
    "data, depth, how, wanted",
    [
        ([0.2, 0.9], "float32", {}, Units()),
        ([-0.3, 1.2], "float32", {}, Units(-0.3, 1.2)),
        ([-0.3, 1.2], "float32", {"noisy": True}, Units()),
        ([-300, 1200], "float32", {"noisy": True}, Units(-300, 1200)),
        ([100, 4000], "float32", {"noisy": True}, Units(100, 4000)),
        ([100, 4000], "float32", {"noisy": True, "from_zero": True}, Units(0, 4000)),
        ([0.01, 0.06], "uint16", {"noisy": True}, Units(0, 0.06)),
        ([0.01, 0.06], "uint8", {"from_zero": True}, Units()),
    ],
)
def test_the_units_of_a_picture(data, depth, how, wanted):
    x = picture(data, depth)
    found = own_units(x, x.data, **how)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert np.allclose(found.outward(found.inward(x.data)), x.data)


def test_light_is_not_negative():
    with pytest.raises(InputError, match=r"negative values, down to -1; wanted counts of light.*--noise gaussian"):
        own_units(picture([-1, 5]), np.float32([-1, 5]), from_zero=True)
    assert math.isclose(own_units(picture([-1, 5]), np.float32([-1, 5])).scale, 6)

"""From exact scores to posterior means: the formulas against quadrature, in one dimension and where pixels depend."""

import math

import pytest
import torch
from torch import Tensor

from operators.noise import Gamma, Gaussian, Poisson, PoissonGaussian
from restore.denoisers.tweedie import Tweedie, as_tweedie, posterior_mean
from restore.denoisers.variable import Variable

X = torch.linspace(0.01, 1.2, 1500, dtype=torch.float64)
PRIORS = {
    "flat": ((X > 0.05) & (X < 1)).double() + 1e-300,
    "two levels": torch.exp(-0.5 * ((X - 0.2) / 0.06) ** 2) + 0.9 * torch.exp(-0.5 * ((X - 0.65) / 0.1) ** 2),
    "log-normal": torch.exp(-2 * (X / 0.4).log() ** 2) / X,
}


def log_likelihood(y: Tensor, noise) -> Tensor:
    """`log p(y | x)` up to what `x` does not change, on the grid `X`; Poisson's continued between the counts."""
    y = y[..., None]
    if isinstance(noise, Gaussian):
        return -0.5 * ((y - X) / noise.sigma) ** 2
    if isinstance(noise, Poisson):
        return y / noise.gain * (X / noise.gain).log() - X / noise.gain - torch.lgamma(y / noise.gain + 1)
    if isinstance(noise, Gamma):
        return (noise.k - 1) * y.log() - noise.k * y / X - noise.k * X.log()
    assert noise.rho == 3  # inverse Gaussian, variance phi x^3
    return -1.5 * y.log() - (y - X) ** 2 / (2 * noise.phi * X**2 * y)


class Pixels:
    """Pixels with a prior on the grid: each for itself, or all of one brightness (`shared`)."""

    def __init__(self, prior: Tensor, noise, shared: bool = False):
        self.log_prior, self.noise, self.shared = prior.log(), noise, shared

    def joint(self, y: Tensor) -> Tensor:
        each = log_likelihood(y, self.noise)
        return self.log_prior + (each.flatten(1, -2).sum(1)[:, None, None, None] if self.shared else each)

    def score(self, y: Tensor) -> Tensor:
        y = y.detach().requires_grad_(True)
        log_p = self.joint(y).logsumexp(-1).sum()
        return torch.autograd.grad(log_p, y)[0]

    def mean(self, y: Tensor) -> Tensor:
        return (self.joint(y).softmax(-1) @ X).expand(y.shape)


def data(noise) -> Tensor:
    """`(1, 1, 1, n)`, from dark to bright."""
    y = torch.linspace(0.03, 1.0, 60, dtype=torch.float64)
    return ((y / noise.gain).round() * noise.gain if isinstance(noise, Poisson) else y)[None, None, None]


def rms(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("prior", PRIORS)
def test_gaussian_is_exact(prior):
    pixels, y = Pixels(PRIORS[prior], Gaussian(0.1)), data(Gaussian(0.1))
    assert rms(posterior_mean(pixels.score, y, Gaussian(0.1)), pixels.mean(y)) < 2e-4  # of the quadrature


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("noise", [Poisson(0.01), Poisson(0.05), Gamma(100), Gamma(50), Tweedie(3, 0.02)], ids=str)
def test_shifted_comes_nearer_than_published(prior, noise):
    pixels, y = Pixels(PRIORS[prior], noise), data(noise)
    exact = pixels.mean(y)
    published = rms(posterior_mean(pixels.score, y, noise, form="published"), exact)
    shifted = rms(posterior_mean(pixels.score, y, noise), exact)
    assert shifted < 0.15 * published
    assert published > 0.001


@pytest.mark.parametrize("k", [50, 100])
def test_shifted_comes_nearer_than_the_second_order_of_gamma(k):
    noise = Gamma(k)
    pixels, y = Pixels(PRIORS["two levels"], noise), data(noise)
    slope = (pixels.score(y + 1e-4) - pixels.score(y - 1e-4)) / 2e-4
    m, v = ((k - 1) / y - pixels.score(y)) / k, ((k - 1) / y**2 + slope) / k**2
    second_order = rms((1 + v / m**2) / m, pixels.mean(y))
    assert rms(posterior_mean(pixels.score, y, noise), pixels.mean(y)) < second_order


def test_pixels_that_know_each_other_are_shifted_one_by_one():
    """All of one brightness: a shift of all pixels together would leave the published estimate half a count off."""
    noise = Poisson(0.05)
    pixels = Pixels(PRIORS["flat"], noise, shared=True)
    y = noise.gain * torch.poisson(torch.full((1, 1, 6, 6), 8.0), generator=torch.Generator().manual_seed(0)).double()
    exact = pixels.mean(y)
    shifted = posterior_mean(pixels.score, y, noise, pairs=64)
    # The mean over pixels: what patterns of pixels leave is noise.
    assert abs(float((shifted - exact).mean())) < 0.002
    together = (y + noise.gain) * (noise.gain * pixels.score(y + noise.gain / 2)).exp()
    assert abs(float((together - exact).mean())) > 0.015


@pytest.mark.parametrize("noise", [Gaussian(0.1), Poisson(0.02), Gamma(50)], ids=str)
def test_a_score_learnt_with_noise_on_top_is_enlarged(noise):
    """A flat picture: its score is `-(y - x) / (V + sigma_a^2)`, and the answer should be flat."""
    x, extra, law = 0.5, 0.03, as_tweedie(noise)
    y = x + 0.05 * torch.linspace(-1, 1, 21, dtype=torch.float64)[None, None, None]
    variance = float(law.variance(torch.tensor(x)))

    def score(y: Tensor) -> Tensor:
        return -(y - x) / (variance + extra**2)

    plain = posterior_mean(score, y, noise, form="published")
    enlarged = posterior_mean(score, y, noise, form="published", smoothing=extra)
    assert abs(float(enlarged[..., -1] - enlarged[..., 0])) < 0.4 * abs(float(plain[..., -1] - plain[..., 0]))


@pytest.mark.parametrize("noise", [Poisson(0.02), Gamma(50)], ids=str)
def test_noise_on_top_of_the_variable_is_accounted_for(noise):
    """A flat picture again, by the score of `z`: the same in the dark as in the light."""
    law = as_tweedie(noise)
    v = Variable(law.rho)
    for x in (0.4, 0.9):
        y = x * (1 + 0.1 * torch.linspace(-1, 1, 21, dtype=torch.float64)[None, None, None])
        own = float(law.variance(torch.tensor(x)) * v.slope(torch.tensor(x)) ** 2)
        extra = 0.5 * own**0.5

        def score(t: Tensor, x=x, own=own, extra=extra) -> Tensor:
            of_z = -(v(t) - v(torch.full_like(t, x))) / (own + extra**2)
            return v.slope(t) * of_z + v.log_slope(t)

        plain = posterior_mean(score, y, noise, form="published")
        larger = posterior_mean(score, y, noise, form="published", smoothing=extra, variable=v)
        assert float(larger.std()) < 0.35 * float(plain.std())
        assert float(larger.mean()) == pytest.approx(x, rel=0.04)


def test_the_family_holds_its_members():
    y, s = torch.linspace(0.1, 1, 10)[None], torch.linspace(-3, 3, 10)[None]
    assert torch.allclose(posterior_mean(lambda _: s, y, Gaussian(0.1)), y + 0.01 * s)
    poisson = posterior_mean(lambda _: s, y, Poisson(0.05), form="published")
    assert torch.allclose(poisson, (y + 0.025) * (0.05 * s).exp())
    gamma = posterior_mean(lambda _: s, y, Gamma(50), form="published")
    assert torch.allclose(gamma, 50 * y / (49 - y * s))
    near = posterior_mean(lambda _: s, y, Tweedie(1.0001, 0.01), form="published")  # exp(phi / 2y), not 1 + phi / 2y
    assert torch.allclose(near, y * (0.01 / (2 * y) + 0.01 * s).exp(), rtol=1e-3)


def test_what_cannot_be_is_refused():
    y = torch.tensor([[-0.1, 0.5]])
    with pytest.raises(ValueError, match=r"negative data.*-0.1"):
        posterior_mean(lambda y: y, y, Poisson(0.1))
    assert posterior_mean(lambda y: y, y, Gaussian(0.1)).shape == y.shape
    with pytest.raises(TypeError, match="not of the Tweedie family"):
        posterior_mean(lambda y: y, y.abs(), PoissonGaussian(0.1, 0.1))
    with pytest.raises(ValueError, match="'shifted' or 'published'"):
        posterior_mean(lambda y: y, y.abs(), Poisson(0.1), form="best")
    with pytest.raises(ValueError, match="rho must be 0 or at least 1"):
        Tweedie(0.5, 1.0)
    with pytest.raises(ValueError, match="phi must be a positive number"):
        Tweedie(1.5, 0.0)


@pytest.mark.parametrize("noise", [Poisson(0.05), Gamma(50), Tweedie(1.5, 0.05)], ids=str)
def test_a_wild_score_and_black_pixels_give_finite_pictures(noise):
    y = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    x = posterior_mean(lambda _: torch.tensor([[1e4, -1e4, 1e4, -1e4]]), y, noise)
    assert bool(torch.isfinite(x).all() and (x >= 0).all()) and float(x.max()) <= 8 * 8
    assert math.isfinite(float(posterior_mean(lambda _: 0 * y, y, noise).sum()))

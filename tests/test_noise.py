"""Each noise model: the likelihood integrates to one, and the samples have the moments of the likelihood."""

from __future__ import annotations

import math

import pytest
import torch

from operators.noise import Censored, Gamma, Gaussian, NoiseModel, Poisson, PoissonGaussian
from operators.random import Draws

MODELS: list[NoiseModel] = [
    Gaussian(0.3),
    Poisson(0.05),
    Poisson(2.0),
    Gamma(1.0),
    Gamma(7.5),
    PoissonGaussian(0.05, 0.02),
    PoissonGaussian(1.0, 0.1),  # separate peaks
    PoissonGaussian(0.01, 0.3),  # hardly any structure
]


def support(noise: NoiseModel, z: float) -> tuple[torch.Tensor, float]:
    """Points `(N, 1)` that cover `p(y | z)`, and the weight of each in a sum over `y`."""
    if isinstance(noise, Poisson):
        return noise.gain * torch.arange(400, dtype=torch.float64)[:, None], 1.0
    lo, hi, n = {Gaussian: (-5, 8, 20001), Gamma: (0, 60, 400001), PoissonGaussian: (-4, 60, 20001)}[type(noise)]
    y = torch.linspace(lo, hi, n, dtype=torch.float64)[:, None]
    if isinstance(noise, Gamma):
        y = y + (hi - lo) / (n - 1) / 2
    return y, (hi - lo) / (n - 1)


@pytest.mark.parametrize("noise", MODELS, ids=str)
@pytest.mark.parametrize("z", [0.2, 1.7])
def test_likelihood_is_normalised_and_samples_follow_it(noise, z):
    y, weight = support(noise, z)
    p = noise.log_prob(y, torch.full_like(y, z)).exp() * weight
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    mean = float((p * y[:, 0]).sum())
    variance = float((p * (y[:, 0] - mean) ** 2).sum())
    assert mean == pytest.approx(z, rel=1e-4)
    wanted = {
        Gaussian: lambda n: n.sigma**2,
        Poisson: lambda n: n.gain * z,
        Gamma: lambda n: z**2 / n.k,
        PoissonGaussian: lambda n: n.gain * z + n.sigma**2,
    }[type(noise)](noise)
    assert variance == pytest.approx(wanted, rel=1e-4)

    draws, per_draw = 20, 5000
    samples = noise.sample(torch.full((draws, per_draw), z, dtype=torch.float64), Draws(3, range(draws)))
    count = draws * per_draw
    assert float(samples.mean()) == pytest.approx(z, abs=5 * math.sqrt(wanted / count))
    kurtosis = float((p * (y[:, 0] - mean) ** 4).sum()) / variance**2
    assert float(samples.var()) == pytest.approx(wanted, rel=5 * math.sqrt((kurtosis - 1) / count))


@pytest.mark.parametrize("noise", MODELS, ids=str)
def test_a_draw_does_not_depend_on_its_batch(noise):
    z = torch.rand(1, 3, 4) + 0.1
    together = noise.sample(z.expand(4, -1, -1), Draws(0, range(4)))
    assert torch.equal(noise.sample(z, Draws(0, [2])), together[2:3])
    assert together.dtype == z.dtype and not torch.equal(together[0], together[1])
    assert torch.equal(noise.sample(z, Draws(0, range(4))), together), "one z, as many draws as generators"


@pytest.mark.parametrize("noise", MODELS, ids=str)
def test_log_prob_adds_over_entries_broadcasts_and_differentiates(noise):
    z = (torch.rand(3, 2, 5, dtype=torch.float64) + 0.3).requires_grad_()
    y = noise.sample(z[:1].detach(), Draws(0, [0]))
    whole = noise.log_prob(y, z)
    parts = sum(noise.log_prob(y[:, i, j, None], z[:, i, j, None]) for i in range(2) for j in range(5))
    assert whole.shape == (3,)
    torch.testing.assert_close(whole, parts)
    assert torch.autograd.gradcheck(lambda z: noise.log_prob(y, z), z)


def test_poisson_gaussian_is_exact_in_the_tails_and_in_its_limits():
    noise = PoissonGaussian(0.1, 0.05)
    y, z = torch.meshgrid(*(torch.linspace(a, b, 13, dtype=torch.float64) for a, b in ((-1, 9), (0, 6))), indexing="ij")
    n = torch.arange(400, dtype=torch.float64)[:, None]
    y, z = y.reshape(-1, 1), z.reshape(-1, 1)
    rate = (z / 0.1).clamp(min=1e-6).T
    terms = torch.xlogy(n, rate) - rate - torch.lgamma(n + 1) - 0.5 * ((y.T - 0.1 * n) / 0.05) ** 2
    brute = terms.logsumexp(0) - math.log(0.05 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(noise.log_prob(y, z), brute, rtol=1e-10, atol=1e-10)

    many, y, z = PoissonGaussian(1e-4, 0.1), torch.tensor([[0.9]]).double(), torch.tensor([[0.8]]).double()
    gaussian = Gaussian(math.sqrt(0.1**2 + 1e-4 * 0.8)).log_prob(y, z)
    torch.testing.assert_close(many.log_prob(y, z), gaussian, rtol=1e-3, atol=1e-3)


def test_rates_below_zero_stay_finite():
    z = torch.tensor([[-0.5, 0.0, 1.0]], requires_grad=True)
    for noise in (Poisson(0.1), Gamma(2.0), PoissonGaussian(0.1, 0.1)):
        value = noise.log_prob(torch.tensor([[0.2, 0.1, 1.0]]), z)
        (grad,) = torch.autograd.grad(value.sum(), z)
        assert torch.isfinite(value).all() and torch.isfinite(grad).all()
        assert torch.isfinite(noise.sample(z.detach(), Draws(0))).all()


@pytest.mark.parametrize("make", [Gaussian, Poisson, Gamma, lambda v: PoissonGaussian(1.0, v)])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_parameters_that_make_no_sense_are_refused(make, value):
    with pytest.raises(ValueError, match="must be a positive number"):
        make(value)


@pytest.mark.parametrize("noise", [Poisson(0.1), Gamma(2.0)])
def test_negative_data_are_refused_where_the_model_cannot_give_them(noise):
    with pytest.raises(ValueError, match=r"negative data.*-0\.5"):
        noise.log_prob(torch.tensor([[-0.5]]), torch.ones(1, 1))


@pytest.mark.parametrize("noise", [Gaussian(0.1), Poisson(0.1), Gamma(3.0), PoissonGaussian(0.1, 0.1)])
def test_each_row_needs_a_generator_of_its_own(noise):
    with pytest.raises(ValueError, match="3 rows of noiseless data, but 2 random generators"):
        noise.sample(torch.ones(3, 4), Draws(0, [0, 1]))


def test_the_gradient_of_the_sensor_likelihood_is_that_of_its_values():
    noise = PoissonGaussian(0.05, 0.03)
    z = torch.linspace(0.01, 1, 12, dtype=torch.float64)[None].requires_grad_()
    y = noise.sample(z.detach(), Draws(3))
    assert torch.autograd.gradcheck(lambda z: noise.log_prob(y, z), (z,))


@pytest.mark.parametrize("noise", [m for m in MODELS if not isinstance(m, PoissonGaussian)], ids=str)
def test_fit_finds_the_parameter_from_many_data(noise):
    z = torch.rand(1, 100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    y = noise.sample(z, Draws(1))
    found = type(noise)(2 * next(iter(vars(noise).values()))).fit(y, z)  # wherever it starts
    assert vars(found) == {name: pytest.approx(value, rel=0.02) for name, value in vars(noise).items()}


@pytest.mark.parametrize("noise", [Gaussian(0.3), Poisson(0.05), Gamma(7.5)], ids=str)
def test_fit_takes_the_expectation_over_draws(noise):
    """Several draws of z are as many data; their mean in place of them would lose what they differ by."""
    z = torch.rand(4, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    y = noise.sample(z[:1], Draws(1))
    each = torch.cat([y, y, y, y]).reshape(1, -1)
    assert vars(noise.fit(y, z)) == pytest.approx(vars(noise.fit(each, z.reshape(1, -1))))
    assert vars(noise.fit(y, z)) != pytest.approx(vars(noise.fit(y, z.mean(0, keepdim=True))), rel=0.05)


def test_what_cannot_be_fitted_is_refused_in_words():
    z = torch.ones(1, 4)
    with pytest.raises(TypeError, match="PoissonGaussian noise cannot be fitted"):
        PoissonGaussian(0.1, 0.1).fit(z, z)
    for noise in (Gaussian(0.1), Poisson(0.1), Gamma(2.0)):
        with pytest.raises(ValueError, match="must be a positive number"):
            noise.fit(z, z)  # no noise at all


@pytest.mark.parametrize("z", [-0.6, 0.1, 0.9])
def test_censored_data_are_a_density_between_two_probabilities(z):
    noise = Censored(0.3, -0.5, 0.5)
    y = torch.linspace(-0.5, 0.5, 4001, dtype=torch.float64)[1:-1, None]
    p = noise.log_prob(y, torch.full_like(y, z)).exp()
    ends = torch.tensor([[-0.5], [0.5]], dtype=torch.float64)
    at = noise.log_prob(ends, torch.full_like(ends, z)).exp()
    assert float(p.sum() / 4000 + at.sum()) == pytest.approx(1, abs=1e-3)
    drawn = noise.sample(torch.full((20, 5000), z, dtype=torch.float64), Draws(1, range(20)))
    for end, probability in zip(ends[:, 0], at, strict=True):
        share = float((drawn == end).double().mean())
        assert share == pytest.approx(float(probability), abs=5 * (float(probability) / 1e5) ** 0.5 + 1e-4)
    assert float(drawn.min()) >= -0.5 and float(drawn.max()) <= 0.5


def test_each_of_censored_data_has_ends_of_its_own():
    """Where there are none it is Gaussian; beyond its end a number is as good as it can be."""
    inf = math.inf
    lo, hi = torch.tensor([[-inf, -inf, -0.2, -inf], [inf, 0.3, inf, 0.3]], dtype=torch.float64)
    noise = Censored(0.1, lo, hi)
    y = torch.tensor([[1.5, 0.3, -0.2, 0.1]], dtype=torch.float64)
    z = torch.tensor([[1.4, 0.7, -0.9, 0.2], [1.6, 0.1, 0.0, 0.05]], dtype=torch.float64)
    wanted = torch.tensor([[0.1, 0, 0, -0.1], [-0.1, 0.2, -0.2, 0.05]], dtype=torch.float64)
    torch.testing.assert_close(noise.residual(y, z), wanted)
    gaussian = [Gaussian(0.1).log_prob(y[:, i, None], z[:, i, None]) for i in (0, 3)]
    beyond = torch.special.log_ndtr((z[:, 1] - 0.3) / 0.1) + torch.special.log_ndtr((-0.2 - z[:, 2]) / 0.1)
    torch.testing.assert_close(noise.log_prob(y, z), sum(gaussian) + beyond)
    assert torch.autograd.gradcheck(lambda z: noise.log_prob(y, z), z.requires_grad_())
    for bad in ({"sigma": 0.0}, {"sigma": 0.1, "lo": 1.0, "hi": 0.0}, {"sigma": 0.1, "lo": torch.tensor([0.0, 1.0]),
                "hi": 0.5}):  # fmt: skip
        with pytest.raises(ValueError, match=r"sigma|range"):
            Censored(**bad)

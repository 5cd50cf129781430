"""The draw given data where it is not exact: Langevin dynamics, and the samplers that split with them."""

from dataclasses import replace

import pytest
import torch
from known_posteriors import prior, problem
from torch import Tensor

from operators.base import Identity, Operator
from operators.linalg import dense
from operators.noise import Gaussian, NoiseModel, Poisson
from operators.nonlinear import JPEG, Clip, Magnitude
from operators.random import Draws
from restore.core import restore
from restore.priors.analytic import GaussianMixture
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler, SamplerError
from restore.samplers.conditioning import langevin_draw
from restore.samplers.daps import DAPS
from restore.samplers.pnpdm import PnPDM

SIZE = 6
SHAPE = (1, SIZE, SIZE)


class Fast(Draws):
    """One generator for all the rows: what is tested here is not whose a number is, and there are many."""

    def normal(self, shape, like):
        return torch.randn(len(self), *shape, generator=self.generators[0], dtype=like.dtype)


@pytest.mark.parametrize("variance", [1e-4, 0.01, 0.1])  # 0.01 is at the edge of stability of the blocks' mean
@pytest.mark.parametrize("name", ("mask", "blur", "downsample"))
def test_langevin_draws_of_a_linear_problem_have_the_moments_of_exact_ones(name, variance):
    P, D = problem("gaussian", name, SIZE)
    A, sigma_y = P.linear_gaussian
    rows, guess, M = 1000, D.sample(Draws(5)), dense(A, SHAPE)
    x = langevin_draw(P, guess.expand(rows, *SHAPE), variance, Fast(6, range(rows)), 100).flatten(1)
    C = torch.linalg.inv(M.T @ M / sigma_y**2 + torch.eye(SIZE**2).double() / variance)
    mean = C @ (M.T @ P.y.flatten() / sigma_y**2 + guess.flatten() / variance)
    variances, Q = torch.linalg.eigh(C)
    white = (x - mean) @ Q / variances.sqrt()
    assert white.mean(0).abs().max() < 5 / rows**0.5
    assert (white.var(0) - 1).abs().max() < 5 * (2 / rows) ** 0.5
    assert float(white.var(0).mean()) == pytest.approx(1, abs=0.04)


def test_langevin_draws_leave_the_full_noise_where_the_data_see_nothing():
    """However large it is: no hundred small steps from the guess would get there."""
    P, D = problem("gaussian", "mask", SIZE)
    guess = D.sample(Draws(5)).expand(500, *SHAPE)
    x = langevin_draw(P, guess, 100.0, Fast(6, range(500)), 100)
    seen = P.operator.H(P.operator(torch.ones(1, *SHAPE).double()))[0] > 0
    assert float((x - guess)[:, ~seen].std()) == pytest.approx(10, rel=0.03)
    assert float(P.data_fit(x).square().mean()) == pytest.approx(1, abs=0.05)


def small_prior() -> GaussianMixture:
    """Three pixels, two modes, skewed."""
    C = 0.15**2 * torch.tensor([[1.0, 0.7, 0.2], [0.7, 1.0, 0.7], [0.2, 0.7, 1.0]])
    means = torch.tensor([[0.3, 0.4, 0.5], [0.7, 0.6, 0.8]])[:, None, None]
    D = GaussianMixture(torch.tensor([0.6, 0.4]), means, C)
    D.sigma_min, D.sigma_max = 0.001, 10.0
    return D


def by_importance(P: Problem, D: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the posterior, from weighted draws of the prior."""
    g, n = torch.Generator().manual_seed(0), 200_000
    k = torch.multinomial(D.weights, n, replacement=True, generator=g)
    normal = torch.randn(n, 3, generator=g, dtype=torch.float64)
    x = D.means.flatten(1)[k] + torch.einsum("nij,nj->ni", torch.linalg.cholesky(D.covariances)[k], normal)
    w = P.noise.log_prob(P.y, P.operator(x.reshape(n, *D.means.shape[1:]))).softmax(0)
    assert 1 / w.square().sum() > 1000  # effective draws
    mean = w @ x
    return mean, (w @ (x - mean).square()).sqrt()


TRUTH = torch.tensor([[[[0.45, 0.55, 0.75]]]], dtype=torch.float64)
each_kind = pytest.mark.parametrize(
    "A, noise",
    [
        (Clip((1, 1, 3), 0.35, 0.6), Gaussian(0.05)),  # the brightest pixel is clipped
        (Magnitude((1, 1, 3), 1.0), Gaussian(0.1)),
        (Identity((1, 1, 3)), Poisson(0.05)),
    ],
    ids=["clip", "magnitude", "poisson"],
)


@each_kind
def test_langevin_draws_of_three_pixels_have_the_moments_of_weighted_ones(A: Operator, noise: NoiseModel):
    P, rows = Problem(noise.sample(A(TRUTH), Draws(4)), A, noise), 2000
    C = 0.1**2 * torch.eye(3)
    mean, std = by_importance(P, GaussianMixture(torch.ones(1), TRUTH + 0.05, C))
    x = langevin_draw(P, (TRUTH + 0.05).expand(rows, -1, -1, -1), 0.1**2, Fast(0, range(rows)), 100).flatten(1)
    assert ((x.mean(0) - mean) / std).abs().max() < 0.1
    assert (x.std(0) / std - 1).abs().max() < 0.1


@pytest.mark.parametrize(
    "A, noise",
    [(Clip((1, 1, 3), 0.35, 0.6), Gaussian(0.05)), (Identity((1, 1, 3)), Poisson(0.05))],
    ids=["clip", "poisson"],
)
@pytest.mark.parametrize(
    "sampler, near",
    [
        (PnPDM(steps=40, sigma_max=1.0, langevin_steps=40), 0.3),
        (DAPS(steps=100, sigma_max=1.0, langevin_steps=40), 0.5),  # too wide, as on linear problems
    ],
    ids=["pnpdm", "daps"],
)
def test_the_posterior_of_three_pixels_is_nearly_met(A: Operator, noise: NoiseModel, sampler: Sampler, near: float):
    D, P = small_prior(), Problem(noise.sample(A(TRUTH), Draws(4)), A, noise)
    mean, std = by_importance(P, D)
    x = restore(P, D, sampler, num_samples=300, draws=Fast).samples.flatten(1)
    assert ((x.mean(0) - mean) / std).abs().max() < near
    assert (x.std(0) / std - 1).abs().max() < near


SPLIT = {"daps": DAPS(steps=10, langevin_steps=20), "pnpdm": PnPDM(steps=10, langevin_steps=20)}
splitting = pytest.mark.parametrize("sampler", SPLIT.values(), ids=SPLIT)


@splitting
@pytest.mark.parametrize(
    "A", [Clip((1, 16, 16)), JPEG((1, 16, 16)), Magnitude((1, 16, 16))], ids=["clip", "jpeg", "magnitude"]
)
def test_samplers_that_split_serve_operators_that_are_not_linear(A: Operator, sampler: Sampler):
    D, noise = prior("gaussian", 16), Gaussian(0.05)
    P = Problem(noise.sample(A(D.sample(Draws(1))), Draws(2)), A, noise)
    R = restore(P, D, replace(sampler, sigma_max=0.5), num_samples=2)
    assert R.residual().max() < 2.5  # draws of the prior have 5
    assert (R.samples[0] != R.samples[1]).all()


@splitting
def test_a_langevin_draw_is_bitwise_the_same_alone_and_in_a_batch_of_eight(sampler: Sampler):
    A = Clip((1, 8, 8), 0.4, 0.6)
    P = Problem(A(torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))), A, Gaussian(0.05))

    class Shrink(Denoiser):
        shape, sigma_min, sigma_max = (1, 8, 8), 0.001, 10.0

        def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
            return 0.5 + (x - 0.5) * 0.04 / (0.04 + sigma**2)

    together = restore(P, Shrink(), sampler, num_samples=8, seed=3).samples
    assert torch.equal(sampler(P, Shrink(), Draws(3, [5]))[0], together[5])


def test_what_cannot_be_followed_is_refused_in_words():
    class Rounded(Identity):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().round()

    class Broken(Identity):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0

    x = torch.ones(1, *SHAPE, dtype=torch.float64)
    with pytest.raises(SamplerError, match="Rounded gives no gradient"):
        langevin_draw(Problem(x, Rounded(SHAPE), Gaussian(0.1)), x, 1.0, Draws(0), 5)
    with pytest.raises(SamplerError, match="the likelihood is not finite"):
        langevin_draw(Problem(x, Broken(SHAPE), Gaussian(0.1)), x, 1.0, Draws(0), 5)


@splitting
def test_linear_gaussian_problems_are_drawn_exactly(sampler: Sampler, monkeypatch):
    monkeypatch.setattr("restore.samplers.conditioning.langevin_draw", None)
    P, D = problem("gaussian", "blur", SIZE)
    assert torch.isfinite(restore(P, D, sampler, num_samples=2).samples).all()

"""Unknown noise: EM climbs to the maximum of the marginal likelihood, which is known where the prior is analytic."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from known_posteriors import covariance, operator
from skimage import data as photographs
from torch import Tensor

from operators.base import Identity, LinearOperator
from operators.linalg import dense
from operators.noise import Gaussian, NoiseModel, Poisson
from operators.random import Draws
from restore.em import fit_denoising, fit_noise
from restore.engine import JUDGED, judge_noise
from restore.estimate import estimate_noise
from restore.priors import analytic
from restore.priors.analytic import GaussianMixture
from restore.priors.base import Denoiser
from restore.priors.store import load_prior
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.samplers.moment_matching import MomentMatching
from restore.samplers.pnpdm import PnPDM
from restore.tasks import Denoise, Inpaint

SIZE, SIGMA = 16, 0.05


def smooth(size: int, modes: int = 1) -> GaussianMixture:
    """Signals smooth enough for noise to be told from them by so few pixels; several modes differ in brightness."""
    C = covariance(size) @ covariance(size)
    mean = torch.full((1, size, size), 0.5, dtype=torch.float64)
    C *= 0.2**2 / C[0, 0]
    if modes == 1:
        D: GaussianMixture = analytic.Gaussian(mean, C)
    else:
        shifts = torch.linspace(-0.3, 0.3, modes, dtype=torch.float64)
        D = GaussianMixture(torch.ones(modes), mean + shifts[:, None, None, None], C)
    D.sigma_min, D.sigma_max = 0.001, 10.0
    return D


@dataclass(frozen=True, kw_only=True)
class Exact(Sampler):
    """Draws of the exact posterior, or, as a fault, its mean."""

    exact: ClassVar[bool] = True
    needs: ClassVar[type] = LinearOperator
    steps: int = 1
    mean: bool = False

    def step(self, x: Tensor, sigma: float, sigma_next: float, problem: Problem, prior, rng: Draws) -> Tensor:
        posterior = prior.prior.posterior(problem)
        return posterior.mean.expand_as(x) if self.mean else posterior.sample(rng)


def measured(A: LinearOperator, D: GaussianMixture, noise: NoiseModel) -> Problem:
    return Problem(noise.sample(A(D.sample(Draws(7))), Draws(8)), A, noise)


def likeliest(P: Problem, D: GaussianMixture) -> float:
    """The sigma that maximises `p(y)` for a Gaussian prior, over a fine grid."""
    A = dense(P.operator, P.operator.ishape)
    variances, Q = torch.linalg.eigh(A @ D.covariance_matrix @ A.T)
    white = Q.T @ (P.y.flatten() - A @ D.mean.flatten())
    sigmas = torch.logspace(math.log10(SIGMA / 5), math.log10(5 * SIGMA), 2000, dtype=torch.float64)
    v = variances.clamp(min=0) + sigmas[:, None].square()
    return float(sigmas[(-0.5 * (white.square() / v + v.log()).sum(1)).argmax()])


@pytest.mark.parametrize("name", ["identity", "mask", "blur", "downsample"])
def test_em_with_exact_draws_reaches_the_likeliest_noise(name):
    A = Identity((1, SIZE, SIZE)) if name == "identity" else operator(name, SIZE)
    D = smooth(SIZE)
    P = measured(A, D, Gaussian(SIGMA))
    best = likeliest(P, D)
    assert best == pytest.approx(SIGMA, rel=0.3)  # so many data say no more
    start = replace(P, noise=Gaussian(2 * SIGMA))
    history = fit_noise(start, D, Exact(), rounds=15, num_samples=40)
    assert len(history) == 16 and history[0] == start.noise
    assert history[-1].sigma == pytest.approx(best, rel=0.04)
    fooled = fit_noise(start, D, Exact(mean=True), rounds=15, num_samples=1)
    assert fooled[-1].sigma < 0.95 * best, "the mean in place of draws is caught"


def test_em_around_a_sampler_that_is_nearly_exact():
    A, D = operator("blur", 16), smooth(SIZE)
    P = measured(A, D, Gaussian(SIGMA))
    found = fit_noise(replace(P, noise=Gaussian(0.15)), D, MomentMatching(steps=20), rounds=6, num_samples=2)
    assert found[-1].sigma == pytest.approx(likeliest(P, D), rel=0.05)


def test_em_finds_the_gain_of_photon_counting():
    D = smooth(SIZE)
    P = measured(Identity((1, 16, 16)), D, Poisson(0.02))
    sampler = PnPDM(steps=15, sigma_max=0.5, langevin_steps=30)
    found = fit_noise(replace(P, noise=Poisson(0.06)), D, sampler, rounds=6, num_samples=2)
    assert found[-1].gain == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("start", [0.3, 1.0, 3.0])
def test_denoising_needs_no_draws(modes, start):
    D, A = smooth(20, modes), Identity((1, 20, 20))
    P = measured(A, D, Gaussian(SIGMA))
    sigmas = torch.logspace(math.log10(SIGMA / 5), math.log10(5 * SIGMA), 1000, dtype=torch.float64)
    best = float(sigmas[torch.stack([D.log_prob(P.y, float(s))[0] for s in sigmas]).argmax()])
    history = fit_denoising(P.y, D, start * SIGMA, jumps=4)
    assert history[0] == pytest.approx(start * SIGMA) and len(history) == 5
    assert history[-1] == pytest.approx(best, rel=0.05)


def test_noise_is_kept_within_what_the_prior_knows():
    class Follows(Denoiser):
        shape, sigma_min, sigma_max = (None, None, None), 0.01, 1.0

        def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
            return x

    class Ignores(Follows):
        def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
            return 100 + 0 * x

    y = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert fit_denoising(y, Follows(), 1e-9) == pytest.approx([0.01] * 3, rel=1e-3)
    assert fit_denoising(y, Ignores(), 0.5)[-1] == 1.0


def noisy(picture: str, sigma: float) -> np.ndarray:
    x = getattr(photographs, picture)()[None].astype(np.float32) / 255
    return (x + sigma * np.random.default_rng(0).standard_normal(x.shape)).astype(np.float32)


def test_the_prior_tells_texture_from_noise():
    data, photos = noisy("grass", 0.02), load_prior("photos")
    found = judge_noise(Denoise(data, Identity), None, 0.001, photos, torch.device("cpu"))
    assert found.estimated
    assert abs(math.log(found.sigma / 0.02)) < 0.6 * math.log(estimate_noise(data) / 0.02)


class Forbidden(Denoiser):
    shape, sigma_min, sigma_max = (None, None, None), 0.001, 10.0

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        raise AssertionError("asked")


def test_only_denoising_asks_the_prior():
    data, cpu = noisy("camera", 0.05), torch.device("cpu")
    alone = estimate_noise(data)
    holes = np.zeros(data.shape[1:], bool)
    assert judge_noise(Inpaint(data, Identity, holes), None, 0.001, Forbidden(), cpu).sigma == alone
    with pytest.raises(AssertionError, match="asked"):
        judge_noise(Denoise(data, Identity), None, 0.001, Forbidden(), cpu)


@pytest.mark.parametrize("answer", [lambda x: x[:1].expand_as(x), lambda x: 5 + 0 * x], ids=["follows", "ignores"])
def test_a_denoiser_that_is_no_posterior_mean_decides_nothing(answer):
    """One that keeps all noise however it is disturbed, and one that keeps nothing: EM would end far off."""

    class Poor(Denoiser):
        shape, sigma_min, sigma_max = (None, None, None), 0.001, 10.0

        def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
            return answer(x)

    data = noisy("camera", 0.05)
    assert judge_noise(Denoise(data, Identity), None, 0.001, Poor(), torch.device("cpu")).sigma == estimate_noise(data)


def test_noise_that_was_cut_off_everywhere_is_judged_from_the_picture_alone():
    data = np.clip(noisy("camera", 0.05), 0.4, 0.6)
    limits = (float(data.min()), float(data.max()))
    assert judge_noise(Denoise(data, Identity), limits, 0.001, Forbidden(), torch.device("cpu")).sigma > 0


def test_noise_is_judged_where_least_is_clipped():
    seen = []

    class Watching(Denoiser):
        shape, sigma_min, sigma_max = (None, None, None), 0.001, 10.0

        def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
            seen.append(x)
            return 0.9 * x

    data = noisy("camera", 0.01)
    data = 0.5 + 0.2 * (data - data.mean())
    clipped = np.ones_like(data)
    clipped[:, JUDGED : 2 * JUDGED, :JUDGED] = data[:, JUDGED : 2 * JUDGED, :JUDGED]
    judge_noise(Denoise(clipped, Identity), (0.0, 1.0), 0.001, Watching(), torch.device("cpu"))
    np.testing.assert_array_equal(seen[0][0].numpy(), clipped[:, JUDGED : 2 * JUDGED, :JUDGED])

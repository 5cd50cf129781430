"""Particles and Langevin chains: weights, resampling and steps against formulas; errors that fall as they should."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from known_posteriors import compare, operator, problem, samplers
from torch import Tensor

from operators.base import Identity, Operator
from operators.linalg import dense
from operators.noise import Gaussian
from operators.random import Draws
from restore.core import restore
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import SamplerError
from restore.samplers.csgm import CSGM
from restore.samplers.fps import FPS
from restore.samplers.langevin import Chain, curvature
from restore.samplers.particles import Particles, choose, effective_sample_size, evidence, resample
from restore.samplers.tds import TDS
from restore.samplers.ula import ULA

SIZE = 6
SHAPE = (1, SIZE, SIZE)
DIVIDING = ("mask", "blur", "downsample")  # six pixels


class White(Denoiser):
    """Of signals `0.5 + 0.2 n`."""

    shape, sigma_min, sigma_max, signal_std = SHAPE, 0.001, 10.0, 0.2

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return 0.5 + (x - 0.5) * 0.04 / (0.04 + sigma**2)


class Veiled(Operator):
    """An operator of which nothing is known but its forward."""

    def __init__(self, A: Operator):
        super().__init__(A.ishape, A.oshape)
        self.A = A

    def forward(self, x: Tensor) -> Tensor:
        return self.A.forward(x)


def log_weights(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_the_effective_sample_size_is_one_over_the_sum_of_squares():
    log_w = log_weights([1, 1, 1, 1], [1, 0, 0, 0], [3, 1, 0, 0])
    torch.testing.assert_close(effective_sample_size(log_w + 700), torch.tensor([4.0, 1.0, 1.6]).double())


def test_only_worn_populations_are_resampled_each_within_itself():
    log_w = log_weights([1, 1, 1, 1], [0, 0, 1, 0], [5, 3, 0, 0])
    rows, left = resample(log_w, 0.5, Draws(0, range(3)))
    assert rows[:8].tolist() == [0, 1, 2, 3, 6, 6, 6, 6]
    assert set(rows[8:].tolist()) == {8, 9} and left[2].tolist() == [0.0] * 4
    kept, same = resample(log_w, 0.2, Draws(0, range(3)))
    assert kept == slice(None) and torch.equal(same, log_w)


def test_resampling_and_choice_keep_each_particle_as_often_as_it_weighs():
    W = torch.tensor([0.13, 0.42, 0.05, 0.4], dtype=torch.float64)
    log_w, rng = W.log().expand(20_000, 4), Draws(1, range(20_000))
    offspring = resample(log_w, 1.0, rng)[0].reshape(-1, 4) % 4
    counts = torch.stack([(offspring == k).sum(1) for k in range(4)], 1).double()
    assert bool(((counts - 4 * W).abs() < 1).all()), "systematic: within one of the expected number"
    torch.testing.assert_close(counts.mean(0), 4 * W, rtol=0, atol=0.02)
    chosen = choose(log_w, rng) - 4 * torch.arange(20_000)
    torch.testing.assert_close(torch.bincount(chosen, minlength=4) / 20_000, W.float(), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", DIVIDING)
def test_the_evidence_is_that_of_a_gaussian(name):
    A, variance, sigma_y = operator(name, SIZE), 0.03, 0.05
    M, r = dense(A, SHAPE), Draws(4, range(3)).normal(A.oshape, like=torch.zeros(1).double())
    S = variance * M @ M.T + sigma_y**2 * torch.eye(len(M)).double()
    z = torch.linalg.solve(S, r.flatten(1).T).T
    u = A.pull(r, sigma_y**2 / variance)
    torch.testing.assert_close(u.flatten(1), variance * z @ M)
    for at_hand in (None, u):
        log_p = evidence(A, r, variance, sigma_y, u=at_hand)
        torch.testing.assert_close(log_p, -0.5 * (r.flatten(1) * z).sum(1))
    x = Draws(5, range(3)).normal(SHAPE, like=r)
    torch.testing.assert_close(evidence(A, r + A.forward(x), variance, sigma_y, x=x), log_p)


@pytest.mark.parametrize("name", DIVIDING)
def test_tds_follows_the_gradient_of_its_twist_and_weighs_by_it(name):
    P, D = problem("mixture", name, SIZE)
    A, sigma_y = P.linear_gaussian
    M, sampler, sigma, tau = dense(A, SHAPE), TDS(particles=3), 0.3, 0.25

    def log_psi(x: Tensor, s: float) -> Tensor:
        S = s**2 * D.signal_std**2 / (s**2 + D.signal_std**2) * M @ M.T + sigma_y**2 * torch.eye(len(M)).double()
        r = (P.y - A.forward(D(x, s))).flatten(1)
        return -0.5 * (r * torch.linalg.solve(S, r.T).T).sum(1)

    start = replace(sampler, sigma_max=sigma, steps=9).init(P, D, Draws(1))
    new = sampler.step(start, sigma, tau, P, D, Draws(2))
    rows, log_w = resample(start.log_w, 0.5, Draws(2))
    x = start.x[rows].requires_grad_()
    g = torch.autograd.grad(log_psi(x, sigma).sum(), x)[0]
    rng = Draws(2)
    resample(start.log_w, 0.5, rng)
    n, std = rng.normal((3, *SHAPE), like=x)[0], tau * math.sqrt(1 - (tau / sigma) ** 2)
    prior_mean = D(x, sigma) + (tau / sigma) ** 2 * (x - D(x, sigma))
    wanted = prior_mean + (sigma**2 - tau**2) * g + std * n
    torch.testing.assert_close(new.x, wanted)
    log_p, log_q = (-(wanted - m).flatten(1).square().sum(1) / (2 * std**2) for m in (prior_mean, wanted - std * n))
    gained = log_p - log_q + log_psi(wanted, tau) - log_psi(x, sigma)
    torch.testing.assert_close(new.log_w[0], log_w[0] + gained)


def test_the_twist_of_any_operator_is_the_linear_one_where_both_are_known():
    P, D = problem("mixture", "mask", SIZE)
    veiled = Problem(P.y, Veiled(P.operator), P.noise)
    a, b = (TDS(sigma_max=0.3).init(p, D, Draws(5)) for p in (P, veiled))
    torch.testing.assert_close(a.twist.gradient, b.twist.gradient, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(*(s.log_w - s.log_w.mean() for s in (a, b)), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", DIVIDING)
def test_the_path_of_fps_has_its_law_at_every_level(name):
    """Covariance `(sigma^2 - sigma_min^2) (A A' + c^2 I)`, whatever came before, and none at the end."""
    P, draws = problem("gaussian", name, SIZE)[0], 4000
    sampler, rng = FPS(steps=3, particles=1, sigma_max=1.0, sigma_min=0.1, c=0.7), Draws(0, range(4000))
    M = dense(P.operator, SHAPE)
    state = sampler.init(P, White(), rng)
    for sigma, tau in pairwise(sampler.ladder(White()).tolist()[:-1]):
        wanted = (sigma**2 - 0.1**2) * (M @ M.T + 0.49 * torch.eye(len(M)).double())
        found = state.path.flatten(1).T @ state.path.flatten(1) / draws
        torch.testing.assert_close(found, wanted, rtol=0, atol=5.5 * float(wanted.max()) * (2 / draws) ** 0.5)
        state = sampler.step(state, sigma, tau, P, White(), rng)
    assert float(state.path.abs().max()) < 1e-6


def test_the_last_step_chooses_by_what_the_weights_are_with_the_true_likelihood():
    P, D = problem("mixture", "blur", SIZE)
    state = TDS(particles=3).init(P, D, Draws(1, range(2)))
    true = P.noise.log_prob(P.y, P.operator(state.twist.D))
    doubted = torch.tensor([0.0, 50.0, 0.0, 0.0, 0.0, 50.0])  # psi gave these too little
    state = state._replace(log_w=torch.zeros(2, 3), twist=state.twist._replace(log_psi=true - doubted))
    end = TDS(particles=3).step(state, 10.0, 0.0, P, D, Draws(2, range(2)))
    assert torch.equal(end.x, state.twist.D[[1, 5]])
    state = FPS(particles=3).init(P, D, Draws(1, range(2)))
    end = FPS(particles=3).step(state._replace(log_w=doubted.reshape(2, 3)), 0.1, 0.0, P, D, Draws(2, range(2)))
    torch.testing.assert_close(end.x, D(state.x[[1, 5]], 0.1))


@pytest.mark.parametrize("sampler", [TDS(steps=25), FPS(steps=25)], ids=["tds", "fps"])
def test_the_error_falls_as_particles_double_twice(sampler):
    P, D = problem("gaussian", "mask", 8)
    signals = [P.operator(D.sample(Draws(i))) for i in (7, 17, 27)]
    problems = [Problem(P.noise.sample(x, Draws(8)).float(), P.operator, P.noise) for x in signals]
    errors = [
        [compare(replace(sampler, particles=n), one, D, 100)[0].mean_error for one in problems] for n in (1, 4, 16)
    ]
    excess = [sum(e.value - e.expected for e in each) for each in errors]
    assert sum(e.z for e in errors[0]) > 10 * len(problems) ** 0.5, "one particle should not do"
    assert excess[1] < excess[0] / 1.3 and excess[2] < excess[1] / 1.3


@pytest.mark.parametrize("sampler", [TDS(particles=8), FPS(particles=8)], ids=["tds", "fps"])
def test_the_error_falls_as_steps_double(sampler):
    P, D = problem("gaussian", "downsample", 8)
    P = Problem(P.y.float(), P.operator, P.noise)
    errors = [abs(compare(replace(sampler, steps=n), P, D, 200)[0].variance_ratio.value - 1) for n in (10, 20)]
    assert errors[0] > 0.2 and errors[1] < errors[0] / 2


@pytest.mark.parametrize("name", ["tds", "fps"])
def test_rows_of_data_keep_to_their_populations(name):
    P, D = problem("gaussian", "blur", SIZE)
    two = Problem(torch.cat([P.y, P.y + 0.3]), P.operator, P.noise)
    together = restore(two, D, replace(samplers()[name], steps=10)).samples
    for i in range(2):
        alone = replace(samplers()[name], steps=10)(Problem(two.y[i : i + 1], P.operator, P.noise), D, Draws(0, [i]))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["tds", "fps"])
def test_what_is_shown_on_the_way_is_the_weighted_mean(name):
    P, D = problem("gaussian", "mask", SIZE)
    sampler = replace(samplers()[name], steps=10, particles=5)
    state = sampler.init(P, D, Draws(0, range(2)))
    state = sampler.step(state, *sampler.ladder(D).tolist()[:2], P, D, Draws(1, range(2)))
    W = state.log_w.softmax(1)
    assert W.shape == (2, 5) and float(W.std()) > 0
    wanted = torch.stack([(W[b, :, None, None, None] * state.x[5 * b : 5 * b + 5]).sum(0) for b in range(2)])
    torch.testing.assert_close(sampler.signal(state), wanted)


def test_populations_have_the_numbers_of_their_draw():
    like = torch.zeros(1)
    rows = Particles(Draws(3, range(2)), 4).normal(SHAPE, like)
    assert rows.shape == (8, *SHAPE)
    assert torch.equal(rows[4:], Particles(Draws(3, [1]), 4).normal(SHAPE, like))


@pytest.mark.parametrize("name", DIVIDING)
def test_the_curvature_of_a_linear_problem_is_its_norm_over_the_noise(name):
    A = operator(name, SIZE)
    L = float(torch.linalg.matrix_norm(dense(A, SHAPE), 2)) ** 2 / 0.1**2
    P = Problem(torch.zeros(1, *A.oshape).double(), A, Gaussian(0.1))
    found = curvature(P, torch.zeros(2, *SHAPE).double(), 0.2, Draws(0, range(2)), "ULA")
    assert bool((found > 0.95 * L).all()) and bool((found < L * (1 + 1e-9)).all())


def test_ula_ends_with_the_spread_of_its_discretised_chain():
    """White signals, all of them measured: at rest each number has the variance `1 / (k (1 - delta k / 2))`."""
    y, sigma, sampler = torch.full((1, *SHAPE), 0.6, dtype=torch.float64), 0.1, ULA(sigma_min=0.1, steps=60)
    x = restore(Problem(y, Identity(SHAPE), Gaussian(0.1)), White(), sampler, num_samples=300).samples
    k = 1 / (0.04 + sigma**2) + 1 / 0.1**2
    delta = sampler.step_size / (1 / sigma**2 + 1 / 0.1**2)
    shrink = 0.04 / (0.04 + sigma**2)  # of the last denoising
    assert float(x.var()) == pytest.approx(shrink**2 / (k * (1 - delta * k / 2)), rel=0.06)
    mean = (0.5 / (0.04 + sigma**2) + 0.6 / 0.1**2) / k
    assert float(x.mean()) == pytest.approx(0.5 + shrink * (mean - 0.5), abs=0.003)


def test_csgm_takes_the_annealed_step():
    P = problem("gaussian", "mask", SIZE)[0]
    A, sigma_y = P.linear_gaussian
    x, sigma = Draws(1).normal(SHAPE, like=P.y), 0.3
    L = torch.full((1,), 1 / sigma_y**2, dtype=torch.float64)
    found = CSGM(repeat=1).step(Chain(x, L), sigma, 0.2, P, White(), Draws(2)).x
    alpha = CSGM().step_size * sigma**2
    drift = (White()(x, sigma) - x) / sigma**2 + A.adjoint(P.y - A(x)) / (sigma_y**2 + sigma**2)
    wanted = x + alpha * drift + math.sqrt(2 * alpha) * Draws(2).normal(SHAPE, like=x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("sampler", [TDS(), ULA(), CSGM()], ids=["tds", "ula", "csgm"])
def test_an_operator_without_a_gradient_is_refused_in_words(sampler):
    class Closed(Veiled):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    with pytest.raises(SamplerError, match=f"{type(sampler).__name__} differentiates the operator, and Closed"):
        restore(Problem(torch.ones(1, *SHAPE), Closed(Identity(SHAPE)), Gaussian(0.1)), White(), sampler)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TDS(particles=0), "particles must be at least 1"),
        (lambda: TDS(ess_threshold=1.5), "ess_threshold must be from 0 to 1"),
        (lambda: FPS(c=0), "c must be above 0"),
        (lambda: ULA(step_size=2.5), "step_size must be from 0 to 2"),
        (lambda: CSGM(repeat=0), "repeat must be at least 1"),
    ],
)
def test_hyperparameters_out_of_range_are_refused_in_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()

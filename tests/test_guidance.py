"""How data guide a draw: rules, moment matching, draws given data; each against a dense formula."""

import math
from itertools import pairwise

import pytest
import torch
from known_posteriors import OPERATORS, compare, operator, prior, problem

from operators.base import Identity
from operators.image import Mask
from operators.linalg import dense
from operators.noise import Gaussian as GaussianNoise
from operators.random import Draws
from restore.core import restore
from restore.priors.analytic import Gaussian
from restore.priors.covariance import Times
from restore.problem import Problem
from restore.samplers.base import SamplerError, descent
from restore.samplers.conditioning import exact_draw
from restore.samplers.ddnm import DDNM
from restore.samplers.ddrm import DDRM
from restore.samplers.integrators import RULES, State, advance, run_down
from restore.samplers.moment_matching import MomentMatching
from restore.samplers.pigdm import PiGDM
from restore.samplers.pnpdm import PnPDM

SIZE = 8
SHAPE = (1, SIZE, SIZE)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("alpha", [0.0, 1.0, math.inf])
def test_draws_are_exact_for_a_gaussian_prior_in_a_handful_of_calls(alpha, name):
    P, D = problem("gaussian", name, SIZE)
    E, R = compare(MomentMatching(steps=6, alpha=alpha), P, D, 400)
    assert R.nfe == 7 and not E.deviations()


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0, math.inf])
def test_a_draw_goes_from_the_marginal_of_one_rung_to_that_of_the_next(alpha):
    """White signals, data that say nothing: `x'` has variance `s^2 + tau^2`, and of `x` what `alpha` leaves in it."""
    s2, sigma, tau, rows = 0.04, 0.5, 0.3, 4000
    D = Gaussian(torch.zeros(SHAPE), s2 * torch.eye(SIZE**2))
    P = Problem(torch.zeros(1, *SHAPE).double(), Identity(SHAPE), GaussianNoise(1e3))
    x = (s2 + sigma**2) ** 0.5 * Draws(1, range(rows)).normal(SHAPE, like=P.y)
    there = MomentMatching(alpha=alpha).step(State(x), sigma, tau, P, D, Draws(2, range(rows))).x
    known = s2 / (s2 + sigma**2)
    kept = known + (tau / sigma) ** (1 + alpha) * (1 - known)
    assert float(there.var()) == pytest.approx(s2 + tau**2, rel=0.015)  # five standard errors
    assert float((there * x).mean() / x.var()) == pytest.approx(kept, abs=0.01)


@pytest.mark.parametrize("integrator", ["draw", "sde"])
def test_denoising_takes_the_data_for_a_noisy_signal(integrator):
    """No Gaussian is involved: the mean is exact for a mixture too, at any level, half of the data's weight lost."""
    D, A, noise = prior("mixture", SIZE), Identity(SHAPE), GaussianNoise(0.05)
    P = Problem(noise.sample(A(D.sample(Draws(7))), Draws(8)), A, noise)
    sampler = MomentMatching(integrator=integrator, inflation=2.0)
    for sigma in (0.02, 1.0):
        x = D.mean + sigma * Draws(9).normal(SHAPE, like=P.y)
        exact = D.posterior(P)(x, sigma)
        torch.testing.assert_close(sampler.posterior_mean(x, sigma, P, D), exact, rtol=0, atol=1e-9)
    assert not compare(sampler, P, D, 400)[0].deviations(tolerance=8)


def test_temperature_is_the_share_of_the_spread_and_inflation_the_pull_of_the_data():
    P, D = problem("gaussian", "mask", SIZE)
    rng, x = Draws(1, range(2000)), D.mean.expand(2000, *SHAPE)
    full, half = (MomentMatching(temperature=T).posterior_draw(x, 0.1, P, D, rng) for T in (1.0, 0.5))
    assert float(half.var(0).mean() / full.var(0).mean()) == pytest.approx(0.25, rel=0.05)
    torch.testing.assert_close(half.mean(0), full.mean(0), rtol=0, atol=0.01)
    C, r = D.covariance(x[:1], 0.1), P.y - P.operator(D(x[:1], 0.1))
    moved = MomentMatching(inflation=3.0).posterior_mean(x[:1], 0.1, P, D) - D(x[:1], 0.1)
    torch.testing.assert_close(moved, Times(C, 3.0).gain(P.operator, r, P.noise.sigma))
    assert P.data_fit(D(x[:1], 0.1) + moved) < P.data_fit(MomentMatching().posterior_mean(x[:1], 0.1, P, D))


@pytest.mark.parametrize("name", ["identity", *OPERATORS])
@pytest.mark.parametrize("covariance", ["model", "diagonal", "scalar"])
def test_temperature_scales_all_that_a_draw_invents_and_nothing_of_the_rungs_noise(covariance, name):
    A = Identity(SHAPE) if name == "identity" else operator(name, SIZE)
    D, sigma, tau, rows = prior("gaussian", SIZE), 0.3, 0.2, range(500)
    P = Problem(A(D.sample(Draws(7))), A, GaussianNoise(0.1))
    x = (D.mean + sigma * Draws(9).normal(SHAPE, like=P.y)).expand(len(rows), *SHAPE)
    cold, half, full = (MomentMatching(temperature=T, alpha=1.0, covariance=covariance) for T in (0.0, 0.5, 1.0))
    mean = cold.posterior_mean(x, sigma, P, D)
    draws = [m.posterior_draw(x, sigma, P, D, Draws(1, rows)) - mean for m in (cold, half, full)]
    torch.testing.assert_close(draws[0], torch.zeros_like(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(draws[1], draws[2] / 2, rtol=0, atol=2e-3)  # systems are solved to less
    assert draws[2].std(0).min() > 0.01
    fresh = cold.step(State(x), sigma, tau, P, D, Draws(2, rows)).x - mean - (tau / sigma) ** 2 * (x - mean)
    assert float(fresh.var()) == pytest.approx(tau**2 * (1 - (tau / sigma) ** 2), rel=0.04)  # five standard errors


@pytest.mark.parametrize("covariance", ["model", "diagonal", "scalar"])
def test_every_covariance_that_can_draw_does(covariance):
    P, D = problem("gaussian", "mask", SIZE)
    x = restore(P, D, MomentMatching(steps=10, covariance=covariance), num_samples=8).samples
    assert x.std(0).min() > 0.005


def test_a_choice_that_moment_matching_has_not_is_refused_in_words():
    with pytest.raises(ValueError, match=r"covariance must be one of model, jacobian, .*got 'full'"):
        MomentMatching(covariance="full")
    with pytest.raises(ValueError, match=r"nothing can be drawn with covariance=jacobian: choose integrator=heun"):
        MomentMatching(covariance="jacobian")


@pytest.mark.parametrize("rule, order", [("euler", 1), ("heun", 2), ("multistep", 2)])
def test_rules_of_the_flow_have_their_order(rule, order):
    """The flow of N(0, s^2) from sigma to tau has the solution `x sqrt((s^2 + tau^2) / (s^2 + sigma^2))`."""
    s2, errors = 0.04, []
    for steps in (40, 80):
        state, sigmas = State(torch.ones(1, 1, dtype=torch.float64)), descent(2.0, 0.02, steps, 7.0).tolist()[:-1]
        for sigma, tau in pairwise(sigmas):
            state = advance(rule, state, sigma, tau, lambda v, sd: v * s2 / (s2 + sd**2), lambda: torch.zeros(1, 1))
        errors.append(abs(state.x.item() / math.sqrt((s2 + 0.02**2) / (s2 + 2.0**2)) - 1))
    assert errors[0] / errors[1] > 0.85 * 2**order


@pytest.mark.parametrize("rule, close", [("ancestral", 0.06), ("sde", 0.02)])
def test_stochastic_rules_end_with_the_variance_of_the_prior(rule, close):
    s2, n = 0.04, 40_000
    g = torch.Generator().manual_seed(0)
    state, sigmas = State(2.0 * torch.randn(n, 1, generator=g)), descent(2.0, 0.002, 200, 7.0).tolist()
    for sigma, tau in pairwise(sigmas):
        state = advance(
            rule, state, sigma, tau, lambda v, sd: v * s2 / (s2 + sd**2), lambda: torch.randn(n, 1, generator=g)
        )
    assert float(state.x.var()) == pytest.approx(s2, rel=close)


def test_an_unknown_rule_is_refused_in_words():
    with pytest.raises(ValueError, match=f"one of draw, {', '.join(RULES)}, got 'rk4'"):
        MomentMatching(integrator="rk4")


@pytest.mark.parametrize("name", OPERATORS)
def test_draws_given_data_have_the_moments_of_the_conditioned_gaussian(name):
    P, D = problem("gaussian", name, SIZE)
    A, sigma_y = P.linear_gaussian
    M, rows, variance = dense(A, SHAPE), 20_000, 0.01
    guess = D.sample(Draws(5))
    x = exact_draw(*P.linear_gaussian, P.y, guess.expand(rows, *SHAPE), variance, Draws(6, range(rows))).flatten(1)
    C = torch.linalg.inv(M.T @ M / sigma_y**2 + torch.eye(SIZE**2).double() / variance)
    mean = C @ (M.T @ P.y.flatten() / sigma_y**2 + guess.flatten() / variance)
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=5 * float(C.diagonal().max() / rows) ** 0.5)
    torch.testing.assert_close(torch.cov(x.T), C, rtol=0, atol=6 * variance / rows**0.5)


def test_ddrm_with_full_weight_of_the_data_takes_the_steps_of_ddnm():
    P, D = problem("mixture", "blur", 8)
    x = Draws(1, range(2)).normal((1, 8, 8), like=P.y)
    for sigma, tau in ((1.0, 0.8), (0.1, 0.05)):
        steps = [s.step(x, sigma, tau, P, D, Draws(2, range(2))) for s in (DDRM(), DDNM())]
        torch.testing.assert_close(*steps)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("tau", [0.25, 0.02], ids=["above the noise", "below the noise"])
def test_ddrm_takes_the_papers_step_in_each_direction(name, tau):
    P, D = problem("mixture", name, 8)
    A, sigma_y = P.linear_gaussian
    eta, eta_b, sigma = 0.6, 0.4, 0.3
    x = Draws(1).normal((1, 8, 8), like=P.y)
    got = DDRM(eta=eta, eta_b=eta_b).step(x, sigma, tau, P, D, Draws(2)).flatten()
    n, clean = Draws(2).normal((1, 8, 8), like=x).flatten(), D(x, sigma).flatten()
    _, s, Vt = torch.linalg.svd(dense(A, A.ishape), full_matrices=True)
    s = torch.cat([s, s.new_zeros(64 - len(s))])
    data = Vt @ A.pinv(P.y).flatten()  # y/s
    Dbar, nbar, eps = Vt @ clean, Vt @ n, Vt @ (x.flatten() - clean) / sigma
    carried = (1 - eta**2) ** 0.5
    unseen = Dbar + tau * (carried * eps + eta * nbar)
    noisy = Dbar + carried * tau / sigma_y * s * (data - Dbar) + eta * tau * nbar
    sure = (1 - eta_b) * Dbar + eta_b * data + (tau**2 - (eta_b * sigma_y / s) ** 2).clamp(min=0).sqrt() * nbar
    wanted = torch.where(s < 1e-6 * s.max(), unseen, torch.where(s * tau < sigma_y, noisy, sure))
    torch.testing.assert_close(got, Vt.T @ wanted)


@pytest.mark.parametrize("sigma_y", [0.02, 0.2])
def test_the_last_step_of_ddrm_keeps_data_that_are_surer_than_its_rung(sigma_y):
    D = prior("gaussian", SIZE)
    A = Mask(torch.arange(SIZE**2).reshape(SIZE, SIZE) % 3 > 0, channels=1)
    P = Problem(torch.ones(1, *A.oshape, dtype=torch.float64), A, GaussianNoise(sigma_y))
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    last, denoised = DDRM().step(x, 0.1, 0.0, P, D, Draws(0)), D(x, 0.1)
    torch.testing.assert_close(A(last), P.y if sigma_y < 0.1 else A(denoised))
    missing = ~A.mask.bool().expand(SHAPE)
    torch.testing.assert_close(last[0][missing], denoised[0][missing])


def test_ddrm_refuses_an_operator_without_svd_in_words():
    class Bare(Mask):
        gram = None

    A = Bare(torch.ones(SHAPE, dtype=torch.bool))
    with pytest.raises(SamplerError, match=r"SVD of the operator, and that of Bare is not known.*DDNM"):
        restore(Problem(torch.ones(1, *A.oshape), A, GaussianNoise(0.1)), prior("gaussian", SIZE), DDRM())


def test_pigdm_follows_the_gradient_of_its_gaussian_likelihood():
    """With `eta = 0` a step is DDIM plus `r^2` times the gradient of `log N(y; A D(x), r^2 A A' + sigma_y^2 I)`, its
    covariance held fixed."""
    P, D = problem("mixture", "downsample", SIZE)
    A, sigma_y = P.linear_gaussian
    M, sampler, sigma, tau = dense(A, SHAPE), PiGDM(eta=0), 0.3, 0.2
    x = D.sample(Draws(1)) + sigma * Draws(2).normal(SHAPE, like=P.y)
    r2 = sigma**2 * sampler.scale**2 / (sigma**2 + sampler.scale**2)
    S = r2 * M @ M.T + sigma_y**2 * torch.eye(len(M)).double()
    v = x.clone().requires_grad_()
    r = (P.y - A.forward(D(v, sigma))).flatten()
    g = torch.autograd.grad(-0.5 * r @ torch.linalg.solve(S, r), v)[0]
    wanted = D(x, sigma) + tau / sigma * (x - D(x, sigma)) + r2 * g
    torch.testing.assert_close(sampler.step(x, sigma, tau, P, D, Draws(0)), wanted)
    torch.testing.assert_close(sampler.step(x, sigma, 0, P, D, Draws(0)), D(x, sigma) + r2 * g)


def test_the_multistep_rule_costs_one_call_a_step_and_heun_two():
    P = Problem(torch.full((1, *SHAPE), 0.5, dtype=torch.float64), Identity(SHAPE), GaussianNoise(0.1))
    calls = {
        rule: restore(P, prior("gaussian", SIZE), MomentMatching(steps=10, integrator=rule), num_samples=2).nfe
        for rule in RULES
    }
    assert calls == {"euler": 11, "multistep": 11, "ancestral": 11, "sde": 11, "heun": 20}


def test_moment_matching_finds_the_mean_and_spread_of_what_the_data_do_not_see():
    """A flat patch that is independent of all that was measured: its mean is the prior's, 0.5, whatever it was."""
    n, half = 12, 72
    C = 0.04 * torch.eye(n * n, dtype=torch.float64)
    C[half:, half:] = 0.04 * (0.9 + 0.1 * torch.eye(half, dtype=torch.float64))
    D = Gaussian(torch.full((1, n, n), 0.5, dtype=torch.float64), C)
    D.sigma_min, D.sigma_max = 0.001, 10.0
    A = Mask((torch.arange(n * n) < half).reshape(1, n, n))
    noise = GaussianNoise(0.05)
    P = Problem(noise.sample(A(D.sample(Draws(1))), Draws(2)), A, noise)
    patch = restore(P, D, MomentMatching(), num_samples=400).samples.flatten(1)[:, half:].mean(1)
    assert float(patch.mean()) == pytest.approx(0.5, abs=0.04)  # four standard errors
    assert float(patch.std()) == pytest.approx(0.19, abs=0.03)


def test_pnpdm_gets_down_in_few_steps_and_waits_in_many():
    D = prior("gaussian", SIZE)
    for steps in (1, 2, 20, 100):
        ladder = PnPDM(steps=steps).ladder(D)
        assert len(ladder) == steps + 1 and ladder[0] == 10
        assert steps == 1 or float(ladder[-2]) == pytest.approx(0.03)
    assert float(PnPDM(steps=100).ladder(D)[1]) == pytest.approx(9)


@pytest.mark.parametrize("sigma_min", [0.03, 0.03 * (1 - 1e-15)])
def test_an_inner_ladder_that_begins_at_the_bottom_is_one_step(sigma_min):
    D = prior("gaussian", SIZE)
    D.sigma_min = sigma_min
    calls = []
    D.register_forward_hook(lambda *_: calls.append(1))
    run_down("sde", torch.zeros(1, *SHAPE, dtype=torch.float64), 0.03, 5, 7.0, D, lambda: torch.zeros(1, *SHAPE))
    assert len(calls) == 1


def test_draws_in_overlapping_tiles_agree_on_the_noise_of_the_data():
    """The noise of masked data comes from that of the picture, which tiles share; else it is drawn by itself."""
    P, D = problem("gaussian", "mask", 8)
    A = P.operator
    asked = []

    class Rng(Draws):
        def normal(self, shape, like):
            asked.append(shape)
            return super().normal(shape, like)

    for Rng.tiled, wanted in ((True, [A.ishape, A.ishape]), (False, [A.ishape, A.oshape])):
        asked.clear()
        exact_draw(*P.linear_gaussian, P.y, D.mean[None], 0.01, Rng(0))
        assert asked == wanted

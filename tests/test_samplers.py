"""Laws of single samplers: what their steps must do, on problems small enough to know."""

import math
from dataclasses import replace

import pytest
import torch
from known_posteriors import prior, problem, samplers
from torch import Tensor

from operators import kernels
from operators.base import Identity, LinearOperator, Operator
from operators.image import Blur, Downsample, Mask
from operators.noise import Censored, Gaussian, Poisson
from operators.nonlinear import JPEG, Clip, Magnitude
from operators.random import Draws
from restore.core import restore
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import SamplerError
from restore.samplers.csgm import CSGM
from restore.samplers.ddnm import DDNM
from restore.samplers.diffpir import DiffPIR
from restore.samplers.dps import DPS
from restore.samplers.reddiff import REDdiff
from restore.samplers.tds import TDS
from restore.samplers.ula import ULA

SHAPE = (1, 6, 6)


class Known(Denoiser):
    """Knows the signal: what is left of `x'` after a step is its noise."""

    shape, sigma_min, sigma_max = SHAPE, 1e-3, 10.0

    def __init__(self, signal: float = 0.5):
        super().__init__()
        self.signal = signal

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self.signal + 0 * x  # a gradient, and it is zero


class Unknown(LinearOperator):
    """Another operator with nothing known about it: no gram, no svd."""

    def __init__(self, A: LinearOperator):
        super().__init__(A.ishape, A.oshape)
        self.A = A

    def forward(self, x: Tensor) -> Tensor:
        return self.A.forward(x)


class Spectral(Unknown):
    """Another operator of which only the SVD is known."""

    def svd(self):
        return self.A.svd()


OPERATORS = {
    "mask": Mask(torch.arange(36).reshape(SHAPE) % 3 != 0),
    "blur": Blur(kernels.gaussian(0.5), SHAPE),
    "downsample": Downsample(SHAPE, 2, "bicubic"),
    "block": Downsample(SHAPE, 2, "block"),
}


@pytest.mark.parametrize("kind", ["as it is", "svd", "solve"])
@pytest.mark.parametrize("sigma_y", [0.02, 0.2])
@pytest.mark.parametrize("tau", [0.3, 0.8], ids=["below scale", "above scale"])
@pytest.mark.parametrize("name", OPERATORS)
def test_ddnm_leaves_the_noise_of_the_rung_in_every_direction(name, tau, sigma_y, kind):
    """White noise of std `sigma_next` in all, the share that the data carry included: the denoiser relies on it."""
    A = OPERATORS[name] if kind == "as it is" else {"svd": Spectral, "solve": Unknown}[kind](OPERATORS[name])
    rows, sigma = 4000, 1.3 * tau
    rng, noise = Draws(0, range(rows)), Gaussian(sigma_y)
    truth = torch.full((rows, *SHAPE), 0.5, dtype=torch.float64)
    P = Problem(noise.sample(A(truth), rng), A, noise)
    x = DDNM().step(truth + sigma * rng.normal(SHAPE, like=truth), sigma, tau, P, Known(), rng)
    C = torch.cov((x - truth).flatten(1).T) / tau**2
    torch.testing.assert_close(C, torch.eye(36, dtype=torch.float64), rtol=0, atol=0.14)  # 5.5 / sqrt(rows) * sqrt(2)
    assert abs(C.diagonal().mean() - 1) < 0.015


@pytest.mark.parametrize("name", ["mask", "block"])
def test_ddnm_is_the_same_by_one_singular_value_and_by_the_svd(name):
    A, like = OPERATORS[name], torch.zeros(2, *SHAPE, dtype=torch.float64)
    x, y = Draws(1, range(2)).normal(SHAPE, like), Draws(2).normal(A.oshape, like)
    for tau in (0.5, 0.05):  # above and below the noise
        steps = [
            DDNM().step(x, 0.6, tau, Problem(y, op, Gaussian(0.1)), Known(), Draws(3, range(2)))
            for op in (A, Spectral(A))
        ]
        torch.testing.assert_close(*steps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Unknown, Spectral])
def test_ddnm_without_noise_keeps_the_data(kind):
    A = kind(OPERATORS["blur"])
    x = torch.rand(1, *SHAPE, dtype=torch.float64)
    P = Problem(A(x), A, Gaussian(1e-7))
    step = DDNM().step(torch.zeros_like(x), 1.0, 1e-3, P, Known(), Draws(0))
    assert (A(step) - P.y).abs().max() < 0.01


def test_time_travel_climbs_and_comes_down_again():
    ladder = DDNM(steps=4, travel_length=2, travel_repeat=2).ladder(Known())
    a, b, c, d, zero = DDNM(steps=4).ladder(Known())
    assert ladder.tolist() == [a, b, c, a, b, c, d, zero, c, d, zero]
    P, D = problem("gaussian", "mask", 8)
    once, twice = (restore(P, D, DDNM(steps=20, travel_repeat=n), num_samples=2).nfe for n in (1, 2))
    assert (once, twice) == (20, 40)


@pytest.mark.parametrize("name", samplers())
def test_the_prior_alone_decides_what_the_data_do_not_see(name):
    """A prior that knows the missing pixels has them right; one that ignored it would leave noise."""
    A = OPERATORS["mask"]
    P = Problem(torch.full((1, *A.oshape), 0.5, dtype=torch.float64), A, Gaussian(0.05))
    x = restore(P, Known(), samplers()[name], num_samples=2).samples
    missing = x - A.adjoint(A(x)) - (0.5 - A.adjoint(A(torch.full_like(x, 0.5))))
    assert missing.abs().max() < 0.02


class Square(Operator):
    """`x^2`: a detector of intensity."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square()


@pytest.mark.parametrize(
    "sampler",
    [REDdiff(steps=200), DPS(steps=200, zeta=1.0), TDS(), ULA(), CSGM()],
    ids=["reddiff", "dps", "tds", "ula", "csgm"],
)
def test_gradient_samplers_serve_any_operator_and_noise(sampler):
    D = prior("gaussian", 8)
    truth = D.sample(Draws(7))
    A = Square(D.shape, D.shape) @ Identity(D.shape)
    noise = Poisson(0.01)
    x = restore(Problem(noise.sample(A(truth), Draws(8)), A, noise), D, sampler, num_samples=4).samples
    # The square has two roots: chains of CSGM, which begin far from both, may end at the one that is not likely.
    x = x.abs() if isinstance(sampler, CSGM) else x
    blind = (D.mean - truth).square().mean().sqrt()
    assert (x.mean(0) - truth).square().mean().sqrt() < blind / 2


@pytest.mark.parametrize("A", [Clip((1, 8, 8), 0.4, 0.6), JPEG((1, 8, 8), 50), Magnitude((1, 8, 8))], ids=str)
@pytest.mark.parametrize("name", [name for name, sampler in samplers().items() if sampler.needs is Operator])
def test_samplers_that_need_only_a_gradient_serve_nonlinear_operators(name, A):
    D, noise = prior("gaussian", 8), Gaussian(0.05)
    P = Problem(noise.sample(A(D.sample(Draws(7))), Draws(8)), A, noise)
    sampler = samplers()[name]
    few = {"steps": 20, "langevin_steps": 20} if name in ("daps", "pnpdm") else {"steps": min(sampler.steps, 100)}
    x = restore(P, D, replace(sampler, **few), num_samples=2).samples
    assert bool(torch.isfinite(x).all()) and not torch.equal(x[0], x[1])
    blind = P.data_fit(D.sample(Draws(1, range(50)))).median()
    assert P.data_fit(x).mean() < 0.85 * blind, "as far from the data as draws of the prior"


@pytest.mark.parametrize("sampler", [DDNM(), DiffPIR()], ids=["ddnm", "diffpir"])
def test_what_a_sampler_cannot_serve_is_refused_in_words(sampler):
    y = torch.ones(1, *SHAPE)
    with pytest.raises(SamplerError, match=r"needs a LinearOperator, got Square.*RED-diff or DPS"):
        restore(Problem(y, Square(SHAPE, SHAPE), Gaussian(0.1)), Known(), sampler)
    with pytest.raises(SamplerError, match="needs Gaussian noise"):
        restore(Problem(y, Identity(SHAPE), Poisson(1.0)), Known(), sampler)
    with pytest.raises(SamplerError, match="the prior takes signals of shape"):
        restore(Problem(y[..., :3], Identity((1, 6, 3)), Gaussian(0.1)), Known(), sampler)


def test_dps_refuses_a_prior_without_a_gradient_in_words():
    class Closed(Known):
        def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
            return super().forward(x, sigma).detach()

    with pytest.raises(SamplerError, match="differentiates the denoiser"):
        restore(Problem(torch.ones(1, *SHAPE), Identity(SHAPE), Gaussian(0.1)), Closed(), DPS())


@pytest.mark.parametrize("name", samplers())
def test_nan_is_named_with_sampler_step_and_sigma(name):
    P = Problem(torch.ones(1, *SHAPE), Identity(SHAPE), Gaussian(0.1))
    sampler = samplers()[name]
    top = f"{sampler.ladder(Known())[0]:g}"
    said = type(sampler).__name__ + " gave NaN or infinite values at step 1 of .*sigma " + top
    with pytest.raises(SamplerError, match=said):
        restore(P, Known(float("nan")), sampler)
    if name != "ddrm":  # where a system has to be solved by iteration it is the solver that meets the NaN
        A = Unknown(OPERATORS["blur"])
        with pytest.raises(SamplerError, match=type(sampler).__name__ + r" .*step [01] of .*sigma " + top):
            restore(Problem(torch.ones(1, *A.oshape), A, Gaussian(0.1)), Known(float("nan")), sampler)


@pytest.mark.parametrize("name", samplers())
def test_the_dtype_is_that_of_the_data_and_calls_are_counted(name):
    sampler = samplers()[name]
    R = restore(Problem(torch.ones(1, *SHAPE), Identity(SHAPE), Gaussian(0.1)), Known(), sampler, num_samples=3)
    assert R.samples.dtype == torch.float32
    # One call more: they ask the prior where to start.
    first = name in ("reddiff", "pnpdm", "moment_matching", "ula", "csgm")
    # DAPS: from the last rung one is enough. FPS: there only the chosen particle is denoised. CSGM: so is the end.
    counts = {"daps": 199 * 5 + 1, "pnpdm": 100 * 10, "tds": 100 * 16, "fps": 99 * 32 + 1, "csgm": 300 * 3 + 1}
    wanted = counts.get(name, sampler.steps)
    assert R.nfe == wanted + first


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DDNM(steps=0), "steps must be at least 1, got 0"),
        (lambda: DDNM(eta=1.2), "eta must be from 0 to 1, got 1.2"),
        (lambda: DDNM(travel_length=0), "travel_length must be at least 1"),
        (lambda: DiffPIR(zeta=2.0), "zeta must be from 0 to 1"),
        (lambda: DiffPIR(sigma_max=0.0), "sigma_max must be above 0"),
        (lambda: REDdiff(lr=-0.1), "lr must be above 0"),
        (lambda: DPS(zeta=math.nan), "zeta must be above 0"),
    ],
)
def test_hyperparameters_out_of_range_are_refused_in_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("sampler", [DDNM(sigma_max=5e-4), DiffPIR(sigma_max=0.01, sigma_min=1.0)])
def test_a_ladder_that_would_climb_is_refused(sampler):
    with pytest.raises(SamplerError, match="the ladder would go from sigma"):
        restore(Problem(torch.ones(1, *SHAPE), Identity(SHAPE), Gaussian(0.1)), Known(), sampler)


def test_rows_of_data_and_draws_must_agree():
    with pytest.raises(ValueError, match="y has 3 rows, but there are random numbers for 1 draws"):
        DDNM(steps=2)(Problem(torch.ones(3, *SHAPE), Identity(SHAPE), Gaussian(0.1)), Known(), Draws(0))


def test_diffpir_takes_its_data_step_in_the_last_rung_too():
    A, y, sigma, sigma_y = OPERATORS["blur"], torch.rand(1, *SHAPE, dtype=torch.float64), 0.3, 0.1
    sampler = DiffPIR(steps=1, sigma_max=sigma)
    x = restore(Problem(y, A, Gaussian(sigma_y)), Known(), sampler, num_samples=1).samples
    rho = sigma_y**2 * (sampler.lambda_ / sigma**2 + 1 / sampler.scale**2)
    torch.testing.assert_close(A.adjoint(A(x) - y) + rho * (x - 0.5), torch.zeros_like(x))


def test_diffpir_pulls_censored_data_as_far_as_their_end():
    """Its step is at the minimum of the one-sided square; what lies beyond the end stays where the prior has it."""
    A, sigma, sigma_y = OPERATORS["block"], 0.3, 0.1
    y = torch.tensor([[[[0.2, 0.3, 0.8], [0.4, 0.9, 0.6], [0.5, 0.7, 0.1]]]], dtype=torch.float64)
    ends = torch.tensor([[[0, 1, 1], [0, 0, -1], [-1, 1, 0]]])
    lo, hi = (torch.where(ends == side, y[0], side * math.inf) for side in (-1, 1))
    noise = Censored(sigma_y, lo, hi)
    sampler = DiffPIR(steps=1, sigma_max=sigma)
    x = restore(Problem(y, A, noise), Known(), sampler, num_samples=1).samples
    rho = sigma_y**2 * (sampler.lambda_ / sigma**2 + 1 / sampler.scale**2)
    torch.testing.assert_close(rho * (x - 0.5), A.adjoint(noise.residual(y, A(x))))
    at, beyond = A(x)[0, 0], (ends[0] == 1) & (y[0, 0] <= 0.5) | (ends[0] == -1) & (y[0, 0] >= 0.5)
    assert int(beyond.sum()) == 3 and torch.equal(at[beyond], torch.full((3,), 0.5).double())
    assert bool(((at - 0.5) * (y[0, 0] - 0.5) > 0)[~beyond].all())


def test_censored_data_are_for_diffpir_and_gradients():
    y = torch.ones(1, *SHAPE)
    with pytest.raises(SamplerError, match="DDNM needs Gaussian noise"):
        restore(Problem(y, Identity(SHAPE), Censored(0.1, hi=1.0)), Known(), DDNM())
    with pytest.raises(SamplerError, match="orthogonal rows"):
        restore(Problem(y, OPERATORS["blur"], Censored(0.1, hi=1.0)), Known(), DiffPIR())
    P, D = problem("gaussian", "mask", 6)
    told = Problem(P.y, P.operator, Censored(0.05, hi=float(P.y.median())))
    for sampler in (DiffPIR(steps=20), DPS(steps=200)):
        drawn = restore(told, D, sampler, num_samples=4).samples
        assert float(told.data_fit(drawn).mean()) < 1.5 and bool(drawn.isfinite().all())

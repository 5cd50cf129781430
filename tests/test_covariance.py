"""What a prior is unsure of: covariances, Jacobians, spectra; each against a dense formula."""

import pytest
import torch
from known_posteriors import OPERATORS, operator, prior, problem
from torch import Tensor

from operators.image import Blur, Mask
from operators.linalg import ConvergenceError, cg, dense
from operators.masks import random_lines
from operators.mri import sense
from operators.random import Draws, generator
from restore.core import restore
from restore.priors.analytic import Gaussian
from restore.priors.base import Beyond, Denoiser, Rescaled, Wrapper, per_row
from restore.priors.covariance import Covariance, Diagonal, Scalar, Stationary, Times, passed
from restore.priors.jacobian import Jacobian, row_sums
from restore.priors.spectra import SpectralTable, residual_spectra
from restore.samplers.base import differentiable
from restore.samplers.moment_matching import MomentMatching

SIZE = 8
SHAPE = (1, SIZE, SIZE)


def matrix(C: Covariance) -> Tensor:
    """`(n, n)` of a covariance that is the same for every row."""
    return dense(C, SHAPE)


@pytest.mark.parametrize("sigma", [0.02, 0.3])
@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_the_covariance_of_an_analytic_prior_is_tweedies(name, sigma):
    D = prior(name, SIZE)
    x = D.sample(Draws(0)) + sigma * Draws(1).normal(SHAPE, like=D.mean)
    J = torch.autograd.functional.jacobian(lambda v: D(v, sigma), x).reshape(SIZE**2, SIZE**2)
    torch.testing.assert_close(matrix(D.covariance(x, sigma)), sigma**2 * J, rtol=1e-6, atol=1e-10)


def test_the_covariance_follows_the_units():
    D = prior("mixture", SIZE)
    x, other = D.sample(Draws(0)), Rescaled(D, scale=2, shift=-1)
    assert other.signal_std == pytest.approx(D.signal_std / 2)
    C = other.covariance((x + 1) / 2, 0.1)
    torch.testing.assert_close(matrix(C), matrix(D.covariance(x, 0.2)) / 4)


def test_a_prior_is_asked_beyond_its_levels():
    """Above the highest a faint signal's mean is linear in what is seen: of white signals but for `1 / (1 + s^2)`."""
    D = White()
    x, other = Draws(0).normal(SHAPE, like=torch.zeros(1)), Beyond(D, 50.0)
    assert (other.sigma_min, other.sigma_max) == (D.sigma_min, 50.0) and Beyond(D, 1.0).sigma_max == D.sigma_max
    for sigma in (0.1, 2.0, torch.tensor([0.5])):
        torch.testing.assert_close(other(x, sigma), D(x, sigma))
    torch.testing.assert_close(other(40 * x, 40.0), 40 * x / (1 + 40**2), rtol=0.21, atol=0)  # 1 / (1 + 2^2)
    torch.testing.assert_close(matrix(other.covariance(40 * x, 40.0)), matrix(D.covariance(x, 2.0)))
    torch.testing.assert_close(other.jvp(x, 40.0, x), other(x, 40.0))  # it is linear


class White(Denoiser):
    """Of white signals of variance 1, and of nothing above sigma 2."""

    shape, sigma_min, sigma_max, signal_std = SHAPE, 0.01, 2.0, 1.0

    def forward(self, x, sigma):
        sigma = per_row(sigma, x)
        assert float(sigma.max()) <= self.sigma_max
        return x / (1 + sigma**2)


def test_a_wrapper_answers_in_all_as_its_prior_does():
    D = prior("mixture", SIZE)
    x, other = D.sample(Draws(0)), Wrapper(D)
    for name in ("shape", "sigma_min", "sigma_max", "signal_std"):
        assert getattr(other, name) == getattr(D, name)
    assert torch.equal(other(x, 0.2), D(x, 0.2))
    assert torch.equal(matrix(other.covariance(x, 0.2)), matrix(D.covariance(x, 0.2)))
    D.jvp, D.accepts = lambda x, sigma, v: sigma * v, lambda shape: shape == (7,)
    assert torch.equal(other.jvp(x, 0.2, x), 0.2 * x) and other.accepts((7,)) and not other.accepts(SHAPE)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("kind", ["scalar", "times", "mixture"])
def test_the_gain_is_that_of_conditioning_a_gaussian(name, kind):
    A, sigma_y = operator(name, SIZE), 0.1
    D = prior("mixture", SIZE)
    x = D.sample(Draws(3))
    C = {"scalar": Scalar(0.3), "times": Times(Scalar(0.6), 0.5), "mixture": D.covariance(x, 0.2)}[kind]
    M, S = dense(A, SHAPE), matrix(C)
    r = Draws(4).normal(A.oshape, like=x)
    wanted = S @ M.T @ torch.linalg.solve(M @ S @ M.T + sigma_y**2 * torch.eye(len(M)).double(), r.flatten())
    torch.testing.assert_close(C.gain(A, r, sigma_y).flatten(), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["scalar", "diagonal", "times", "stationary", "mixture"])
def test_what_is_drawn_with_a_covariance_has_it(kind):
    D, rows = prior("skewed", SIZE), 20_000
    x = D.mean[None]  # of no component in particular
    C = {
        "scalar": Scalar(0.3),
        "diagonal": Diagonal(0.1 + x.abs()),
        "times": Times(Scalar(0.6), 0.5),
        "stationary": Stationary(smooth_spectrum(*SHAPE)),
        "mixture": D.covariance(x, 0.2),
    }[kind]
    drawn = C.sample(Draws(1, range(rows)), like=torch.zeros(rows, *SHAPE).double()).flatten(1)
    wanted = matrix(C)
    spread = (wanted.diagonal()[:, None] * wanted.diagonal() + wanted.square()).sqrt() / rows**0.5
    assert ((drawn.T @ drawn / rows - wanted).abs() <= 5.5 * spread).all()
    fine = D.means[1].flatten() - D.means[0].flatten()  # apart along this, where each component is narrow
    torch.testing.assert_close((drawn @ fine).var(), fine @ wanted @ fine, rtol=0.05, atol=0)
    assert drawn.mean(0).abs().max() < 5 * float(wanted.diagonal().max() / rows) ** 0.5


@pytest.mark.parametrize("name", OPERATORS)
def test_the_jacobian_of_a_true_mean_is_the_covariance_of_the_prior(name):
    """To rounding: the gain, and so a sampler that takes its word; a few products with it get close."""
    P, D = problem("skewed", name, SIZE)
    A, sigma_y = P.linear_gaussian
    x, sigma = D.sample(Draws(1)) + 0.2 * Draws(2).normal(SHAPE, like=P.y), 0.2
    x, Dx = differentiable(D, x, sigma, "")
    r = P.y - A.forward(Dx.detach())
    wanted, C = D.covariance(x.detach(), sigma), Jacobian(D, x, sigma, Dx)
    torch.testing.assert_close(C(Dx.detach()), wanted(Dx.detach()), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(C.gain(A, r, sigma_y), wanted.gain(A, r, sigma_y), rtol=1e-6, atol=1e-9)
    jvp, rows = D.jvp, []
    D.jvp = lambda x, *rest: rows.append(len(x)) or jvp(x, *rest)
    draws = [
        restore(P, D, MomentMatching(steps=8, integrator="heun", covariance=kind, products=200), num_samples=2)
        for kind in ("model", "jacobian")
    ]
    torch.testing.assert_close(draws[1].samples, draws[0].samples, rtol=0, atol=1e-3)
    assert [R.nfe for R in draws] == [16, 16]
    assert [R.backward for R in draws] == [0, 2 * sum(rows) / 2]  # one from either side, of two draws


def differentiable_at(D: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, float, Tensor]:
    """`x, sigma, D(x, sigma)` with a graph."""
    x, Dx = differentiable(D, x, sigma, "")
    return x, sigma, Dx


class Untrained(Denoiser):
    """A network of random weights, sure of nothing and wrong in all: its Jacobian is neither symmetric nor positive."""

    shape, sigma_min, sigma_max = SHAPE, 0.01, 10.0

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(
                torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(8, 1, 3, padding=1)
            ).double()

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return 5 * self.layers(x / (1 + sigma))


@pytest.mark.parametrize("name", OPERATORS)
def test_the_jacobian_of_a_bad_network_leaves_finite_answers(name):
    P, D = problem("gaussian", name, SIZE)[0], Untrained()
    x = P.operator.adjoint(P.y)
    J = torch.autograd.functional.jacobian(lambda v: D(v, 0.5), x).reshape(SIZE**2, SIZE**2)
    assert (J - J.T).abs().max() > 0.1 and torch.linalg.eigvalsh(J + J.T).min() < -0.1
    C = Jacobian(D, *differentiable_at(D, x.expand(SIZE**2, -1, -1, -1), 0.5))
    torch.testing.assert_close(matrix(C), 0.25 * (J + J.T) / 2)
    for integrator in ("heun", "sde"):
        sampler = MomentMatching(steps=10, covariance="jacobian", integrator=integrator)
        assert restore(P, D, sampler, num_samples=2).samples.abs().max() < 1e3
    assert restore(P, D, MomentMatching(steps=10, covariance="diagonal"), num_samples=2).samples.isfinite().all()


def test_conjugate_gradients_stop_before_negative_curvature_row_by_row():
    diagonal = torch.tensor([[1.0, 2.0, 3.0], [4.0, -1.0, -1.0], [torch.nan, 1.0, 1.0]]).double()
    b = torch.ones(3, 3).double()
    x = cg(lambda v: diagonal * v, b, floor=1.0)
    torch.testing.assert_close(x[0], 1 / diagonal[0])  # as if alone
    assert x[1:].isfinite().all()
    one = cg(lambda v: diagonal[:2] * v, b[:2], floor=1.0, max_iter=1)
    torch.testing.assert_close(one, torch.tensor([[0.5] * 3, [1.5] * 3]).double())
    with pytest.raises(ConvergenceError, match="curvature"):
        cg(lambda v: diagonal[1:2] * v, b[1:2])


def test_row_sums_are_the_diagonal_of_a_prior_of_independent_numbers():
    variances = torch.linspace(0.01, 1, SIZE**2).double()
    D, x = Gaussian(torch.zeros(SHAPE), variances.diag()), torch.ones(1, *SHAPE).double()
    C = row_sums(*differentiable_at(D, x, 0.3))
    torch.testing.assert_close(matrix(C).diagonal(), variances * 0.09 / (variances + 0.09))


def smooth_spectrum(channels: int, height: int, width: int) -> Tensor:
    f = torch.fft.fftfreq(height).square()[:, None] + torch.fft.rfftfreq(width).square()
    return 0.05 * torch.arange(1, channels + 1)[:, None, None] / (1 + 100 * f.double())


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 8)])
def test_a_stationary_covariance_is_symmetric_has_its_spectrum_and_knows_colours(shape):
    spectrum = smooth_spectrum(*shape)
    C = Stationary(spectrum)
    M = dense(C, shape)
    torch.testing.assert_close(M, M.T)
    light = torch.full((1, *shape), 1.0, dtype=torch.float64)
    torch.testing.assert_close(C(light), spectrum[0, 0, 0] * light)  # the constant picture is the first mode
    if shape[0] == 3:
        tint = light * torch.tensor([1.0, -1.0, 0.0]).double()[:, None, None]
        torch.testing.assert_close(C(tint), spectrum[1, 0, 0] * tint)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("rough, bar", [(False, 1e-6), (True, 0.5)])
def test_the_gain_of_a_stationary_covariance_is_as_right_as_it_is_asked_to_be(name, rough, bar):
    size = 16
    A, sigma_y = operator(name, size), 0.05
    C = Stationary(smooth_spectrum(1, size, size), rough)
    M, S = dense(A, A.ishape), dense(C, A.ishape)
    G = S @ M.T @ torch.linalg.inv(M @ S @ M.T + sigma_y**2 * torch.eye(len(M)).double())
    left = S - G @ M @ S
    r = 0.2 * A.forward(Draws(3).normal(A.ishape, like=S)) + sigma_y * Draws(4).normal(A.oshape, like=S)
    wrong = C.gain(A, r, sigma_y).flatten() - G @ r.flatten()
    assert wrong.square().mean().sqrt() < bar * left.diagonal().mean().sqrt()


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 7, 10), (3, 8, 1)])
@pytest.mark.parametrize("kind", ["mask", "blur"])
def test_the_gain_of_a_stationary_covariance_holds_for_odd_sizes_and_colours(shape, kind):
    """The modes that stand for two, and for themselves, are told apart; with or without conjugate gradients."""
    kept = torch.rand(shape[1:], generator=torch.Generator().manual_seed(2)) < 0.5
    A = Mask(kept, channels=shape[0]) if kind == "mask" else Blur(torch.tensor([[1.0, 2.0]]).T / 3, shape)
    assert A.shift_invariant == (kind == "blur")
    C = Stationary(smooth_spectrum(*shape))
    M, S = dense(A, shape), dense(C, shape)
    r = Draws(4).normal(A.oshape, like=S)
    wanted = S @ M.T @ torch.linalg.solve(M @ S @ M.T + 0.05**2 * torch.eye(len(M)).double(), r.flatten())
    torch.testing.assert_close(C.gain(A, r, 0.05).flatten(), wanted, rtol=1e-7, atol=1e-9)
    D = Draws(5, (0, 1)).normal(shape, like=S)[:1]
    for law in (C, Times(C, 1.7)):
        short, long = (
            mean_and_covariance(lambda rng, D, w=way, c=law: w.draw(c, A, D, r, 0.05, rng, spread=0.7, fresh=0.02), D)
            for way in (type(law), Covariance)
        )
        for found, wanted in zip(short, long, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


class Only(Draws):
    """All zeros, but for the request of this number: there each number is 1 in a row of its own."""

    def __init__(self, which):
        super().__init__(0)
        self.which, self.asked = which, []

    def normal(self, shape, like):
        self.asked.append(torch.Size(shape).numel())
        if len(self.asked) - 1 != self.which:
            return like.new_zeros(1, *shape)
        return torch.eye(self.asked[-1], dtype=like.dtype).reshape(-1, *shape)


def mean_and_covariance(draw, D):
    """Of a draw that is linear in its noise, from its images of each number of it."""
    none = Only(-1)
    mean = draw(none, D)
    cov = torch.zeros(D.numel(), D.numel(), dtype=D.dtype)
    for which, count in enumerate(none.asked):
        moved = (draw(Only(which), D.expand(count, *D.shape[1:])) - mean).flatten(1)
        cov += moved.T @ moved
    return mean, cov


def test_the_gain_holds_where_modes_seem_to_pass_more_than_whole():
    """How much lines of k-space pass of the modes near a frequency is estimated: 1.03 at the centre, all of which is
    kept. Where the data are precise, what is left to other modes must not come out below zero for it."""
    A = sense(random_lines((48, 40), 4, rng=generator(0)))
    spectrum = torch.logspace(1, -3, 48 * 21).reshape(1, 48, 21).repeat(2, 1, 1)
    assert float(passed(A, spectrum, spectrum.shape).max()) > 1.01
    r = A.forward(torch.randn(1, *A.ishape, generator=generator(1)))
    assert bool(Stationary(spectrum, rough=True).gain(A, r, 0.001).isfinite().all())
    x = Stationary(spectrum).gain(A, r, 0.001)
    assert float((A.forward(x) - r).norm() / r.norm()) < 0.01


def test_a_draw_keeps_its_digits_where_data_are_precise():
    A, sigma_y = Blur(torch.tensor([[1.0, 2.05, 1.0]]).T / 4.05, (1, 16, 16)), 1e-4
    C = Stationary(0.01 * torch.ones(1, 16, 9, dtype=torch.float64))
    D = 0.5 + 0.1 * Draws(5).normal((1, 16, 16), like=C.spectrum)
    y = A.forward(D + 0.1 * Draws(6).normal((1, 16, 16), like=D))
    short, long = (
        Stationary(C.spectrum.to(t)).draw(A.to(t), D.to(t), y.to(t), sigma_y, Draws(7), spread=0.0, fresh=0.0)
        for t in (torch.float32, torch.float64)
    )
    assert float((short.double() - long).square().mean().sqrt()) < sigma_y / 3


def test_spectra_of_the_errors_of_a_wiener_filter_are_known():
    """White Gaussian signals of variance v: the error is white with `v sigma^2 / (v + sigma^2)`."""

    class Wiener(Denoiser):
        shape, sigma_min, sigma_max = (None, None, None), 0.01, 10.0

        def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
            return x * 0.04 / (0.04 + sigma**2)

    sigmas = torch.tensor([0.1, 0.4])
    x = 0.2 * torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = residual_spectra(Wiener(), x.split(32), sigmas.tolist())
    wanted = 0.04 * sigmas**2 / (0.04 + sigmas**2)
    torch.testing.assert_close(found.mean((1, 2, 3)), wanted, rtol=0.04, atol=0)
    assert (found / wanted[:, None, None, None] - 1).abs().max() < 0.8  # the corners average few modes
    table, like = SpectralTable(sigmas, {3: found}), torch.zeros(1, 3, 20, 25)
    between = table.covariance(like, 0.2).spectrum
    assert between.shape == (3, 20, 13)
    assert float(between.mean()) == pytest.approx(float(wanted.prod().sqrt()), rel=0.04)
    assert float(table.covariance(like, 5.0).spectrum.mean()) == pytest.approx(float(wanted[1]), rel=0.04)


def test_a_table_is_read_at_the_frequencies_it_was_written_for():
    level = torch.rand(1, 1, 17, 17, generator=torch.Generator().manual_seed(0)) + 0.1
    table = SpectralTable(torch.tensor([0.1, 1.0]), {1: level.expand(2, -1, -1, -1)})
    spectrum = table.covariance(torch.zeros(1, 1, 32, 32), 0.3).spectrum
    torch.testing.assert_close(spectrum[:, :17], level[0])
    torch.testing.assert_close(spectrum[:, 17:], level[0, :, 1:16].flip(1))  # negative frequencies


def test_the_default_covariance_is_white_and_bounded_by_the_signal():
    class Plain(Denoiser):
        shape, sigma_min, sigma_max, signal_std = SHAPE, 0.01, 10.0, 0.2

        def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
            return x

    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    assert matrix(Plain().covariance(x, 1e-3)).diagonal().mean() == pytest.approx(1e-6, rel=1e-3)
    assert matrix(Plain().covariance(x, 100.0)).diagonal().mean() == pytest.approx(0.04, rel=1e-3)

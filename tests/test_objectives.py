"""Objectives that see noisy pictures alone: unbiased, stationary at the exact denoiser, and what `learn` makes of them.

Each loss is compared, row by row, with the true error of the very output that the denoiser gave it.
"""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2.functional import rgb_to_grayscale

from restore.denoisers.tweedie import Tweedie
from restore.errors import InputError
from restore.learn import base, gsure
from restore.learn.ambient import Ambient
from restore.learn.base import Batch, sure
from restore.learn.data import LUMINANCE, Patches, load, read_noisy
from restore.learn.dsm import DSM
from restore.learn.gsure import GSURE
from restore.learn.pure import PURE
from restore.learn.r2r import R2R
from restore.learn.sure import SURE
from restore.learn.sure_score import SUREScore
from restore.learn.train import learn
from restore.learn.trainer import Trainer
from restore.learn.validation import validate_noisy
from restore.priors.analytic import Gaussian, GaussianMixture
from restore.priors.base import Denoiser, per_row
from restore.priors.store import load_prior

N = 12_000
RUN = {"widths": (8, 8), "blocks": (1, 1), "batch": 4, "patch": 16, "held_out": 1, "device": "cpu"}


def mixture():
    """Two Gaussians of 2 x 2 pixels, correlated, well apart at the levels below."""
    rng = torch.Generator().manual_seed(1)
    root = 0.3 * torch.randn(4, 4, generator=rng, dtype=torch.float64)
    means = torch.tensor([[0.5, -0.4, 0.3, 0.2], [-0.5, 0.3, 0.1, -0.4]], dtype=torch.float64).reshape(2, 1, 2, 2)
    return GaussianMixture(torch.tensor([0.4, 0.6]), means, root @ root.T + 0.02 * torch.eye(4, dtype=torch.float64))


class Perturbed(Denoiser):
    """`scale D(x) + c_out (slope x + shift)`, the exact denoiser at `(1, 0, 0)`; keeps what it answered."""

    def __init__(self, exact, theta=(1.0, 0.0, 0.0)):
        super().__init__()
        self.exact, self.theta = exact, nn.Parameter(torch.tensor(theta, dtype=torch.float64))
        self.shape, self.sigma_min, self.sigma_max = exact.shape, 0.01, 5.0
        self.calls = []

    def forward(self, x, sigma):
        scale, slope, shift = self.theta
        s = per_row(sigma, x)
        D = scale * self.exact(x, sigma) + s / (s**2 + 0.25).sqrt() / 2 * (slope * x + shift)
        self.calls.append((D, sigma))
        return D


WRONG = (0.8, 0.3, 0.2)
DIRECTIONS = [(0.85, 0.0, 0.0), (1.0, 0.2, 0.0), (1.0, 0.0, 0.2)]


def noisy_batch(prior, sigma, kept=None):
    """`x` and a batch of noisy pictures of it, of one noise level or several, with a share `kept` of pixels seen."""
    rng = torch.Generator().manual_seed(2)
    which = torch.multinomial(prior.weights, N, replacement=True, generator=rng)
    white = torch.randn(N, 4, generator=rng, dtype=torch.float64)
    roots = torch.linalg.cholesky(prior.covariances)
    x = prior.means[which] + torch.einsum("nij,nj->ni", roots[which], white).reshape(N, 1, 2, 2)
    level = torch.tensor(sigma, dtype=torch.float64).repeat(N)[:N]
    y = x + per_row(level, x) * torch.randn(x.shape, generator=rng, dtype=x.dtype)
    if kept is None:
        return x, Batch(y, level)
    mask = torch.rand(x.shape, generator=rng) < kept
    mask[:, :, 0, 0] = True
    return x, Batch(torch.where(mask, y, 0.0), level, mask)


# Objective, std of the noise (cyclic over rows), share of the pixels seen.
CASES = {
    "sure": (SURE(), [0.3], None),
    "r2r": (R2R(), [0.3], None),
    "sure_score": (SUREScore(dsm=0.0), [0.3], None),
    "ambient": (Ambient(), [0.3, 0.15], None),
    "ambient, some clean": (Ambient(), [0.3, 0.0, 0.15], None),
    "gsure": (GSURE(), [0.3], 0.6),
    "gsure without noise": (GSURE(), [0.0], 0.6),
}


def true_loss(objective, denoiser, x, batch):
    """What the last `loss` should have been on average: the weighted error of the output it was computed from; of
    Ambient-Tweedie below the noise, as a denoiser of the pictures it denoised first."""
    D, level = denoiser.calls[-1] if not isinstance(objective, SUREScore) else denoiser.calls[0]
    D, level = D[:N], level[:N]  # `sure` asks for two outputs at once, the first is the one
    weight = (level**2 + 0.25) / (level * 0.5) ** 2
    if isinstance(objective, Ambient):
        above = level >= batch.sigma
        weight = torch.where(above, weight * (25 * (1 - (batch.sigma / level) ** 2) ** 2).clamp(max=1), weight)
        assert bool(above.all()) is bool((batch.sigma == 0).any())
        if not above.all():
            h, own = denoiser.calls[0]
            assert torch.equal(own, batch.sigma[~above])
            x = x.index_put((~above,), h)
    seen = torch.ones_like(x) if batch.mask is None else batch.mask.to(x)
    return weight * (seen * (D - x).square()).flatten(1).sum(1) / seen.flatten(1).sum(1)


def bias(objective, prior, x, batch, theta=WRONG):
    """Mean difference of the loss and the true one, in its standard errors."""
    denoiser = Perturbed(prior, theta)
    with torch.no_grad():
        loss = objective.loss(denoiser, batch, torch.Generator().manual_seed(3))
        off = loss - true_loss(objective, denoiser, x, batch)
    return float(off.mean() / (off.std() / N**0.5 + 1e-12))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("theta", [(1.0, 0.0, 0.0), WRONG], ids=["exact", "wrong"])
def test_the_loss_is_the_true_error_on_average(case, theta):
    objective, sigma, kept = CASES[case]
    prior = mixture()
    assert abs(bias(objective, prior, *noisy_batch(prior, sigma, kept), theta)) < 4


@pytest.mark.parametrize("case", CASES)
def test_two_denoisers_differ_in_the_loss_as_they_differ_in_truth(case):
    objective, sigma, kept = CASES[case]
    prior = mixture()
    x, batch = noisy_batch(prior, sigma, kept)
    found, true = [], []
    for theta in ((1.0, 0.0, 0.0), WRONG):
        denoiser = Perturbed(prior, theta)
        with torch.no_grad():
            found.append(objective.loss(denoiser, batch, torch.Generator().manual_seed(3)))
            true.append(true_loss(objective, denoiser, x, batch))
    gap, error = true[1] - true[0], (found[1] - found[0]) - (true[1] - true[0])
    assert gap.mean() > 4 * error.std() / N**0.5  # there is something to see
    assert abs(error.mean()) < 4 * error.std() / N**0.5 + 1e-12


def gradient(objective, denoiser, batch, seed=3):
    """The gradient of the mean loss in the denoiser's three parameters, each in its standard errors."""
    loss = objective.loss(denoiser, batch, torch.Generator().manual_seed(seed))
    groups = [torch.autograd.grad(part.mean(), denoiser.theta, retain_graph=True)[0] for part in loss.split(N // 60)]
    each = torch.stack(groups)
    return each.mean(0) / (each.std(0) / len(groups) ** 0.5)


class OnPixels(Denoiser):
    """The exact denoiser of pictures seen through one mask: what was not seen tells nothing."""

    def __init__(self, prior, mask):
        super().__init__()
        kept = mask.flatten()
        self.mask, self.shape = mask, prior.shape
        self.seen = GaussianMixture(
            prior.weights, prior.means.flatten(1)[:, kept], prior.covariances[:, kept][..., kept]
        )

    def forward(self, x, sigma):
        out = torch.zeros_like(x)
        out[:, self.mask] = self.seen(x[:, self.mask], sigma)
        return out


@pytest.mark.parametrize("case", ["sure", "r2r", "ambient, some clean", "gsure"])
def test_the_exact_denoiser_is_a_stationary_point_and_no_other(case):
    objective, sigma, kept = CASES[case]
    prior = mixture()
    x, batch = noisy_batch(prior, sigma)
    exact = prior
    if kept is not None:
        mask = torch.tensor([[[True, False], [True, True]]])
        exact, batch = OnPixels(prior, mask), Batch(batch.x * mask, batch.sigma, mask.expand(x.shape))
    assert gradient(objective, Perturbed(exact), batch).abs().max() < 4
    for theta in DIRECTIONS:
        assert gradient(objective, Perturbed(exact, theta), batch).abs().max() > 8, theta


class PosteriorMeans(Denoiser):
    """What SURE-Score and Ambient-Tweedie tend to: the denoiser of the prior at `sigma_n` (and, for the latter, above),
    that of its posterior means below."""

    def __init__(self, prior, sigma_n):
        super().__init__()
        C = prior.covariance_matrix
        gain = C @ torch.linalg.inv(C + sigma_n**2 * torch.eye(len(C), dtype=C.dtype))
        narrow = gain @ (C + sigma_n**2 * torch.eye(len(C), dtype=C.dtype)) @ gain.T
        self.prior, self.means, self.sigma_n = prior, Gaussian(prior.mean, (narrow + narrow.T) / 2), sigma_n
        self.shape = prior.shape

    def forward(self, x, sigma):
        return torch.where(per_row(sigma, x) > 0.98 * self.sigma_n, self.prior(x, sigma), self.means(x, sigma))


class Through(SUREScore):
    """SURE-Score that differentiates through the denoised picture, as the authors' code does."""

    def loss(self, denoiser, batch, rng):
        level = self.own_level(batch.sigma)
        risk, h = sure(denoiser, batch, level, rng)
        return self.weight(level) * risk + DSM.loss(self, denoiser, base.clean(h), rng)


def test_sure_score_is_stationary_for_the_law_of_posterior_means_and_not_if_differentiated_through():
    two = mixture()
    prior = Gaussian(two.mean, two.covariance_matrix)
    _, batch = noisy_batch(prior, [0.4])
    away = {"p_mean": -3.0, "p_std": 0.4, "wide": 0.0}  # levels that keep clear of `sigma_n`
    exact = PosteriorMeans(prior, 0.4)
    assert gradient(SUREScore(**away), Perturbed(exact), batch).abs().max() < 4
    for theta in DIRECTIONS:
        assert gradient(SUREScore(**away), Perturbed(exact, theta), batch).abs().max() > 8, theta
    assert gradient(Through(**away), Perturbed(exact), batch).abs().max() > 8


@pytest.mark.parametrize("levels", [{}, {"p_mean": -2.0, "p_std": 0.3, "wide": 0.0}], ids=["all", "below"])
def test_ambient_is_stationary_for_the_prior_above_the_noise_and_for_the_law_of_posterior_means_below(levels):
    two = mixture()
    prior = Gaussian(two.mean, two.covariance_matrix)
    _, batch = noisy_batch(prior, [0.4])
    exact, objective = PosteriorMeans(prior, 0.4), Ambient(**levels)
    assert gradient(objective, Perturbed(exact), batch).abs().max() < 4
    for theta in DIRECTIONS:
        assert gradient(objective, Perturbed(exact, theta), batch).abs().max() > 8, theta
    wrong = mutant("ambient", "index_put((rows,), h)", "index_put((rows,), y[rows])").Ambient(**levels)
    assert gradient(wrong, Perturbed(exact), batch).abs().max() > 8
    assert objective.at(0.49).below == 0 and objective.at(0.5) == objective


@pytest.mark.parametrize("sigma_n", [0.1, 0.2, 0.4])
def test_the_gain_that_differentiating_through_would_lead_to(sigma_n):
    """The number in the docstring of SURE-Score: a scalar Gaussian of variance `sigma_n^2`, `h = g y`, `D` exact."""
    objective = SUREScore()
    level = objective.levels(Perturbed(mixture()), 4000, torch.Generator().manual_seed(0)).double()
    g = torch.linspace(0, 1, 501, dtype=torch.float64)
    risk = ((1 - g) ** 2 + g**2) * sigma_n**2
    v = (2 * g**2 * sigma_n**2)[:, None]  # variance of h
    total = objective.weight(torch.tensor(sigma_n)) * risk + (
        objective.weight(level) * v * level**2 / (v + level**2)
    ).mean(1)
    assert 0.32 < float(g[total.argmin()]) < 0.39


class Conjugate(Denoiser):
    """`E[x | y]` of Poisson counts `y / gain` of a Gamma(shape a, rate b) signal: linear."""

    shape = (1, 2, 2)

    def __init__(self, a, b, gain):
        super().__init__()
        self.a, self.b, self.gain = a, b, gain

    def forward(self, x, sigma):
        return (self.a + x / self.gain) / (self.b + 1 / self.gain)


def test_pure_is_unbiased_and_stationary_for_poisson_counts():
    rng, gain = np.random.default_rng(0), 0.1
    x = rng.gamma(6.0, 1 / 5, (N, 1, 2, 2))
    y = gain * rng.poisson(x / gain)
    objective, exact = PURE(gain=gain, zero=0.0), Conjugate(6.0, 5.0, gain)
    batch = base.clean(torch.tensor(y))

    def off(gain, theta):
        with torch.no_grad():
            denoiser = Perturbed(exact, theta)
            risk = PURE(gain=gain, zero=0.0).risk(denoiser, batch, torch.Generator().manual_seed(1))
            error = risk - (denoiser.calls[0][0][:N] - torch.tensor(x)).square().flatten(1).mean(1)
        return float(error.mean() / error.std() * N**0.5)

    assert abs(off(gain, (1.0, 0.0, 0.0))) < 4 and abs(off(gain, WRONG)) < 4
    assert abs(off(gain / 2, WRONG)) > 8
    assert gradient(objective, Perturbed(exact), batch).abs().max() < 4
    for theta in DIRECTIONS:
        assert gradient(objective, Perturbed(exact, theta), batch).abs().max() > 8, theta


def mutant(name, old, new):
    """A module of `restore.learn` with one line of its source changed."""
    original = sys.modules[f"restore.learn.{name}"]
    source = Path(original.__file__).read_text()
    assert source.count(old) == 1, old
    module = types.ModuleType(original.__name__)
    module.__package__ = "restore.learn"
    exec(compile(source.replace(old, new), "mutant", "exec"), vars(module))
    return module


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("+ 2 * s / PROBE", "- 2 * s / PROBE"),
        ("- s**2 +", "- s**2 / 2 +"),
        ("seen * each", "each"),
        ("** 2 * seen).clamp", "** 2).clamp"),
        ("* w * (D - D_z)", "* n * (D - D_z)"),
        ("2 * s / PROBE", "2 * s"),
    ],
)
def test_faults_planted_in_sure_are_caught(old, new, monkeypatch):
    prior = mixture()
    monkeypatch.setattr(gsure, "sure", mutant("base", old, new).sure)
    caught = [abs(bias(GSURE(), prior, *noisy_batch(prior, [0.3], 0.6))) > 8]
    if "seen" in old:  # a mask that leaks into the noise shows in the input of the network alone
        _, batch = noisy_batch(prior, [0.3], 0.6)
        spy = Perturbed(Mid())
        with torch.no_grad():
            GSURE().loss(spy, batch, torch.Generator().manual_seed(3))
        x_t, level = (t[:N] for t in spy.exact.given)
        unseen = ((x_t / per_row(level, x_t))[~batch.mask]).square().mean()
        caught.append(abs(float(unseen) - 1) > 0.05)
    assert any(caught)


@pytest.mark.parametrize(
    ("name", "old", "new", "case"),
    [
        ("ambient", "(1 - a) * sigma**2", "(1 - a) * sigma**2 / 2", "ambient"),
        ("ambient", "(level**2 - sigma**2)", "(level**2)", "ambient"),
        ("ambient", "sigma.masked_fill(rows, 0)", "sigma", "ambient"),
        ("ambient", "y.index_put((rows,), h)", "y", "ambient"),
        ("r2r", "- sigma**2 / self.alpha", "- sigma**2", "r2r"),
        ("r2r", "(y - (1 - self.alpha) * y1) / self.alpha", "y", "r2r"),
    ],
)
def test_faults_planted_in_ambient_and_r2r_are_caught(name, old, new, case, monkeypatch):
    _, sigma, _ = CASES[case]
    prior = mixture()
    module = mutant(name, old, new)
    objective = module.Ambient() if name == "ambient" else module.R2R()
    monkeypatch.setattr(sys.modules[__name__], "Ambient", module.Ambient if name == "ambient" else Ambient)
    assert abs(bias(objective, prior, *noisy_batch(prior, sigma))) > 8


def test_a_noise_told_wrong_is_a_bias():
    prior = mixture()
    x, batch = noisy_batch(prior, [0.3])
    for objective in (SURE(), R2R(), Ambient(), GSURE(), SUREScore(dsm=0.0)):
        told = batch._replace(sigma=batch.sigma / 2**0.5)
        assert abs(bias(objective, prior, x, told, (0.2, 0.0, 0.0))) > 8, objective


def test_the_divergence_of_a_network_of_relus_has_its_gradient():
    """`D = relu(x - k)`: its divergence is 0 or 1, and only jumps tell how many are 1."""

    class Threshold(Denoiser):
        shape, sigma_min, sigma_max = (None,), 0.01, 10.0

        def forward(self, x, sigma):
            return torch.relu(x - self.k)

    D, x = Threshold(), torch.zeros(100_000, 4, dtype=torch.float64)
    D.k = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    y = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    batch = Batch(y, torch.ones(len(y), dtype=y.dtype))
    rng = torch.Generator().manual_seed(1)
    risk = sure(D, batch, SURE().own_level(batch.sigma), rng)[0].mean()
    (found,) = torch.autograd.grad(risk, D.k)
    (true,) = torch.autograd.grad((D(y, 1.0) - x).square().mean(), D.k)
    exact = (D(y, 1.0) - y).square().mean() + 2 * torch.func.jvp(lambda v: D(v, 1.0), (y,), (torch.ones_like(y),))[
        1
    ].mean()
    (left_out,) = torch.autograd.grad(exact, D.k)
    assert abs(found - true) < 0.05 * abs(true)
    assert left_out * true < 0  # twice differentiated it would go the other way


def test_levels_lie_above_the_noise_and_reach_the_top():
    bottom = torch.full((20_000,), 0.4)
    sigma = DSM().levels_above(bottom, Perturbed(mixture()), torch.Generator().manual_seed(0))
    assert sigma.min() >= 0.4 and sigma.max() <= 5.0001 and (sigma > 4).any()
    law = torch.distributions.LogNormal(-1.6, 1.2)
    free = DSM(wide=0.0).levels_above(bottom, Perturbed(mixture()), torch.Generator().manual_seed(0))
    share = (law.cdf(torch.tensor(1.0)) - law.cdf(torch.tensor(0.4))) / (1 - law.cdf(torch.tensor(0.4)))
    assert abs((free < 1).float().mean() - share) < 0.02
    extreme = DSM().levels_above(torch.full((100,), 4.999), Perturbed(mixture()), torch.Generator().manual_seed(0))
    assert bool(extreme.isfinite().all())


# What `learn` makes of noisy pictures.


def scene(i, size=(40, 48)):
    """A picture with edges and slopes in [0.2, 0.8], `(3, H, W)`."""
    rng = np.random.default_rng(i)
    row, column = np.mgrid[: size[0], : size[1]] / 40
    a, b, c = rng.uniform(-1, 1, (3, 3, 1, 1))
    return (0.5 + 0.2 * np.sign(a * row + b * column - c / 2) + 0.1 * np.sin(6 * b * row)).clip(0.2, 0.8)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Eight colour pictures with noise 0.2, as floats."""
    folder = tmp_path_factory.mktemp("noisy")
    for i in range(8):
        y = scene(i) + 0.2 * np.random.default_rng(100 + i).standard_normal((3, 40, 48))
        tifffile.imwrite(folder / f"{i}.tif", y.transpose(1, 2, 0).astype(np.float32), photometric="rgb")
    return folder


@pytest.fixture(scope="module")
def without_noise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    for i in range(2):
        Image.fromarray((scene(50 + i) * 255).astype(np.uint8).transpose(1, 2, 0)).save(folder / f"{i}.png")
    return folder


def test_noisy_pictures_are_read_as_they_are(noisy, tmp_path, caplog):
    paths = sorted(noisy.glob("*.tif"))
    y, scale = read_noisy(paths[0])
    assert scale == 1
    assert y.shape == (3, 40, 48) and float(y.max()) > 1  # beyond white: not clipped
    assert np.allclose((y + 1) / 2, tifffile.imread(paths[0]).transpose(2, 0, 1), atol=1e-6)
    deep = np.arange(20 * 20, dtype=np.uint16).reshape(20, 20) * 160
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.allclose((read_noisy(tmp_path / "deep.png").pixels[0] + 1) / 2, deep / 65535, atol=1e-6)
    (tmp_path / "broken.tif").write_bytes(paths[0].read_bytes()[:200])
    assert len(load([*paths, tmp_path / "broken.tif"], read_noisy)) == 8
    assert "broken.tif" in caplog.text


def test_patches_say_what_noise_they_carry_and_are_not_shrunk(noisy):
    pictures = [p.pixels for p in load(sorted(noisy.glob("*.tif")), read_noisy)]
    flat = [p - 2 * torch.from_numpy(scene(i)) + 1 for i, p in enumerate(pictures)]  # the noise alone
    byte = torch.full((3, 40, 48), 127, dtype=torch.uint8)
    patches = Patches([*flat, byte], 16, grey=0.5, shrink=1.0, noise=[0.4] * 8 + [0.0])
    rng = torch.Generator().manual_seed(0)
    batches = [patches.batch(16, rng) for _ in range(60)]
    assert patches.noises() == {1: [0.0, pytest.approx(0.4 * LUMINANCE)], 3: [0.0, 0.4]}
    for channels, sigma in ((1, 0.4 * LUMINANCE), (3, 0.4)):
        mine = [b for b in batches if b.x.shape[1] == channels]
        x, level = torch.cat([b.x for b in mine]), torch.cat([b.sigma for b in mine])
        assert x[level > 0].std() == pytest.approx(sigma, rel=0.03)
        assert level.unique().tolist() == pytest.approx([0.0, sigma]) and x[level == 0].abs().max() < 0.02
        assert float((level == 0).float().mean()) == pytest.approx(0.5, abs=0.07)  # one clean picture beside eight
    assert all(b.mask is None for b in batches)


class Mid(Denoiser):
    """Mid-grey for all; keeps what it was given."""

    shape = (None, None, None)

    def forward(self, x, sigma):
        self.given = x, sigma
        return torch.zeros_like(x)


def test_transparent_pixels_are_not_seen_where_the_objective_can_use_that(tmp_path):
    pixels = np.full((24, 24, 4), 200, np.uint8)
    pixels[:, :12, 3] = 0
    pixels[::2, :, 0] = 201
    Image.fromarray(pixels, "RGBA").save(tmp_path / "half.png")
    assert not read_noisy(tmp_path / "half.png").pixels.isnan().any()
    batch = Patches([read_noisy(tmp_path / "half.png", masked=True).pixels], 24, grey=0.5, noise=[0.1]).batch(
        4, torch.Generator().manual_seed(0)
    )
    assert batch.mask is not None and batch.mask.shape == batch.x.shape
    assert bool((batch.x[~batch.mask] == 0).all()) and float(batch.mask.float().mean()) == 0.5
    assert float(batch.x[batch.mask].min()) > 0.5
    with torch.no_grad():  # what was not seen does not count
        other = batch._replace(x=torch.where(batch.mask, batch.x, 5.0))
        D = Perturbed(Mid())
        losses = [GSURE().loss(D, b, torch.Generator().manual_seed(0)) for b in (batch, other)]
    assert torch.allclose(*losses)


@pytest.mark.parametrize(
    ("objective", "options", "words"),
    [
        ("sure_score", {}, r"sure_score learns from noisy pictures.*must know how noisy.*such as 0\.1"),
        ("ambient", {"data_noise": 25.0}, r"std for pictures in \[0, 1\].*got 25"),
        ("ambient", {"data_noise": -0.1}, "above 0"),
        ("sure", {"data_noise": 0.1, "clean": [Path("x")]}, "sure takes no clean pictures.*ambient"),
        ("dsm", {"clean": [Path("x")]}, "name all folders together"),
        ("gsure", {"data_noise": 0.1, "noise": True}, "learnt by dsm"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(noisy, tmp_path, objective, options, words):
    with pytest.raises(ValueError, match=words):
        learn([noisy], tmp_path, objective=objective, steps=1, **options, **RUN)


@pytest.mark.parametrize(
    ("objective", "bounds"),
    [
        ("dsm", (0.001, 10)),
        ("sure_score", (0.001, 10)),
        ("ambient", (0.001, 10)),
        (Ambient(below=0.0), (0.2, 10)),
        ("gsure", (0.2, 10)),
    ],
)
def test_a_prior_is_trusted_where_it_was_trained(noisy, tmp_path, objective, bounds):
    learn([noisy], tmp_path, objective=objective, steps=2, data_noise=0.2, **RUN)
    prior = load_prior(tmp_path)
    assert (prior.sigma_min, prior.sigma_max) == pytest.approx(bounds, rel=0.01)
    card = (tmp_path / "README.md").read_text()
    assert "Learnt from 7 noisy pictures (white noise of std 0.2" in card and "| data_noise | 0.2 |" in card
    assert (tmp_path / "spectra.safetensors").exists() == (objective != "gsure")  # a mask hides what it gets wrong
    x = torch.rand(1, 3, 20, 20)
    assert bool(prior(x, 0.2).isfinite().all())


def test_noise_that_is_not_white_is_learnt_in_grey_and_in_colour_apart(noisy, tmp_path):
    """The luminance of Poisson noise is not Poisson noise."""
    for folder in ("colour", "grey"):
        (tmp_path / folder).mkdir()
    for path in sorted(noisy.glob("*.tif")):
        tifffile.imwrite(tmp_path / "colour" / path.name, np.abs(tifffile.imread(path)), photometric="rgb")
    tifffile.imwrite(tmp_path / "grey" / "grey.tif", np.random.default_rng(0).random((40, 48), np.float32))
    learn([tmp_path / "colour"], tmp_path / "one", objective="pure", steps=1, **RUN)
    prior = load_prior(tmp_path / "one")
    assert prior.accepts((3, 8, 8)) and not prior.accepts((1, 8, 8))
    assert (prior.sigma_min, prior.sigma_max) == pytest.approx((0.0707, 0.0707), rel=0.01)
    both = [tmp_path / "colour", tmp_path / "grey"]
    learn(both, tmp_path / "both", objective="pure", steps=1, data_noise=Tweedie(1, 0.02), **RUN)
    prior = load_prior(tmp_path / "both")
    assert prior.accepts((3, 8, 8)) and prior.accepts((1, 8, 8))
    assert prior.sigma_max == pytest.approx((0.04 / 4) ** 0.5, rel=0.01)  # the gain that was told
    patches = Patches([torch.zeros(1, 20, 20), torch.ones(3, 20, 40)], 16, shrink=0.0, luminance=False)
    assert patches.grey == pytest.approx(1 / 3) and patches.noises() == {1: [0.0], 3: [0.0]}
    rng = torch.Generator().manual_seed(0)
    assert all(bool((b.x == (b.x.shape[1] == 3)).all()) for b in (patches.batch(4, rng) for _ in range(20)))
    with pytest.raises(InputError, match="none of 7 pictures can be used"):  # negative light
        learn([noisy], tmp_path / "negative", objective="pure", steps=1, **RUN)
    with pytest.raises(ValueError, match=r"pure is for Poisson noise, and this is Gaussian, std 0\.2"):
        learn([noisy], tmp_path / "white", objective="pure", steps=1, data_noise=0.2, **RUN)


def test_clean_pictures_beside_noisy_ones_teach_the_low_levels(noisy, without_noise, tmp_path):
    objective = Ambient(below=0.0)
    learn([noisy], tmp_path, objective=objective, steps=2, data_noise=0.2, clean=[without_noise], **RUN)
    assert load_prior(tmp_path).sigma_min == pytest.approx(0.001)
    assert "7 noisy pictures" in (card := (tmp_path / "README.md").read_text()) and "and 2 clean ones" in card
    for other in ({"data_noise": 0.1, "clean": [without_noise]}, {"data_noise": 0.2}):
        with pytest.raises(InputError, match="a run with"):
            learn([noisy], tmp_path, objective=objective, steps=3, **other, **RUN)


@pytest.mark.parametrize("objective", ["sure_score", "ambient"])
def test_a_killed_run_on_noisy_pictures_resumes_to_the_bit(noisy, tmp_path, monkeypatch, objective):
    learn([noisy], tmp_path / "whole", objective=objective, steps=6, every=3, data_noise=0.2, **RUN)
    step = Trainer.step

    def killed(self):
        if self.done == 4:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", killed)
        learn([noisy], tmp_path / "killed", objective=objective, steps=6, every=3, data_noise=0.2, **RUN)
    learn([noisy], tmp_path / "killed", objective=objective, steps=6, every=3, data_noise=0.2, **RUN)
    whole, resumed = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == resumed


def test_a_run_stopped_before_half_is_not_trusted_below_the_noise(noisy, tmp_path, monkeypatch):
    step, stop = Trainer.step, 1

    def stopped(self):
        if self.done == stop:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "step", stopped)
    for stop, lowest in ((1, 0.2), (3, 0.001)):  # noqa: B007
        with pytest.raises(KeyboardInterrupt):
            learn([noisy], tmp_path, objective="ambient", steps=4, every=1, data_noise=0.2, **RUN)
        assert load_prior(tmp_path).sigma_min == pytest.approx(lowest, rel=0.01)


def test_the_validation_of_noisy_pictures_is_near_the_truth():
    class Smooth(Denoiser):
        shape, sigma_min, sigma_max = (None, None, None), 0.01, 10.0

        def forward(self, x, sigma):
            return torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    clean = [2 * torch.from_numpy(scene(i, (96, 96)))[None] - 1 for i in range(3)]
    rng = torch.Generator().manual_seed(0)
    noisy = [x + 0.4 * torch.randn(x.shape, generator=rng, dtype=x.dtype) for x in clean]
    found = validate_noisy(Smooth(), Ambient(), [(y, 0.4) for y in noisy])
    for kind, sees in (("colour", lambda x: x), ("grey", rgb_to_grayscale)):
        pairs = [(sees(x), sees(y)) for x, y in zip(clean, noisy, strict=True)]
        error = np.mean([float((Smooth()(y, 0.4) - x).square().mean()) / 4 for x, y in pairs])
        assert found[kind] == pytest.approx(-10 * np.log10(error), abs=0.4)

"""Noise2Score: the exact score is a stationary point, noise is recognised, errors are known without a truth."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import noise2score as bench
import self_supervised as choosing

from operators.noise import Gamma, Gaussian, Poisson
from operators.random import Draws
from restore.denoisers.adaptive import as_noise, estimate_law, law_from_score
from restore.denoisers.score import ScoreNetwork
from restore.denoisers.tweedie import Tweedie, as_tweedie, posterior_mean
from restore.denoisers.variable import Variable
from restore.learn.base import Batch
from restore.learn.noise2score import Noise2Score
from restore.learn.train import learn
from restore.metrics import four_copies, umse, upsnr
from restore.priors.analytic import GaussianMixture
from restore.priors.base import Denoiser, per_row
from restore.priors.network import EDMDenoiser, UNet
from restore.priors.store import load_prior, save_prior

SIGMA = 0.2
MEANS = torch.tensor([[0.4, -0.3], [-0.5, 0.2]], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.1, 0.05], [0.05, 0.2]], dtype=torch.float64)
CLEAN = GaussianMixture(torch.tensor([0.3, 0.7]), MEANS, COVARIANCE)
NOISY = GaussianMixture(torch.tensor([0.3, 0.7]), MEANS, COVARIANCE + SIGMA**2 * torch.eye(2, dtype=torch.float64))


class Perturbed(Denoiser):
    """`y + tau^2 (scale s + slope y + shift)` with the exact score `s` of noisy data: exact at `(1, 0, 0)`."""

    shape, sigma_min, sigma_max = (2,), 0.15, 0.15

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def forward(self, x, sigma):
        scale, slope, shift = self.theta
        tau2 = per_row(sigma, x) ** 2
        level = (tau2 - self.sigma_min**2).clamp(min=1e-12).sqrt()  # sigma_a
        s = (NOISY(x, level.flatten()) - x) / level**2
        return x + tau2 * (scale * s + slope * x + shift)


def gradient_in_standard_errors(theta):
    """The gradient of the loss with respect to `theta`, each entry divided by its standard error."""
    rng = torch.Generator().manual_seed(3)
    which = torch.multinomial(NOISY.weights, 40_000, replacement=True, generator=rng)
    root = torch.linalg.cholesky(NOISY.covariances[0])
    y = MEANS[which] + torch.randn(40_000, 2, generator=rng, dtype=torch.float64) @ root.T
    denoiser = Perturbed(theta)
    loss = Noise2Score().loss(denoiser, Batch(y, y.new_full((len(y),), denoiser.sigma_min)), rng)
    groups = [torch.autograd.grad(part.mean(), denoiser.theta, retain_graph=True)[0] for part in loss.split(1000)]
    each = torch.stack(groups)
    return each.mean(0) / (each.std(0) / len(groups) ** 0.5)


def test_the_exact_score_is_a_stationary_point():
    assert gradient_in_standard_errors((1.0, 0.0, 0.0)).abs().max() < 4


@pytest.mark.parametrize("theta", [(0.7, 0.0, 0.0), (1.0, 0.4, 0.0), (1.0, 0.0, 0.4)])
def test_a_wrong_score_is_not(theta):
    assert gradient_in_standard_errors(theta).abs().max() > 6


def test_the_exact_score_gives_the_posterior_mean():
    y = NOISY.sample(Draws(0, range(50)))
    score = ScoreNetwork(Perturbed((1.0, 0.0, 0.0)))
    assert torch.allclose(posterior_mean(score, y, Gaussian(SIGMA)), CLEAN(y, SIGMA), atol=1e-5)
    assert float((score.denoise(y, Gaussian(SIGMA)) - CLEAN(y, SIGMA)).detach().abs().max()) < 0.01


def test_the_noise_on_top_is_annealed_once():
    objective = Noise2Score(low=0.1, high=0.4, annealed=True)
    assert [objective.at(p).high for p in (0, 0.5, 1)] == pytest.approx([0.4, 0.2, 0.1])
    assert objective.at(0.5).low == objective.at(0.5).high
    assert Noise2Score().at(0.5) == Noise2Score()
    with pytest.raises(ValueError, match="0 < low <= high"):
        Noise2Score(low=0.3, high=0.2)


def test_a_score_is_stored_as_a_prior_and_changes_its_units(tmp_path):
    torch.manual_seed(0)
    denoiser = EDMDenoiser(UNet((1,), (8, 8), (1, 1)), sigma_min=0.2)
    for p in denoiser.parameters():
        nn.init.normal_(p, std=0.2 if p.ndim < 4 else p[0].numel() ** -0.5)
    save_prior(denoiser.requires_grad_(False), tmp_path)
    y, score = torch.rand(2, 1, 16, 16), ScoreNetwork(load_prior(tmp_path))
    assert score.denoiser.sigma_min == pytest.approx(0.1)
    wanted = 2 * ScoreNetwork(denoiser)(2 * y - 1, 0.1)  # grad log p changes with the units
    assert float((score(y, 0.05) - wanted).square().mean().sqrt()) < 0.02 * float(wanted.std())  # bfloat16


@pytest.mark.parametrize("rho", [0, 1, 1.5, 2, 3])
def test_the_variable_and_its_derivatives(rho):
    v, y = Variable(rho), torch.linspace(0.001, 1.3, 50, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(v(y).sum(), y, create_graph=True)[0]
    assert torch.allclose(slope, v.slope(y))
    assert float(v(torch.zeros(1))) == 0 and float(v(torch.ones(1))) == pytest.approx(1)
    if rho:
        bend = torch.autograd.grad(slope.log().sum(), y)[0]
        assert torch.allclose(bend, v.log_slope(y))
    black = torch.tensor([-0.1, 0.0])
    assert all(bool(torch.isfinite(f(black)).all()) for f in (v, v.slope, v.log_slope))


@pytest.mark.parametrize(("noise", "rho"), [(Poisson(0.01), 1), (Gamma(50), 2)], ids=str)
def test_the_noise_of_the_variable_is_as_strong_in_the_dark(noise, rho):
    x = torch.tensor([0.5, 0.95], dtype=torch.float64).repeat(20_000, 1)
    y = noise.sample(x[None], Draws(0))[0]
    dark, light = Variable(rho)(y).std(0).tolist()
    assert dark == pytest.approx(light, rel=0.1)
    assert light == pytest.approx(
        float(as_tweedie(noise).variance(x[0, 1]) ** 0.5 * Variable(rho).slope(x[0, 1])), rel=0.05
    )


class OfTheVariable(Denoiser):
    """`z ~ N(0.4, 0.1^2)`, noise of the data included."""

    shape, sigma_min, sigma_max = (None, None, None), 0.05, 1.0

    def __init__(self, rho):
        super().__init__()
        self.rho = rho

    def forward(self, x, sigma):
        tau2 = per_row(sigma, x) ** 2
        return x - tau2 * (x - 0.4) / (0.1**2 + tau2 - self.sigma_min**2)


@pytest.mark.parametrize("rho", [0, 1, 2])
def test_the_score_of_pictures_follows_from_that_of_the_variable(rho):
    v, y = Variable(rho), torch.linspace(0.05, 1, 20, dtype=torch.float64)[None, None, None].requires_grad_(True)
    log_p = -((v(y) - 0.4) ** 2) / (2 * (0.1**2 + 0.03**2)) + v.slope(y).log()
    wanted = torch.autograd.grad(log_p.sum(), y)[0]
    assert torch.allclose(ScoreNetwork(OfTheVariable(rho))(y, 0.03), wanted)


@pytest.mark.parametrize("rho", [1, 2])
def test_the_score_of_the_variable_is_learnt(rho):
    """As that of the plain pictures `z` is."""
    denoiser, y = OfTheVariable(rho), torch.rand(4, 1, 8, 8, dtype=torch.float64)
    losses = []
    sigma = torch.full((4,), 0.1)
    for objective, x in ((Noise2Score(rho=rho), y), (Noise2Score(), Variable(rho)(y))):
        told = sigma if objective.rho else Noise2Score(rho=rho).in_z(sigma)
        losses.append(objective.loss(denoiser, Batch(2 * x - 1, told), torch.Generator().manual_seed(0)))
    assert torch.allclose(*losses)


class Spied(Denoiser):
    """Black, whatever it sees; says what it was told."""

    shape, sigma_min, sigma_max, rho = (None, None, None), 0.05, 0.2, 1.0

    def forward(self, x, sigma):
        self.told = torch.as_tensor(sigma)
        return torch.zeros_like(x)


def test_a_score_of_many_levels_is_told_the_level_of_each_picture():
    objective, spied, y = Noise2Score(low=1.0, high=1.0), Spied(), torch.rand(3, 1, 8, 8)
    sigma = torch.tensor([0.1, 0.2, 0.4])
    loss = objective.loss(spied, Batch(y, sigma), torch.Generator().manual_seed(0))
    assert torch.allclose(spied.told, 2**0.5 * sigma.repeat(2))
    assert bool((loss[0] > 2 * loss[1]) & (loss[1] > 2 * loss[2]))  # each weighs what it misses in units of its noise
    assert objective.trusted(spied, {1: [0.1, 0.4]}) == pytest.approx((0.1, 0.4))
    score, slope = ScoreNetwork(spied), float(Variable(1).slope(torch.tensor(0.5)))
    for sigma_z, scale in ((0.1, 0.1), (0.01, 0.05), (1.0, 0.2)):  # the nearest that was learnt
        score.denoise(y, Poisson(2 * (sigma_z / slope) ** 2), form="published")
        assert torch.allclose(spied.told, torch.tensor(scale * (1 + 0.25**2) ** 0.5))


class Scaled(Denoiser):
    """`a x`."""

    shape, sigma_min, sigma_max = (None, None, None), 0.05, 0.2

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, sigma):
        return self.a * x


def test_each_probe_comes_with_its_opposite_which_cancels_most_of_the_noise_of_the_gradient():
    """By `a = 1` the derivative is the mean of `2 sigma_a / tau^2 u (y + sigma_a u)`, nearly all of it `u y`."""
    y, sigma = torch.full((1, 1, 16, 16), 5.0), torch.tensor([0.1])
    denoiser = Scaled()
    slopes = []
    for seed in range(40):
        loss = Noise2Score(low=0.25, high=0.25).loss(denoiser, Batch(y, sigma), torch.Generator().manual_seed(seed))
        slopes.append(torch.autograd.grad(loss.sum(), denoiser.a)[0])
    found = torch.stack(slopes)
    assert float(found.std() / found.mean().abs()) < 0.15, "without the opposite it is about ten"


def test_the_variable_is_kept_with_the_weights(tmp_path):
    rng = np.random.default_rng(0)
    for kind, shape in (("grey", (32, 32)), ("colour", (32, 32, 3))):
        (tmp_path / kind).mkdir()
        for i in range(5):
            pixels = 100 * rng.gamma(50, 1 / 50, shape)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / kind / f"{i}.png")
        small = {"widths": (8, 8), "blocks": (1, 1), "batch": 4, "patch": 16, "held_out": 1, "device": "cpu"}
        folder = learn(
            [tmp_path / kind], tmp_path / f"of_{kind}", objective=Noise2Score(rho=2), steps=2, data_noise=0.07, **small
        )
        score = ScoreNetwork(load_prior(folder))
        assert score.variable == Variable(2)
        assert score.denoiser.sigma_min == pytest.approx(0.07 * float(Variable(2).slope(torch.tensor(0.5))), rel=1e-3)
        assert "| rho | 2" in (folder / "README.md").read_text() or "rho=2" in (folder / "README.md").read_text()
        y = torch.rand(1, 1 if kind == "grey" else 3, 16, 16)
        assert bool(score.denoise(y, Gamma(50)).isfinite().all())
        wanted = (1,) if kind == "grey" else (3,)  # the luminance of Gamma noise is no Gamma noise
        assert score.denoiser.prior.network.channels == wanted


def camera() -> torch.Tensor:
    return torch.from_numpy(photographs.camera()[:256, :256]).double()[None, None] / 255


LAWS = [(Gaussian(25 / 255), 0, (25 / 255) ** 2), (Poisson(0.03), 1, 0.03), (Gamma(75), 2, 1 / 75)]


@pytest.mark.parametrize(("noise", "rho", "phi"), LAWS, ids=str)
def test_type_and_level_of_the_noise_of_one_picture(noise, rho, phi):
    y = noise.sample(camera(), Draws(0))[0].numpy()
    law = estimate_law([y])
    assert law is not None and law.rho == rho
    assert law.phi == pytest.approx(phi, rel=0.15)
    assert type(as_noise(law)) is type(noise)
    doubled = estimate_law([2 * y])
    assert doubled is not None and doubled.phi == pytest.approx(law.phi * 2 ** (2 - rho))


def test_a_picture_too_small_or_without_noise_has_no_law():
    assert estimate_law([np.zeros((1, 64, 64))]) is None
    assert estimate_law([np.random.default_rng(0).normal(size=(3, 20, 20))]) is None
    assert estimate_law([np.random.default_rng(0).normal(size=(1, 3, 3))]) is None


def test_clipped_blocks_are_left_out():
    y = Gaussian(0.1).sample(camera(), Draws(0))[0].numpy().clip(0, 1)
    law = estimate_law([y], limits=(0.0, 1.0))
    assert law is not None and law.rho == 0 and law.phi == pytest.approx(0.01, rel=0.15)


def test_flat_pictures_have_the_noise_of_the_published_medians():
    x = 0.3 + 0.4 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for noise, rho, phi in LAWS:
        variance = phi * x**rho
        y = noise.sample(x, Draws(1))
        law = law_from_score(lambda y, v=variance: -(y - x) / v, y, rho)
        assert law.phi == pytest.approx(phi, rel=0.06)


def test_umse_is_unbiased():
    rng, truth = np.random.default_rng(0), np.linspace(0.2, 0.8, 40_000).reshape(1, 200, 200)
    estimate = truth + 0.05 * np.sin(60 * truth)
    copies = [rng.gamma(50, truth / 50) for _ in range(3)]
    error = float(np.mean((estimate - truth) ** 2))
    assert umse(estimate, (copies[0], copies[1], copies[2])) == pytest.approx(error, rel=0.1)
    assert upsnr(error) == pytest.approx(-10 * np.log10(error))
    assert np.isnan(upsnr(-1e-9))


def test_umse_of_one_picture_is_unbiased_where_it_is_smooth():
    rng = np.random.default_rng(0)
    truth = 0.5 + 0.3 * np.sin(np.linspace(0, 3, 401))[None, :, None] * np.cos(np.linspace(0, 3, 403))[None, None]
    given, *others = four_copies(truth + 0.1 * rng.normal(size=truth.shape))
    assert given.shape == (1, 200, 201)
    error = float(np.mean((given - four_copies(truth)[0]) ** 2))  # of the noisy picture itself
    assert umse(given, (others[0], others[1], others[2])) == pytest.approx(error, rel=0.05)


def test_as_noise_is_the_nearest_power():
    assert as_noise(Tweedie(0, 0.04)) == Gaussian(0.2)
    assert as_noise(Tweedie(1, 0.04)) == Poisson(0.04)
    assert as_noise(Tweedie(2, 0.02)) == Gamma(50)


SMALL = ["--steps", "4", "--batch", "2", "--patch", "16", "--widths", "8", "8", "--blocks", "1", "1"]


@pytest.fixture
def pictures(tmp_path):
    for place in ("train_bsd400_gray", "test/Set12", "test/BSD68", "train/gb82"):
        folder = tmp_path / "images" / place
        folder.mkdir(parents=True)
        Image.fromarray(photographs.camera()[:64, 200:264]).save(folder / "1.png")
    return tmp_path


@pytest.mark.parametrize("method", ["noise2score", "supervised"])
def test_a_stopped_training_of_the_bench_goes_on(pictures, monkeypatch, method):
    monkeypatch.setattr(bench, "EVERY", 2)
    step = bench.Trainer.step

    def killed(self):
        if self.done == 3:
            raise KeyboardInterrupt
        return step(self)

    def start(out):
        arguments = ["--data", str(pictures), "--output", str(pictures / out), "--conditions", "gamma:50"]
        arguments += ["--results", str(pictures / f"{out}.jsonl")]
        monkeypatch.setattr(sys, "argv", ["noise2score.py", *arguments, "--methods", method, *SMALL])
        bench.main()

    start("whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bench.Trainer, "step", killed)
        start("killed")
    start("killed")
    weights = (next((pictures / out).glob(f"gamma_50_{method}_*/weights.safetensors")) for out in ("whole", "killed"))
    whole, resumed = (path.read_bytes() for path in weights)
    assert whole == resumed
    assert not list((pictures / "killed").glob("*.state.pt"))


def test_the_bench_that_chooses_appends_rows_and_goes_on(pictures, monkeypatch, capsys):
    monkeypatch.setattr(choosing, "SIDE", 32)
    Image.fromarray(photographs.camera()[:64, 100:164]).save(pictures / "images" / "train" / "gb82" / "2.png")
    out = ["--data", str(pictures), "--output", str(pictures / "out"), "--conditions", "poisson:0.05"]
    for objectives in ("gr2r:0.5:2", "gr2r:0.5:2,noise2score:0.5:2"):
        monkeypatch.setattr(sys, "argv", ["x", *out, "--objectives", objectives, *SMALL])
        choosing.main()
    table = capsys.readouterr().out
    assert table.count("learning poisson") == 2
    last = [line for line in table.splitlines() if line.startswith("| poisson")][-4:]
    assert [line.split("|")[4:6] for line in last] == [
        [" gr2r:0.5:2 ", "  "], *([" noise2score:0.5:2 ", f" {at} "] for at in ("0", "0.25", "0.5"))
    ]  # fmt: skip
    assert all(5 < float(line.split("|")[6]) < 40 for line in last)


def test_the_bench_trains_once_and_prints_what_it_has(pictures, monkeypatch, capsys):
    out = ["--data", str(pictures), "--output", str(pictures / "out"), "--conditions", "poisson:0.05"]
    out += ["--results", str(pictures / "rows.jsonl")]
    monkeypatch.setattr(sys, "argv", ["noise2score.py", *out, *SMALL])
    bench.main()
    table = capsys.readouterr().out
    assert (
        "training poisson_0.05_noise2score" in table
        and "training poisson_blind" in table
        and "training poisson_0.05_one_shot" in table
    )
    line = next(line for line in table.splitlines() if "shifted estimator" in line)
    cells = line.split("|")[2:-1]
    assert "| poisson 0.05 |" in table and len(cells) == 1
    assert 10 < float(cells[0].split("/")[0]) < 40
    bench.main()
    again = capsys.readouterr().out
    assert "training" not in again and line in again

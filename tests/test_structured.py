"""Structured noise: the joint posterior of two sources, the product of priors, recordings of noise, the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cli_parts import PRIOR, command, photo
from known_posteriors import NOISE, prior, rows, samplers, two_sources
from PIL import Image
from torch import Tensor

from operators import kernels
from operators.base import Identity
from operators.compose import HStack
from operators.image import Blur, Downsample, Mask
from operators.linalg import dense
from operators.noise import Gaussian as White
from operators.nonlinear import Clip
from operators.random import Draws
from restore.core import restore
from restore.errors import InputError
from restore.learn.data import Patches
from restore.learn.train import learn
from restore.modalities.image import read_picture
from restore.priors.analytic import Gaussian, side_by_side
from restore.priors.network import EDMDenoiser, UNet
from restore.priors.product import Product
from restore.priors.spectra import SpectralTable
from restore.priors.stationary import StationaryGaussian
from restore.priors.store import load_prior, save_prior, save_table
from restore.problem import Problem
from restore.samplers.dps import DPS
from restore.samplers.moment_matching import MomentMatching
from restore.samplers.pigdm import PiGDM
from restore.samplers.pnpdm import PnPDM
from restore.samplers.projection import Projection
from restore.structured import apart, joint
from restore.uncertainty.exact import exactness

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SIZE = 6
SHAPE = (1, SIZE, SIZE)


def blur(size: int = SIZE) -> Blur:
    kernel = kernels.gaussian(1.0)[2:-2, 2:-2]
    return Blur(kernel / kernel.sum(), (1, size, size))


@pytest.mark.parametrize("A", [Identity((1, 8, 8)), blur(8)], ids=["identity", "blur"])
def test_the_joint_posterior_of_two_gaussian_sources_is_matched(A):
    P, X, N = two_sources(A)
    P, J = joint(P, X, N)
    E = exactness(restore(P, J, MomentMatching(), num_samples=400).samples, side_by_side(X, N).posterior(P))
    assert E.mean_error.value < E.mean_error.expected + 0.1
    assert 0.95 < E.variance_ratio.value < 1.05
    assert abs(E.coverage.value - E.coverage.expected) < 0.02


@pytest.mark.parametrize("name", samplers())
def test_every_sampler_finds_both_sources(name):
    P, X, N = two_sources(blur())
    P, J = joint(P, X, N)
    posterior = side_by_side(X, N).posterior(P)
    sampler = samplers()[name]
    x, n = apart(restore(P, J, replace(sampler, steps=min(sampler.steps, 200)), num_samples=30))
    wanted, blind = posterior.mean.split(1), (X.mean, N.mean)
    for found, exact, without in zip((x, n), wanted, blind, strict=True):
        wrong, ignorant = (float((m - exact).square().mean().sqrt()) for m in (found.mean, without))
        assert wrong < 0.8 * ignorant


def test_the_parts_answer_what_the_other_leaves():
    P, X, N = two_sources(blur())
    R = restore(*joint(P, X, N), MomentMatching(steps=10), num_samples=3)
    x, n = apart(R)
    torch.testing.assert_close(torch.cat([x.samples, n.samples], 1), R.samples)
    for part in (x, n):
        torch.testing.assert_close(part.residual(), R.residual())
    torch.testing.assert_close(x.problem.y + n.samples, P.y.expand(3, -1, -1, -1))
    assert x.problem.operator is P.operator


def test_a_product_is_its_parts_side_by_side():
    X, N = prior("mixture", SIZE), rows(SIZE)
    J, exact = Product(X, N), side_by_side(X, N)
    x = exact.sample(Draws(0, range(3))) + 0.2 * Draws(1, range(3)).normal((2, SIZE, SIZE), X.mean)
    torch.testing.assert_close(J(x, 0.2), exact(x, 0.2))
    C, known = J.covariance(x, 0.2), exact.covariance(x, 0.2)
    torch.testing.assert_close(C(x), known(x))
    each = torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(J(x, each)[1], J(x[1:2], 0.2)[0])
    assert (J.sigma_min, J.sigma_max, J.shape) == (0.001, 10.0, (2, SIZE, SIZE))
    assert J.signal_std == pytest.approx(exact.signal_std)


def coloured(size: int = SIZE, scale: float = 1.0) -> StationaryGaussian:
    f, g = torch.fft.fftfreq(size, dtype=torch.float64)[:, None], torch.fft.rfftfreq(size, dtype=torch.float64)
    return StationaryGaussian(scale * 0.05 / (1 + 300 * f**2 + 30 * g**2)[None], size)


@pytest.mark.parametrize("size", [6, 7])
def test_a_stationary_gaussian_is_the_gaussian_of_its_matrix(size):
    S = coloured(size)
    C = dense(S.covariance(torch.zeros(1, *S.size), 1e6), S.size)  # nothing known: the prior's own
    exact = Gaussian(torch.zeros(S.size, dtype=torch.float64), (C + C.T) / 2)
    x, sigma = Draws(0, range(2)).normal(S.size, exact.mean), torch.tensor([0.1, 0.3])
    torch.testing.assert_close(S(x, sigma), exact(x, sigma), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(S.covariance(x, 0.2)(x), exact.covariance(x, 0.2)(x), rtol=1e-6, atol=1e-8)
    assert S.signal_std == pytest.approx(float(C.diagonal().mean()) ** 0.5, rel=1e-6)
    draws = S.sample(Draws(0, range(4000)))
    assert draws.dtype == torch.float64
    torch.testing.assert_close(torch.cov(draws.flatten(1).T), C, rtol=0, atol=6 * float(C.max()) / 4000**0.5)


@pytest.mark.parametrize(
    "spectrum, words", [(torch.ones(1, 4, 4), "is needed, got"), (torch.zeros(1, 4, 3), "positive")]
)
def test_a_spectrum_that_is_none_is_refused(spectrum, words):
    with pytest.raises(ValueError, match=words):
        StationaryGaussian(spectrum, 4)


@pytest.mark.parametrize("A", [Identity(SHAPE), blur()], ids=["identity", "blur"])
@pytest.mark.parametrize("kinds", ["stationary", "mixture", "scalar", "flat"])
def test_the_gain_of_a_product_is_that_of_conditioning_a_gaussian(A, kinds):
    X, N = {
        "stationary": (coloured(), coloured(scale=0.2)),
        "mixture": (prior("mixture", SIZE), rows(SIZE)),
        "scalar": (EDMDenoiser(UNet((1,), (8,), (1,))), EDMDenoiser(UNet((1,), (8,), (1,)))),
        "flat": (coloured(), EDMDenoiser(UNet((1,), (8,), (1,)))),
    }[kinds]
    P, J = joint(Problem(torch.ones(1, *SHAPE, dtype=torch.float64), A, White(0.1)), X, N)
    H, x = P.operator, Draws(3).normal(J.pack.shape, P.y)
    C = J.covariance(x, 0.2)
    M, S = dense(H, H.ishape), dense(lambda v: C(v), H.ishape)
    wanted = S @ M.T @ torch.linalg.solve(M @ S @ M.T + 0.01 * torch.eye(len(M)).double(), P.y.flatten())
    torch.testing.assert_close(C.gain(H, P.y, 0.1).flatten(), wanted, rtol=1e-5, atol=1e-7)


def test_two_stationary_sources_of_denoising_take_one_step():
    calls = []

    class Seen(HStack):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return super().forward(x)

    y = Draws(0).normal((1, 40, 40), torch.zeros(1))
    J = Product(coloured(40), coloured(40, scale=0.3))
    H = Seen(Identity((1, 40, 40)), Identity((1, 40, 40)))
    J.covariance(torch.zeros(1, 2, 40, 40), 0.3).gain(H, y, 0.05)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "A",
    [Mask(torch.arange(36).reshape(SHAPE) % 3 != 0), Downsample(SHAPE, 2, "bicubic"), blur()],
    ids=["mask", "downsample", "blur"],
)
def test_the_svd_of_a_sum_with_noise_is_closed_form(A):
    H = HStack(A, Identity(A.oshape))
    svd = H.svd()
    assert svd is not None and len(svd.s) == int(torch.Size(A.oshape).numel())


def test_dps_and_pigdm_are_the_published_joint_guidance():
    """Stevens et al.: both sources move along the gradient of one residual, each through its own denoiser."""
    P, X, N = two_sources(blur(), "mixture")
    J_P, J = joint(P, X, N)
    A, sigma = dense(P.operator, SHAPE), 0.3
    x = torch.cat([X.sample(Draws(1)), N.sample(Draws(2))], 1) + sigma * Draws(3).normal((2, SIZE, SIZE), P.y)
    u, v = (part.clone().requires_grad_() for part in x.split(1, 1))
    D_x, D_n = X(u, sigma), N(v, sigma)
    r = P.y.flatten() - A @ D_x.flatten() - D_n.flatten()
    scale = PiGDM().scale
    r2 = sigma**2 * scale**2 / (sigma**2 + scale**2)
    S = r2 * A @ A.T + (r2 + NOISE**2) * torch.eye(len(A)).double()
    g = torch.autograd.grad(-0.5 * r @ torch.linalg.solve(S, r), (u, v), retain_graph=True)
    wanted = torch.cat([D_x + r2 * g[0], D_n + r2 * g[1]], 1).detach()
    torch.testing.assert_close(PiGDM().step(x, sigma, 0, J_P, J, Draws(0)), wanted)
    g = torch.autograd.grad(r.norm(), (u, v))
    moved = DPS().step(x, sigma, 0, J_P, J, Draws(0)) - J(x, sigma)
    ratio = moved / -torch.cat(g, 1)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))


def test_projection_is_the_published_one():
    """With `lambda = 1` and without noise of its own the state is put on the noised data, half by each source."""
    y, A = Draws(0).normal(SHAPE, torch.zeros(1, dtype=torch.float64)), Identity(SHAPE)
    P, J = joint(Problem(y, A, White(1e-7)), prior("gaussian", SIZE), rows(SIZE))
    asked = []

    class Asked(Product):
        def forward(self, x: Tensor, sigma):
            asked.append(x)
            return super().forward(x, sigma)

    x, sigma = Draws(1).normal((2, SIZE, SIZE), y), 0.4
    z = Draws(5).normal((2, SIZE, SIZE), y)
    y_hat = y + sigma * z.sum(1, keepdim=True)
    for lambda_ in (1.0, 0.4):
        Projection(lambda_=lambda_).step(x, sigma, 0.2, P, Asked(*J.parts), Draws(5))
        r = x.sum(1, keepdim=True) - y_hat
        torch.testing.assert_close(asked[-1], x - lambda_ / 2 * r)


def test_sources_take_turns_in_pnpdm():
    """Each is asked about what the other leaves of the data as it stands then; a call of one of two is half a call."""
    y, A = Draws(0).normal(SHAPE, torch.zeros(1, dtype=torch.float64)), Identity(SHAPE)
    asked = []

    class Asked(StationaryGaussian):
        def forward(self, x: Tensor, sigma):
            asked.append((self, x, super().forward(x, sigma)))
            return asked[-1][-1]

    size = (coloured().spectrum, SIZE)
    X, N = Asked(*size), Asked(0.2 * size[0], SIZE)
    R = restore(*joint(Problem(y, A, White(1e-7)), X, N), PnPDM(steps=2, sde_steps=1), num_samples=3)
    assert [who for who, *_ in asked] == 3 * [X, N]
    n = asked[1][-1]
    for (_, seen, x), (_, left, after) in (asked[2:4], asked[4:6]):
        torch.testing.assert_close(seen, y - n, rtol=0, atol=1e-5)
        torch.testing.assert_close(left, y - x, rtol=0, atol=1e-5)
        n = after
    assert R.nfe == 3  # the first call is of both at once


@pytest.mark.parametrize("A", [Identity(SHAPE), blur()], ids=["identity", "blur"])
def test_taking_turns_comes_to_the_joint_posterior(A):
    P, X, N = two_sources(A)
    P, J = joint(P, X, N)
    sampler = PnPDM(steps=50, sigma_max=0.5, sigma_min=0.01, rho=3.0)
    E = exactness(restore(P, J, sampler, num_samples=150).samples, side_by_side(X, N).posterior(P))
    assert E.mean_error.value < E.mean_error.expected + 0.1
    assert 0.9 < E.variance_ratio.value < 1.1


def test_what_does_not_fit_is_refused_in_words():
    P, X, N = two_sources(Identity(SHAPE))
    with pytest.raises(TypeError, match="a linear operator is needed here, got Clip"):
        joint(Problem(P.y, Clip(SHAPE), P.noise), X, N)
    with pytest.raises(ValueError, match="a source of shape"):
        joint(P, X, rows(5))
    with pytest.raises(ValueError, match="name the shape it has"):
        Product(X, EDMDenoiser(UNet((1,), (8,), (1,))))
    with pytest.raises(ValueError, match="2 priors but 1 shapes"):
        Product(X, N, shapes=[SHAPE])
    with pytest.raises(TypeError, match="HStack of sources"):
        apart(restore(P, X, MomentMatching(steps=2), num_samples=1))


def recordings(folder: Path, colour: bool = False, count: int = 5) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        n = np.repeat(0.1 * rng.standard_normal((40, 1, 3 if colour else 1)), 48, 1).squeeze()
        Image.fromarray(np.uint8(np.rint(255 * (n + 0.5).clip(0, 1)))).save(folder / f"{i}.png")
    return folder


def test_patches_of_noise_are_neither_turned_nor_shrunk():
    recording = torch.arange(40, dtype=torch.uint8)[None, :, None].expand(1, 40, 40)
    batch = Patches([recording], 16, shrink=0.0, turn=False).batch(20, torch.Generator().manual_seed(0)).x
    assert (batch[..., 1:] == batch[..., :1]).all()
    assert ((batch[..., 1:, :] - batch[..., :-1, :]) * 127.5).sub(1).abs().max() < 1e-3


@pytest.mark.parametrize("colour", [False, True])
def test_a_prior_is_learnt_from_recordings_of_noise(tmp_path, colour):
    folder = recordings(tmp_path / "noise", colour)
    tiny = {"widths": (8, 8), "blocks": (1, 1), "batch": 4, "patch": 16, "device": "cpu", "steps": 3}
    out = learn([folder], tmp_path / "prior", noise=True, **tiny)
    assert "recordings of noise alone" in (out / "README.md").read_text()
    D = load_prior(out, noise=True)
    assert D.accepts((1, 8, 8)) != colour and D.accepts((3, 8, 8)) == colour
    zero = torch.zeros(1, 3 if colour else 1, 32, 32)
    assert D(zero, 1e-3).abs().max() < 0.01  # around zero, not around mid-grey
    with pytest.raises(InputError, match=r"a prior on noise; wanted a prior on pictures"):
        load_prior(out)
    with pytest.raises(InputError, match="a prior on pictures; wanted a prior on noise"):
        load_prior("photos", noise=True)


def test_grey_and_coloured_noise_is_not_learnt_together(tmp_path):
    both = recordings(tmp_path / "both")
    recordings(tmp_path / "both" / "colour", colour=True)
    with pytest.raises(InputError, match="grey and coloured recordings"):
        learn([both], tmp_path / "prior", noise=True, steps=1, patch=16, held_out=0, device="cpu")


def noise_prior(folder: str, channels: tuple[int, ...] = (1, 3)) -> None:
    torch.manual_seed(0)
    denoiser = EDMDenoiser(UNet(channels, (8,), (1,)))
    Path(folder).mkdir()
    save_prior(denoiser, Path(folder), noise=True)


@pytest.mark.usefixtures("inside")
def test_the_command_separates_noise_and_replays(capsys):
    photo()
    noise_prior("rows")
    words = ["denoise", "photo.png", "--noise-prior", "rows", "--noise", "0.05", "--steps", "3", PRIOR]
    status, out, err = command(capsys, *words)
    assert (status, err) == (0, "") and "MomentMatching, 3 steps, mean of 4 draws" in out and "n as" in out
    assert {p.name for p in Path().glob("photo_*")} == {"photo_denoised.png", "photo_denoised.run.json"}
    used = json.loads(Path("photo_denoised.run.json").read_text())["request"]["settings"]["sampler"]
    assert used["_target_"].endswith(".MomentMatching")
    assert used["integrator"] == "draw"  # not the recipe for white noise
    status, out, _ = command(capsys, *words, "--samples", "2", "-o", "two.png", "--sampler", "diffpir")
    assert status == 0 and "two_noise.png is the mean of the separated noise" in out and "DiffPIR" in out
    noise, both = read_picture("two_noise.png").data, read_picture("two.png").data
    inside = (noise > 0) & (noise < 1) & (both > 0) & (both < 1)  # what was not clipped
    left = np.moveaxis(np.asarray(Image.open("photo.png")), -1, 0) / 255 - both - (noise - 0.5)
    assert noise.shape == (3, 40, 56) and abs(left[inside].mean()) < 0.02 and left[inside].std() < 0.1
    assert "two_noise.png" in json.loads(Path("two.run.json").read_text())["files"]
    before = {p.name: p.read_bytes() for p in Path().glob("two*.png")}
    assert command(capsys, "replay", "two.run.json", "--overwrite")[0] == 0
    assert {p.name: p.read_bytes() for p in Path().glob("two*.png")} == before
    assert command(capsys, *words[:-1], "-o", "two.png", "--overwrite", PRIOR)[0] == 0
    assert not Path("two_noise.png").exists()
    table = {c: torch.full((2, c, 17, 17), 0.01) for c in (1, 3)}
    save_table(SpectralTable(torch.tensor([0.1, 1.0]), table), Path("rows"))
    status, _, err = command(capsys, "replay", "two.run.json", "--overwrite")
    assert status == 2 and "the noise prior table is gone or has changed since" in err
    noise_prior("others", (3, 1))
    for path in Path("others").iterdir():
        path.rename(Path("rows") / path.name)
    status, _, err = command(capsys, "replay", "two.run.json", "--overwrite")
    assert status == 2 and "the noise prior is gone or has changed since" in err


@pytest.mark.usefixtures("inside")
def test_noise_with_a_prior_of_its_own_is_not_judged_by_em(capsys, monkeypatch):
    """EM would count the structure as white."""
    photo()
    noise_prior("rows")
    asked = []
    monkeypatch.setattr("restore.engine.fit_denoising", lambda y, prior, sigma: asked.append(sigma) or [sigma])
    words = ["denoise", "photo.png", "--steps", "2", "--sampler", "ddnm", "--overwrite", PRIOR]
    assert command(capsys, *words)[0] == 0 and len(asked) == 1
    assert command(capsys, *words, "--noise-prior", "rows")[0] == 0 and len(asked) == 1
    record = json.loads(Path("photo_denoised.run.json").read_text())
    assert record["noise"]["estimated"] and record["noise"]["sigma_in_unit_range"] == asked[0]


@pytest.mark.usefixtures("inside")
def test_with_a_noise_prior_samplers_take_their_recipe_for_it(capsys):
    photo(size=(24, 32), grey=True)
    noise_prior("rows")
    words = ["denoise", "photo.png", "--noise", "0.05", "--steps", "2", "--sampler", "pnpdm", "--samples", "2", PRIOR]
    found = {}
    for name, more in (("white.png", []), ("rows.png", ["--noise-prior", "rows"])):
        assert command(capsys, *words, "-o", name, *more)[0] == 0
        found[name] = json.loads(Path(name).with_suffix(".run.json").read_text())["request"]["settings"]["sampler"]
    recipe = yaml.safe_load((CONFIGS / "recipe" / "structured_pnpdm.yaml").read_text())["sampler"]
    assert found["rows.png"] == found["white.png"] | recipe | {"steps": 2} != found["white.png"]


@pytest.mark.usefixtures("inside")
def test_noise_is_separated_in_tiles_as_in_one_piece(capsys):
    photo(size=(40, 330), grey=True)
    noise_prior("rows")
    words = ["--noise-prior", "rows", "--noise", "0.05", "--steps", "3", "--samples", "2", PRIOR]
    for name, tile in (("one.png", 640), ("more.png", 256)):
        assert command(capsys, "denoise", "photo.png", "-o", name, *words, f"tile={tile}")[0] == 0
    assert json.loads(Path("more.run.json").read_text())["result"]["tiles"] > 1
    for ending in ("", "_noise"):
        one, more = (read_picture(f"{name}{ending}.png").data for name in ("one", "more"))
        assert one.shape == (1, 40, 330) and np.abs(one - more).max() <= 2 / 255


@pytest.mark.usefixtures("inside")
def test_bad_noise_priors_are_refused_in_words(capsys):
    photo()
    noise_prior("grey", (1,))
    for words, said, wanted in (
        (["--noise-prior", "nowhere"], "nowhere: no prior of that name and no such folder", 2),
        (["--noise-prior", "photos"], "a prior on pictures; wanted a prior on noise", 2),
        (["--prior", "grey"], "a prior on noise; wanted a prior on pictures", 2),
        (
            ["--noise-prior", "grey", PRIOR],
            "a picture in colour; wanted the kind that the noise prior was learnt on",
            1,
        ),
    ):
        status, _, err = command(capsys, "denoise", "photo.png", "--steps", "3", *words)
        assert status == wanted and said in err and len(err.splitlines()) == 1, err
    status, _, err = command(capsys, "upscale", "photo.png", "noise_prior=grey")
    assert status == 2 and "a noise_prior is for denoise, and this is upscale" in err
    Path("noise").mkdir()
    assert command(capsys, "learn", "noise", "--noise-only", "-o", "out")[0] == 2

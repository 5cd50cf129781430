"""Learning: the objective's stationary point, exact resumption, what the network accepts, what a folder may hold."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save_file
from torch import nn

from restore.errors import FolderEmpty, InputError
from restore.learn.base import clean as as_clean
from restore.learn.data import Patches, find_pictures, load_pictures
from restore.learn.dsm import DSM
from restore.learn.muon import Muon
from restore.learn.train import learn
from restore.learn.trainer import Recipe, Trainer
from restore.learn.validation import measure_spectra
from restore.priors.analytic import GaussianMixture
from restore.priors.base import Denoiser
from restore.priors.network import EDMDenoiser, UNet, compile_networks
from restore.priors.store import load_prior, save_prior

TINY = {"widths": (8, 8), "blocks": (1, 1)}
RUN = {**TINY, "batch": 4, "patch": 16, "held_out": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures with edges and slopes, one of them grey."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    row, column = np.mgrid[:40, :48] / 40
    for i in range(6):
        a, b, c = rng.uniform(-1, 1, (3, 3, 1, 1))
        pixels = 0.5 + 0.3 * np.sign(a * row + b * column - c / 2) + 0.2 * np.sin(6 * b * row)
        pixels = (pixels.clip(0, 1) * 255).astype(np.uint8)
        Image.fromarray(pixels[0] if i == 3 else pixels.transpose(1, 2, 0)).save(folder / f"{i}.png")
    return folder


def load_file(path):
    """The tensors in a file, read rather than mapped, so that a test may overwrite it."""
    return load(path.read_bytes())


def alike(a, b):
    """Equal up to the rounding of bfloat16."""
    return float((a - b).square().mean().sqrt()) < 0.02 * float(b.std())


def random_denoiser(**network):
    """A denoiser whose last layers are not zero, as they are at the start of training."""
    torch.manual_seed(0)
    denoiser = EDMDenoiser(UNet(**{**TINY, **network}))
    for p in denoiser.parameters():
        nn.init.normal_(p, std=0.2 if p.ndim < 4 else p[0].numel() ** -0.5)
    return denoiser.requires_grad_(False)


class Perturbed(Denoiser):
    """`x + scale (D(x) - x) + c_out (slope x + shift)`: the exact denoiser at `(1, 0, 0)`.

    In these directions the loss weighs every level alike; others would drown the test in the smallest levels.
    """

    def __init__(self, exact: Denoiser, theta: torch.Tensor):
        super().__init__()
        self.exact, self.theta = exact, nn.Parameter(theta)
        self.shape, self.sigma_min, self.sigma_max = exact.shape, 0.01, 5.0

    def forward(self, x, sigma):
        scale, slope, shift = self.theta
        s = sigma[:, None]
        return x + scale * (self.exact(x, sigma) - x) + s / (s**2 + 0.25).sqrt() / 2 * (slope * x + shift)


def gradient_in_standard_errors(theta):
    """The gradient of DSM's loss with respect to `theta`, each entry divided by its standard error."""
    rng = torch.Generator().manual_seed(3)
    means = torch.tensor([[0.4, -0.3], [-0.5, 0.2]], dtype=torch.float64)
    prior = GaussianMixture(torch.tensor([0.3, 0.7]), means, torch.tensor([[0.1, 0.05], [0.05, 0.2]]))
    which = torch.multinomial(prior.weights, 8000, replacement=True, generator=rng)
    root = torch.linalg.cholesky(prior.covariances[0])
    clean = means[which] + torch.randn(8000, 2, generator=rng, dtype=torch.float64) @ root.T
    denoiser = Perturbed(prior, torch.tensor(theta, dtype=torch.float64))
    loss = DSM().loss(denoiser, as_clean(clean), rng)
    groups = [torch.autograd.grad(part.mean(), denoiser.theta, retain_graph=True)[0] for part in loss.split(40)]
    each = torch.stack(groups)
    return each.mean(0) / (each.std(0) / len(groups) ** 0.5)


def test_the_exact_denoiser_is_a_stationary_point():
    assert gradient_in_standard_errors((1.0, 0.0, 0.0)).abs().max() < 4


@pytest.mark.parametrize("theta", [(0.9, 0.0, 0.0), (1.0, 0.1, 0.0), (1.0, 0.0, 0.1)])
def test_a_wrong_denoiser_is_not(theta):
    z = gradient_in_standard_errors(theta)
    assert z.abs().max() > 8


def test_levels_of_noise_stay_within_the_bounds_and_reach_both_ends():
    denoiser = EDMDenoiser(UNet(**TINY), sigma_min=0.01, sigma_max=10)
    sigma = DSM().levels(denoiser, 20_000, torch.Generator().manual_seed(0))
    assert sigma.min() >= 0.01 * 0.999 and sigma.max() <= 10 * 1.001
    assert (sigma > 5).float().mean() > 0.01  # the plain normal law gives 0.4 %
    assert abs(sigma.log().median().item() + 1.6) < 0.1


def test_training_lowers_the_loss(folder):
    torch.manual_seed(0)
    recipe = Recipe(steps=60, batch=8, patch=16, lr=5e-3, warmup=5)
    patches = Patches(load_pictures(find_pictures([folder])), 16)
    trainer = Trainer(EDMDenoiser(UNet(**TINY)), DSM(), patches, recipe, seed=0)
    losses = [trainer.step() for _ in range(60)]
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [recipe.rate(59), recipe.muon * recipe.rate(59)]
    assert np.mean(losses[-15:]) < 0.8 * np.mean(losses[:15])


def test_an_objective_is_annealed_with_the_run(folder):
    class Annealed(DSM):
        def at(self, progress):
            seen.append(progress)
            return DSM(sigma_data=0.5 + progress)

    seen, batches = [], Patches(load_pictures(find_pictures([folder])), 16)
    trainers = [
        Trainer(EDMDenoiser(UNet(**TINY)), objective, batches, Recipe(steps=4, batch=4, patch=16), seed=0)
        for objective in (Annealed(), DSM())
    ]
    annealed, plain = ([trainer.step() for _ in range(4)] for trainer in trainers)
    assert seen == [0, 0.25, 0.5, 0.75] and annealed[0] == plain[0] and annealed[3] != plain[3]


@pytest.mark.parametrize("shape", [(8, 40), (40, 8)])
def test_muon_steps_by_a_rotation_along_the_gradients(shape):
    W = nn.Parameter(torch.zeros(shape))
    W.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before, optimizer = W.grad.clone(), Muon([W], lr=0.1)
    optimizer.step()
    U, _, Vh = torch.linalg.svd(before, full_matrices=False)
    moved = -W.detach() / (0.1 * max(1, shape[0] / shape[1]) ** 0.5)
    s = (U.T @ moved @ Vh.T).diagonal()
    assert bool(((s > 0.6) & (s < 1.3)).all()), s
    assert (moved - U * s @ Vh).abs().max() < 0.05, "singular vectors are those of the gradient"
    W.grad, there = -0.7 * before, W.detach().clone()
    optimizer.step()
    torch.testing.assert_close(optimizer.state[W]["mean"], 0.0125 * before)
    assert float(((W.detach() - there) * before).sum()) > 0, "it looks ahead: the mean still points the other way"


def test_files_to_validate_on_are_not_learnt_from(folder, tmp_path):
    learn([folder], tmp_path, steps=1, **RUN, validation=[folder / ".." / folder.name / "2.png"])
    card = (tmp_path / "README.md").read_text()
    assert "Set aside for validation: 2.png." in card and "| pictures | 5 |" in card and "| colour |" in card


def test_a_killed_run_resumes_to_the_same_weights_to_the_bit(folder, tmp_path, monkeypatch):
    learn([folder], tmp_path / "whole", steps=8, every=4, **RUN)
    step = Trainer.step

    def killed(self):
        if self.done == 6:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", killed)
        learn([folder], tmp_path / "killed", steps=8, every=4, **RUN)
    torch.manual_seed(99)
    learn([folder], tmp_path / "killed", steps=8, every=4, **RUN)
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert all((v != 0).any() for k, v in whole.items() if "heads.3.weight" in k)


def test_another_recipe_a_damaged_checkpoint_and_an_unknown_objective_are_refused(folder, tmp_path):
    learn([folder], tmp_path, steps=1, **RUN)
    with pytest.raises(InputError, match=r"batch 4.*batch 5"):
        learn([folder], tmp_path, steps=2, **{**RUN, "batch": 5})
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged, 1000 bytes"):
        learn([folder], tmp_path, steps=2, **RUN)
    learn([folder], tmp_path, steps=2, resume=False, **RUN)
    with pytest.raises(ValueError, match=r"no objective 'dms'; known: .*dsm"):
        learn([folder], tmp_path, objective="dms", steps=1, **RUN)


def test_what_training_leaves_is_a_prior(folder, tmp_path):
    learn([folder], tmp_path / "mine", steps=2, **RUN)
    prior = load_prior(tmp_path / "mine")
    assert prior.sigma_min == pytest.approx(0.001) and prior.accepts((3, 5, 9)) and prior.accepts((1, 5, 9))
    assert not prior.accepts((2, 5, 9)) and not prior.accepts((5, 9))
    assert prior(torch.rand(1, 3, 20, 20), 0.1).shape == (1, 3, 20, 20)
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "| steps | 2 |" in card and "licence" in card
    assert not list((tmp_path / "mine").glob("*part*"))
    for channels in (1, 3):  # and it knows how sure it is, mode by mode
        C = prior.covariance(torch.rand(1, channels, 20, 21), 0.1)
        v = torch.randn(2, channels, 20, 21)
        assert bool(((C(v) * v).flatten(1).sum(1) > 0).all())
        assert (C(v) / v).std() > 0.01 * C(v).std()  # not one number for all
    save_file({"sigmas": torch.ones(1)}, tmp_path / "mine" / "spectra.safetensors")
    with pytest.raises(InputError, match=r"spectra\.safetensors: sigmas; wanted channels_1, channels_3, sigmas"):
        load_prior(tmp_path / "mine")


def test_a_run_may_start_from_a_prior_and_grow_it(folder, tmp_path):
    small, x = tmp_path / "small", torch.rand(1, 3, 16, 16)
    save_prior(random_denoiser(), small)
    blocks = {k: v for k, v in RUN.items() if k not in TINY}
    same = learn([folder], tmp_path / "same", start=small, steps=1, lr=1e-9, **blocks)
    grown = learn([folder], tmp_path / "grown", start=small, steps=1, lr=1e-9, **blocks | {"blocks": (2, 1)})
    untold = learn([folder], tmp_path / "untold", steps=1, lr=1e-9, **RUN)
    was, same, grown, untold = (load_prior(p)(x, 0.1) for p in (small, same, grown, untold))
    assert alike(same - x, was - x) and alike(grown - x, was - x) and not alike(untold - x, was - x)
    assert len(load_file(tmp_path / "grown" / "weights.safetensors")) > len(load_file(small / "weights.safetensors"))


def test_a_run_cannot_start_from_what_does_not_fit(folder, tmp_path):
    small = learn([folder], tmp_path / "small", steps=1, **RUN)
    with pytest.raises(InputError, match=r"layers that the new network has not.*widths"):
        learn([folder], tmp_path / "other", start=small, steps=1, **RUN | {"widths": (4, 8)})
    save_prior(random_denoiser(), tmp_path / "fits")
    with pytest.raises(InputError, match="with start None; wanted start"):
        learn([folder], small, start=tmp_path / "fits", steps=1, **RUN)


def test_spectra_need_pictures_that_have_all_their_frequencies():
    denoiser = random_denoiser()
    pictures = [torch.randint(256, (3, n, 40), dtype=torch.uint8) for n in (33, 32)]
    table = measure_spectra(denoiser, pictures, torch.device("cpu"), 0)
    assert table is not None and all(float(s.min()) > 0 for s in table.spectra.values())
    assert measure_spectra(denoiser, [pictures[0][:, :21]], torch.device("cpu"), 0) is None


def test_a_prior_learnt_from_grey_pictures_refuses_colour(folder, tmp_path):
    """It never saw colour; an untrained stem would answer all the same."""
    (tmp_path / "grey").mkdir()
    shutil.copy(folder / "3.png", tmp_path / "grey")
    learn([tmp_path / "grey"], tmp_path / "mine", steps=1, **RUN)
    prior = load_prior(tmp_path / "mine")
    assert prior.accepts((1, 8, 8)) and not prior.accepts((3, 8, 8))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 5), (2, 2), (16, 24)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_size_channels_and_dtype(size, channels, dtype):
    denoiser = random_denoiser(widths=(8, 8, 8), blocks=(1, 1, 1))
    x = torch.rand(2, channels, *size, dtype=dtype)
    out = denoiser(x, torch.tensor([0.1, 0.7]))
    assert out.shape == x.shape and out.dtype == dtype and bool(out.isfinite().all())


def test_rows_do_not_see_each_other():
    denoiser = random_denoiser()
    x, sigma = torch.rand(3, 3, 12, 10), torch.tensor([0.05, 0.5, 5.0])
    together = denoiser(x, sigma)
    alone = torch.cat([denoiser(x[i : i + 1], sigma[i]) for i in range(3)])
    assert alike(together, alone)
    assert not alike(together[0], denoiser(x[:1], 0.5)[0])


def test_padding_leaves_the_rest_alone():
    """Away from the padded border a picture and its crop are denoised alike: padding only fills up to a multiple."""
    denoiser = random_denoiser()
    x = torch.rand(1, 1, 41, 41)
    wide, crop = denoiser(x, 0.3), denoiser(x[..., :40, :40], 0.3)
    assert alike(wide[..., :24, :24], crop[..., :24, :24])


def test_the_preconditioning_is_that_of_the_paper():
    """Karras et al., Table 1: an untrained network (`F = 0`) leaves `c_skip x`; as sigma vanishes, `D(x) = x`."""
    x, fresh = torch.rand(1, 3, 8, 8, dtype=torch.float64), EDMDenoiser(UNet(**TINY))
    assert torch.allclose(fresh(x, 0.7), 0.25 / (0.49 + 0.25) * x)
    assert torch.allclose(random_denoiser()(x, 1e-6), x, atol=1e-4)
    assert torch.equal(random_denoiser()(x, 0.0), x)


def test_the_denoiser_is_differentiable_in_its_input():
    denoiser, x = random_denoiser(), torch.rand(1, 3, 9, 9, requires_grad=True)
    v = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    (g,) = torch.autograd.grad((denoiser(x, 0.5) * v).sum(), x)
    with torch.no_grad():  # steps large enough for bfloat16
        slope = ((denoiser(x + 0.2 * v, 0.5) - denoiser(x - 0.2 * v, 0.5)) * v).sum() / 0.4
    assert g.abs().max() > 0 and float((g * v).sum()) == pytest.approx(float(slope), rel=0.25)


def test_training_runs_through_the_compiled_network(folder, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(UNet, "compile", lambda self, **how: calls.append(how))
    learn([folder], tmp_path, steps=1, compile=True, **RUN)
    assert calls == [{"dynamic": False}]


def test_the_networks_of_a_prior_can_be_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(UNet, "compile", lambda self, **how: compiled.append((self, how)))
    prior = load_prior("photos")
    compile_networks(prior)
    assert compiled == [(prior.prior.network, {"dynamic": False})]
    with pytest.raises(ValueError, match="holds no network that can be compiled"):
        compile_networks(GaussianMixture(torch.ones(1), torch.zeros(1, 1, 2, 2), torch.eye(4)[None]))


def test_two_channels_are_refused_in_words():
    with pytest.raises(ValueError, match=r"1 or 3 channels, got \(1, 2, 8, 8\)"):
        random_denoiser()(torch.rand(1, 2, 8, 8), 0.1)


@pytest.fixture
def stored(tmp_path):
    save_prior(random_denoiser(), tmp_path / "mine")
    return tmp_path / "mine"


def test_a_prior_survives_the_trip_to_disk(stored):
    x = torch.rand(1, 3, 8, 8)
    wanted = (random_denoiser()(2 * x - 1, 0.4) + 1) / 2
    assert alike(load_prior(stored)(x, 0.2), wanted)
    config = json.loads((stored / "config.json").read_text())
    assert config["network"]["widths"] == [8, 8]


def truncate(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickle_it(folder):
    torch.save(load_file(folder / "weights.safetensors"), folder / "weights.safetensors")


def change_network(folder):
    config = json.loads((folder / "config.json").read_text())
    config["network"]["widths"] = [8, 16]
    (folder / "config.json").write_text(json.dumps(config))


def unknown_key(folder):
    config = json.loads((folder / "config.json").read_text())
    config["network"]["depth"] = 3
    (folder / "config.json").write_text(json.dumps(config))


def lose_a_tensor(folder):
    weights = load_file(folder / "weights.safetensors")
    weights.pop("network.bottom.0.conv1.weight")
    save_file(weights, folder / "weights.safetensors")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "damaged or truncated"),
        (pickle_it, "pickled"),
        (change_network, "weights of another network"),
        (lose_a_tensor, r"1 tensors do not match.*bottom\.0\.conv1"),
        (unknown_key, "depth"),
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors: no such file"),
        (lambda f: (f / "weights.safetensors").write_bytes(b""), "damaged or truncated, 0 bytes"),
        (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
    ],
)
def test_a_damaged_prior_is_refused_in_words(stored, damage, words):
    damage(stored)
    with pytest.raises(InputError, match=words):
        load_prior(stored)


def test_an_unknown_prior_names_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="Did you mean photos"):
        load_prior("photo")
    with pytest.raises(InputError, match=r"Known names: .*photos"):
        load_prior(tmp_path / "nowhere")
    with pytest.raises(InputError, match="pickled"):
        load_prior("model.pth")


def test_the_shipped_prior_denoises_colour_and_grey():
    from skimage.data import astronaut

    prior = load_prior("photos")
    clean = torch.from_numpy(astronaut()[50:178, 150:278]).permute(2, 0, 1)[None] / 255
    for x in (clean, clean.mean(1, keepdim=True)):
        noisy = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        assert -10 * (prior(noisy, 0.1) - x).square().mean().log10() > 28  # 20 dB before


def test_pictures_are_found_read_and_the_bad_ones_named(folder, tmp_path, caplog):
    shutil.copytree(folder, tmp_path / "deep" / "er")
    whole = (folder / "0.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "notes.txt").write_text("never opened")
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((9, 8), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    paths = find_pictures([tmp_path])
    assert len(paths) == 11
    with caplog.at_level(logging.WARNING):
        pictures = load_pictures(paths)
    assert all(n in caplog.text for n in ("truncated.png", "empty.png", "text.jpg", "float.tif"))
    assert len(pictures) == 7 and {p.dtype for p in pictures} == {torch.uint8}
    assert [tuple(p.shape) for p in pictures if p.shape[1] == 9] == [(1, 9, 8)]
    assert next(p for p in pictures if p.shape[1] == 9).unique().tolist() == [100]
    assert sum(p.shape[0] == 1 for p in pictures) == 2
    caplog.clear()
    assert len(load_pictures(paths, smallest=16)) == 6 and "smaller than the 16-pixel patch" in caplog.text


def test_folders_without_usable_pictures_are_refused(folder, tmp_path):
    with pytest.raises(FolderEmpty, match="no pictures in it"):
        find_pictures([tmp_path])
    with pytest.raises(InputError, match="no such folder"):
        find_pictures([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="a file"):
        find_pictures([folder / "0.png"])
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match="none of 1 pictures"):
        load_pictures(find_pictures([tmp_path]))


def test_patches_are_cuts_of_the_pictures():
    """Values, range and number of channels; every flip and turn occurs; a grey batch is the luminance."""
    ramp = torch.arange(40 * 48, dtype=torch.float64).reshape(40, 48).mul(255 / 1920).byte()
    patches = Patches([torch.stack([ramp, ramp, ramp])], 16, grey=0.5, shrink=0.0)
    rng = torch.Generator().manual_seed(0)
    batches = [patches.batch(8, rng).x for _ in range(40)]
    assert {b.shape[1] for b in batches} == {1, 3} and all(b.shape[2:] == (16, 16) for b in batches)
    every = torch.cat([b[:, :1] for b in batches])
    assert every.min() >= -1 and every.max() <= 1
    down, right = (every[:, 0, -1, 0] - every[:, 0, 0, 0]).tolist(), (every[:, 0, 0, -1] - every[:, 0, 0, 0]).tolist()
    steep = {
        (d > 0) - (d < 0) if abs(d) > abs(r) else 2 * ((r > 0) - (r < 0)) for d, r in zip(down, right, strict=True)
    }
    assert steep == {-1, 1, -2, 2}
    assert Patches([ramp[None]], 16).batch(2, rng).x.shape == (2, 1, 16, 16)
    shrunk = Patches([torch.full((3, 20, 20), 7, dtype=torch.uint8)], 16, grey=0, shrink=1.0).batch(4, rng).x
    assert torch.allclose(shrunk, torch.full_like(shrunk, 7 / 127.5 - 1))
    flat = torch.tensor([10, 200, 30], dtype=torch.uint8)[:, None, None].expand(3, 20, 20)
    luminance = Patches([flat], 16, grey=1.0).batch(1, rng).x
    assert torch.allclose(luminance, torch.full_like(luminance, 123 / 127.5 - 1), atol=0.01)

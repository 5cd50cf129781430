"""A prior on complex MR images: what is read from volumes, the phase they are given, and what is learnt."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_parts import bad, command, photo
from PIL import Image

from operators.image import Mask
from operators.noise import Gaussian
from restore.core import restore
from restore.errors import FolderEmpty, InputError
from restore.learn import train
from restore.learn.data import find_pictures
from restore.learn.mri import (
    EVERY,
    FILES,
    ComplexPatches,
    band_limited,
    load_shown,
    load_slices,
    read_slices,
    shaded,
    with_phase,
)
from restore.learn.validation import validate
from restore.priors.network import EDMDenoiser, UNet
from restore.priors.store import load_prior, save_prior
from restore.problem import Problem
from restore.samplers.moment_matching import MomentMatching

nibabel = pytest.importorskip("nibabel")
FEW = ["--steps", "2", "--batch", "2", "--patch", "16"]


def head(size=(40, 48, 36), radius=0.8):
    """An ellipsoid with a bright half and texture on nothing, `(X, Y, Z)`."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    texture = 1 + 0.2 * np.sin(9 * x) * np.cos(11 * y + 5 * z)
    return (500 * texture * (1 + (x > 0.1)) * (x**2 + y**2 + z**2 < radius**2)).astype(np.float32)


def save(path, values, spacing=(1.0, 1.0, 1.0), flip=False):
    """Write NIfTI; `flip`: the first axis runs to the left."""
    affine = np.diag([*spacing, 1.0])
    if flip:
        values, affine[0, 0] = values[::-1], -spacing[0]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def slice_picture(path, size=(40, 44)):
    """A picture of a slice, 8 bits."""
    values = head((*size, 5))[..., 2]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(values / values.max() * 255)).save(path)


def test_slices_of_a_volume_are_axial_first_and_in_one_scale(tmp_path):
    values = head()
    save(tmp_path / "a.nii.gz", values, flip=True)
    slices = read_slices(tmp_path / "a.nii.gz")
    assert slices.main[0].shape == (1, 40, 48) and slices.main[0].dtype == torch.float32
    assert {tuple(s.shape) for s in slices.others} == {(1, 40, 36), (1, 48, 36)}
    assert 24 < len(slices.main) < 34, "those above and below the head are left out"
    assert len(slices.others) <= (40 + 48) / EVERY
    for s in (*slices.main, *slices.others):
        assert float(np.percentile(s.numpy(), 99)) == pytest.approx(1, rel=1e-5)
    middle = slices.main[len(slices.main) // 2][0].numpy()
    wanted = max(range(5, 31), key=lambda z: np.corrcoef(values[..., z].flat, middle.flat)[0, 1])
    assert abs(wanted - 18) <= 1 and np.corrcoef(values[..., wanted].flat, middle.flat)[0, 1] > 0.999, "turned back"


def test_planes_whose_pixels_are_not_square_are_left_out(tmp_path):
    save(tmp_path / "thick.nii", head(), (1.0, 1.0, 5.0))
    assert not read_slices(tmp_path / "thick.nii").others
    save(tmp_path / "sagittal.nii", head(), (4.0, 0.9, 1.0))
    slices = read_slices(tmp_path / "sagittal.nii")
    assert not slices.others and slices.main[0].shape == (1, 48, 36) and len(slices.main) > 24


def test_large_pictures_of_slices_are_halved(tmp_path):
    slice_picture(tmp_path / "large.png", (400, 480))
    slice_picture(tmp_path / "small.png", (300, 480))
    assert read_slices(tmp_path / "large.png").main[0].shape == (1, 200, 240)
    assert read_slices(tmp_path / "small.png").main[0].shape == (1, 300, 480)


def test_the_phase_is_smooth_keeps_the_magnitude_and_starts_anywhere():
    m = torch.rand(400, 1, 48, 40, generator=torch.Generator().manual_seed(0))
    x = with_phase(m, torch.Generator().manual_seed(1))
    z = torch.complex(x[:, 0], x[:, 1])
    torch.testing.assert_close(z.abs(), m[:, 0])
    unit = z / z.abs()
    assert unit[:, 24, 20].mean().abs() < 4 / 400**0.5, "no direction is preferred"
    moves = torch.stack([(unit[:, 1:, :-1] / unit[:, :-1, :-1]), (unit[:, :-1, 1:] / unit[:, :-1, :-1])]).angle().abs()
    assert moves.quantile(0.5) < 0.1 and (moves > 0.7).float().mean() < 0.01, "smooth but for a few jumps"
    assert 0.05 < (moves.amax((0, 2, 3)) > 0.7).float().mean() < 0.25
    far = (unit[:, 47, 39] / unit[:, 0, 0]).angle().abs()
    assert (far < 0.3).float().mean() > 0.1 and (far > 1).float().mean() > 0.2, "some nearly real, some are not"


def test_a_cut_in_k_space_rings_at_edges_and_spares_what_is_smooth():
    rows = torch.arange(48.0)[:, None].expand(48, 40)
    smooth, edge = torch.cos((rows + 0.5) * torch.pi * 5 / 48), torch.where(rows > 20, 1.0, 0.0)
    x = torch.stack([torch.stack([smooth, edge]), torch.stack([edge, smooth])])
    out = band_limited(x, torch.Generator().manual_seed(0), share=1.0)
    torch.testing.assert_close(out[0, 0], smooth, atol=1e-4, rtol=0)
    for ringing in (out[0, 1], out[1, 0]):
        assert 0.02 < float(ringing.max()) - 1 < 0.2
    torch.testing.assert_close(out[..., 22:, 0] - out[..., 22:, 39], torch.zeros(2, 2, 26), atol=1e-4, rtol=0)
    turned = band_limited(x.mT, torch.Generator().manual_seed(0), share=1.0)
    assert 0.02 < float(turned[0, 1].max()) - 1 < 0.2 and not torch.allclose(turned[0, 1], out[0, 1].T, atol=1e-3)
    assert torch.equal(band_limited(x, torch.Generator().manual_seed(0), share=0.0), x)
    some = band_limited(x.repeat(200, 1, 1, 1), torch.Generator().manual_seed(0))
    assert 0.2 < (some[::2, 1] != edge).flatten(1).any(1).float().mean() < 0.4


def test_contrast_and_shading_are_varied():
    m = torch.tensor([0.0, 0.25, 0.5]).repeat_interleave(32)[:, None].expand(300, 1, 96, 96)
    out = shaded(m, torch.Generator().manual_seed(0))
    assert not out[:, :, :32].any(), "nothing stays nothing"
    gamma = (out[:, 0, 64] / out[:, 0, 63]).log2().mean(1)  # of neighbours, which are shaded alike
    assert 0.4 < ((gamma - 1).abs() < 0.02).float().mean() < 0.65 and gamma.min() < 0.75 and gamma.max() > 1.35
    factor = out[:, 0, 64:].log()
    assert 0.1 < factor.std((1, 2)).mean() < 0.3 and factor.diff(dim=2).abs().max() < 0.1


def test_patches_have_any_brightness_and_their_parts_are_alike(tmp_path):
    save(tmp_path / "a.nii", head())
    slices = load_slices([tmp_path / "a.nii"], 32)
    assert {min(s.shape[1:]) for s in slices} == {36, 40}
    patches = ComplexPatches(slices, 32)
    batch = patches.batch(256, torch.Generator().manual_seed(0))
    assert batch.x.shape == (256, 2, 32, 32) and not batch.sigma.any() and batch.mask is None
    assert torch.equal(batch.x, patches.batch(256, torch.Generator().manual_seed(0)).x)
    re, im = batch.x.square().mean((0, 2, 3))
    assert float(re / im) == pytest.approx(1, abs=0.25)
    top = torch.quantile(batch.x.square().sum(1).sqrt().flatten(1), 0.99, 1) / 2
    assert top.quantile(0.05) < 0.75 and top.quantile(0.95) > 1.3
    assert 0.3 < batch.x.std() < 1.2, "the spread that the preconditioning expects is 0.5"
    still = ComplexPatches([torch.full((1, 40, 40), 2.0)], 32).batch(300, torch.Generator().manual_seed(0)).x
    brightness = still.square().sum(1).sqrt().mean((1, 2)) / 2
    assert brightness.log().std() == pytest.approx(0.7 / 12**0.5, rel=0.3)


def test_a_prior_is_learnt_and_serves_the_default_sampler(tmp_path, caplog):
    """Zero stays zero, the table has two channels; files to validate on are not learnt from."""
    for i in range(3):
        save(tmp_path / f"in/{i}.nii.gz", head(radius=0.7 + 0.1 * i))
    slice_picture(tmp_path / "in/deep/s.jpg", (48, 44))
    caplog.set_level("INFO")
    how = {"widths": (8, 8), "blocks": (1, 1), "batch": 4, "patch": 16, "device": "cpu"}
    for steps in (4, 6):
        folders, held = [tmp_path / "in"], [tmp_path / "in/1.nii.gz"]
        train.learn(folders, tmp_path / "p", mri=True, validation=held, steps=steps, **how)
    assert "resumed" in caplog.text and "validation PSNR at 25/255: complex" in caplog.text
    config = json.loads((tmp_path / "p/config.json").read_text())
    assert config["network"]["channels"] == [2] and config["units"] == {"scale": 2, "shift": 0}
    card = (tmp_path / "p/README.md").read_text()
    assert "Set aside for validation: 1.nii.gz." in card and "complex MR images" in card and "| complex |" in card
    learnt = load_slices([tmp_path / "in" / name for name in ("0.nii.gz", "2.nii.gz", "deep/s.jpg")], 16)
    assert f"| pictures | {len(learnt)} |" in card
    prior = load_prior(tmp_path / "p")
    assert prior.accepts((2, 33, 50)) and not prior.accepts((1, 33, 50))
    keep = torch.rand(32, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    A = Mask(keep, channels=2)
    y = A(with_phase(torch.rand(1, 1, 32, 40), torch.Generator().manual_seed(0)))
    drawn = restore(Problem(y, A, Gaussian(0.1)), prior, MomentMatching(steps=3), num_samples=2)
    assert drawn.samples.shape == (2, 2, 32, 40) and drawn.samples.isfinite().all()
    table = prior.prior.table
    assert table is not None and table.spectra[2].shape == (18, 2, 17, 17)


def test_validation_takes_complex_images_beyond_one(tmp_path):
    """Bright voxels are not cut off, as those of pictures are."""

    class Perfect(EDMDenoiser):
        def forward(self, x, sigma):
            return clean + 0.01 * torch.ones_like(x)

    clean = torch.full((1, 2, 16, 16), 3.0)
    found = validate(Perfect(UNet((2,), (4, 4), (1, 1), 8)), [clean])
    assert found == {"complex": pytest.approx(-20 * np.log10(0.005), abs=0.01)}
    save(tmp_path / "a.nii", head())
    shown = load_shown([tmp_path / "a.nii"])
    assert len(shown) == 4 and all(torch.equal(a, b) for a, b in zip(shown, load_shown([tmp_path / "a.nii"]), strict=1))
    magnitude = shown[2].square().sum(1).sqrt().numpy()
    assert np.percentile(magnitude, 99) == pytest.approx(2, rel=1e-4)


def truncated(path):
    save(path, head())
    path.write_bytes(path.read_bytes()[:5000])


def garbage(path):
    path.write_bytes(b"nothing of the kind" * 50)


def with_nan(path):
    values = head()
    values[3, 4, 5] = np.nan
    save(path, values)


BAD = {
    "damaged or incomplete NIfTI file": ("a.nii", truncated),
    "damaged or incomplete NIfTI file (Compressed": ("a.nii.gz", truncated),
    "damaged or incomplete NIfTI file (Cannot": ("a.nii", garbage),
    "damaged or incomplete NIfTI file (File": ("a.nii.gz", garbage),
    "of shape (8, 8, 8, 3); wanted a volume": ("a.nii", lambda p: save(p, np.ones((8, 8, 8, 3), np.float32))),
    "values of type complex64": ("a.nii", lambda p: save(p, head().astype(np.complex64))),
    "values that are not finite": ("a.nii", with_nan),
    "values from -": ("a.nii", lambda p: save(p, head() - 300)),
    "all values are 0": ("a.nii", lambda p: save(p, 0 * head())),
    "next to nothing in any slice": ("a.nii", lambda p: save(p, head(radius=0.15))),
    "a spacing of 1 x 2 x 4": ("a.nii", lambda p: save(p, head(), (1.0, 2.0, 4.0))),
    "48x40 is smaller than the 64-pixel patch": ("a.nii", lambda p: save(p, head())),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_volumes_are_left_out_in_words(tmp_path, caplog, said):
    name, write = BAD[said]
    write(tmp_path / name)
    with pytest.raises(InputError, match="none of 1 pictures can be used"):
        load_slices([tmp_path / name], 64)
    assert len(caplog.messages) == 1 and f"{name}: {said}" in caplog.text and "Traceback" not in caplog.text
    if not said.endswith("patch"):
        save(tmp_path / "good.nii", head((80, 80, 80)))
        assert load_slices(find_pictures([tmp_path], FILES), 64)


def test_nibabel_is_asked_for_in_words(tmp_path, monkeypatch):
    save(tmp_path / "a.nii", head())
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r"pip install 'restore-posterior\[mri\]'"):
        read_slices(tmp_path / "a.nii")


@pytest.fixture
def small(inside, monkeypatch):
    monkeypatch.setattr(train, "learn", partial(train.learn, widths=(8, 8), blocks=(1, 1)))


@pytest.mark.usefixtures("small")
def test_the_command_learns_and_says_what_the_prior_is_for(capsys):
    for i in range(2):
        save(f"in/{i}.nii.gz", head(radius=0.7 + 0.1 * i))
    status, out, err = command(capsys, "learn", "in", "--mri", "-o", "p", *FEW, "--validation", "in/1.nii.gz")
    assert (status, out) == (0, "wrote p; use it with restore mri --prior p\n"), err
    assert "Set aside for validation: 1.nii.gz." in Path("p/README.md").read_text()
    photo()
    bad(capsys, "denoise", "photo.png", "--prior", "p", said="wanted (2, None, None) for this prior")


@pytest.mark.usefixtures("small")
def test_what_does_not_fit_is_refused(capsys):
    save("in/a.nii", head())
    learn = ["learn", "in", "--mri", "-o", "p", *FEW]
    bad(capsys, *learn, "--objective", "noise2score", said="are learnt by ambient or sure_score", status=2)
    bad(capsys, *learn, "--objective", "ambient", said="must know how noisy", status=2)
    bad(capsys, *learn, "--noise-only", said="choose one of them", status=2)
    bad(capsys, *learn, "--validation", "in/b.nii", said="no file in/b.nii to validate on", status=2)
    bad(capsys, "learn", "in", "-o", "p", said="no pictures in it", status=2)
    with pytest.raises(FolderEmpty, match=r"\.nii\.gz"):
        Path("empty").mkdir()
        find_pictures([Path("empty")], FILES)
    save_prior(EDMDenoiser(UNet((2,), (4, 4), (1, 1), 8)), Path("mine"))
    with pytest.raises(InputError, match="a prior on pictures; wanted a prior on noise"):
        load_prior("mine", noise=True)

"""A prior on complex MR images from noisy ones alone: what is read, the noise of patches, and what is learnt."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_parts import bad, command

from restore.denoisers.tweedie import Tweedie
from restore.errors import InputError
from restore.learn import train
from restore.learn.mri_noisy import NoisyComplexPatches, load_images, noisy_scans, read_images, white_noise
from restore.learn.sure_score import SUREScore
from restore.learn.validation import measure_spectra, validate_noisy
from restore.priors.base import Denoiser, per_row
from restore.priors.store import load_prior

FEW = ["--steps", "2", "--batch", "2", "--patch", "16"]


def images(count=4, size=(48, 40), sigma=5.0, seed=0):
    """Discs of about 100 with a smooth phase, and white noise of `sigma` in each part, `(count, H, W)`."""
    rng = np.random.default_rng(seed)
    v, u = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    z = 100 * (u**2 + v**2 < 0.8) * np.exp(1j * (u + 2 * v * u)) * np.linspace(0.5, 1, count)[:, None, None]
    return (z + sigma * (rng.standard_normal(z.shape) + 1j * rng.standard_normal(z.shape))).astype(np.complex64)


def test_images_are_read_slice_by_slice_in_one_scale(tmp_path):
    z = images()
    z[0] *= 0.1  # next to nothing
    np.save(tmp_path / "a.npy", z)
    read = read_images(tmp_path / "a.npy")
    assert len(read.slices) == 3 and read.shape == (3, 48, 40)
    for own, one in zip(z[1:], read.slices, strict=True):
        x = torch.complex(*one.pixels).numpy() * one.scale / 2
        np.testing.assert_allclose(x, own, rtol=1e-5, atol=1e-4)
        assert np.percentile(np.abs(own), 99) == pytest.approx(one.scale, rel=1e-5)
    np.save(tmp_path / "b.npy", z[1])
    assert torch.equal(read_images(tmp_path / "b.npy").slices[0].pixels, read.slices[0].pixels)


def test_complex_nifti_is_read_as_npy_is(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    z = images()
    np.save(tmp_path / "a.npy", z)
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(z, 0, 2), np.eye(4)), tmp_path / "a.nii.gz")
    both = [read_images(tmp_path / name).slices for name in ("a.npy", "a.nii.gz")]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(*both, strict=True))


def test_the_noise_is_found_in_the_units_of_the_files(tmp_path):
    for i in range(2):
        np.save(tmp_path / f"{i}.npy", images(seed=i, size=(96, 80)))
    law = white_noise(sorted(tmp_path.iterdir()), tmp_path)
    assert law.rho == 0 and law.phi**0.5 == pytest.approx(5, rel=0.05)


def test_patches_carry_the_noise_they_say(tmp_path):
    np.save(tmp_path / "a.npy", images(sigma=5.0) - images(sigma=0.0))  # nothing but noise
    noise = load_images([tmp_path / "a.npy"])
    patches = NoisyComplexPatches([s.pixels for s in noise], 32, [2 * 5 / s.scale for s in noise])
    x, sigma, mask = patches.batch(64, torch.Generator().manual_seed(0))
    assert mask is None and x.shape == (64, 2, 32, 32) and patches.channels == (2,)
    torch.testing.assert_close((x / sigma[:, None, None, None]).std((1, 2, 3)), torch.ones(64), atol=0.08, rtol=0)
    assert float(sigma.max() / sigma.min()) > 1.5, "the brightness is varied"


def test_the_phase_is_turned_by_any_angle():
    ones = torch.stack([torch.ones(16, 16), torch.zeros(16, 16)])
    x = NoisyComplexPatches([ones], 16, [0.1]).batch(400, torch.Generator().manual_seed(0)).x
    z = torch.complex(x[:, 0], x[:, 1])[:, 0, 0]
    assert (z / z.abs()).mean().abs() < 0.15 and 0.6 < float(z.abs().min()) < float(z.abs().max()) < 1.5


class Wiener(Denoiser):
    """Of white images of variance 1."""

    shape, sigma_min, sigma_max = (2, None, None), 0.1, 5.0
    network = type("Network", (), {"channels": (2,)})()

    def forward(self, x, sigma):
        return x / (1 + per_row(sigma, x) ** 2)


def test_the_table_and_the_validation_are_those_of_complex_images():
    """The exact denoiser, whose errors are known, and noise of std 0.5."""
    rng = torch.Generator().manual_seed(100)
    noisy = [(1 + 0.5**2) ** 0.5 * torch.randn(2, 64, 64, generator=rng) for _ in range(8)]
    found = validate_noisy(Wiener(), SUREScore(), [(y[None], 0.5) for y in noisy], Tweedie(0, 0.0625))
    level2 = 0.25 * (1 + 0.15**2)
    assert found["complex"] == pytest.approx(-10 * np.log10(level2 / (1 + level2) / 4), abs=0.3)
    table = measure_spectra(Wiener(), noisy, torch.device("cpu"), 0, sigmas=[0.5] * len(noisy))
    assert table is not None and set(table.spectra) == {2}
    assert float(table.spectra[2][-1].mean()) == pytest.approx(25 / 26, rel=0.15)


def test_of_the_images_some_are_shown(tmp_path):
    np.save(tmp_path / "a.npy", images(8))
    np.save(tmp_path / "b.npy", images(6))
    patches, shown = noisy_scans([tmp_path / "a.npy"], [tmp_path / "b.npy"], Tweedie(0, 25.0), 32)
    assert len(patches.all) == 8
    assert [tuple(x.shape) for x, _ in shown] == [(1, 2, 48, 40)] * 4
    assert all(0.05 < sigma < 0.25 for _, sigma in shown)


@pytest.fixture
def small(inside, monkeypatch):
    monkeypatch.setattr(train, "learn", partial(train.learn, widths=(8, 8), blocks=(1, 1)))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("objective", [None, "ambient"])
def test_the_command_learns_from_noisy_images(capsys, objective):
    Path("in").mkdir()
    for i in range(4):
        np.save(f"in/{i}.npy", images(seed=i))
    told = ["--objective", objective] if objective else []
    status, out, err = command(capsys, "learn", "in", "--mri", "--noise", "5", *told, "-o", "p", *FEW)
    assert status == 0, err
    assert objective or "objective: sure_score" in out
    assert "noise: std 5 of real and imaginary part, in the units of the files, as given" in out
    assert out.endswith("wrote p; use it with restore mri --prior p\n")
    assert load_prior("p").accepts((2, 32, 32))
    assert "(white noise of std 5 in the units of the files)" in Path("p/README.md").read_text()
    assert command(capsys, "learn", "in", "--mri", "--noise", "auto", *told, "-o", "q", *FEW)[0] == 0


@pytest.mark.usefixtures("small")
def test_what_does_not_fit_is_refused(capsys):
    Path("in").mkdir()
    learn = ["learn", "in", "--mri", "-o", "p", *FEW, "--noise"]
    np.save("in/a.npy", np.abs(images()))
    bad(capsys, *learn, "5", said="none of 1 pictures can be used", status=2)
    np.save("in/a.npy", images(sigma=0.0))
    bad(capsys, *learn, "200", said="as strong as the images", status=2)
    bad(capsys, *learn, "poisson:0.1", said="is white", status=2)
    bad(capsys, *learn, "5", "--objective", "noise2score", said="learnt by ambient or sure_score", status=2)
    bad(capsys, *learn, "5", "--clean", "in", said="without clean ones besides", status=2)


BAD = {
    "Keep real and imaginary part": np.abs(images()),
    "of shape (2, 2, 48, 40)": images().reshape(2, 2, 48, 40),
    "not finite": images() * np.nan,
    "all values are 0": 0 * images(),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_images_are_refused_in_words(tmp_path, said):
    np.save(tmp_path / "a.npy", BAD[said])
    with pytest.raises(InputError) as refused:
        read_images(tmp_path / "a.npy")
    assert said in str(refused.value)


def test_a_truncated_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", images())
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:500])
    with pytest.raises(InputError, match="damaged"):
        read_images(tmp_path / "a.npy")


def test_the_bench_makes_images_of_one_noise_and_says_what_is_met(tmp_path, monkeypatch):
    nibabel = pytest.importorskip("nibabel")
    monkeypatch.syspath_prepend(Path(__file__).parent / "bench")
    import noisy_mri as bench

    (tmp_path / "mri/volumes").mkdir(parents=True)
    for name in ("a", bench.VOLUMES[0]):
        volume = np.abs(images(8)).transpose(2, 1, 0)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"mri/volumes/{name}.nii.gz")
    bench.prepare(tmp_path, tmp_path / "out", 0.2)
    assert [p.name for p in sorted((tmp_path / "out/clean").iterdir())] == ["a.npy"], "those set aside are not learnt"
    clean, noisy = (np.load(tmp_path / "out" / f / "a.npy") for f in ("clean", "noisy-0.2"))
    assert (noisy - clean).real.std() == pytest.approx(0.2, rel=0.05)
    text = bench.table({"clean": {"x": 30.0}, "as if clean": {"x": 20.0}, "sure_score": {"x": 29.0}}, 0.2)
    assert "| sure_score | 29.00 dB, 90 % |" in text and "- sure_score, x: 90 %, bar 80 %: met" in text

"""`restore mri` and `restore simulate --operator mri:...`: what is written, what is said, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_parts import bad, command
from PIL import Image
from scan_parts import COILS, SHAPE, head, kspace, maps

from operators.masks import centre_block
from operators.mri import to_channels
from restore.core import restore
from restore.errors import InputError
from restore.modalities.mri import read_scan
from restore.scan_noise import noise_of
from restore.scan_pose import Slice, kept_lines

nibabel = pytest.importorskip("nibabel")

PRIOR = "prior._target_=standin.Local"
FEW = ["--steps", "4", PRIOR, "--samples", "3"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def scan(path="k.npy", lines=None, **options):
    k = kspace(**options)
    if lines is not None:
        k[..., ~lines, :] = 0
    np.save(path, k)
    return k


def every(step, n=SHAPE[0], centre=10):
    at = np.arange(n)
    return (at % step == 0) | (np.abs(at - n // 2) <= centre // 2)


def test_a_scan_becomes_a_volume_its_spread_its_draws_and_a_record(capsys):
    scan(slices=2)
    status, out, _ = command(capsys, "mri", "k.npy", "--accel", "2", *FEW, "-o", "o.nii.gz")
    assert status == 0
    names = {
        "o.nii.gz",
        "o_phase.nii.gz",
        "o_std.nii.gz",
        "o_samples.nii.gz",
        "o_panel.png",
        "o_kspace.png",
        "o.run.json",
    }
    assert {p.name for p in Path().iterdir()} == names | {"k.npy"}  # and nothing hidden is left
    volume = {n: nibabel.load(n).get_fdata() for n in names if n.endswith(".gz")}
    draws = volume["o_samples.nii.gz"]
    assert draws.shape == (*SHAPE[::-1], 2, 3)
    np.testing.assert_allclose(volume["o.nii.gz"], draws.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(volume["o_std.nii.gz"], draws.std(-1, ddof=1), atol=1e-6)
    truth = np.stack([np.abs(head().T), 2 * np.abs(head().T)], -1)
    inside = truth[..., 0] > 0.4
    for s in (0, 1):  # the brightness of each slice comes back, in the units of the file
        assert np.abs(volume["o.nii.gz"][..., s] - truth[..., s])[inside].mean() < 0.2 * (s + 1)
    assert (
        np.abs(np.exp(1j * volume["o_phase.nii.gz"][inside][:, 0]) - np.exp(1j * np.angle(head().T[inside]))).std()
        < 0.3
    )
    record = json.loads(Path("o.run.json").read_text())
    assert record["noise"]["sigma"] == pytest.approx(0.01, rel=0.1)
    assert record["interval"]["is"] == "spread of the samples, not a guarantee"
    assert 0.8 < record["result"]["data_fit"] < 1.6  # of the brighter slice, what the maps cannot explain shows
    assert len(record["slices"]) == 2 and record["result"]["psnr"] > 17  # of a prior that was made up
    for words in ("2 slices, 4 coils", "slice 2, coil 4, y 48, x 40 (guessed", "estimated at the edges",
                  "maps by espirit", "sampled   50 % of k-space, acceleration 2; centre without a gap", "x 40 (y, x)",
                  "spread of the samples, not a guarantee", "data fit", "left out"):  # fmt: skip
        assert words in out, (words, out)


def test_the_measured_lines_are_predicted_and_the_truth_of_all_data_is_shown(capsys):
    scan()
    command(capsys, "mri", "k.npy", "--accel", "2", *FEW, "-o", "o.npy")
    record = json.loads(Path("o.run.json").read_text())["result"]
    assert record["left_out_fit"] > 0.9  # what was left out was not seen
    assert np.load("o_samples.npy").dtype == np.complex64
    np.testing.assert_allclose(np.load("o.npy"), np.abs(np.load("o_samples.npy")).mean(0), rtol=1e-5)
    scan(lines=every(2))
    status, out, _ = command(capsys, "mri", "k.npy", *FEW, "-o", "p.npy")
    assert status == 0 and "left out" not in out and "psnr" not in out


def test_the_scale_of_the_file_does_not_matter(capsys):
    k = scan(lines=every(2))
    command(capsys, "mri", "k.npy", *FEW, "-o", "a.npy")
    np.save("k.npy", 1e-5 * k)
    command(capsys, "mri", "k.npy", *FEW, "-o", "b.npy")
    # other contents, other draws: but as bright, and as sure
    a, b = np.load("a.npy"), np.load("b.npy") * 1e5
    assert np.abs(a - b).mean() < 0.05 * a.max()


def test_unequal_noise_of_the_coils_is_made_one(capsys):
    k, rng = kspace(sigma=0), np.random.default_rng(0)
    mixed = np.array([[1, 0, 0, 0], [0.5, 1, 0, 0], [0, 0, 20, 0], [0, 0, 0, 1]])
    white = rng.standard_normal(k.shape) + 1j * rng.standard_normal(k.shape)
    noise = 0.01 * np.tensordot(mixed, white, 1)
    np.save("k.npy", (k + noise).astype(np.complex64))
    whitening, sigma, _ = noise_of(read_scan("k.npy"), None, range(1), None)
    n = np.tensordot(whitening, noise, 1).reshape(COILS, -1)
    covariance = n @ n.conj().T / n.shape[1] / (2 * sigma**2)
    np.testing.assert_allclose(covariance, np.eye(COILS), atol=0.25)  # known from a twentieth of the points
    command(capsys, "mri", "k.npy", "--accel", "2", *FEW, "-o", "o.npy")
    assert 0.8 < json.loads(Path("o.run.json").read_text())["result"]["data_fit"] < 1.2
    command(capsys, "mri", "k.npy", "--accel", "2", "--noise", "0.01", *FEW, "-o", "p.npy")
    assert json.loads(Path("p.run.json").read_text())["result"]["data_fit"] > 3


def test_stopped_it_goes_on_with_the_next_slice(capsys, monkeypatch):
    scan(slices=3, lines=every(2))
    calls = []

    def stopping(*arguments, **options):
        calls.append(options["file"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return restore(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr("restore.scans.restore", stopping)
        status, _, _ = command(capsys, "mri", "k.npy", *FEW, "-o", "o.npy")
        assert status == 130 and not Path("o.npy").exists()
        status, out, _ = command(capsys, "mri", "k.npy", *FEW, "-o", "o.npy")
    assert status == 0 and "2 of them already done" in out
    assert len(calls) == 4 and len(set(calls)) == 3
    assert not list(Path().glob(".*"))
    status, out, _ = command(capsys, "mri", "k.npy", *FEW, "-o", "o.npy")
    assert "skipped, already done" in out
    command(capsys, "mri", "k.npy", *FEW, "-o", "whole.npy")
    np.testing.assert_array_equal(np.load("whole.npy"), np.load("o.npy"))


def test_other_settings_do_not_go_on_with_what_is_there(capsys, monkeypatch):
    scan(slices=2, lines=every(2))

    def stopping(*arguments, **options):
        if options["file"] % 2:
            raise KeyboardInterrupt
        return restore(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr("restore.scans.restore", stopping)
        assert command(capsys, "mri", "k.npy", *FEW, "-o", "o.npy")[0] == 130
    assert Path(".o.slices").exists()
    status, out, _ = command(capsys, "mri", "k.npy", *FEW, "--seed", "5", "-o", "o.npy")
    assert status == 0 and "already done" not in out


def test_a_replay_makes_the_same_numbers(capsys):
    scan(lines=every(2))
    command(capsys, "mri", "k.npy", *FEW, "-o", "o.npy")
    status, _, _ = command(capsys, "replay", "o.run.json", "-o", "again.npy")
    assert status == 0
    np.testing.assert_array_equal(np.load("again.npy"), np.load("o.npy"))
    scan(lines=every(2), seed=1)
    bad(capsys, "replay", "o.run.json", "-o", "third.npy", said="has changed since", status=2)


def test_slices_png_and_a_file_of_maps(capsys):
    scan(slices=3, lines=every(2, centre=0))
    np.save("maps.npy", maps())
    status, out, _ = command(capsys, "mri", "k.npy", "--coils", "maps.npy", "--slices", "1", *FEW, "-o", "o.png")
    assert status == 0 and "1 (1 to 1)" in out
    assert Image.open("o.png").size == SHAPE[::-1]
    assert Path("o_sample-03.png").exists()
    bad(capsys, "mri", "k.npy", "--coils", "maps.npy", *FEW, "-o", "p.png", said="3 slices; wanted one for a PNG")
    bad(
        capsys,
        "mri",
        "k.npy",
        "--slices",
        "2:5",
        *FEW,
        "-o",
        "p.npy",
        said="slice 4 asked, and it has 3; wanted at most 2",
    )


def test_a_slice_of_zeros_is_left_zero_and_named(capsys):
    k = kspace(slices=3)
    k[1] = 0
    np.save("k.npy", k)
    status, out, _ = command(capsys, "mri", "k.npy", *FEW, "-o", "o.npy")
    assert status == 0 and "slice 1 holds no data" in out
    assert not np.load("o.npy")[1].any() and np.load("o.npy")[2].any()


def test_one_coil(capsys):
    np.save("k.npy", kspace(coils=1)[0])
    status, out, _ = command(capsys, "mri", "k.npy", "--accel", "2", *FEW, "-o", "o.npy")
    assert status == 0 and "its map is taken as one everywhere" in out
    assert json.loads(Path("o.run.json").read_text())["result"]["data_fit"] < 1.3


def test_where_no_coil_sees_anything_there_is_no_answer():
    S = maps()
    S[:, :5] = 0
    posed = Slice(None, 2.0, None, None, None, S, None, None)
    x = posed.images(torch.ones(3, 2, *SHAPE))
    assert not x[:, :5].any() and (x[:, 5:] == 2 + 2j).all()


def test_a_prior_that_does_not_fit_is_told(capsys):
    np.save("k.npy", kspace())
    words = "prior._target_=scan_parts.Sure"
    _, out, _ = command(capsys, "mri", "k.npy", "--steps", "4", words, "--samples", "2", "-o", "o.npy")
    assert "does NOT seem to fit" in out
    _, out, _ = command(capsys, "mri", "k.npy", *FEW, "-o", "p.npy")
    assert "no sign that it does not fit" in out


@pytest.mark.parametrize("name", ["photo.png", "volume.nii.gz", "k.npy"])
def test_simulated_scans_have_a_truth_that_comes_back(capsys, name):
    if name == "photo.png":
        Image.fromarray(np.uint8(255 * np.abs(head()))).save(name)
    elif name == "volume.nii.gz":
        nibabel.save(nibabel.Nifti1Image(np.abs(head()).T[..., None].repeat(2, -1), np.eye(4)), name)
    else:
        np.save(name, kspace(sigma=1e-4))
    status, out, _ = command(
        capsys, "simulate", "--operator", "mri:R=2", "--noise", "0.01", "--input", name, "-o", "m"
    )  # fmt: skip
    assert status == 0 and "restore mri" in out
    stem = name.split(".")[0]
    k, truth = np.load(f"m/scans/{stem}.npy"), np.load(f"m/truths/{stem}.npy")
    slices = 2 if name.startswith("volume") else 1
    assert k.shape == (slices, 4 if name == "k.npy" else 8, *SHAPE) and truth.shape == (slices, *SHAPE)
    assert 0.45 < (k != 0).any((0, 1)).mean() < 0.55
    np.testing.assert_allclose(np.abs(truth[0]), np.abs(head()), atol=0.06)
    words = ["mri", f"m/scans/{stem}.npy", "--axes", "slice,coil,y,x", "--ref", f"m/truths/{stem}.npy"]
    status, out, _ = command(capsys, *words, *FEW, "-o", "o.npy")
    assert status == 0 and "psnr" in out
    record = json.loads(Path("o.run.json").read_text())
    assert record["noise"]["sigma"] == pytest.approx(0.01, rel=0.3)
    bad(capsys, "compare", "m", "-o", "r", said="restore them one by one", status=2)


def test_simulate_refuses_what_has_no_truth(capsys):
    scan(lines=every(2))
    words = ["simulate", "--noise", "0.01", "--input", "k.npy", "-o", "m", "--operator"]
    bad(capsys, *words, "mri:R=2", said="not sampled")
    bad(capsys, *words, "mri:R=1", said="acceleration above 1", status=2)
    bad(capsys, *words, "mri:", said="acceleration above 1", status=2)


def test_simulate_says_that_some_could_not_be_measured(capsys):
    Path("in").mkdir()
    Image.fromarray(np.uint8(255 * np.abs(head()))).save("in/a.png")
    Path("in/b.png").write_bytes(b"no picture")
    words = ["simulate", "--noise", "0.01", "--input", "in", "-o", "m", "--operator", "mri:R=2"]
    status, out, err = command(capsys, *words)
    assert status == 1 and "1 scan measured" in out and "in/b.png" in err and Path("m/scans/a.npy").exists()


def test_what_an_acceleration_keeps():
    for accel in ("4", "2.5"):
        mask = torch.from_numpy(kept_lines((96, 40), accel, "y", torch.Generator().manual_seed(0)))
        assert mask.all(1).sum() == round(96 / float(accel)) and set(mask.sum(1).tolist()) == {0, 40}
        rows, columns = centre_block(mask)
        assert rows.stop - rows.start >= 12 and columns == slice(0, 40)
    mask = torch.from_numpy(kept_lines((96, 40), "2x2", "y", torch.Generator()))
    assert centre_block(mask)[1].stop - centre_block(mask)[1].start >= 24 and 0.25 < mask.float().mean() < 0.5


BAD = [
    (["--accel", "0.5"], "not an acceleration", 2),
    (["--accel", "many"], "not an acceleration", 2),
    (["--mask", "none.npy"], "no such file for --mask", 2),
    (["--coils", "none.npy"], "no such file for --coils", 2),
    (["--slices", "3:1"], "holds no slice", 2),
    (["-o", "o.dcm"], "no kind of volume", 2),
    (["-o", "k.npy"], "is an input", 2),
    (["prior.name=nothing", "prior._target_=restore.priors.store.load_prior"], "no prior of that name", 2),
    (["prior._target_=scan_parts.Grey"], "complex pictures of", 1),
    (["--accel", "40"], "fewer than the", 1),
]


@pytest.mark.parametrize(("words", "said", "status"), BAD, ids=lambda v: str(v)[:20])
def test_what_cannot_be_done_is_said_at_once(capsys, words, said, status):
    scan()
    bad(capsys, "mri", "k.npy", PRIOR, "--steps", "2", *words, said=said, status=status)


def test_bad_scans_are_refused_in_words(capsys):
    def refused(said, *words):
        bad(capsys, "mri", "k.npy", *FEW, *words, "-o", "o.npy", said=said)

    scan(lines=every(2, centre=0))
    refused("no centre lines: 1 around zero frequency without a gap, in slice 0; wanted at least 12")
    k = scan()
    np.save("mask.npy", np.ones((30, 30)))
    refused("a mask of 30 x 30; wanted 48 x 40", "--mask", "mask.npy")
    k[:, 17] = np.nan
    np.save("k.npy", k)
    refused("1 of 48 lines of slice 0 (y = 17)")
    k = kspace()
    k[2] = 0
    np.save("k.npy", k)
    refused("nothing from coil 2 (counted from 0)")
    k[2] = k[1]
    np.save("k.npy", k)
    refused("coils that are copies")
    scan(lines=every(2))
    np.save("mask.npy", ~every(2))
    refused("are zero in the scan: not sampled", "--mask", "mask.npy")
    refused("no trajectory; wanted points off the grid for --matrix", "--matrix", "48,40")
    np.save("maps.npy", np.full((4, *SHAPE), np.nan))
    refused("maps.npy: coil maps: NaN", "--coils", "maps.npy")
    np.save("maps.npy", np.zeros((4, *SHAPE)))
    refused("maps.npy: coil maps: zero everywhere", "--coils", "maps.npy")
    np.save("k.npy", np.abs(kspace()))
    refused("real numbers; wanted k-space")
    np.save("k.npy", np.zeros((0, *SHAPE), np.complex64))
    refused("zero coils")
    assert COILS == 4


def test_one_bad_scan_does_not_stop_the_others(capsys):
    scan("a.npy", lines=every(2))
    np.save("b.npy", np.zeros((4, *SHAPE), np.complex64))
    status, out, err = command(capsys, "mri", "b.npy", "a.npy", *FEW, "-o", "out/")
    assert status == 1 and "b.npy: all of it is zero" in err
    assert Path("out/a.nii.gz").exists() and "1 restored, 0 already done, 1 failed" in out


def radial(spokes=60):
    """K-space `(coil, spoke, sample)` and where it was sampled, x before y, in cycles per pixel."""
    from operators.nufft import NUFFT

    radius, angles = np.linspace(-0.5, 0.49, 64), np.pi * np.arange(spokes) / spokes
    points = np.stack([np.outer(np.cos(angles), radius), np.outer(np.sin(angles), radius)], -1)
    E = NUFFT(torch.from_numpy(points[..., ::-1].reshape(-1, 2).copy()), (2 * COILS, *SHAPE))
    seen = to_channels(torch.from_numpy(maps() * head()))[None].double()
    y = E(seen)[0].reshape(COILS, 2, *points.shape[:2]).numpy()
    y += 0.01 * np.random.default_rng(0).standard_normal(y.shape)
    return (y[:, 0] + 1j * y[:, 1]).astype(np.complex64), points


def test_a_radial_scan(capsys):
    pytest.importorskip("finufft")
    k, points = radial()
    np.savez("k.npz", kspace=k, trajectory=points)
    status, out, _ = command(capsys, "mri", "k.npz", "--matrix", "48,40", *FEW, "-o", "o.npy")
    assert status == 0 and "off the grid" in out
    inside = np.abs(head()) > 0.4
    assert np.abs(np.load("o.npy")[0] - np.abs(head()))[inside].mean() < 0.1
    bad(capsys, "mri", "k.npz", "--matrix", "48,40", "--accel", "2", *FEW, "-o", "p.npy", said="points off the grid")


@pytest.mark.parametrize("scale", [1, 2 * np.pi, 64])
def test_a_trajectory_without_a_size_gets_one_that_holds_the_head(scale):
    pytest.importorskip("finufft")
    k, points = radial(spokes=100)
    np.savez("k.npz", kspace=k, trajectory=scale * points)
    found = read_scan("k.npz")
    assert "no size of the picture is given" in found.notes[0] and found.shape[0] == found.shape[1]
    assert found.shape == (64, 64) if scale == 64 else 40 <= found.shape[0] <= 60  # the head is 40 pixels high
    away = np.abs(points).max(-1) > 0.1
    np.savez("k.npz", kspace=k[:, away], trajectory=scale * points[away])
    if scale != 64:
        with pytest.raises(InputError, match="leaves out the centre"):
            read_scan("k.npz")


def test_the_prior_that_is_asked_for_is_the_one_that_is_used(capsys):
    scan()
    status, _, err = command(capsys, "mri", "k.npy", "--accel", "2", "--prior", "photos")
    assert status == 1 and "for this prior" in err

"""Intervals of scans: what was fitted is what is written; and the trial on lines that were left out."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_parts import bad, command
from scan_parts import COILS, SHAPE, Sees, head, kspace, maps

from operators.mri import sense, to_channels
from operators.noise import Gaussian
from operators.random import generator
from restore.cli.scanning import fits, tried
from restore.intervals import Interval
from restore.modalities.mri import fft2
from restore.problem import Problem
from restore.samplers.ddnm import DDNM
from restore.scan_full import body_of, scanned
from restore.scan_interval import half_width, kind_of, predicted
from restore.scan_judge import judged_slice
from restore.scan_pose import Slice
from restore.scan_trial import left_out, trial
from restore.uncertainty.calibration import Calibration, Condition, Entry, normal_factor, spread

nibabel = pytest.importorskip("nibabel")
FEW = ["--steps", "4", "prior._target_=standin.Local", "--samples", "3"]
LINES = np.broadcast_to(((np.arange(48) % 3 == 0) | (abs(np.arange(48) - 24) < 8))[:, None], SHAPE)
POINTS = (np.indices(SHAPE) % 2 == 0).all(0) | ((abs(np.indices(SHAPE) - np.array([24, 20])[:, None, None]) < 8).all(0))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def calibrated(capsys, operator="mri:R=2"):
    volume = np.stack([np.abs(head()).T * s for s in (1.0, 0.0, 1.2)], -1)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), "v.nii.gz")
    words = ["--operator", operator, "--noise", "0.05", "--input", "v.nii.gz", "-o", "m", "--quiet"]
    assert command(capsys, "simulate", *words)[0] == 0
    return command(capsys, "calibrate", "m", "--level", "0.6", "-o", "cal.json", *FEW)


def restored(capsys, *words):
    scan = ["mri", "m/scans/v.npy", "--axes", "slice,coil,y,x", "--noise", "0.06", "-o", "o.npy", "--overwrite"]
    status, out, err = command(capsys, *scan, *FEW, *words)
    assert (status, err) == (0, "")
    return out, json.loads(Path("o.run.json").read_text())


def test_the_map_is_the_interval_that_was_fitted_on_slices_that_hold_something(capsys):
    status, out, err = calibrated(capsys)
    assert (status, err) == (0, "") and out.count("its 60 % covers") == 2  # one of the three slices is empty
    entry = Calibration.load(Path("cal.json")).entries[-1]
    c = entry.condition
    assert (c.verb, c.kind, c.draws, entry.pictures) == ("mri", "lines left out, several coils", 3, 2)
    assert c.strength == pytest.approx(0.5, abs=0.02) and c.sigma == pytest.approx(0.05, rel=0.2)
    out, record = restored(capsys, "--calibration", "cal.json", "--ref", "m/truths/v.npy")
    assert "calibrated: mean +- map covers 60 % of pixels on average; here it covers" in out
    assert record["interval"]["factor"] == entry.factor and 0.5 < record["result"]["covered"] < 0.98
    draws = np.abs(np.load("o_samples.npy"))
    truth, half, slices = np.abs(np.load("m/truths/v.npy")), np.load("o_std.npy"), record["slices"]
    for s in (0, 2):
        scale = slices[s]["scale"]
        std, sigma = spread(draws[:, s].std(0, ddof=1)[None] / scale)[0], record["noise"]["sigma"] / scale
        wanted = scale * entry.factor * sigma * (std / sigma) ** entry.power
        np.testing.assert_allclose(half[s], wanted, rtol=1e-4)
        inside = body_of(truth[s])
        covered = (np.abs(truth[s] - draws[:, s].mean(0)) <= half[s])[inside].mean()
        assert covered == pytest.approx(slices[s]["covered"], abs=1e-3)


def test_what_does_not_fit_is_a_spread_and_the_reason_is_said(capsys):
    calibrated(capsys)
    k = np.load("m/scans/v.npy")
    one = (k != 0).any((0, 1))
    one[np.flatnonzero(one.any(1))[0], 3] = False
    np.save("one.npy", one)
    for words, said in (
        (["--slices", "0"], "the calibration of brain-mri does not fit: it is for another prior"),
        (["--slices", "0", "--calibration", "cal.json", "--mask", "one.npy"], "nothing for points left out"),
    ):
        out, record = restored(capsys, *words)
        assert said in out and "spread of the samples, not a guarantee" in out
        assert record["interval"]["factor"] is None
        draws = np.abs(np.load("o_samples.npy"))
        np.testing.assert_allclose(np.load("o_std.npy"), draws.std(0, ddof=1), atol=1e-6)
    bad(capsys, "mri", "m/scans/v.npy", "--calibration", "none.json", *FEW, said="no such file", status=2)


def test_a_replay_asks_for_the_same_calibration(capsys):
    calibrated(capsys)
    restored(capsys, "--calibration", "cal.json", "--slices", "0")
    assert command(capsys, "replay", "o.run.json", "-o", "again.npy")[0] == 0
    np.testing.assert_array_equal(np.load("again_std.npy"), np.load("o_std.npy"))
    Path("cal.json").write_text(Path("cal.json").read_text() + " ")
    bad(capsys, "replay", "o.run.json", "-o", "third.npy", said="calibration", status=2)


def test_a_full_scan_is_predicted_with_its_noise(capsys):
    np.save("k.npy", kspace(sigma=0.1))
    _, out, _ = command(capsys, "mri", "k.npy", "--accel", "2", *FEW, "-o", "o.npy")
    result = json.loads(Path("o.run.json").read_text())["result"]
    assert "as a full scan would show it, noise and all" in out
    assert result["covered"] > 0.7 and result["shown_psnr"] > 20, result


def posed(used, sigma, x):
    S, parts = maps(), sigma * np.random.default_rng(0).standard_normal((2, COILS, *SHAPE))
    k = (fft2(S * x) + parts[0] + 1j * parts[1]).astype(np.complex64)
    A = sense(torch.from_numpy(used.copy()), torch.from_numpy(S))
    y = to_channels(torch.from_numpy(k))[None, :, torch.from_numpy(used.copy())]
    return Slice(Problem(y, A, Gaussian(sigma)), 1.0, k, used, ~used, S, k[0], None)


def test_half_widths_of_anatomy_and_noise_add_up_as_variances():
    s = posed(LINES, 0.3, head())
    draws = np.stack([(1 + 0.1 * i) * head() for i in (-1, 0, 1)])
    raw = SimpleNamespace(entry=None, level=None)
    _, half = predicted(s, draws, raw)
    each, variance = scanned(s, draws)
    wanted = normal_factor(0.9) * np.sqrt(each.var(0, ddof=1) + variance.mean(0))
    np.testing.assert_allclose(half, wanted, rtol=1e-4)
    assert predicted(s, draws[:1], raw)[1] is None


def test_half_widths_of_scans_are_the_same_in_any_units():
    entry = Entry(Condition("mri", "lines left out, one coil", 0.5, 0.1, 4, {}, "p"), 2.0, 0.5, 10, 0.5, None, 0.1)
    std = np.random.default_rng(0).random(SHAPE)
    one, thousand = (half_width(Interval(entry, 0.9, ""), c * std, c * 2.0, c * 0.3) for c in (1, 1000))
    np.testing.assert_allclose(one, 2 * 2 * 0.15 * (spread(std[None] / 2)[0] / 0.15) ** 0.5, rtol=1e-5)
    np.testing.assert_allclose(thousand, 1000 * one, rtol=1e-5)


def test_only_pixels_of_the_body_are_judged():
    s, truth, rng = posed(LINES, 0.1, head()), head(), np.random.default_rng(0)
    draws = truth + 0.02 * rng.standard_normal((4, *SHAPE))
    condition = Condition("mri", "lines left out, one coil", 0.5, 0.1, 4, {}, "p")
    right = judged_slice(condition, s, draws, truth, 0.9)
    wrong = judged_slice(condition, s, np.where(body_of(np.abs(truth)), draws, 5), truth, 0.9)
    assert wrong.raw == right.raw > 0.4


@pytest.mark.parametrize(("used", "kind"), [
    (LINES, "lines left out"), (LINES[:, :1] & np.ones(SHAPE, bool), "lines left out"), (POINTS, "points left out"),
    (np.ones(SHAPE, bool), "nothing left out"), (None, "off the grid"),
])  # fmt: skip
def test_the_kind_of_what_was_left_out(used, kind):
    assert kind_of(used, 4) == f"{kind}, several coils" and kind_of(used, 1) == f"{kind}, one coil"
    if used is not None:
        assert kind_of(used.T, 1) == f"{kind}, one coil"


@pytest.mark.parametrize("used", [LINES, LINES.T, POINTS, np.ones(SHAPE, bool)])
def test_a_trial_leaves_out_some_of_what_was_used_and_none_of_the_centre(used):
    out = left_out(used, generator(0))
    assert out.any() and not (out & ~used).any() and out.sum() < 0.3 * used.sum()
    h, w = used.shape
    centre = (slice(h // 2 - 4, h // 2 + 4), slice(w // 2 - 4, w // 2 + 4))
    assert not out[centre].any()
    if used is LINES:
        assert (out == out[:, :1]).all()


def test_a_trial_tells_a_prior_that_helps_from_one_that_harms():
    x = np.where(np.abs(head()) > 0.5, head(), 0)  # with edges
    s, picture = posed(LINES, 0.01, x), to_channels(torch.from_numpy(x)[None])
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))

    def of(s, picture):
        return trial(s, SimpleNamespace(prior=Sees(picture), sampler=DDNM(steps=8), device=torch.device("cpu")), 0)

    good, harm = of(s, picture), of(s, noise)
    assert not good.worse and good.missed < 0.1 < good.without
    assert harm.worse and harm.missed > harm.without
    assert of(posed(LINES, 0.01, 0 * x), picture) is None


def test_what_is_said_of_a_trial():
    result = {"surprise": 1.0, "worse": False, "missed": 0.43, "without": 1.02}
    assert "no sign that it does not fit" in fits(result)
    assert "predicts 57 % of the signal of lines kept from it, without a prior 0 %" in tried(result)
    assert "does NOT seem to fit: it predicts what was measured worse" in fits({**result, "worse": True})

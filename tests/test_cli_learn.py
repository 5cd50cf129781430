"""From noisy pictures alone: `restore denoise --self-supervised` and `restore learn --noise`, and what they refuse."""

import json
import os
import pickle
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from cli_parts import bad, command, holes, photo
from PIL import Image
from safetensors.torch import load
from skimage import data as photographs

from restore.cli import selfsupervising
from restore.denoisers.posterior import load_score
from restore.learn import train
from restore.learn.checkpoint import CHECKPOINT
from restore.learn.trainer import Trainer
from restore.modalities.image import read_picture
from restore.priors.store import load_prior

pytestmark = pytest.mark.usefixtures("inside")
ALONE = ["--self-supervised", "--train-steps", "6"]
FEW = ["--steps", "2", "--batch", "2", "--patch", "16"]
PRIOR = "self-supervised-prior"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(train, "learn", partial(train.learn, widths=(8, 8), blocks=(1, 1)))
    monkeypatch.setattr(selfsupervising, "NETWORK", {"widths": (8, 8), "blocks": (1, 1), "batch": 4})
    monkeypatch.setattr(selfsupervising, "PATCH", 16)
    monkeypatch.setattr(selfsupervising, "EVERY", 3)


def counts(path, gain=0.02, size=(64, 72), top=3000.0, **more):
    """Light of `camera`, counted and stored as floats, 0 to about `top`."""
    x = photographs.camera()[100 : 100 + size[0], 200 : 200 + size[1]] / 255
    y = top * gain * np.random.default_rng(0).poisson(x / gain)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, y.astype(np.float32), **more)
    return y


def weights(folder):
    return load((Path(folder) / "weights.safetensors").read_bytes())


def test_a_folder_is_learnt_from_and_comes_back_as_it_went_in(capsys, monkeypatch):
    """Sizes, depths, colours and folders are mixed, one file is damaged; what is done is not done again."""
    photo("in/a.png", size=(64, 80), sigma=0.1)
    photo("in/deep/b.png", size=(72, 66), sigma=0.1, grey=True)
    y = read_picture("in/a.png").data[1]
    Image.fromarray(np.uint16(y * 65535)).save("in/c.png")
    tifffile.imwrite("in/d.tif", y)
    with_alpha = np.dstack([np.asarray(Image.open("in/a.png")), np.full((64, 80), 99, np.uint8)])
    Image.fromarray(with_alpha).save("in/e.png")
    whole = Path("in/a.png").read_bytes()
    Path("in/broken.png").write_bytes(whole[: len(whole) // 2])
    words = ["denoise", "in", "-o", "out", *ALONE]
    status, out, err = command(capsys, *words)
    assert status == 1 and "5 restored, 0 already done, 1 failed" in out
    assert err.count("broken.png") == 1 and len(err.splitlines()) == 1
    assert "learning from 5 pictures" in out and "noise: Gaussian, std 0." in out and "few data: 5 pictures" in out
    assert "step 3/6: validation PSNR estimated from noisy pictures, at half their size: colour" in out
    for name in ("a.png", "deep/b.png", "c.png", "d.tif", "e.png"):
        before, after = read_picture(f"in/{name}"), read_picture(f"out/{name}")
        assert (after.data.shape, after.depth, after.format) == (before.data.shape, before.depth, before.format)
        assert (before.alpha is None) == (after.alpha is None)
        record = json.loads(Path("out", name).with_suffix(".run.json").read_text())
        assert record["noise"]["is"].startswith("Gaussian") and record["request"]["prior_sha256"]
    assert np.array_equal(read_picture("out/e.png").alpha, read_picture("in/e.png").alpha)
    assert {p.name for p in Path("out", PRIOR).iterdir()} == {
        "README.md",
        "config.json",
        CHECKPOINT,
        "weights.safetensors",
    }
    before = Path("out/a.png").read_bytes()
    monkeypatch.setattr(Trainer, "step", lambda self: pytest.fail("it was learnt before"))
    status, out, _ = command(capsys, *words)
    assert status == 1 and "0 restored, 5 already done, 1 failed" in out
    assert command(capsys, "replay", "out/a.run.json", "-o", "again.png")[0] == 0
    assert Path("again.png").read_bytes() == before
    assert command(capsys, "denoise", "in/a.png", "--prior", f"out/{PRIOR}", "-o", "with.png")[0] == 0
    assert Path("with.png").read_bytes() == before
    photo("in/new.png", size=(64, 64))
    status, _, err = command(capsys, *words)
    assert status == 2 and "other pictures" in err and "Say --overwrite to learn again, or --prior out" in err
    assert len(err.splitlines()) == 1


def test_one_large_picture_is_enough(capsys):
    photo(size=(128, 160), sigma=0.1)
    status, out, err = command(capsys, "denoise", "photo.png", *ALONE, "--json")
    record = json.loads(out)
    assert status == 0 and record["result"]["draws"] == 0 and record["request"]["settings"]["prior"]["rho"] == 0
    assert "learning from 1 picture," in err
    assert {p.name for p in Path().iterdir()} == {
        "photo.png", "photo_denoised.png", "photo_denoised.run.json", f"photo_denoised_{PRIOR}",
    }  # fmt: skip
    assert command(capsys, "denoise", "photo.png", *ALONE, "--quiet", "--overwrite") == (0, "", "")


@pytest.mark.slow
def test_what_is_learnt_takes_noise_away(capsys, monkeypatch):
    """Short as the training is; for Gaussian noise and for counts of light, whose type is found."""
    monkeypatch.setattr(selfsupervising, "NETWORK", {"widths": (16, 32), "blocks": (1, 1), "batch": 8})
    monkeypatch.setattr(selfsupervising, "PATCH", 32)
    photo(size=(192, 256), sigma=0.1)
    photo("truth.png", size=(192, 256), sigma=0)
    y = counts("counts.tif", size=(256, 256))
    words = ["--self-supervised", "--train-steps", "500"]
    status, out, _ = command(capsys, "denoise", "photo.png", *words, "--ref", "truth.png")
    assert status == 0 and "estimated: Gaussian" in out
    psnr = json.loads(Path("photo_denoised.run.json").read_text())["result"]["psnr"]
    assert psnr > 23  # 20.2 before
    status, out, _ = command(capsys, "denoise", "counts.tif", *words)
    assert status == 0 and "noise: Poisson, gain" in out and "estimated: Poisson" in out
    x = photographs.camera()[100:356, 200:456] / 255 * 3000
    got = read_picture("counts_denoised.tif").data[0]
    assert np.square(got - x).mean() < 0.5 * np.square(y - x).mean()
    record = json.loads(Path("counts_denoised.run.json").read_text())
    gain = float(record["noise"]["is"].split("gain ")[1].split(" ")[0])
    assert gain * y.max() == pytest.approx(60, rel=0.25)
    assert 0.5 < record["result"]["data_fit"] < 1.05


@pytest.mark.parametrize("how, last", [("killed", 4), ("ctrl-c", 4), ("ctrl-c", 5)])
def test_a_stopped_training_goes_on_and_gives_the_same(capsys, monkeypatch, how, last):
    photo(size=(64, 80), sigma=0.1)
    words = ["denoise", "photo.png", *ALONE]
    assert command(capsys, *words, "-o", "whole.png")[0] == 0
    step = Trainer.step

    def stopped(self):
        if self.done == last:
            if how == "killed":
                raise SystemExit(137)
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of a step: it is finished first
        return step(self)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", stopped)
            if how == "killed":
                with pytest.raises(SystemExit):
                    command(capsys, *words, "-o", "stopped.png")
            else:
                status, out, err = command(capsys, *words, "-o", "stopped.png")
                assert status == 130 and f"at step {last + 1} of 6" in out and "goes on from here" in err
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    capsys.readouterr()
    done = torch.load(f"stopped_{PRIOR}/{CHECKPOINT}", weights_only=True)["trainer"]["done"]
    assert done == (3 if how == "killed" else last + 1)
    status, out, _ = command(capsys, *words, "-o", "stopped.png")
    assert status == 0 and f"at step {done}" in out
    whole, resumed = (weights(f"{name}_{PRIOR}") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert Path("whole.png").read_bytes() == Path("stopped.png").read_bytes()


def test_ctrl_c_pressed_again_does_not_wait():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), train.ctrl_c_between_steps() as pressed:
            signal.raise_signal(signal.SIGINT)
            assert pressed()
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it waited")
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_noise_or_pictures_are_learnt_anew_with_overwrite(capsys):
    photo(size=(64, 80), sigma=0.1)
    assert command(capsys, "denoise", "photo.png", *ALONE, "--noise", "0.1")[0] == 0
    words = ["denoise", "photo.png", *ALONE, "--noise", "poisson:0.02"]
    status, _, err = command(capsys, *words)
    assert status == 2 and "data_noise 0.1" in err and "--overwrite" in err
    status, out, _ = command(capsys, *words, "--overwrite")
    assert status == 0 and "given: Poisson, gain 0.02" in out
    config = json.loads(Path(f"photo_denoised_{PRIOR}/config.json").read_text())
    assert config["score"] == {"rho": 1.0} and config["rho"] == 1
    assert load_score(f"photo_denoised_{PRIOR}", 1).usual == pytest.approx(0.1, rel=1e-4)
    assert load_score(f"photo_denoised_{PRIOR}", 1).usual == pytest.approx(0.1, rel=1e-4)
    command(capsys, "learn", "photo.png", "-o", "split", "--objective", "gr2r", "--noise", "gamma:20", *FEW)
    assert "kind='gamma'" in Path("split/README.md").read_text()
    prior = load_score("split", 2)
    assert prior.told == 1.25**0.5 and prior.usual == pytest.approx((0.5**2 / 20) ** 0.5, rel=1e-4)
    words = ["denoise", "photo.png", "--prior", "split", "-o"]
    assert command(capsys, *words, "with.png", "--noise", "gamma:20")[0] == 0
    assert "Gamma" in json.loads(Path("with.run.json").read_text())["noise"]["is"]


class Trap:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return open, ("sprung", "w")


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "damaged, 1000 bytes"),
        (lambda path: path.write_bytes(pickle.dumps(Trap())), "damaged"),
        (lambda path: torch.save({"run": Trap()}, path), "damaged"),
        (lambda path: torch.save({"weights": torch.ones(2)}, path), "no checkpoint of a run"),
        (lambda path: torch.save([1, 2], path), "damaged"),
    ],
    ids=["truncated", "pickled", "code in a zip", "of another program", "a list"],
)
def test_a_bad_checkpoint_is_refused_and_never_executed(capsys, damage, said):
    photo(size=(64, 80), sigma=0.1)
    photo("clean/a.png", size=(20, 20))
    for words in (["denoise", "photo.png", *ALONE], ["learn", "clean", "-o", "mine", *FEW]):
        folder = Path("mine" if words[0] == "learn" else f"photo_denoised_{PRIOR}")
        assert command(capsys, *words)[0] == 0
        damage(folder / CHECKPOINT)
        before = (folder / "weights.safetensors").read_bytes()
        status, _, err = command(capsys, *words)
        assert status == 2 and said in err and f"{folder / CHECKPOINT}" in err, err
        assert not Path("sprung").exists() and (folder / "weights.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_network_is_refused(capsys, monkeypatch):
    photo(size=(64, 80), sigma=0.1)
    assert command(capsys, "denoise", "photo.png", *ALONE)[0] == 0
    monkeypatch.setattr(selfsupervising, "NETWORK", {"widths": (8, 16), "blocks": (1, 1), "batch": 4})
    status, _, err = command(capsys, "denoise", "photo.png", *ALONE)
    assert status == 2 and "widths [8, 8]" in err and "widths [8, 16]" in err
    monkeypatch.setattr("restore.learn.train.check_same_run", lambda old, new, out: None)  # a forged description
    status, _, err = command(capsys, "denoise", "photo.png", *ALONE)
    assert status == 2 and "weights of another network" in err


@pytest.mark.parametrize(
    "words, said",
    [
        (["--train-steps", "5"], "--train-steps is for --self-supervised"),
        ([*ALONE, "--prior", "photos"], "leave out --prior"),
        ([*ALONE, "--samples", "4"], "leave out --samples"),
        ([*ALONE, "--steps", "4"], "say --train-steps"),
        ([*ALONE, "--noise", "poison"], "did you mean poisson?"),
        ([*ALONE, "--noise", "poisson:-1"], "negative"),
        (["--noise", "poisson"], "learn from the pictures by --self-supervised"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_go_together_is_said_before_any_work(capsys, words, said):
    photo()
    bad(capsys, "denoise", "photo.png", *words, said=said, status=2)


def test_pictures_that_nothing_can_be_learnt_from(capsys):
    photo("tiny/a.png", size=(9, 12))
    Path("flat").mkdir()
    Image.fromarray(np.full((64, 64), 100, np.uint8)).save("flat/a.png")
    Image.fromarray(np.full((64, 64), 80, np.uint8)).save("flat/b.png")
    Path("torn").mkdir()
    Path("torn/a.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    Path("minus").mkdir()
    tifffile.imwrite("minus/a.tif", counts("light.tif") - np.float32(50))
    learn = ["-o", "mine", "--objective", "noise2score", *FEW]
    for folder, said, more in (
        ("tiny", "12 x 9 pixels; wanted 16 pixels or more on each side to learn from", []),
        ("flat", "none of 2 pictures can be learnt from, the first because: all values are 0.392", []),
        ("torn", "torn/a.png", []),
        ("minus", "negative values, and poisson noise has none", ["--noise", "poisson"]),
    ):
        bad(capsys, "denoise", folder, "-o", "out", *ALONE, *more, said=said, status=2)
        bad(capsys, "learn", folder, *learn, *(more or ["--noise", "auto"]), said=said, status=2)
    photo("small/a.png", size=(40, 40), sigma=0.1, grey=True)  # too few blocks for a type
    bad(capsys, "denoise", "small", "-o", "out", *ALONE, "--noise", "gamma", said="Give it, as --noise", status=2)
    status, out, _ = command(capsys, "denoise", "small", "-o", "out", *ALONE)
    assert status == 0 and "too few pixels to tell its type, taken for Gaussian" in out


def test_learn_from_noisy_pictures(capsys):
    for i in range(5):
        photo(f"in/{i}.png", size=(34, 72), sigma=0.1, seed=i)
    photo("clean/a.png", size=(20, 20), sigma=0)
    status, out, _ = command(capsys, "learn", "in", "-o", "mine", "--noise", "auto", *FEW, "objective.clip=10")
    assert status == 0 and "noise: Gaussian, std 0." in out and "objective: ambient" in out
    card = Path("mine/README.md").read_text()
    assert "clip=10" in card and "4 noisy pictures (white noise of std 0." in card
    assert load_prior("mine").sigma_min == pytest.approx(0.001)
    assert Path("mine/spectra.safetensors").exists()
    holes(size=(34, 72))
    words = ["inpaint", "in/0.png", "--mask", "holes.png", "--steps", "2", "--samples", "2"]
    assert command(capsys, *words, "--prior", "mine", "-o", "filled.png")[0] == 0
    words = ["learn", "in", "-o", "both", "--noise", "0.1", "--clean", "clean", *FEW]
    assert command(capsys, *words)[0] == 0 and load_prior("both").sigma_min < 0.01


@pytest.mark.parametrize(
    "words, said",
    [
        (["--objective", "sure"], "must know how noisy"),
        (["--objective", "sure", "--noise", "poisson:0.02"], "choose noise2score"),
        (["--objective", "pure", "--noise", "0.1"], "pure is for Poisson noise"),
        (["--objective", "sure", "--noise", "0.1", "--clean", "in"], "sure takes no clean pictures"),
        (["--objective", "sure", "--noise", "25"], "got 25"),
        (["--objective", "ambient", "objective.clap=3"], "did you mean objective.clip?"),
        (["--objective", "ambient", "objective.clip=much"], "a number is wanted"),
        (["--objective", "r2r", "--noise", "0.1", "objective.alpha=2"], "alpha must lie between 0 and 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_learn_refuses_what_cannot_work(capsys, words, said):
    photo("in/a.png", size=(64, 64), sigma=0.1)
    status, _, err = command(capsys, "learn", "in", "-o", "mine", *words, *FEW)
    assert status == 2 and said in err and not Path("mine").exists(), err


@pytest.mark.parametrize("objective", ["sure", "noise2score", "gr2r"])
def test_a_denoiser_of_one_level_is_no_prior_for_samplers(capsys, objective):
    photo("in/a.png", size=(64, 64), sigma=0.1)
    holes(size=(64, 64))
    words = ["learn", "in", "-o", "mine", "--objective", objective, "--noise", "0.1", *FEW]
    status, out, _ = command(capsys, *words)
    assert status == 0 and "at their noise only: it is for `restore denoise`" in out
    for more in (["inpaint", "in/a.png", "--mask", "holes.png"], ["denoise", "in/a.png", "--samples", "2"]):
        status, _, err = command(capsys, *more, "--prior", "mine", "-o", "out.png")
        assert status == 2 and "knows no other level" in err and "--objective ambient" in err
    assert command(capsys, "denoise", "in/a.png", "--prior", "mine", "--noise", "0.1", "-o", "out.png")[0] == 0
    bad(capsys, "denoise", "in/a.png", "--prior", "mine", "--noise", "gamma:50", "-o", "no.png",
        said="mine is for gaussian noise", status=2) if objective != "sure" else None  # fmt: skip

"""What is typed: help, lists and mistyped words answer at once and in words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_parts import PRIOR, ROOT, command, photo

pytestmark = pytest.mark.usefixtures("inside")


def python(*words, **env):
    main_call = "import sys; from restore.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", main_call, *words],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **env},
    )  # fmt: skip
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    words_said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time"))
    return done.returncode, done.stdout, words_said, imported


@pytest.mark.parametrize(
    "words", [["--help"], ["denoise", "--help"], ["denoise", "x.png", "--samles", "3"], ["denoize"]]
)
def test_help_and_usage_errors_load_nothing_heavy(words):
    status, _, _, imported = python(*words)
    assert status == (0 if "--help" in words else 2)
    assert not imported & {"torch", "numpy", "hydra", "omegaconf", "PIL", "skimage"}


def test_a_mistyped_setting_is_answered_before_torch_or_numpy_are_loaded():
    status, _, err, imported = python("denoise", "x.png", "sampler.stesp=3")
    assert status == 2 and "did you mean sampler.steps?" in err
    assert not imported & {"torch", "numpy"}


@pytest.mark.parametrize(
    "words, said",
    [
        (["denois", "x.png"], "did you mean denoise?"),
        (["denoise", "x.png", "--samles", "3"], "did you mean --samples?"),
        (["denoise", "photo.png", "sampler.stesp=3"], "did you mean sampler.steps?"),
        (["denoise", "photo.png", "smpler=ddnm"], "did you mean sampler?"),
        (["denoise", "photo.png", "--sampler", "ddnn"], "did you mean ddnm?"),
        (["denoise", "photo.png", "sampler=ddnn"], "did you mean ddnm?"),
        (["denoise", "photo.png", "--steps", "many"], "not a whole number"),
        (["denoise", "photo.png", "--steps", "0"], "less than 1"),
        (["denoise", "photo.png", "--seed", "-1"], "negative"),
        (["denoise", "photo.png", "--noise", "-0.1"], "negative"),
        (["denoise", "photo.png", "--noise=-12/255"], "negative"),
        (["denoise", "photo.png", "--noise", "0"], "zero"),
        (["denoise", "photo.png", "--noise", "loud"], "not a noise level"),
        (["denoise", "photo.png", "--noise", "1/0"], "not a noise level"),
        (["denoise", "photo.png", "--noise", "nan"], "not finite"),
        (["denoise", "photo.png", "noise.sigma=-0.1"], "negative"),
        (["denoise", "photo.png", "sampler.steps=few"], "sampler.steps"),
        (["denoise", "photo.png", "seed=1,2"], "sweep"),
        (["denoise", "photo.png", "seed=null"], "seed=None: a whole number"),
        (["denoise", "photo.png", "sampler.steps=null"], "sampler.steps=None: a whole number"),
        (["denoise", "photo.png", "device=null"], "device=None"),
        (["denoise", "photo.png", "compile=perhaps"], "compile=perhaps: true or false is wanted"),
        (["denoise", "photo.png", "+sampler.stesp=3"], "did you mean sampler.steps?"),
        (["denoise", "photo.png", "sampler=ddnm", "sampler.eta=3"], "eta must be from 0 to 1, got 3"),
        (["denoise", "photo.png", "noise=poisson", "noise.gain=0.1"], "Gaussian noise only"),
        (["denoise", "photo.png", "operator=blur"], "choose another verb"),
        (["upscale", "photo.png", "operator.factor=2.5"], "operator.factor=2.5: one of 2, 3, 4"),
        (["deblur", "photo.png", "--kernel", "disk:2", "operator.boundary=reflect"], "one of valid, circular"),
        (["denoise", "photo.png", "--device", "gpu"], "device"),
        (["denoise", "photo.png", "--prior", "fotos"], "fotos"),
        (["denoise"], "required"),
        (["denoise", PRIOR], "no picture"),
        (["deblur", "photo.png"], "--kernel"),
        (["deblur", "photo.png", "--kernel", "gauss:2"], "gaussian:SIGMA"),
        (["deblur", "photo.png", "--kernel", "gaussian:-2"], "positive"),
        (["upscale", "photo.png", "-x", "5"], "choose from"),
        (["inpaint", "photo.png", "--mask", "gone.png"], "gone.png"),
        (["simulate", "--operator", "blurr", "--noise", "0.1", "--input", "photo.png", "-o", "m"], "unknown operator"),
        (["simulate", "--operator", "identity", "--noise", "auto", "--input", "photo.png", "-o", "m"], "give a number"),
        (["compare", "photo.png", "-o", "r"], "simulate"),
        (["learn", "nowhere", "-o", "mine"], "nowhere"),
        (["learn", "nowhere", "-o", "mine", "--objective", "dms"], "did you mean dsm?"),
        (["list", "sampler"], "choose from"),
        (["replay", "photo.png"], "not the run.json"),
        ([], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_mistyped_is_said_before_any_work(capsys, words, said):
    photo()
    status, out, err = command(capsys, *words)
    assert status == 2
    assert said in out + err
    assert len(err.splitlines()) <= 1
    assert sorted(p.name for p in Path().iterdir()) == ["photo.png"]


def test_lists_load_no_torch():
    for what, name in (
        ("samplers", "ddnm"),
        ("operators", "blur"),
        ("priors", "restore learn"),
        ("settings", "sampler.steps"),
    ):
        status, out, _, imported = python("list", what)
        assert (status, name in out, "torch" in imported) == (0, True, False)

"""The verbs that do not restore: simulate, compare, sweep, learn, demo, doctor; and the largest picture."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_parts import FEW, PRIOR, ROOT, bad, command, photo
from PIL import Image
from skimage import data as photographs
from standin import Local

import restore.priors.store
from restore.cli.working import tools
from restore.modalities.image import read_picture

pytestmark = pytest.mark.usefixtures("inside")


def test_simulate_compare_and_sweep(capsys):
    photo("truth/a.png", sigma=0)
    photo("truth/deep/b.png", sigma=0, grey=True)
    for name, spec in {"m": "mask:0.5", "b": "blur:gaussian:1.0", "d": "downsample:2"}.items():
        status, out, _ = command(
            capsys, "simulate", "--operator", spec, "--noise", "0.05", "--input", "truth", "-o", name
        )
        assert status == 0 and "to restore them" in out
        told = out.split("to restore them:  restore ")[1].split()
        status, out, _ = command(capsys, *told, *FEW)  # what it says to type works
        assert status == 0 and out.count("psnr") == 2
    status, out, _ = command(capsys, "compare", "m", "--samplers", "ddnm,diffpir", "-o", "report", *FEW)
    assert status == 0 and out.count("| ddnm") == 1
    rows = json.loads(Path("report/table.json").read_text())
    assert len(rows) == 4 and {r["setting"] for r in rows} == {"ddnm", "diffpir"}
    assert all(r["psnr"] >= r["psnr_sample"] for r in rows)  # a mean is never worse than its draws
    assert {p.name for p in Path("report").iterdir()} == {"table.md", "table.csv", "table.json", "panel.png"}
    assert command(capsys, "compare", "m", "--samplers", "ddnm", "--ref", "truth", "-o", "again", *FEW)[0] == 0
    assert json.loads(Path("again/table.json").read_text())[0]["psnr"] == rows[0]["psnr"]
    words = ["sampler=ddnm,diffpir", "sampler.steps=2,3", PRIOR]
    status, out, _ = command(capsys, "sweep", *words, "--input", "truth/a.png", "-o", "swept")
    rows = json.loads(Path("swept/table.json").read_text())
    assert status == 0 and len({r["setting"] for r in rows}) == 4
    assert command(capsys, "sweep", "sampler=ddnm,dffpir", "--input", "truth/a.png")[0] == 2
    status, out, err = command(
        capsys, "sweep", "sampler=ddnm", "sampler.eta=0.5,3", *FEW[2:], "--input", "truth/a.png", "-o", "half"
    )
    assert status == 1 and "eta must be from 0 to 1" in err and out.count("| sampler.eta=0.5") == 1
    status, _, err = command(capsys, "sweep", "sampler=ddnm,diffpir", "--input", "gone.png", "-o", "none")
    assert status != 0 and "gone.png" in err


def test_simulate_does_not_replace_what_it_measures(capsys):
    photo("w/pictures/a.png")
    photo("w/masks/b.png")
    words = ["simulate", "--operator", "mask:0.5", "--noise", "0.05", "-o", "w", "--input"]
    bad(capsys, *words, "w/pictures", said="is an input", status=2)
    bad(capsys, *words, "w/masks/b.png", said="w/masks/b.png is an input", status=2)
    for name in ("a.png", "a.jpg"):
        photo(f"tj/{name}")
    words = ["simulate", "--operator", "identity", "--noise", "0.05", "--input", "tj", "-o", "m"]
    bad(capsys, *words, said="would both become m/pictures/a.png", status=2)


@pytest.mark.parametrize("name, more", [("a.b[1].JPG", []), ("a.webp", []), ("a.bmp", []), ("a.png", ["--float"])])
def test_what_simulate_says_to_type_works_for_every_kind(capsys, name, more):
    photo(f"tj/deep/{name}", sigma=0)
    words = ["simulate", "--operator", "identity", "--noise", "0.05", "--input", "tj", "-o", "m", *more]
    status, out, _ = command(capsys, *words)
    assert status == 0
    status, out, err = command(capsys, *shlex.split(out.split("to restore them:  restore ")[1]), PRIOR)
    assert (status, err) == (0, "") and "psnr" in out
    words = ["compare", "m", "--samplers", "ddnm", "--samples", "1", "--ref", "tj", "-o", "report", *FEW]
    assert command(capsys, *words)[0] == 0


def test_compare_goes_on_where_a_truth_is_missing(capsys):
    for seed, name in enumerate(("a.png", "b.png")):
        photo(f"tj/{name}", sigma=0, seed=seed)
    words = ["simulate", "--operator", "identity", "--noise", "0.05", "--input", "tj", "-o", "m"]
    assert command(capsys, *words)[0] == 0
    Path("tj/a.png").unlink()
    for ref in ([], ["--ref", "tj"]):
        words = ["compare", "m", "--samplers", "ddnm", "--samples", "1", *ref, "-o", "report", *FEW]
        status, _, err = command(capsys, *words)
        assert status == 1 and "tj/a.png" in err and len(err.splitlines()) == 1
        rows = json.loads(Path("report/table.json").read_text())
        assert {row["picture"] for row in rows} == {"b.png"} and Path("report/panel.png").exists()


def test_learn_does_not_replace_what_is_no_prior(capsys):
    photo("proj/pics/a.png")
    Path("proj/README.md").write_text("my project")
    bad(capsys, "learn", "proj/pics", "-o", "proj", said="new folder", status=2)
    Path("proj/weights.safetensors").touch()  # a prior may be learned anew
    status, _, err = command(capsys, "learn", "nowhere", "-o", "proj")
    assert status == 2 and "nowhere" in err and Path("proj/README.md").read_text() == "my project"


def test_simulated_float_data_fit_their_truth_as_the_noise_says(capsys):
    photo("truth.png", sigma=0)
    words = ["simulate", "--operator", "identity", "--noise", "0.1", "--input", "truth.png", "-o", "m"]
    assert command(capsys, *words, "--float")[0] == 0
    residual = read_picture("m/pictures/truth.tif").data - read_picture("truth.png").data
    assert residual.std() == pytest.approx(0.1, rel=0.05)
    assert command(capsys, *words)[0] == 0
    assert read_picture("m/pictures/truth.png").depth == "uint8"


def test_demo(capsys, monkeypatch):
    monkeypatch.setattr(restore.priors.store, "load_prior", Local)
    tools.cache_clear()
    status, out, _ = command(capsys, "demo", "-o", "tried", "--steps", "2")
    tools.cache_clear()
    assert status == 0 and "look at tried/chelsea_restored_panel.png" in out
    wanted = {
        "chelsea_restored.png",
        "chelsea_restored_std.png",
        "chelsea_restored_panel.png",
        "chelsea_restored.run.json",
    }
    assert wanted < {p.name for p in Path("tried").iterdir()}


def test_doctor_says_what_is_wrong(capsys, monkeypatch):
    def missing(name):
        raise FileNotFoundError("no prior 'photos'")

    monkeypatch.setattr(restore.priors.store, "load_prior", missing)
    tools.cache_clear()
    status, out, _ = command(capsys, "doctor")
    tools.cache_clear()
    assert status == 1
    assert "FAIL  prior" in out and "ok    settings" in out


@pytest.mark.slow
def test_thirty_megapixels_within_three_gigabytes():
    rng = np.random.default_rng(0)
    tile = np.moveaxis(photographs.astronaut(), 1, 0)
    x = np.tile(tile, (9, 14, 1))[:4500, :6700] + rng.integers(-10, 10, (4500, 6700, 1))
    Image.fromarray(np.uint8(np.clip(x, 0, 255))).save("large.png", compress_level=1)
    del x
    script = (
        "import resource, sys; from restore.cli import main; status = main(sys.argv[1:]); "
        "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    words = ["denoise", "large.png", "--samples", "2", "--steps", "2", "--quiet", PRIOR]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    status, peak = map(int, done.stdout.split())
    assert status == 0, done.stderr
    assert peak * 1024 < 3e9
    assert Image.open("large_denoised.png").size == (6700, 4500)

"""The command, as a person meets it: in-process where possible, each kind of bad input once."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data as photographs
from standin import Local

import restore.priors.store
import restore.records
from restore.cli import main
from restore.cli.working import tools
from restore.modalities.image import read_picture

PRIOR = "prior._target_=standin.Local"
FEW = ["--steps", "3", PRIOR]
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(capsys, *words):
    """Exit status, stdout and stderr; no traceback may ever be seen."""
    status = main([str(w) for w in words])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def photo(path="photo.png", size=(40, 56), grey=False, sigma=0.05, seed=0):
    x = photographs.astronaut()[20 : 20 + size[0], 180 : 180 + size[1]] / 255
    x = x[..., 1] if grey else x
    noisy = x + sigma * np.random.default_rng(seed).standard_normal(x.shape)
    stored = np.uint8(np.rint(np.clip(noisy, 0, 1) * 255))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored).save(path)
    return stored


def holes(path="holes.png", size=(40, 56), share=0.4):
    missing = np.random.default_rng(1).random(size) < share
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(255 * missing)).save(path)
    return missing


# what is typed


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
        (["denoise", "photo.png", "--sampler", "ddmn"], "did you mean ddnm?"),
        (["denoise", "photo.png", "sampler=ddmn"], "did you mean ddnm?"),
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


# one picture


def test_denoise_writes_the_same_kind_of_file_and_says_what_it_did(capsys):
    noisy = photo()
    status, out, err = command(capsys, "denoise", "photo.png", PRIOR)
    assert (status, err) == (0, "")
    for said in ("56 x 40", "estimated", "one call", "cpu", "seed 0", "data fit", "photo_denoised.png"):
        assert said in out, said
    result = read_picture("photo_denoised.png")
    assert result.data.shape == (3, 40, 56) and result.depth == "uint8"
    assert 0.01 < np.abs(result.data - np.moveaxis(noisy, -1, 0) / 255).mean() < 0.1
    assert sorted(p.name for p in Path().iterdir()) == ["photo.png", "photo_denoised.png", "photo_denoised.run.json"]


def test_samples_bring_their_mean_spread_and_panel(capsys):
    photo()
    status, out, _ = command(capsys, "denoise", "photo.png", "--samples", 3, "--noise", "12/255", "-o", "out.png", *FEW)
    assert status == 0 and "not a guarantee" in out and "given 0.0471 (12/255)" in out
    names = {f"out_sample-0{i}.png" for i in (1, 2, 3)} | {"out_std.png", "out_panel.png"}
    assert {p.name for p in Path().glob("out*")} == names | {"out.png", "out.run.json"}
    samples = np.stack([read_picture(f"out_sample-0{i}.png").data for i in (1, 2, 3)])
    apart = np.abs(samples.mean(0) - read_picture("out.png").data)
    assert np.quantile(apart, 0.97) <= 1 / 255  # but where samples were clipped
    record = json.loads(Path("out.run.json").read_text())
    assert set(record["files"]) == names and record["noise"]["estimated"] is False
    white = float(next(n for n in record["notes"] if "std" in n).split("(65535) is ")[1].split(";")[0])
    spread = read_picture("out_std.png").data[0] * white
    assert np.quantile(np.abs(spread - np.sqrt(samples.var(0, ddof=1).mean(0))), 0.9) < 1 / 255
    assert read_picture("out_panel.png").data.shape[1] > 100


def test_without_samples_a_sampler_gives_the_mean_of_a_few(capsys):
    photo()
    status, out, _ = command(capsys, "denoise", "photo.png", "--sampler", "ddnm", *FEW)
    assert status == 0 and "mean of 4 draws" in out
    status, out, _ = command(capsys, "denoise", "photo.png", "--samples", 1, "-o", "one.png", *FEW)
    assert status == 0 and "one draw" in out
    assert {p.name for p in Path().glob("one*")} == {"one.png", "one.run.json", "one_panel.png"}


def test_the_seed_decides(capsys):
    photo()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert (
            command(capsys, "denoise", "photo.png", "--samples", 1, "--seed", seed, "-o", f"{name}.png", *FEW)[0] == 0
        )
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_inpaint_upscale_and_deblur(capsys):
    photo()
    holes()
    assert command(capsys, "inpaint", "photo.png", "--mask", "holes.png", *FEW)[0] == 0
    assert command(capsys, "upscale", "photo.png", "-x", 3, *FEW)[0] == 0
    assert command(capsys, "deblur", "photo.png", "--kernel", "gaussian:1.5", *FEW)[0] == 0
    assert (
        command(
            capsys, "deblur", "photo.png", "--kernel", "motion:5,30", "--boundary", "circular", "-o", "c.png", *FEW
        )[0]
        == 0
    )
    sizes = {p.name: Image.open(p).size for p in Path().glob("*.png")}
    assert sizes["photo_inpainted.png"] == sizes["photo_deblurred.png"] == sizes["c.png"] == (56, 40)
    assert sizes["photo_upscaled.png"] == (168, 120)


def test_holes_are_filled_and_the_rest_is_kept(capsys):
    x = np.full((40, 56, 3), 90, np.uint8)
    missing = np.zeros((40, 56), bool)
    missing[10:14, 20:25] = True
    x[missing] = 255
    Image.fromarray(x).save("photo.png")
    Image.fromarray(np.uint8(255 * missing)).save("holes.png")
    Image.fromarray(np.uint8(255 * ~missing)).save("kept.png")
    Image.fromarray(np.dstack([x, np.uint8(255 * ~missing)])).save("alpha.png")
    words = ["--noise", "0.01", "--steps", "12", PRIOR]
    assert command(capsys, "inpaint", "photo.png", "--mask", "holes.png", "-o", "a.png", *words)[0] == 0
    assert command(capsys, "inpaint", "photo.png", "--mask", "kept.png", "--invert-mask", "-o", "b.png", *words)[0] == 0
    assert command(capsys, "inpaint", "alpha.png", "-o", "c.png", *words)[0] == 0
    a, b, c = (read_picture(f"{n}.png") for n in "abc")
    assert np.abs(a.data - 90 / 255).max() < 0.15
    assert np.array_equal(a.data, b.data)
    assert np.abs(c.data - 90 / 255).max() < 0.15 and c.alpha.min() == 1


def test_what_stands_in_the_holes_decides_neither_colour_nor_units(capsys):
    missing, grey = holes(), photo(grey=True)[..., None].repeat(3, 2)
    Image.fromarray(np.where(missing[..., None], np.uint8((255, 0, 0)), grey)).save("red.png")
    tifffile.imwrite("far.tif", np.where(missing, np.float32(9999), grey[..., 0] / np.float32(255)))
    for name in ("red.png", "far.tif"):
        words = ["inpaint", name, "--mask", "holes.png", "--noise", "0.05", "-o", f"out_{name}"]
        status, out, _ = command(capsys, *words, *FEW)
        assert status == 0 and "mapped" not in out
    red, far = read_picture("out_red.png").data, read_picture("out_far.tif").data
    assert np.array_equal(red[0], red[1]) and np.array_equal(red[0], red[2])
    assert np.abs(far).max() < 2


def test_alpha_depth_and_grey_come_back(capsys):
    rgb = photo()
    alpha = np.uint8(np.linspace(0, 255, 40 * 56).reshape(40, 56))
    Image.fromarray(np.dstack([rgb, alpha])).save("alpha.png")
    grey16 = (photo("grey.png", grey=True).astype(np.uint16)) * 257
    Image.fromarray(grey16).save("grey16.png")
    Image.fromarray(np.dstack([photo("x.png", grey=True)] * 3)).save("copies.png")
    assert command(capsys, "denoise", "alpha.png", "grey16.png", PRIOR)[0] == 0
    assert np.array_equal(read_picture("alpha_denoised.png").alpha * 255, alpha)
    grey = read_picture("grey16_denoised.png")
    assert grey.depth == "uint16" and grey.data.shape[0] == 1
    status, out, _ = command(capsys, "denoise", "copies.png", PRIOR)
    result = read_picture("copies_denoised.png").data
    assert status == 0 and "grey picture stored as colour" in out
    assert result.shape[0] == 3 and np.array_equal(result[0], result[2])
    assert command(capsys, "denoise", "x.png", PRIOR)[0] == 0
    assert np.array_equal(read_picture("x_denoised.png").data[0], result[0])


def test_float_pictures_in_other_units_are_mapped_and_come_back(capsys):
    x = photo(grey=True, sigma=0).astype(np.float32) / 255
    noisy = x + 0.05 * np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    noisy = (noisy - noisy.min()) / (noisy.max() - noisy.min())
    tifffile.imwrite("unit.tif", noisy)
    tifffile.imwrite("kelvin.tif", 300 + 40 * noisy)
    assert command(capsys, "denoise", "unit.tif", "--noise", "0.05", PRIOR)[0] == 0
    status, out, _ = command(capsys, "denoise", "kelvin.tif", "--noise", "2", PRIOR)
    assert status == 0 and "300 to 340 are mapped" in out
    unit, kelvin = read_picture("unit_denoised.tif"), read_picture("kelvin_denoised.tif")
    assert kelvin.depth == "float32"
    assert np.allclose((kelvin.data - 300) / 40, unit.data, atol=1e-4)
    status, out, _ = command(capsys, "denoise", "kelvin.tif", "-o", "again.tif", PRIOR)
    sigma = json.loads(Path("again.run.json").read_text())["noise"]["sigma"]
    assert 1 < sigma < 4  # in the units of the file


def test_twelve_bits_in_a_file_of_sixteen_are_stretched_for_the_work(capsys):
    x = photo(grey=True).astype(np.uint16)
    Image.fromarray(x * 257).save("full.png")
    Image.fromarray(x * 16).save("dark.png")
    assert command(capsys, "denoise", "full.png", PRIOR)[0] == 0
    status, out, _ = command(capsys, "denoise", "dark.png", PRIOR)
    assert status == 0 and "are mapped" in out
    full, dark = (read_picture(f"{n}_denoised.png").data for n in ("full", "dark"))
    assert np.abs(dark * 65535 / (16 * 255) - full).max() < 0.01
    sigma = [json.loads(Path(f"{n}_denoised.run.json").read_text())["noise"]["sigma"] for n in ("full", "dark")]
    assert sigma[1] * 65535 / (16 * 255) == pytest.approx(sigma[0], rel=0.02)


def test_the_progress_bar_is_for_terminals(capsys, monkeypatch):
    photo()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    status, _, err = command(capsys, "denoise", "photo.png", "--samples", "1", *FEW)
    assert status == 0 and "photo.png [####" in err and "100 %" in err
    assert err.endswith("\r\033[K")  # nothing of it is left
    status, _, err = command(capsys, "denoise", "photo.png", "--quiet", "--overwrite", PRIOR)
    assert (status, err) == (0, "")


def test_replay_gives_the_same_bytes(capsys):
    photo()
    holes()
    words = ["inpaint", "photo.png", "--mask", "holes.png", "--samples", 2, "--seed", 5, *FEW]
    assert command(capsys, *words, "-o", "first.png")[0] == 0
    assert command(capsys, "replay", "first.run.json", "-o", "again/second.png")[0] == 0
    for ending in (".png", "_sample-01.png", "_sample-02.png", "_std.png"):
        assert Path(f"first{ending}").read_bytes() == Path(f"again/second{ending}").read_bytes()
    status, _, err = command(capsys, "replay", "first.run.json", "-o", "photo.png", "--overwrite")
    assert status == 2 and "is an input" in err
    photo(seed=1)
    status, _, err = command(capsys, "replay", "first.run.json", "-o", "third.png")
    assert status == 2 and "photo.png is gone or has changed" in err
    photo()
    holes(share=0.5)
    status, _, err = command(capsys, "replay", "first.run.json", "-o", "third.png")
    assert status == 2 and "holes.png is gone or has changed" in err


def test_json_and_quiet(capsys):
    photo("a.png")
    photo("b.png", seed=1)
    status, out, err = command(capsys, "denoise", "a.png", "b.png", "gone.png", "--json", PRIOR)
    records = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and "gone.png" in err
    assert [Path(r["input"]["path"]).name for r in records] == ["a.png", "b.png"]
    assert all(r["result"]["data_fit"] > 0 for r in records)
    status, out, err = command(capsys, "denoise", "a.png", "-o", "q.png", "--quiet", PRIOR)
    assert (status, out, err) == (0, "", "")


def test_the_truth_scores_the_result(capsys):
    Image.fromarray(photo("truth.png", sigma=0)).save("truth.png")
    photo()
    status, out, _ = command(capsys, "denoise", "photo.png", "--ref", "truth.png", PRIOR)
    truth, result = (read_picture(p).data for p in ("truth.png", "photo_denoised.png"))
    printed = float(next(line for line in out.splitlines() if "psnr" in line).split()[1])
    assert status == 0 and printed == pytest.approx(-10 * np.log10(np.mean((truth - result) ** 2)), abs=0.05)
    photo("small.png", size=(20, 20))
    status, _, err = command(capsys, "denoise", "photo.png", "--ref", "small.png", "-o", "b.png", PRIOR)
    assert status == 1 and "--ref" in err and not Path("b.png").exists()


# bad input


def bad(capsys, *words, said, status=1):
    """The command fails, says `said` in one line and leaves nothing behind."""
    before = sorted(Path().rglob("*"))
    got, _, err = command(capsys, *words)
    assert got == status
    assert said in err, err
    assert len(err.strip().splitlines()) == 1
    assert sorted(Path().rglob("*")) == before
    return err


def test_missing_file(capsys):
    photo("photograph.png")
    bad(capsys, "denoise", "photogarph.png", PRIOR, said="Did you mean photograph.png")


def test_directory_without_pictures(capsys):
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("nothing here")
    bad(capsys, "denoise", "empty", PRIOR, said="no pictures in this folder")


def test_truncated_png(capsys):
    photo("whole.png")
    Path("half.png").write_bytes(Path("whole.png").read_bytes()[:900])
    bad(capsys, "denoise", "half.png", PRIOR, said="damaged or incomplete PNG")


def test_text_named_png(capsys):
    Path("note.png").write_text("dear diary")
    bad(capsys, "denoise", "note.png", PRIOR, said="not a picture")


def test_empty_file(capsys):
    Path("zero.png").touch()
    bad(capsys, "denoise", "zero.png", PRIOR, said="0 bytes")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_or_infinity_in_a_float_tiff(capsys, value):
    x = np.full((40, 50), 0.5, np.float32)
    x[3, 4] = value
    tifffile.imwrite("bad.tif", x)
    bad(capsys, "denoise", "bad.tif", PRIOR, said="NaN")


def test_mask_of_another_size(capsys):
    photo()
    holes(size=(40, 40))
    bad(
        capsys,
        "inpaint",
        "photo.png",
        "--mask",
        "holes.png",
        *FEW,
        said="40 x 40 pixels; wanted the size of the picture",
    )


@pytest.mark.parametrize("value, said", [(255, "everything is missing"), (0, "nothing is missing")])
def test_mask_of_one_colour(capsys, value, said):
    photo()
    Image.fromarray(np.full((40, 56), value, np.uint8)).save("holes.png")
    bad(capsys, "inpaint", "photo.png", "--mask", "holes.png", *FEW, said=said)


def test_inpaint_without_mask_or_alpha(capsys):
    photo()
    bad(capsys, "inpaint", "photo.png", *FEW, said="--mask")


def test_kernel_larger_than_the_picture(capsys):
    photo()
    bad(capsys, "deblur", "photo.png", "--kernel", "gaussian:10", *FEW, said="larger than the picture")


@pytest.mark.parametrize("verb", [["denoise"], ["upscale"], ["denoise", "--samples", "2", "--steps", "3"]])
def test_picture_of_one_pixel(capsys, verb):
    Image.fromarray(np.full((1, 1), 90, np.uint8)).save("dot.png")
    bad(capsys, *verb, "dot.png", PRIOR, said="Give it, as in --noise 0.02")
    status, _, _ = command(capsys, *verb, "dot.png", "--noise", "0.02", "-o", "out.png", PRIOR)
    assert status == 0 and Image.open("out.png").size == ((2, 2) if verb == ["upscale"] else (1, 1))


@pytest.mark.parametrize("out", ["file.txt/out.png", "/proc/here/out.png"])
def test_unwritable_output(capsys, out):
    photo()
    Path("file.txt").touch()
    if out.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    bad(capsys, "denoise", "photo.png", "-o", out, PRIOR, said="cannot write", status=2)


def test_output_of_no_known_kind(capsys):
    photo()
    bad(capsys, "denoise", "photo.png", "-o", "out.gif", PRIOR, said="end it in one of", status=2)


def test_output_equal_to_input(capsys):
    photo()
    Path("link.png").symlink_to("photo.png")
    for out in ("photo.png", "./photo.png", "link.png"):
        bad(capsys, "denoise", "photo.png", "-o", out, PRIOR, said="is an input", status=2)
    photo("folder/a.png")
    bad(capsys, "denoise", "folder", "-o", "folder", PRIOR, said="lies in the input folder", status=2)
    bad(capsys, "denoise", "folder", "-o", "folder/out", PRIOR, said="lies in the input folder", status=2)


def test_two_pictures_for_one_output(capsys):
    photo("one/a.png")
    photo("two/a.png")
    bad(capsys, "denoise", "one/a.png", "two/a.png", "-o", "out", PRIOR, said="would both become", status=2)


def test_somebody_elses_file_is_not_replaced(capsys):
    photo()
    Path("out.png").write_bytes(b"holiday")
    bad(capsys, "denoise", "photo.png", "-o", "out.png", PRIOR, said="not made by restore")
    assert Path("out.png").read_bytes() == b"holiday"
    assert command(capsys, "denoise", "photo.png", "-o", "out.png", "--overwrite", PRIOR)[0] == 0
    Path("out.png").write_bytes(Path("out.png").read_bytes() + b"edited")
    bad(capsys, "denoise", "photo.png", "-o", "out.png", PRIOR, said="was changed since")


def test_an_input_is_not_replaced_by_what_stands_beside_another(capsys):
    photo("a_std.png")
    before = Path("a_std.png").read_bytes()
    assert command(capsys, "denoise", "a_std.png", "-o", "a.png", "--samples", "2", *FEW)[0] == 0
    assert Path("a_std.png").read_bytes() == before and Path("a.png_std.png").exists()
    words = ["denoise", "photo.png", "-o", "b.png", "--samples", "2", "--overwrite", *FEW]
    photo()
    Path("b_sample-02.png").symlink_to("photo.png")
    bad(capsys, *words, said="b_sample-02.png is an input", status=2)
    Path("b_sample-02.png").unlink()
    photo("b_panel.png", sigma=0)
    assert command(capsys, *words, "--ref", "b_panel.png")[0] == 0  # a truth is read too
    assert np.array_equal(
        read_picture("b_panel.png").data, np.moveaxis(photo("x.png", sigma=0), -1, 0) / np.float32(255)
    )
    holes("c_std.png")
    words = ["inpaint", "photo.png", "--mask", "c_std.png", "-o", "c.png", "--samples", "2", "--overwrite", *FEW]
    assert command(capsys, *words)[0] == 0 and read_picture("c_std.png").data.max() == 1
    bad(capsys, *words[:4], "-o", "c_std.png", "--overwrite", *FEW, said="is an input", status=2)
    photo("c2_panel.png")
    assert command(capsys, "denoise", "c2_panel.png", "-o", "c3.png", "--samples", "2", *FEW)[0] == 0
    bad(capsys, "replay", "c3.run.json", "-o", "c2.png", "--overwrite", said="c2_panel.png is an input", status=2)


@pytest.mark.parametrize("name", ["q.run.json", "q_panel.png", "q_std.png", "q_sample-02.png"])
def test_somebody_elses_file_beside_the_output_is_not_replaced(capsys, name):
    photo()
    words = ["--samples", "2", *FEW]
    assert command(capsys, "denoise", "photo.png", "-o", "first.png", *words)[0] == 0
    Path(name).write_bytes(b"holiday")
    bad(capsys, "denoise", "photo.png", "-o", "q.png", *words, said=f"{name}: exists, and was not made by restore")
    bad(capsys, "replay", "first.run.json", "-o", "q.png", said=f"{name}: exists, and was not made by restore")
    assert Path(name).read_bytes() == b"holiday"
    assert command(capsys, "denoise", "photo.png", "-o", "q.png", "--overwrite", *words)[0] == 0


def test_the_record_of_another_result_is_not_replaced(capsys):
    photo()
    assert command(capsys, "denoise", "photo.png", "-o", "q.tif", PRIOR)[0] == 0
    bad(capsys, "denoise", "photo.png", "-o", "q.png", PRIOR, said="q.run.json: belongs to q.tif")


def test_side_files_of_an_earlier_run_do_not_stay_beside_another_result(capsys):
    photo()
    for count, left in ((3, 3), (2, 2), (1, 0)):
        assert command(capsys, "denoise", "photo.png", "-o", "st.png", "--samples", count, *FEW)[0] == 0
        assert len(list(Path().glob("st_sample-*"))) == left
        assert Path("st_std.png").exists() == (left > 0)
    assert command(capsys, "denoise", "photo.png", "-o", "st.png", PRIOR)[0] == 0
    assert {p.name for p in Path().glob("st*")} == {"st.png", "st.run.json"}


def test_side_files_of_an_interrupted_run_are_not_somebody_elses(capsys, monkeypatch):
    photo()
    words = ["denoise", "photo.png", "-o", "q.png", "--samples", "2", *FEW]
    with monkeypatch.context() as patch:
        patch.setattr(restore.records, "panel", lambda *_: 1 / 0)
        assert command(capsys, *words)[0] == 1
    assert Path("q_std.png").exists() and not Path("q.png").exists()
    assert command(capsys, "replay", "q.run.json")[0] == 2
    assert command(capsys, *words)[0] == 0 and Path("q_panel.png").exists()


def test_numbers_that_ran_away(capsys):
    photo()
    words = ["--samples", "1", "--steps", "3", "prior._target_=standin.Broken"]
    bad_words = command(capsys, "denoise", "photo.png", *words)
    assert bad_words[0] == 1 and "NaN" in bad_words[2] and not Path("photo_denoised.png").exists()


def test_a_hole_larger_than_a_tile(capsys):
    photo(size=(300, 300))
    missing = np.ones((300, 300), np.uint8) * 255
    missing[:, :5] = 0
    Image.fromarray(missing).save("holes.png")
    words = ["inpaint", "photo.png", "--mask", "holes.png", "--noise", "0.05", "tile=200", *FEW]
    status, _, err = command(capsys, *words)
    assert status == 1 and "tile=2048" in err


# folders


def test_folders_are_mirrored_and_finished_files_skipped(capsys):
    for name in ("a.png", "deep/b.png", "deep/er/c.png"):
        photo(f"in/{name}")
    status, out, _ = command(capsys, "denoise", "in", "-o", "out", PRIOR)
    assert status == 0 and "3 restored" in out
    made = {p: p.stat().st_mtime_ns for p in Path("out").rglob("*.png")}
    assert {str(p.relative_to("out")) for p in made} == {"a.png", "deep/b.png", "deep/er/c.png"}
    photo("in/d.png", seed=4)
    Path("out/deep/b.png").unlink()
    status, out, _ = command(capsys, "denoise", "in", "-o", "out", PRIOR)
    assert status == 0 and "2 restored, 2 already done" in out
    assert Path("out/a.png").stat().st_mtime_ns == made[Path("out/a.png")]
    status, out, _ = command(capsys, "denoise", "in", "-o", "out", "--noise", "0.1", PRIOR)
    assert "4 restored" in out  # other settings
    photo("in/a.png", seed=9)
    status, out, _ = command(capsys, "denoise", "in", "-o", "out", "--noise", "0.1", PRIOR)
    assert "1 restored, 3 already done" in out  # another picture
    status, out, _ = command(capsys, "denoise", "in", "-o", "out", "--noise", "0.1", "--overwrite", PRIOR)
    assert "4 restored" in out


def test_a_picture_gives_the_same_alone_and_in_a_folder(capsys):
    photo("in/a.png")
    photo("in/b.png", seed=1)
    words = ["--samples", "1", *FEW]
    assert command(capsys, "denoise", "in", "-o", "out", *words)[0] == 0
    assert command(capsys, "denoise", "in/b.png", "-o", "alone.png", *words)[0] == 0
    assert Path("alone.png").read_bytes() == Path("out/b.png").read_bytes()


def test_masks_of_a_folder_have_its_names(capsys):
    for name in ("a.png", "deep/b.png"):
        photo(f"in/{name}")
        holes(f"masks/{name}")
    assert command(capsys, "inpaint", "in", "--mask", "masks", "-o", "out", *FEW)[0] == 0
    holes("masks/a.png", share=0.5)  # another mask is another task
    assert "1 restored, 1 already" in command(capsys, "inpaint", "in", "--mask", "masks", "-o", "out", *FEW)[1]
    assert command(capsys, "replay", "out/deep/b.run.json", "-o", "b.png")[0] == 0
    assert Path("b.png").read_bytes() == Path("out/deep/b.png").read_bytes()
    Path("masks/a.png").unlink()
    status, _, err = command(capsys, "inpaint", "in", "--mask", "masks", "-o", "out2", *FEW)
    assert status == 1 and "masks/a.png" in err and Path("out2/deep/b.png").exists()


def test_pictures_of_one_name_and_two_kinds_do_not_share_side_files(capsys):
    photo("in/a.png")
    Image.fromarray(photo("in/x.png", seed=1)).save("in/a.jpg")
    Path("in/x.png").unlink()
    assert command(capsys, "denoise", "in", "-o", "out", PRIOR)[0] == 0
    assert {p.name for p in Path("out").iterdir()} == {"a.png", "a.jpg", "a.png.run.json", "a.jpg.run.json"}


def test_a_picture_named_as_what_stands_beside_another_is_not_replaced(capsys):
    photo("in/a.png")
    photo("in/a_std.png", seed=1)
    assert command(capsys, "denoise", "in", "-o", "out", "--samples", "2", *FEW)[0] == 0
    record = json.loads(Path("out/a_std.run.json").read_text())
    assert record["input"]["path"].endswith("a_std.png") and read_picture("out/a_std.png").data.shape[0] == 3
    assert read_picture("out/a.png_std.png").data.shape[0] == 1


def test_one_bad_file_among_ten_does_not_stop_the_rest(capsys):
    for i in range(10):
        photo(f"in/{i}.png", seed=i)
    Path("in/4.png").write_bytes(Path("in/4.png").read_bytes()[:500])
    status, out, err = command(capsys, "denoise", "in", "-o", "out", PRIOR)
    assert status == 1 and "9 restored, 0 already done, 1 failed" in out
    assert "in/4.png" in err and len(err.splitlines()) == 1
    assert {p.name for p in Path("out").glob("*.png")} == {f"{i}.png" for i in range(10) if i != 4}


def test_jobs_side_by_side_make_the_same_files(capsys):
    for i in range(2):
        photo(f"in/{i}.png", seed=i)
    Path("in/bad.png").touch()
    words = ["--samples", "2", "--steps", "3", PRIOR]
    assert command(capsys, "denoise", "in", "-o", "one", *words)[0] == 1
    status, out, err = command(capsys, "denoise", "in", "-o", "two", "--jobs", "2", *words)
    assert status == 1 and "2 restored" in out and "bad.png" in err
    for path in Path("one").glob("*.png"):
        assert path.read_bytes() == Path("two", path.name).read_bytes()


def heed_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background inherit that it is ignored


def test_ctrl_c_reaches_every_worker_and_none_of_them_says_a_traceback():
    for i in range(4):
        photo(f"in/{i}.png", size=(150, 160), seed=i)
    words = ["denoise", "in", "-o", "out", "--samples", "2", "--steps", "300", "--jobs", "2", PRIOR]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    run = subprocess.Popen(
        [sys.executable, "-c", "import sys; from restore.cli import main; sys.exit(main())", *words],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(Path().rglob(".*")) and time.monotonic() < deadline:  # spools: the work has begun
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    _, err = run.communicate(timeout=30)
    assert run.returncode == 130 and "Traceback" not in err and "goes on from here" in err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_stopped_in_a_folder_goes_on_where_it_was(capsys, how):
    for i in range(4):
        photo(f"in/{i}.png", size=(150, 160), seed=i)
    words = ["denoise", "in", "-o", "out", "--samples", "2", "--steps", "30", PRIOR]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    run = subprocess.Popen(
        [sys.executable, "-c", "import sys; from restore.cli import main; sys.exit(main())", *words],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not Path("out/0.png").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(how)
    _, err = run.communicate(timeout=30)
    assert "Traceback" not in err
    assert run.returncode == (-how if how == signal.SIGKILL else 130)
    left = {p: p.read_bytes() for p in Path("out").glob("?.png")}
    assert 1 <= len(left) < 4
    for picture in left:
        assert read_picture(picture).data.shape == (3, 150, 160)  # none is half-written
    status, out, _ = command(capsys, *words)
    assert status == 0
    assert f"{4 - len(left)} restored, {len(left)} already done" in out
    assert all(p.read_bytes() == left[p] for p in left)
    assert not [p for p in Path("out").iterdir() if p.name.startswith(".") and how == signal.SIGINT]
    last = ["denoise", "in/3.png", "-o", "alone.png", *words[4:]]
    assert command(capsys, *last)[0] == 0
    assert Path("alone.png").read_bytes() == Path("out/3.png").read_bytes()


# the other verbs


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

"""One picture in, the same kind of file out."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from cli_parts import FEW, PRIOR, command, holes, photo
from PIL import Image

from restore.modalities.image import read_picture
from restore.priors.network import EDMDenoiser, UNet
from restore.priors.spectra import SpectralTable
from restore.priors.store import SPECTRA, save_prior, save_table

pytestmark = pytest.mark.usefixtures("inside")


def test_denoise_writes_the_same_kind_of_file_and_says_what_it_did(capsys):
    noisy = photo()
    status, out, err = command(capsys, "denoise", "photo.png", PRIOR)
    assert (status, err) == (0, "")
    for said in ("56 x 40", "estimated", "one call", "cpu", "seed 0", "data fit", "photo_denoised.png"):
        assert said in out, said
    result = read_picture("photo_denoised.png")
    assert result.data.shape == (3, 40, 56) and result.depth == "uint8"
    assert 0.002 < np.abs(result.data - np.moveaxis(noisy, -1, 0) / 255).mean() < 0.1
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
    assert sigma[1] * 65535 / (16 * 255) == pytest.approx(sigma[0], rel=0.05)  # the stand-in has no units


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


def test_replay_finds_a_prior_that_was_named_from_another_folder(capsys, monkeypatch):
    photo()
    save_prior(EDMDenoiser(UNet((3,), (4, 4), (1, 1), 8)), Path("mine"))
    assert command(capsys, "denoise", "photo.png", "-o", "q.png", "--prior", "mine")[0] == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert command(capsys, "replay", "../q.run.json", "-o", "again.png")[0] == 0
    assert Path("again.png").read_bytes() == Path("../q.png").read_bytes()


def test_replay_wants_the_table_of_the_prior_and_lets_old_records_be(capsys):
    photo()
    save_prior(EDMDenoiser(UNet((3,), (4, 4), (1, 1), 8)), Path("mine"))
    table = torch.full((2, 3, 17, 17), 0.01)
    save_table(SpectralTable(torch.tensor([0.1, 1.0]), {3: table}), Path("mine"))
    few = ["--sampler", "moment_matching", "--steps", "2", "--samples", "1"]
    assert command(capsys, "denoise", "photo.png", "-o", "q.png", "--prior", "mine", *few)[0] == 0
    assert command(capsys, "replay", "q.run.json", "-o", "same.png")[0] == 0
    save_table(SpectralTable(torch.tensor([0.1, 1.0]), {3: 2 * table}), Path("mine"))
    for change in (lambda: None, Path("mine", SPECTRA).unlink):
        change()
        status, _, err = command(capsys, "replay", "q.run.json", "-o", "other.png")
        assert status == 2 and "the prior table is gone or has changed since" in err
    record = json.loads(Path("q.run.json").read_text())
    record["request"]["prior_table_sha256"] = None  # there was none then
    Path("none.json").write_text(json.dumps(record))
    assert command(capsys, "replay", "none.json", "-o", "none.png")[0] == 0
    save_table(SpectralTable(torch.tensor([0.1, 1.0]), {3: table}), Path("mine"))
    assert command(capsys, "replay", "none.json", "-o", "other.png")[0] == 2
    del record["request"]["prior_table_sha256"]  # as records were before tables were looked at
    Path("old.json").write_text(json.dumps(record))
    assert command(capsys, "replay", "old.json", "-o", "old.png")[0] == 0


def test_a_picture_whose_name_looks_like_a_setting(capsys):
    photo("tile=64.png")
    assert command(capsys, "denoise", "tile=64.png", "-o", "q.png", PRIOR)[0] == 0
    assert Path("q.png").exists()


def test_json_and_quiet(capsys):
    photo("a.png")
    photo("b.png", seed=1)
    status, out, err = command(capsys, "denoise", "a.png", "b.png", "gone.png", "--json", PRIOR)
    records = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and "gone.png" in err
    assert [Path(r["input"]["path"]).name for r in records] == ["a.png", "b.png"]
    assert all(r["result"]["data_fit"] > 0 for r in records)
    status, out, _ = command(capsys, "denoise", "a.png", "b.png", "--json", PRIOR)
    assert status == 0 and [json.loads(line) for line in out.splitlines()] == records  # already done, said again
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

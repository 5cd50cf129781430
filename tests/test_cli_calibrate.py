"""`restore calibrate`, and `--calibration` on every verb: what the map is, what it is called, and why."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cli_parts import FEW, PRIOR, bad, command, holes, photo
from PIL import Image
from skimage import data as photographs

import restore.intervals
from restore.jobs import Request
from restore.modalities.image import read_picture
from restore.uncertainty.calibration import Calibration

pytestmark = pytest.mark.usefixtures("inside")
SAMPLES = ["--samples", "3", "--sampler", "ddnm", *FEW]
VERBS = {
    "denoise": ("identity", []),
    "inpaint": ("mask:0.5", ["--mask", "m/masks"]),
    "deblur": ("blur:gaussian:1.0", ["--kernel", "gaussian:1.0"]),
    "upscale": ("downsample:2", ["-x", "2"]),
}


def truths(count=3, size=(32, 40)):
    """Different pictures, grey and colour, as PNG."""
    for i in range(count):
        x = photographs.astronaut()[40 * i : 40 * i + size[0], 120 + 30 * i : 120 + 30 * i + size[1]]
        Path("tj").mkdir(exist_ok=True)
        Image.fromarray(x if i % 2 else x[..., 1]).save(f"tj/{i}.png")


def calibrated(capsys, verb="denoise", noise="0.1", level="0.7", out="cal.json", count=3):
    truths(count)
    words = ["simulate", "--operator", VERBS[verb][0], "--noise", noise, "--input", "tj", "-o", "m", "--quiet"]
    assert command(capsys, *words)[0] == 0
    status, out, err = command(capsys, "calibrate", "m", "--level", level, "-o", out, *SAMPLES)
    assert (status, err) == (0, "")
    return out


@pytest.mark.parametrize("verb", VERBS)
def test_the_map_of_every_verb_is_the_interval_that_was_fitted(capsys, verb):
    out = calibrated(capsys, verb)
    assert "covers 70 % of the values of a further" in out and out.count("| ") > 12
    entry = Calibration.load(Path("cal.json")).entries[-1]
    assert (entry.condition.verb, entry.condition.draws, entry.pictures) == (verb, 3, 3)
    words = [verb, "m/pictures", *VERBS[verb][1], "--noise", "0.1", "--ref", "tj", *SAMPLES]
    status, out, err = command(capsys, *words, "-o", "out", "--calibration", "cal.json")
    said = "half-width of the interval of each pixel"
    assert (status, err) == (0, "") and out.count("calibrated: mean +- map covers 70 % of pixels on average") == 3
    assert out.count(said) == 3
    inside = []
    for i in range(3):
        record = json.loads(Path(f"out/{i}.run.json").read_text())
        assert record["interval"]["level"] == 0.7 and record["interval"]["factor"] == entry.factor
        note = next(n for n in record["notes"] if said in n)
        half = read_picture(f"out/{i}_std.png").data * float(note.split("(65535) is ")[1].split(";")[0])
        error = np.abs(read_picture(f"out/{i}.png").data - read_picture(f"tj/{i}.png").data)
        inside.append(np.mean(error <= half))
    assert 0.7 - 0.02 < np.mean(inside) < 1  # rounding to 8 bits aside


def test_what_does_not_fit_is_a_spread_and_the_reason_is_said(capsys):
    calibrated(capsys)
    photo()
    words = ["denoise", "photo.png", "-o", "a.png", "--overwrite", "--calibration", "cal.json"]
    for more, said in (
        (["--noise", "0.4", *SAMPLES], "nothing near noise 0.4"),
        (["--noise", "0.1", *SAMPLES, "--steps", "4"], "other settings of the sampler: steps=3"),
        (["--noise", "0.1", *SAMPLES, "--sampler", "diffpir"], "another sampler, DDNM"),
        (["--noise", "0.1", *SAMPLES, "prior._target_=standin.Broken"], "numbers that stay finite"),
    ):
        status, out, err = command(capsys, *words, *more)
        assert said in out + err
        assert ("cal.json does not fit" in out and "not a guarantee" in out) or status == 1
    photo(sigma=0.6)  # of a signal in [0, 1]: the file cuts it off
    out = command(capsys, *words, "--noise", "0.1", *SAMPLES)[1]
    assert "of the pixels are black or white" in out and "not a guarantee" in out
    photo()
    holes()
    words = ["inpaint", "photo.png", "--mask", "holes.png", "-o", "b.png", "--calibration", "cal.json"]
    assert "nothing for inpaint" in command(capsys, *words, *SAMPLES)[1]
    status, out, _ = command(capsys, "denoise", "photo.png", "-o", "c.png", "--noise", "0.1", *SAMPLES)
    assert "the calibration of photos does not fit: it is for another prior" in out
    status, out, _ = command(
        capsys, "denoise", "photo.png", "-o", "d.png", "--noise", "0.1", *SAMPLES, "--calibration", "none"
    )
    assert status == 0 and "not a guarantee (calibration turned off)" in out
    assert json.loads(Path("d.run.json").read_text())["interval"]["factor"] is None


def test_the_calibration_beside_the_weights_is_taken_by_itself(capsys, monkeypatch):
    calibrated(capsys)
    monkeypatch.setattr(restore.intervals, "find_prior", lambda name: Path("."))
    monkeypatch.setattr(restore.intervals, "prior_checksum", lambda settings: "same")
    content = json.loads(Path("cal.json").read_text())
    for entry in content["entries"]:
        entry["condition"]["prior"] = "same"
    Path("calibration.json").write_text(json.dumps(content))
    photo()
    words = ["denoise", "photo.png", "-o", "a.png", "--noise", "0.1", *SAMPLES, "--overwrite"]
    assert "to each side, by the calibration of photos: 3 pictures" in command(capsys, *words)[1]
    Path("calibration.json").write_text("{")
    status, _, err = command(capsys, *words)
    assert status == 2 and "calibration.json: cannot be read" in err


def test_it_is_the_same_side_by_side_and_in_a_replay_which_asks_for_the_same_file(capsys):
    calibrated(capsys)
    words = ["denoise", "m/pictures", "--noise", "0.1", *SAMPLES, "--calibration", "cal.json"]
    assert command(capsys, *words, "-o", "one")[0] == 0
    assert command(capsys, *words, "-o", "two", "--jobs", "2")[0] == 0
    for path in Path("one").glob("*.png"):
        assert path.read_bytes() == Path("two", path.name).read_bytes()
    assert "0 restored, 3 already done" in command(capsys, *words, "-o", "one")[1]
    assert command(capsys, "replay", "one/1.run.json", "-o", "again/1.png")[0] == 0
    assert Path("again/1_std.png").read_bytes() == Path("one/1_std.png").read_bytes()
    Path("cal.json").write_text(Path("cal.json").read_text().replace('"raw"', ' "raw"'))
    assert "3 restored" in command(capsys, *words, "-o", "one")[1]  # another calibration is another request
    status, _, err = command(capsys, "replay", "again/1.run.json", "-o", "third.png")
    assert status == 2 and "cal.json is gone or has changed" in err


def test_pictures_whose_noise_was_cut_off_make_no_calibration(capsys):
    truths(3)
    Image.fromarray(np.uint8(255 * (np.indices((32, 40)).sum(0) % 2))).save("tj/3.png")  # checks in black and white
    for noise, left_out, wanted in (("0.1", 1, 0), ("0.3", 4, 1)):
        words = ["simulate", "--operator", "identity", "--noise", noise, "--input", "tj", "-o", noise, "--quiet"]
        assert command(capsys, *words)[0] == 0
        status, out, err = command(capsys, "calibrate", noise, "--level", "0.7", "-o", f"{noise}.json", *SAMPLES)
        assert (status, out.count("of its pixels are black or white")) == (wanted, left_out)
    assert [e.pictures for e in Calibration.load(Path("0.1.json")).entries] == [3, 3]
    assert "there are 0" in err and not Path("0.3.json").exists()


def test_structured_noise_is_a_kind_of_its_own():
    prepared = SimpleNamespace(task=SimpleNamespace(kept=None), noise=SimpleNamespace(sigma=0.1))
    settings = {"operator": {}, "sampler": {}, "prior": {"_target_": "standin.Local"}}
    kinds = [
        restore.intervals.condition(prepared, Request("denoise", settings | {"noise_prior": named}), 3).kind
        for named in (None, "rows")
    ]
    assert kinds == ["white noise", "structured noise"]


def test_a_second_noise_level_is_added_to_the_file(capsys):
    calibrated(capsys)
    calibrated(capsys, noise="0.05")
    entries = Calibration.load(Path("cal.json")).entries
    assert {round(e.condition.sigma, 3) for e in entries} == {0.1, 0.05} and len(entries) == 4
    calibrated(capsys, noise="0.05")
    assert len(Calibration.load(Path("cal.json")).entries) == 4


def test_bad_input(capsys):
    truths(3)
    words = ["simulate", "--operator", "identity", "--noise", "0.1", "--input", "tj", "-o", "m", "--quiet"]
    assert command(capsys, *words)[0] == 0
    photo()
    Path("notes.json").write_text('{"to do": []}')
    Path("empty.json").touch()
    calibrate = ["calibrate", "m", *SAMPLES, "-o"]
    bad(capsys, *calibrate, "cal.json", said="the level 0.9 needs at least 9 pictures", status=2)
    bad(capsys, *calibrate, "cal.json", "--level", "90", said="'90' is not a level", status=2)
    bad(capsys, *calibrate, "cal.json", "--level", "1", said="'1' is not a level", status=2)
    bad(capsys, *calibrate, "notes.json", "--level", "0.5", said="will not be replaced", status=2)
    bad(capsys, *calibrate, "empty.json", "--level", "0.5", said="will not be replaced", status=2)
    bad(capsys, *calibrate, "tj", "--level", "0.5", said="will not be replaced", status=2)
    bad(capsys, "calibrate", "tj", "-o", "cal.json", said="holds no simulate.json", status=2)
    more = ["--level", "0.5", "--samples", "1"]
    bad(capsys, *calibrate, "cal.json", *more, said="one draw has no spread", status=2)
    denoise = ["denoise", "photo.png", "-o", "a.png"]
    for name, said in (("gone.json", "no such file"), ("empty.json", "cannot be read"), ("notes.json", "describe")):
        bad(capsys, *denoise, *SAMPLES, "--calibration", name, said=said, status=2)
    assert command(capsys, *calibrate, "cal.json", "--level", "0.5")[0] == 0
    bad(capsys, *denoise, PRIOR, "--calibration", "cal.json", said="say --samples 8", status=2)
    bad(capsys, *calibrate, "cal.json", "--level", "0.6", said="is for the level 0.5", status=2)
    photo("other/0.png", size=(20, 20))
    for i in (1, 2):
        Image.open(f"tj/{i}.png").save(f"other/{i}.png")
    more = ["--ref", "other", "--level", "0.7"]
    status, _, err = command(capsys, *calibrate, "new.json", *more)
    assert status == 1 and "Check --ref" in err and "needs at least 3 pictures, there are 2" in err
    assert not Path("new.json").exists()


def test_compare_reports_intervals_ranks_and_tarp(capsys):
    calibrated(capsys)
    words = [
        "compare",
        "m",
        "--samplers",
        "ddnm,diffpir",
        "-o",
        "report",
        "--calibration",
        "cal.json",
        "--samples",
        "3",
    ]
    status, out, err = command(capsys, *words, *FEW)
    assert (status, err) == (0, "")
    for said in (
        "covers 90 %",
        "rank of the truth among the 3 draws, 64 pixels of 3 pictures",
        "TARP, 3 pictures, coarse",
    ):
        assert said in out and said in Path("report/table.md").read_text()
    rows = json.loads(Path("report/table.json").read_text())
    for row in rows:
        assert len(row["ranks"]) == 64 and min(row["ranks"]) >= 0 and max(row["ranks"]) <= 3 and row["nearer"] <= 3
        assert (row["calibrated"] is None) == (row["setting"] == "diffpir") and 0 < row["width"] < 2
    ours = [row for row in rows if row["setting"] == "ddnm"]
    assert np.mean([row["calibrated"] for row in ours]) >= 0.7 > np.mean([row["coverage"] for row in ours])
    status, out, _ = command(capsys, *words[:-2], "--samples", "1", *FEW)
    assert status == 0 and "TARP" not in out


def test_holes_are_not_scattered_pixels(capsys):
    calibrated(capsys, "inpaint")
    photo("m/pictures/0.png", size=(32, 40))
    missing = np.zeros((32, 40), bool)
    missing[4:28, 4:28] = True
    Image.fromarray(np.uint8(255 * missing)).save("m/masks/0.png")
    words = ["inpaint", "m/pictures/0.png", "--mask", "m/masks/0.png", "--noise", "0.1", *SAMPLES]
    assert "nothing for holes" in command(capsys, *words, "-o", "a.png", "--calibration", "cal.json")[1]


def test_another_prior_has_another_checksum(tmp_path):
    one = restore.intervals.prior_checksum({"_target_": "restore.priors.store.load_prior", "name": "photos"})
    assert one == restore.intervals.prior_checksum({"name": "photos", "_target_": "restore.priors.store.load_prior"})
    folder = restore.intervals.find_prior("photos")
    for file in ("config.json", "weights.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    settings = {"_target_": "restore.priors.store.load_prior", "name": str(tmp_path)}
    assert restore.intervals.prior_checksum(settings) != one  # the spectra of its errors decide too
    (tmp_path / "spectra.safetensors").write_bytes((folder / "spectra.safetensors").read_bytes())
    assert restore.intervals.prior_checksum(settings) == one
    assert restore.intervals.chosen(Request("denoise", {"prior": settings}, calibration="none")) is None

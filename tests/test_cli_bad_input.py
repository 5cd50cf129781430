"""Bad input, each kind once: status, message, nothing left behind, nobody's file lost."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli_parts import FEW, PRIOR, bad, command, holes, photo
from PIL import Image

import restore.records
from restore.modalities.image import read_picture

pytestmark = pytest.mark.usefixtures("inside")


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

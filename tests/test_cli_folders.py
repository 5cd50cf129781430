"""Folders: mirrored, resumable, one bad file stops nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_parts import FEW, PRIOR, ROOT, command, holes, photo
from PIL import Image

from restore.modalities.image import read_picture

pytestmark = pytest.mark.usefixtures("inside")


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

"""Recordings: read and written as they were, at any rate; what is wrong with a file is said."""

import numpy as np
import pytest

sf = pytest.importorskip("soundfile")

from speech_parts import recording, voice  # noqa: E402

from restore.errors import InputError, OutputError  # noqa: E402
from restore.modalities.resampling import Resampler  # noqa: E402
from restore.modalities.speech import list_recordings, read_recording, write_recording  # noqa: E402


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name, subtype", [
    ("a.wav", "PCM_U8"), ("a.wav", "PCM_16"), ("a.wav", "PCM_24"), ("a.wav", "PCM_32"), ("a.wav", "FLOAT"),
    ("a.flac", "PCM_16"), ("a.flac", "PCM_24"), ("a.ogg", "VORBIS"), ("a.mp3", "MPEG_LAYER_III"),
])  # fmt: skip
def test_a_recording_comes_back_as_it_was(tmp_path, name, subtype):
    before = recording(name, rate=22050, channels=2, subtype=subtype)
    r = read_recording(name)
    assert (r.rate, r.channels, r.subtype) == (22050, 2, subtype)
    again = tmp_path / ("b" + name[1:])
    write_recording(again, (block for _, block in r.blocks()), 2, r.rate, r)
    after, info = sf.read(again, always_2d=True)[0], sf.info(again)
    assert (info.samplerate, info.channels, info.subtype) == (22050, 2, subtype)
    assert after.shape == before.shape  # to the sample
    lossy = subtype in ("VORBIS", "MPEG_LAYER_III")
    # 32 bits are more than single precision holds.
    tolerance = 0.02 if lossy else 2.0**-24 if subtype == "PCM_32" else 0.0
    assert np.sqrt(np.square(after - before).mean()) <= tolerance


def test_the_loudest_and_the_lowest_sample_are_not_moved(tmp_path):
    x = np.array([[-1.0], [1 - 2.0**-15], [0.5], [-0.5], [2.0**-15]])
    recording("a.wav", x=x, subtype="PCM_16")
    r = read_recording("a.wav")
    write_recording(tmp_path / "b.wav", [r.samples], 1, 16000, r)
    assert np.array_equal(sf.read("b.wav", dtype="int16")[0], sf.read("a.wav", dtype="int16")[0])


def test_nothing_is_clipped_in_writing(tmp_path):
    recording("a.wav", subtype="PCM_16")
    r = read_recording("a.wav")
    with pytest.raises(ValueError, match="do not fit into 16 bits"):
        write_recording(tmp_path / "b.wav", [np.full((5, 1), 1.01, np.float32)], 1, 16000, r)
    assert not (tmp_path / "b.wav").exists()


def test_title_and_artist_stay(tmp_path):
    with sf.SoundFile("a.flac", "w", 16000, 1) as file:
        file.title, file.artist = "A talk", "Somebody"
        file.write(voice())
    r = read_recording("a.flac")
    write_recording(tmp_path / "b.flac", [r.samples], 1, 16000, r)
    with sf.SoundFile("b.flac") as file:
        assert (file.title, file.artist) == ("A talk", "Somebody")


def test_a_format_that_does_not_take_a_rate_is_said(tmp_path):
    recording("a.wav", rate=96000, channels=6)
    r = read_recording("a.wav")
    with pytest.raises(OutputError, match=r"6 channels of 96000 Hz cannot be written as MP3.*wav"):
        write_recording(tmp_path / "b.mp3", [r.samples], 6, 96000, r)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_what_is_no_recording_is_said(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("This is no sound at all, whatever its name.")
    sf.write("none.wav", np.zeros((0, 1)), 16000)
    recording("whole.wav")
    whole = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "half.wav").write_bytes(whole[: len(whole) // 2])
    recording("whole.flac")
    whole = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "half.flac").write_bytes(whole[: len(whole) // 2])
    said = {
        "empty.wav": "empty file", "text.wav": "cannot be read as audio", "none.wav": "no samples",
        "half.wav": "truncated", "half.flac": "truncated|cannot be read", "away.wav": "no such file", ".": "a folder",
    }  # fmt: skip
    for name, words in said.items():
        with pytest.raises(InputError, match=words):
            read_recording(tmp_path / name)


def test_a_file_is_judged_by_its_contents(tmp_path):
    recording("a.flac")
    (tmp_path / "a.flac").rename(tmp_path / "a.wav")
    assert read_recording("a.wav").format == "FLAC"


def test_recordings_of_a_folder(tmp_path):
    (tmp_path / "in/.hidden").mkdir(parents=True)
    for name in ("in/b.WAV", "in/a.flac", "in/.hidden/c.wav", "in/.d.wav"):
        recording(name, seconds=0.01, format="WAV")
    (tmp_path / "in/notes.txt").touch()
    assert [p.name for p in list_recordings("in")] == ["a.flac", "b.WAV"]


@pytest.mark.parametrize("old, new", [(16000, 16000), (8000, 16000), (44100, 16000), (16000, 44100), (96000, 16000),
                                      (11025, 16000), (16000, 22050), (44099, 16000)])  # fmt: skip
def test_resampling_is_right_and_any_part_of_it_is_the_same(old, new):
    R, low = Resampler(old, new), 0.4 * min(old, new)
    x = np.stack([np.sin(2 * np.pi * f * np.arange(old) / old) for f in (100.0, low)])
    whole = R(lambda a, b: x[:, a:b], old, 0, R.length(old))
    assert whole.shape == (2, new)
    truth = np.stack([np.sin(2 * np.pi * f * np.arange(new) / new) for f in (100.0, low)])
    inside = slice(new // 10, -new // 10)
    assert np.abs(whole - truth)[:, inside].max() < 1e-3
    start, stop = new // 3, new // 3 + 1001
    np.testing.assert_allclose(R(lambda a, b: x[:, a:b], old, start, stop), whole[:, start:stop], atol=1e-5)


def test_what_the_lower_rate_cannot_carry_is_gone():
    R = Resampler(44100, 16000)
    x = np.sin(2 * np.pi * 8200 * np.arange(44100) / 44100)
    y = R(lambda a, b: x[a:b], 44100, 0, 16000)
    assert np.abs(y[500:-500]).max() < 1e-3

"""`restore speech` on recordings that people have: what comes back, what is said, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_parts import bad, command

sf = pytest.importorskip("soundfile")

from speech_parts import Speech, noise, recording, voice  # noqa: E402

from operators.base import Identity  # noqa: E402
from operators.coloured import Stationary  # noqa: E402
from operators.noise import Censored  # noqa: E402
from operators.stft import STFT  # noqa: E402
from restore.audio_metrics import si_sdr  # noqa: E402
from restore.learn.speech import Utterances  # noqa: E402
from restore.priors.network import UNet  # noqa: E402
from restore.priors.speech import SpeechDenoiser  # noqa: E402
from restore.priors.store import save_prior  # noqa: E402
from restore.problem import Problem  # noqa: E402
from restore.samplers.ddrm import DDRM  # noqa: E402
from restore.speech import LISTENINGS, _with_noise_found  # noqa: E402
from restore.speech_pose import noise_between_words, noise_from_moment_to_moment, steady_noise  # noqa: E402

PRIOR = "prior._target_=speech_parts.Speech"
CLEAR = "prior._target_=speech_parts.Clear"
FEW = ["--steps", "3", PRIOR]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def speech(capsys, *words, prior=PRIOR, steps=3):
    """Standard output of a run that succeeds."""
    status, out, err = command(capsys, "speech", *words, "--steps", steps, prior)
    assert status == 0, err
    return out


def read(path):
    return sf.read(path, always_2d=True)[0]


def rms(x):
    return float(np.sqrt(np.square(x).mean()))


@pytest.mark.parametrize("name, rate, channels, subtype", [
    ("a.wav", 16000, 1, "PCM_16"), ("a.wav", 8000, 1, "PCM_U8"), ("a.flac", 44100, 2, "PCM_24"),
    ("a.ogg", 22050, 1, "VORBIS"), ("a.mp3", 32000, 2, "MPEG_LAYER_III"), ("a.wav", 96000, 6, "FLOAT"),
])  # fmt: skip
def test_a_recording_comes_back_as_it_went_in(capsys, name, rate, channels, subtype):
    before = recording(name, seconds=0.3, rate=rate, channels=channels, subtype=subtype)
    out = speech(capsys, name, "--samples", 1)
    told, after = sf.info(name), sf.info("a_restored" + name[1:])
    assert (after.samplerate, after.channels, after.subtype, after.format) == (rate, channels, subtype, told.format)
    assert read("a_restored" + name[1:]).shape == before.shape  # to the sample
    assert f"{rate} Hz" in out and "times the length of the recording" in out


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_what_is_believed_comes_back_unchanged(capsys, rate):
    """Nothing is lost on the way to 16 kHz and back, at no frequency."""
    x = recording("a.wav", seconds=0.5, rate=rate, channels=2, subtype="FLOAT")
    speech(capsys, "a.wav", "--noise", 1e-6, "--samples", 1, prior=CLEAR)
    assert rms(read("a_restored.wav") - x) < 2e-3 * rms(x)


@pytest.mark.parametrize("told", [["--noise", 0.05], []])
def test_noise_goes_and_speech_stays(capsys, told):
    x = voice(1.0, level=0.5)
    recording("a.wav", x=x + noise(len(x), 0.05))
    speech(capsys, "a.wav", *told, steps=8)
    record = json.loads(Path("a_restored.run.json").read_text())
    assert 0.7 * 0.05 < record["result"]["sigma"] < 1.4 * 0.05
    assert 0.85 < record["result"]["data_fit"] < 1.15
    if told:  # tones that last are noise as well, to who has not heard speech
        assert rms(read("a_restored.wav")[:, 0] - x) < 0.6 * 0.05


def test_noise_that_swells_is_found_with_the_speech(capsys):
    """Its quietest moments know a third of it."""
    x, n = voice(2.0, level=0.05), noise(32000, 0.02)
    n[16000:] *= 4
    recording("a.wav", x=x + n)
    out, sigma = [], []
    for words in ([], ["em_rounds=1"]):
        out.append(speech(capsys, "a.wav", *words, "--overwrite", steps=8))
        sigma.append(json.loads(Path("a_restored.run.json").read_text())["result"]["sigma"])
    assert "as between words, near by" in out[0] and "1 round of EM" in out[1]
    assert all(0.75 * rms(n) < found < 1.25 * rms(n) for found in sigma) and sigma[0] != sigma[1]


def test_noise_is_found_from_moment_to_moment_where_no_word_is_in_the_way():
    S, level = STFT(16000 * 6), torch.cat([torch.ones(48000), 3 * torch.ones(48000)])
    n = level * torch.randn(1, 1, 96000, generator=torch.Generator().manual_seed(0))
    word = torch.zeros(1, 1, 96000)
    word[..., 40000:44000] = 20 * torch.sin(torch.arange(4000) / 3)
    first = Stationary(torch.full((256,), 4.0))  # neither of the two
    y, x = S(word + n), S(word)
    found = noise_from_moment_to_moment(y, x, first, noise_between_words(y, x, first))
    whole = noise_between_words(y, x, first).variance.mean()
    each = found.variance.mean(-2).flatten()
    assert float(whole) == pytest.approx(5, rel=0.1)
    for part, true in ((each[50:250], 1), (each[500:], 9)):  # with a little of the whole
        assert float(part.mean()) == pytest.approx((125 * true + 10 * 5) / 135, rel=0.05)
    assert float(each[300:350].max()) < 4, "the word is none of it"


def test_noise_that_swells_is_stronger_then_in_the_problem_that_is_drawn_from():
    level = torch.cat([torch.ones(48000), 3 * torch.ones(48000)])
    S = STFT(96000)
    Y = S(level * torch.randn(1, 1, 96000, generator=torch.Generator().manual_seed(0)))
    tools = SimpleNamespace(prior=Speech(), sampler=DDRM(steps=3), noise_prior=None)
    problem, calls, _ = _with_noise_found(Problem(Y, Identity(S.oshape), steady_noise(Y)), tools, 0, 0)
    variance = problem.noise.variance.mean(-2).flatten()
    assert float(variance[-100:].mean() / variance[:100].mean()) > 5
    assert calls == LISTENINGS * 3


def test_noise_that_has_a_prior_is_told_from_speech(capsys):
    """One that has learnt nothing is the Wiener filter of its spectrum: here of a band that speech has too."""

    def hum(length, seed):
        N = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
        f = np.fft.rfftfreq(length, 1 / 16000)
        return 0.3 * np.fft.irfft(N * ((f > 900) & (f < 1300)), length)

    heard = Utterances([torch.from_numpy(hum(16000, i) / hum(16000, i).std()).float() for i in range(3)], 8)
    save_prior(SpeechDenoiser(UNet((2,), (8,), (1,), 16, beside=1), heard.spread()), Path("p"), noise=True)
    x = voice(1.0, level=0.5)
    recording("y.wav", subtype="FLOAT", x=x + (n := hum(len(x), 9)))
    error = []
    for words in (["--noise", rms(n)], ["--noise-prior", "p"]):
        speech(capsys, "y.wav", *words, "--overwrite", steps=8)
        error.append(rms(read("y_restored.wav")[:, 0] - x))
    result = json.loads(Path("y_restored.run.json").read_text())["result"]
    assert error[1] < 0.8 * error[0]
    assert 0.7 * rms(n) < result["sigma"] < 1.3 * rms(n) and 0.8 < result["data_fit"] < 1.2
    for way in (["--noise-prior", "p"], ["em_rounds=1"]):
        bad(capsys, "speech", "y.wav", "--noise", 0.1, *way, PRIOR, said="leave one of them out", status=2)
    bad(capsys, "speech", "y.wav", "--task", "gap", "--noise-prior", "p", said="is for --task denoise", status=2)
    bad(capsys, "speech", "y.wav", "--prior", "p", said="a prior on noise", status=2)
    bad(capsys, "speech", "y.wav", PRIOR, "--noise-prior", "photos", said="a prior on pictures", status=2)


def test_samples_spread_and_record(capsys):
    recording("a.wav", seconds=0.4)
    status, out, _ = command(capsys, "speech", "a.wav", "-o", "b.wav", "--samples", 2, "--json", *FEW)
    record = json.loads(out)
    assert status == 0 and record == json.loads(Path("b.run.json").read_text())
    names = {"b.wav", "b.run.json", "b_sample-01.wav", "b_sample-02.wav", "b_std.png", "b_panel.png"}
    assert {p.name for p in Path().iterdir()} == {"a.wav", *names}
    assert record["result"]["real_time_factor"] > 0
    one, two = read("b_sample-01.wav"), read("b_sample-02.wav")
    assert rms(one - two) > 1e-3
    assert np.abs(read("b.wav") - (one + two) / 2).max() < 1e-4


def test_a_finished_recording_is_skipped_and_replayed(capsys):
    recording("a.wav", seconds=0.3)
    speech(capsys, "a.wav", "-o", "b.wav")
    assert "already done" in speech(capsys, "a.wav", "-o", "b.wav")
    assert command(capsys, "replay", "b.run.json", "-o", "c.wav")[0] == 0
    assert Path("c.wav").read_bytes() == Path("b.wav").read_bytes()


def test_a_folder_is_mirrored_and_one_bad_file_stops_nothing(capsys):
    Path("in/more").mkdir(parents=True)
    recording("in/mono.wav", seconds=0.3)
    recording("in/more/stereo.flac", seconds=0.3, rate=44100, channels=2)
    Path("in/bad.wav").write_text("no sound")
    status, out, err = command(capsys, "speech", "in", "-o", "out", *FEW)
    assert status == 1 and "bad.wav: cannot be read as audio" in err and "2 restored" in out
    assert {str(p.relative_to("out")) for p in Path("out").rglob("*.*") if p.suffix != ".json"} == {
        "mono.wav", "more/stereo.flac",
    }  # fmt: skip


def test_digital_silence_comes_back_silent(capsys):
    recording("a.wav", x=np.zeros(8000), subtype="PCM_16")
    assert "nothing in it" in speech(capsys, "a.wav")
    assert not read("a_restored.wav").any()


@pytest.mark.parametrize("rate", [16000, 44100])
def test_silence_within_a_recording_stays_silent(capsys, rate):
    x = voice(1.0, rate) + noise(rate, 0.02)
    x[rate // 3 : 2 * rate // 3] = 0
    recording("a.wav", x=x, rate=rate)
    speech(capsys, "a.wav")
    y = read("a_restored.wav")
    margin = int(0.03 * rate)
    assert not y[rate // 3 + margin : 2 * rate // 3 - margin].any()
    assert y[: rate // 3].any()


def test_one_sample(capsys):
    recording("a.wav", x=np.array([0.5]))
    speech(capsys, "a.wav")
    assert read("a_restored.wav").shape == (1, 1)


def test_an_offset_is_no_speech(capsys):
    x = voice(0.5)
    recording("a.wav", x=x + 0.3, subtype="FLOAT")
    out = speech(capsys, "a.wav")
    y = read("a_restored.wav")
    assert "offset of 0.3" in out and abs(y.mean() - 0.3) < 0.05


def test_what_would_be_clipped_is_made_quieter_and_said(capsys):
    x = recording("a.wav", x=8 * voice(0.5), subtype="FLOAT")
    assert np.abs(x).max() > 1
    out = speech(capsys, "a.wav", "-o", "b.flac", "--noise", 1e-6, prior=CLEAR)
    factor, y = json.loads(Path("b.run.json").read_text())["result"]["factor"], read("b.flac")
    assert "do not fit" in out and 0.999 < np.abs(y).max() < 1
    assert np.abs(y - factor * x).max() < 0.01
    assert "do not fit" not in speech(capsys, "a.wav", "-o", "c.wav", "--noise", 1e-6, prior=CLEAR)


def test_a_clipped_sample_is_known_from_one_side(capsys, monkeypatch):
    """It says that the signal lies at its level or beyond, on its own side."""
    import restore.speech

    found, pose = [], restore.speech.pose
    monkeypatch.setattr(restore.speech, "pose", lambda *told: found.append(pose(*told)[0]) or pose(*told))
    x = recording("a.wav", x=np.clip(2 * voice(0.5), -0.25, 0.25), subtype="FLOAT")[:, 0]
    speech(capsys, "a.wav", "--task", "declip")
    (problem,), noise = found, found[0].noise
    assert isinstance(noise, Censored)
    level = 0.25 * (1 - 1e-3)
    for end, clipped in ((noise.hi, x >= level), (noise.lo, x <= -level)):
        clipped = np.pad(clipped, (0, problem.y.shape[-1] - len(x)))
        assert clipped.any() and np.array_equal(end.isfinite()[0].numpy(), clipped)
        assert torch.equal(end[0, clipped], problem.y[0, 0, clipped])


@pytest.mark.parametrize("words, steps", [([], 30), (["sampler=dps"], 1000), (["sampler.steps=3"], 3)])
def test_the_steps_of_declipping_are_those_of_its_own_sampler(capsys, monkeypatch, words, steps):
    asked = []
    monkeypatch.setattr("restore.cli.speaking.do_all", lambda jobs, request, *rest, **more: asked.append(request) or 0)
    recording("voice.wav", seconds=0.3)
    assert command(capsys, "speech", "voice.wav", "--task", "declip", PRIOR, *words)[0] == 0
    assert asked[0].settings["sampler"]["steps"] == steps


def test_clipped_samples_lie_beyond_the_level_and_the_others_stay(capsys):
    x = np.clip(2 * voice(0.5), -0.25, 0.25)
    recording("a.wav", x=x, subtype="FLOAT")
    out = speech(capsys, "a.wav", "--task", "declip", "--samples", 1, steps=8)
    y, x = read("a_restored.wav")[:, 0], read("a.wav")[:, 0]
    clipped = np.abs(x) >= 0.25 * (1 - 1e-3)
    assert "clipped at 0.2497" in out and clipped.any()
    assert np.array_equal(y[~clipped], x[~clipped])
    assert (y[clipped] * np.sign(x[clipped]) >= 0.25 * (1 - 1e-3)).all()


def test_clipping_is_noticed_where_noise_was_to_be_removed(capsys):
    recording("a.wav", x=np.clip(2 * voice(0.5), -0.2, 0.2), subtype="PCM_16")
    assert "--task declip" in speech(capsys, "a.wav")


@pytest.mark.parametrize("rate", [16000, 44100])
def test_gaps_are_filled_and_what_was_measured_stays(capsys, rate):
    x = voice(1.0, rate) + noise(rate, 0.001)
    gap = slice(int(0.08 * rate), int(0.1 * rate))
    broken = x.copy()
    broken[gap] = 0
    recording("a.wav", x=broken, rate=rate, subtype="FLOAT")
    out = speech(capsys, "a.wav", "--task", "gap", steps=8)
    y, measured = read("a_restored.wav")[:, 0], np.ones(rate, bool)
    measured[gap] = False
    assert "1 gap, 20 ms" in out
    assert np.array_equal(y[measured], read("a.wav")[measured, 0])
    assert rms(y[gap]) > 0.005  # what this prior knows of neighbours does not reach far


def test_samples_that_are_not_numbers_are_gaps(capsys):
    x = voice(0.5)
    x[3000:3100] = np.nan
    recording("a.wav", x=x, subtype="FLOAT")
    bad(capsys, "speech", "a.wav", *FEW, said="100 samples are NaN or infinite")
    speech(capsys, "a.wav", "--task", "gap")
    assert np.isfinite(read("a_restored.wav")).all()


def test_given_gaps(capsys):
    recording("a.wav", seconds=1.0, sigma=0)
    assert "2 gaps, 30 ms" in speech(capsys, "a.wav", "--task", "gap", "--gaps", "0.1-0.12,0.5-0.51")


def test_a_narrow_band_gets_the_rest(capsys):
    recording("a.wav", seconds=0.5, rate=8000, sigma=0.01, subtype="FLOAT")
    out = speech(capsys, "a.wav", "--task", "bandwidth", steps=8)
    assert sf.info("a_restored.wav").samplerate == 16000 and "written with 16000 Hz" in out
    y, x = read("a_restored.wav")[:, 0], read("a.wav")[:, 0]
    assert len(y) == 2 * len(x)
    below, above = np.abs(np.fft.rfft(y))[100:1500], np.abs(np.fft.rfft(y))[2200:3800]
    np.testing.assert_allclose(below, 2 * np.abs(np.fft.rfft(x))[100:1500], atol=1.5)
    assert rms(above) > 1e-3


def test_a_room_is_taken_away(capsys):
    h = np.zeros(800)
    h[0], h[300], h[700] = 1, 0.6, -0.4
    x = voice(1.0)
    wet = np.convolve(x, h)[: len(x)]
    recording("wet.wav", x=wet, subtype="FLOAT")
    recording("room.wav", x=h, subtype="FLOAT")
    speech(capsys, "wet.wav", "--task", "dereverb", "--response", "room.wav", "--noise", 0.002, steps=8)
    y = read("wet_restored.wav")[:, 0]
    assert rms(y - x) < 0.3 * rms(wet - x)


def test_the_band_above_follows_the_one_below(capsys):
    rate = 44100
    x = voice(1.0, rate) + noise(rate, 0.03)
    recording("a.wav", x=x, rate=rate, subtype="FLOAT")
    out = speech(capsys, "a.wav", "--noise", 0.03, steps=8)
    above = slice(9000, 20000)
    before, after = (rms(np.abs(np.fft.rfft(v))[above]) for v in (x, read("a_restored.wav")[:, 0]))
    assert "above 8 kHz nothing is drawn" in out and after < 0.5 * before


def test_segments_show_no_seam(capsys):
    x = voice(6.0) + noise(96000, 0.03)
    recording("a.wav", x=x, subtype="FLOAT")
    out = speech(capsys, "a.wav", "-o", "cut.wav", "--noise", 0.03, "--samples", 1, "tile=300")
    speech(capsys, "a.wav", "-o", "whole.wav", "--noise", 0.03, "--samples", 1, "tile=2000")
    assert "segments  4" in out
    assert rms(read("cut.wav") - read("whole.wav")) < 1e-3


def test_an_interrupted_recording_goes_on(capsys, monkeypatch):
    import restore.speech

    recording("a.wav", seconds=4.0)
    whole, few = restore.speech._restored, ["--noise", 0.03, "tile=200"]
    speech(capsys, "a.wav", "-o", "b.wav", *few)
    seen = []

    def stopped(*args):
        seen.append(args)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(restore.speech, "_restored", stopped)
    assert command(capsys, "speech", "a.wav", "-o", "c.wav", *few, *FEW)[0] == 130
    assert not Path("c.wav").exists()
    assert "2 of them already done" in speech(capsys, "a.wav", "-o", "c.wav", *few)
    assert Path("c.wav").read_bytes() == Path("b.wav").read_bytes()
    assert not [p for p in Path().iterdir() if p.name.startswith(".")]


def test_channels_that_are_the_same_stay_so(capsys):
    x = voice(0.5) + noise(8000, 0.03)
    recording("a.wav", x=np.stack([x, x], 1))
    assert "all channels are the same" in speech(capsys, "a.wav")
    y = read("a_restored.wav")
    assert np.array_equal(y[:, 0], y[:, 1])


@pytest.mark.parametrize("words, said, status", [
    (["a.wav", "--gaps", "1-2"], "--gaps is for --task gap", 2),
    (["a.wav", "--task", "gap", "--gaps", "2-1"], "is no gap", 2),
    (["a.wav", "--task", "gap", "--gaps", "0.1-9"], "a gap that ends at 9 s", 1),
    (["a.wav", "--task", "gap"], "no gap", 1),
    (["a.wav", "--task", "declip"], "does not look clipped", 1),
    (["a.wav", "--task", "declip", "--clip", "0.99"], "no sample reaches 0.99", 1),
    (["a.wav", "--task", "bandwidth"], "nothing is missing", 1),
    (["a.wav", "--task", "dereverb"], "needs the response", 2),
    (["a.wav", "--task", "dereverb", "--response", "away.wav"], "no such file for --response", 2),
    (["a.wav", "--task", "sing"], "invalid choice", 2),
    (["a.wav", "-o", "a.png"], "no kind of recording", 2),
    (["a.wav", "-o", "a.wav"], "is an input", 2),
    (["away.wav"], "no such file", 1),
])  # fmt: skip
def test_what_cannot_be_done_is_said(capsys, words, said, status):
    recording("a.wav", seconds=0.3)
    bad(capsys, "speech", *words, "--steps", 3, PRIOR, said=said, status=status)


@pytest.mark.parametrize("rate, channels", [(16000, 1), (44100, 2)])
def test_a_result_is_scored_against_a_reference(capsys, rate, channels):
    x = np.stack([voice(1.0, rate, level=0.5)] * channels, 1)
    for folder in ("noisy", "clean"):
        Path(folder).mkdir()
    recording("clean/a.flac", rate=rate, x=x)
    recording("noisy/a.wav", rate=rate, subtype="FLOAT", x=x + noise(x.shape, 0.05))
    out = speech(capsys, "noisy", "--noise", 0.05, "--ref", "clean", "-o", "out", steps=8)
    result = json.loads(Path("out/a.run.json").read_text())["result"]
    before, after = result["scores_before"]["si_sdr"], result["scores"]["si_sdr"]
    y = read("out/a.wav")
    if rate == 16000:
        assert abs(after - si_sdr(y[:, 0], x[:, 0])) < 0.05
        assert abs(before - 20 * np.log10(rms(x) / 0.05)) < 0.5
    assert after > before + 2 and f"SI-SDR {after:.1f} dB" in out and f"SI-SDR {before:.1f} dB" in out


@pytest.mark.parametrize("length, channels, value, said", [
    (0.4, 1, 0.0, "1 channel of 0.400 s"), (0.3, 2, 0.0, "2 channels of 0.300 s"), (0.3, 1, np.nan, "finite"),
])  # fmt: skip
def test_a_reference_that_does_not_belong_is_refused(capsys, length, channels, value, said):
    recording("a.wav", seconds=0.3)
    recording("b.wav", subtype="FLOAT", x=np.full((round(16000 * length), channels), value) + 0.1)
    bad(capsys, "speech", "a.wav", "--noise", 0.1, "--ref", "b.wav", PRIOR, said=said, status=1)
    bad(capsys, "speech", "a.wav", "--ref", "away.wav", PRIOR, said="no such file", status=1)


def test_the_prior_that_is_asked_for_is_the_one_that_is_used(capsys):
    recording("a.wav", seconds=0.5)
    status, _, err = command(capsys, "speech", "a.wav", "--prior", "photos")
    assert status == 1 and "for this prior" in err

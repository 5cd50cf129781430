"""A prior on clean speech: what is read from recordings, the denoiser of audio and frames, how sure it is."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_parts import bad, command

from operators.noise import Gaussian
from operators.random import Draws
from operators.speech import Gap
from operators.stft import ISTFT, STFT
from restore.core import restore
from restore.errors import InputError
from restore.learn import speech, train
from restore.learn.data import find_pictures
from restore.learn.speech import FILES, RATE, Utterances, load_speech, read_speech, validate_speech
from restore.priors.base import Denoiser
from restore.priors.covariance import Diagonal, Through
from restore.priors.network import EDMDenoiser, UNet
from restore.priors.speech import (
    BANDS,
    CLASSES,
    ErrorTable,
    SpeechDenoiser,
    frames_of,
    longest,
    measure_errors,
    noise_in_frames,
)
from restore.priors.store import SPECTRA, load_prior, save_prior, save_table
from restore.problem import Problem
from restore.samplers.moment_matching import MomentMatching

soundfile = pytest.importorskip("soundfile")
FEW = ["--steps", "2", "--batch", "2", "--patch", "8"]


def voice(seconds=1.0, seed=0, rate=RATE):
    """Vowels: harmonics of a wandering pitch under a syllable's envelope, and pauses."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = 110 + 40 * rng.random() + 15 * np.sin(2 * np.pi * 1.5 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tones = sum(np.sin(k * phase + rng.random()) / k for k in range(1, 30))
    return 0.1 * tones * np.clip(np.sin(2 * np.pi * 2 * t + rng.random()), 0, None)


def save(path, values, rate=RATE, **how):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, **how)


def small(spread=None, seed=0):
    """A denoiser that does something."""
    torch.manual_seed(seed)
    d = SpeechDenoiser(UNet((2,), (8, 8), (1, 1), 16, beside=1), spread).eval().requires_grad_(False)
    torch.nn.init.normal_(d.network.heads["2"].weight, std=0.1)
    return d


def test_a_recording_has_mean_0_and_rms_1_whatever_its_format(tmp_path):
    x = voice()
    for name, rate, values in (
        ("a.wav", RATE, 0.2 + x),
        ("b.flac", RATE, 2 * x),
        ("stereo.wav", RATE, np.stack([x + voice(seed=1), x - voice(seed=1)], 1)),
        ("c.wav", 48_000, voice(rate=48_000)),
    ):
        save(tmp_path / name, values, rate)
        found = read_speech(tmp_path / name).double()
        assert found.shape == (RATE,)
        assert float(found.mean()) == pytest.approx(0, abs=1e-3) and float(found.std()) == pytest.approx(1, abs=1e-2)
        assert np.corrcoef(found, x)[0, 1] > (0.99 if rate == RATE else 0.98), name


BAD = {
    "damaged or no audio": lambda p: p.write_bytes(b"nothing of the kind" * 50),
    "no samples": lambda p: save(p, np.zeros(0)),
    "silence": lambda p: save(p, np.full(RATE, 0.3)),
    "8000 Hz; wanted": lambda p: save(p, voice(rate=8000), 8000),
    "values that are not finite": lambda p: save(p, np.where(np.arange(RATE) == 5, np.nan, voice()), subtype="FLOAT"),
    "0.10 s is less than the 0.49 s of a patch": lambda p: save(p, voice(0.1)),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_recordings_are_left_out_in_words(tmp_path, caplog, said):
    BAD[said](tmp_path / "bad.wav")
    with pytest.raises(InputError, match="none of 1 recordings can be used"):
        load_speech([tmp_path / "bad.wav"], longest(64))
    assert len(caplog.messages) == 1 and f"bad.wav: {said}" in caplog.text and "Traceback" not in caplog.text
    save(tmp_path / "good.wav", voice())
    assert len(load_speech(find_pictures([tmp_path], FILES), longest(64))) == 1


def test_soundfile_is_asked_for_in_words(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match=r"pip install 'restore-posterior\[audio\]'"):
        read_speech(tmp_path / "a.wav")


def test_patches_are_frames_of_pieces_from_everywhere_in_two_signs_and_many_loudnesses():
    ramp = torch.arange(1.0, 4001.0)
    patches = Utterances([ramp, 5000 + torch.arange(500.0)], 4, gain=0.3)
    pieces = patches.audio(4000, torch.Generator().manual_seed(0))
    assert pieces.shape == (4000, 1, longest(4)) == (4000, 1, 130)
    steps = pieces[:, 0, 1] - pieces[:, 0, 0]  # loudness, with its sign
    assert float((steps > 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float(steps.abs().log().std()) == pytest.approx(0.3, rel=0.1)
    starts = pieces[:, 0, 0] / steps
    long = starts < 4500
    places = 4000 - 129, 500 - 129
    assert float(long.float().mean()) == pytest.approx(places[0] / sum(places), abs=0.03)
    assert float(starts[long].min()) < 30 and float(starts[long].max()) > places[0] - 30
    rng = torch.Generator().manual_seed(1)
    x = patches.batch(3, rng).x
    audio = patches.audio(3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(x, STFT(130).float()(audio))
    assert patches.channels == (2,) and patches.noises() == {2: [0.0]}


def test_the_spread_is_that_of_each_frequency():
    loud = torch.cos(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)
    spread = Utterances([loud + 0.01 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))], 16).spread()
    peak = round(1000 / RATE * 510)
    assert abs(int(spread.argmax()) - peak) <= 3 and spread.shape == (256,)
    assert float(spread[200]) == pytest.approx(0.02 * float(spread.max()), rel=1e-3), "never next to nothing"


def test_audio_and_frames_are_two_faces_of_one_denoiser():
    d, S = small(), STFT(longest(12))
    a = torch.randn(2, *S.ishape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outside = torch.randn(2, *S.oshape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = S(a) + outside - S(S.adjoint(outside))
    torch.testing.assert_close(d(x, 0.3), S(d(a, 0.3)), atol=1e-6, rtol=1e-6)
    assert d(a.float(), torch.tensor([0.1, 0.3])).dtype == torch.float32
    torch.testing.assert_close(d(a, torch.tensor([0.1, 0.3]))[1:], d(a[1:], 0.3), atol=1e-2, rtol=1e-2)
    assert d(torch.randn(1, 1, 5001), 0.3).shape == (1, 1, 5001) and d(torch.zeros(1, 1, 1), 1.0).shape == (1, 1, 1)
    for fits in ((1, 16_001), (2, 256, 3)):
        assert d.accepts(fits)
    for shape in ((2, 100), (2, 256, 2), (2, 128, 20), (1, 256, 20)):
        assert not d.accepts(shape)
        with pytest.raises(ValueError, match="takes audio"):
            d(torch.zeros(1, *shape), 0.3)


def test_an_untrained_denoiser_is_the_wiener_filter_of_each_frequency():
    """The preconditioning alone, where speech is noise of a known spectrum: the least error of a filter."""
    spread = torch.where(torch.arange(256) < 64, 1.0, 0.05)
    d = SpeechDenoiser(UNet((2,), (8, 8), (1, 1), 16, beside=1), spread)
    S, sigma = STFT(64_000), 0.8
    g = torch.Generator().manual_seed(0)
    clean = S.adjoint(spread[:, None] * 2 * torch.randn(1, *S.oshape, generator=g))
    noisy = clean + sigma * torch.randn(clean.shape, generator=g)
    with torch.no_grad():
        error = (d(noisy, sigma) - clean).square().mean()
    shares = torch.tensor([0.25, 0.75])
    powers = torch.tensor([2.0, 0.1]).square()
    assert float(error) == pytest.approx(float((shares * powers * 0.64 / (powers + 0.64)).sum()), rel=0.03)


def test_noise_in_frames_is_half_that_of_the_samples():
    noise = torch.randn(1, 1, 200_000, generator=torch.Generator().manual_seed(0))
    assert float(frames_of(noise)(noise).std()) == pytest.approx(float(noise_in_frames(torch.tensor(1.0))), rel=0.01)


def test_derivatives_go_through_both_faces():
    d, g = small(), torch.Generator().manual_seed(0)
    for shape in ((1, 1000), (2, 256, 9)):
        x, v, w = (torch.randn(1, *shape, generator=g) for _ in range(3))
        x.requires_grad_()
        back = torch.autograd.grad((d(x, 0.4) * w).sum(), x)[0]
        forth = d.jvp(x.detach(), 0.4, v)
        assert float((back * v).sum()) == pytest.approx(float((forth * w).sum()), rel=0.05, abs=0.5)


def voices(frames=24, **how):
    speech = [torch.from_numpy(voice(seed=k)).float() for k in range(4)]
    return Utterances([x / x.std() for x in speech], frames, **how)


def spoken(seed, count=8, frames=24):
    speech = [torch.from_numpy(voice(1, k)).float() for k in range(4)]
    return (
        Utterances([x / x.std() for x in speech], frames, gain=0.0).batch(count, torch.Generator().manual_seed(seed)).x
    )


def test_the_table_says_how_large_errors_are_where_there_is_speech_and_where_not():
    d = SpeechDenoiser(UNet((2,), (8, 8), (1, 1), 16, beside=1), voices().spread()).requires_grad_(False)
    sigma = 0.3
    d.errors = measure_errors(d, [spoken(k) for k in range(6)], [0.1, 0.3, 1.0])
    assert d.errors.powers.shape == (3, BANDS, CLASSES)
    x = spoken(9, 16)
    S = frames_of(x)
    a = S.adjoint(x)
    noisy = a + sigma * torch.randn(a.shape, generator=torch.Generator().manual_seed(5))
    wrong = d(noisy, sigma) - a
    C = d.covariance(noisy, sigma)
    assert isinstance(C, Through)
    own = C.sample(Draws(0, range(16)), wrong)
    assert float(own.std()) == pytest.approx(float(wrong.std()), rel=0.1), "draws are as large as errors are"
    loud = a.abs() > 0.5
    assert float(own[loud].std()) == pytest.approx(float(wrong[loud].std()), rel=0.2)
    assert float(own[~loud].std()) == pytest.approx(float(wrong[~loud].std()), rel=0.2)
    in_frames = d.covariance(S(noisy), sigma)
    assert isinstance(in_frames, Diagonal)
    torch.testing.assert_close(in_frames.variances, C.C.variances)
    middle = d.errors.variances(S(noisy), 3**-0.5 * 0.3)  # between two levels
    assert float(middle.mean()) < float(in_frames.variances.mean())


@pytest.mark.parametrize("kind", ["denoise", "gap"])
def test_the_gain_is_that_of_the_covariance_in_audio(kind):
    """Against the matrices."""
    T, sigma_y = 130, 0.3
    S = STFT(T)
    g = torch.Generator().manual_seed(0)
    V = torch.rand(1, *S.oshape, generator=g, dtype=torch.float64) + 0.01
    A = Gap((1, T), [(40, 60)]) if kind == "gap" else Gap((1, T), [(0, 1)])
    eye = torch.eye(T, dtype=torch.float64)[:, None]
    C = S.adjoint(V * S(eye))[:, 0]
    M = A.forward(eye)[:, 0].T  # A as a matrix
    r = torch.randn(1, *A.oshape, generator=g, dtype=torch.float64)
    wanted = C @ M.T @ torch.linalg.solve(M @ C @ M.T + sigma_y**2 * torch.eye(len(M)), r[0, 0])
    found = Through(S.H, Diagonal(V)).gain(A, r, sigma_y)
    assert float((found[0, 0] - wanted).norm() / wanted.norm()) < 0.02
    of_frames = Diagonal(V).gain(A @ ISTFT(T), r, sigma_y)
    torch.testing.assert_close(S.adjoint(of_frames), found, atol=1e-8, rtol=1e-6)


def test_a_gain_in_audio_takes_few_iterations(monkeypatch):
    S = STFT(longest(20))
    g = torch.Generator().manual_seed(0)
    V = torch.logspace(0, -4, 256)[:, None].expand(1, *S.oshape)
    A = Gap(S.ishape, [(900, 1000)])
    calls = []
    monkeypatch.setattr(Gap, "forward", lambda self, x: calls.append(1) or x.index_select(-1, self.kept))
    Through(S.H, Diagonal(V)).gain(A, torch.randn(1, *A.oshape, generator=g), 0.01)
    assert len(calls) < 20, "without the preconditioner a hundred are not enough"


def test_a_prior_comes_back_from_disk_as_it_was(tmp_path):
    d = small(torch.linspace(0.02, 2, 256))
    d.errors = ErrorTable(torch.tensor([0.1, 1.0]), torch.rand(2, BANDS, CLASSES) + 0.1)
    save_prior(d, tmp_path / "p")
    save_table(d.errors, tmp_path / "p")
    prior = load_prior(tmp_path / "p")
    x = torch.randn(1, 1, 3000)
    torch.testing.assert_close(prior(x, 0.3), d(x, 0.3), atol=0.02, rtol=0.02)
    torch.testing.assert_close(prior.covariance(x, 0.3)(x), d.covariance(x, 0.3)(x), atol=1e-5, rtol=1e-5)
    assert prior.accepts((1, 3000)) and prior.accepts((2, 256, 30)) and not prior.accepts((1, 40, 40))
    save_prior(EDMDenoiser(UNet((2,), (4, 4), (1, 1), 8)), tmp_path / "other")
    (tmp_path / "p" / SPECTRA).write_bytes((tmp_path / "other" / "weights.safetensors").read_bytes())
    with pytest.raises(InputError, match="32 bands"):
        load_prior(tmp_path / "p")


def test_the_prior_restores_audio_and_frames():
    """Untrained it is the Wiener filter of a spectrum: gaps of what has that spectrum are filled better than by 0."""
    spread = torch.where(torch.arange(256) < 40, 1.0, 0.02)
    d = SpeechDenoiser(UNet((2,), (8, 8), (1, 1), 16, beside=1), spread).requires_grad_(False)
    S, g = STFT(longest(20)), torch.Generator().manual_seed(3)
    likes = S.adjoint(2 * spread[:, None] * torch.randn(17, *S.oshape, generator=g))
    clean = likes[:1]
    d.errors = measure_errors(d, [S(likes[1:])], [0.005, 0.05, 0.5, 5.0])
    A = Gap(S.ishape, [(700, 716), (1200, 1216)])
    sampler = MomentMatching(steps=12)
    for operator in (A, A @ ISTFT(S.length)):
        y = A.forward(clean) + 0.05 * torch.randn(1, *A.oshape, generator=g)
        done = restore(Problem(y, operator, Gaussian(0.05)), d, sampler, num_samples=2)
        found = done.mean if operator is A else S.adjoint(done.mean[None])
        assert done.samples.shape[1:] == operator.ishape
        lost = A.adjoint(torch.ones(1, *A.oshape)) == 0
        error, power = (found.view_as(clean) - clean).square(), clean.square()
        assert float(error[lost].mean()) < 0.3 * float(power[lost].mean())
        assert float(error[~lost].mean()) < 0.05**2


def test_validation_is_the_same_each_time_and_in_decibels():
    class Perfect(Denoiser):
        def forward(self, x, sigma):
            return clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))

    clean = torch.from_numpy(voice() / voice().std()).float()[None, None]
    found = validate_speech(Perfect(), [clean])
    assert found == {f"at {snr} dB": pytest.approx(20, abs=0.2) for snr in (0, 5, 10)}
    d = small()
    assert validate_speech(d, [clean]) == validate_speech(d, [clean])


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "LEVELS", 3)
    for i in range(5):
        save(tmp_path / f"in/{i}.wav", voice(seed=i))
    how = {"speech": True, "batch": 2, "patch": 8, "widths": (8, 8), "blocks": (1, 1), "every": 2}
    once = train.learn([tmp_path / "in"], tmp_path / "once", steps=4, **how)
    half = train.learn([tmp_path / "in"], tmp_path / "half", steps=2, **how)
    assert (half / SPECTRA).exists()
    weights = (once / "weights.safetensors").read_bytes()
    assert (half / "weights.safetensors").read_bytes() != weights
    again = train.learn([tmp_path / "in"], tmp_path / "half", steps=4, **how)
    card = (again / "README.md").read_text()
    assert "clean speech at 16 kHz" in card and "| speech | True |" in card and "| at 5 dB |" in card
    further = train.learn([tmp_path / "in"], tmp_path / "more", steps=1, start=again, **(how | {"widths": None}))
    assert load_prior(further).prior.network.beside == 1


def test_the_command_learns_speech_and_refuses_what_does_not_fit(capsys, inside, monkeypatch):
    monkeypatch.setattr(speech, "LEVELS", 3)
    monkeypatch.setattr(train, "learn", partial(train.learn, widths=(8, 8), blocks=(1, 1)))
    for i in range(2):
        save(f"in/{i}.wav", voice(seed=i))
    status, out, err = command(capsys, "learn", "in", "--speech", "-o", "p", *FEW, "--validation", "in/1.wav")
    assert (status, out) == (0, "wrote p; use it with restore speech --prior p\n"), err
    assert "Set aside for validation: 1.wav." in Path("p/README.md").read_text()
    status, out, err = command(capsys, "learn", "in", "--speech", "--noise-only", "-o", "n", *FEW)
    assert (status, out) == (0, "wrote n; use it with restore speech --noise-prior n\n"), err
    assert load_prior("n", noise=True).accepts((2, 256, 8))
    assert "noise alone at 16 kHz" in Path("n/README.md").read_text()
    learn = ["learn", "in", "--speech", "-o", "q", *FEW]
    bad(capsys, *learn, "--noise", "0.1", said="leave --noise out", status=2)
    bad(capsys, *learn, "--objective", "noise2score", said="recordings of speech are learnt by dsm", status=2)
    bad(capsys, *learn, "--mri", said="choose one of them", status=2)
    Path("empty").mkdir()
    bad(capsys, "learn", "empty", "--speech", "-o", "q", said="no recordings in it", status=2)

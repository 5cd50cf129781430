"""Supervised enhancement: a denoiser that is given the noisy recording, how it is learnt and used."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
import torch
from cli_parts import bad, command
from speech_parts import Echo, Mute, Speech
from test_speech_learning import save, voice

from operators.base import Identity
from operators.diagonal import Diagonal
from operators.noise import Gaussian
from operators.stft import STFT
from restore.core import restore
from restore.errors import InputError
from restore.learn import train
from restore.learn.base import Batch
from restore.learn.material import gather
from restore.learn.mixtures import BAND_STD, Mixtures, validate_enhancer
from restore.learn.sgmse import SGMSE
from restore.learn.speech import read_speech
from restore.priors.base import Denoiser, per_row
from restore.priors.enhancer import BESIDE, Enhancer
from restore.priors.network import EDMDenoiser, UNet
from restore.priors.speech import SpeechDenoiser, frames_of
from restore.priors.store import load_prior, save_prior, start_from
from restore.problem import Problem
from restore.samplers.ddrm import DDRM
from restore.samplers.diffpir import DiffPIR
from restore.samplers.moment_matching import MomentMatching
from restore.speech import EM_DRAWS, HEARING, LISTENINGS, _with_noise_found
from restore.speech_pose import local, steady_noise

soundfile = pytest.importorskip("soundfile")
FEW = ["--steps", "2", "--batch", "2", "--patch", "8"]


def enhancer(seed=0):
    """An enhancer that does something."""
    torch.manual_seed(seed)
    d = Enhancer(UNet((2,), (8, 8), (1, 1), 16, beside=BESIDE)).eval().requires_grad_(False)
    torch.nn.init.normal_(d.network.heads["2"].weight, std=0.1)
    return d


def heard(seed=0, frames=12):
    x = torch.randn(1, 1, frames * 128 - 382, generator=torch.Generator().manual_seed(seed))
    return frames_of(x)(x)


def test_the_shipped_one_tells_vowels_from_wind():
    prior, x = load_prior("noises-16k"), torch.from_numpy(voice(2.0)).float()
    wind = torch.randn(len(x), generator=torch.Generator().manual_seed(0)).cumsum(0) * torch.linspace(0.2, 1, len(x))
    wind = wind - torch.nn.functional.avg_pool1d(wind[None], 801, 1, 400, count_include_pad=False)[0]
    found = validate_enhancer(prior, [torch.stack([x / x.std(), wind])[None]])
    assert found["at 0 dB"] > 6 and found["at 10 dB"] > 13, found


def test_what_was_heard_decides_and_without_it_there_is_no_prior():
    d, x, y = enhancer(), heard(5), heard(1)
    noise = d.noise_in(y)
    assert noise.accepts(tuple(x.shape[1:])) and not noise.accepts((2, 256, 20))
    torch.testing.assert_close(y - noise(y - x, 0.5), d(x, 0.5, y), atol=0.02, rtol=0.02)
    assert not torch.equal(d(x, 0.5, y), d(x, 0.5, heard(2)))
    torch.testing.assert_close(noise(x.repeat(3, 1, 1, 1), 0.5)[2:], noise(x, 0.5), atol=0.02, rtol=0.02)
    with pytest.raises(ValueError, match=r"use noise_in\(y\)"):
        d(x, 0.5)
    with pytest.raises(ValueError, match="noise in"):
        d.noise_in(heard(1))(torch.zeros(1, 3, 8, 8), 0.5)


class Gauss(Denoiser):
    """Of white signals `N(0.7, 1)`."""

    shape, sigma_min, sigma_max, signal_std = (None, None, None), 0.005, 20.0, 1.0

    def forward(self, x, sigma):
        s2 = per_row(sigma, x).square()
        return (x + 0.7 * s2) / (1 + s2)


@pytest.mark.parametrize("sampler", [DDRM(), DiffPIR(), MomentMatching()], ids=["ddrm", "diffpir", "moment_matching"])
def test_where_nothing_was_measured_the_prior_is_drawn_from(sampler):
    """So a denoiser that knows the data is sampled as it is."""
    shape = (1, 16, 16)
    P = Problem(torch.zeros(1, *shape), Diagonal(torch.zeros(shape)), Gaussian(1.0))
    x = restore(P, Gauss(), sampler, num_samples=8).samples
    assert float(x.mean()) == pytest.approx(0.7, abs=0.1)
    assert float(x.std()) == pytest.approx(1, abs=0.05 if isinstance(sampler, MomentMatching) else 0.3)


def test_it_may_begin_as_the_prior_on_clean_speech(tmp_path):
    torch.manual_seed(0)
    clean = SpeechDenoiser(UNet((2,), (8, 8), (1, 1), 16, beside=1), torch.linspace(0.1, 1, 256)).requires_grad_(False)
    torch.nn.init.normal_(clean.network.heads["2"].weight, std=0.1)
    save_prior(clean, tmp_path / "clean")
    d = enhancer(seed=3)
    start_from(d, tmp_path / "clean")
    torch.testing.assert_close(d(heard(2), 0.4, heard(1)), clean(heard(2), 0.4), atol=5e-3, rtol=5e-3)
    save_prior(d, tmp_path / "told")
    with pytest.raises(InputError, match="layers that the new network has not"):  # a channel would be lost
        start_from(clean, tmp_path / "told")
    save_prior(EDMDenoiser(UNet((2,), (8, 8), (1, 1), 16)), tmp_path / "mri")
    with pytest.raises(InputError, match="layers that the new network has not"):
        start_from(d, tmp_path / "mri")


def test_it_comes_back_from_disk_as_it_was(tmp_path):
    d = enhancer()
    save_prior(d, tmp_path / "p")
    found, y, x = load_prior(tmp_path / "p"), heard(1), heard(2)
    assert isinstance(found, Enhancer)
    torch.testing.assert_close(found(x, 0.4, y), d(x, 0.4, y), atol=0.01, rtol=0.02)


def test_mixtures_are_clean_pieces_and_the_same_with_noise_at_every_ratio():
    speech = [torch.from_numpy(voice(2, seed=k)).float() for k in range(3)]
    hiss = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    patches = Mixtures([x / x.std() for x in speech], [hiss], 60)
    x = patches.batch(64, torch.Generator().manual_seed(1)).x
    assert x.shape == (64, 4, 256, 60) and patches.channels == (2,)
    clean, noisy = x.chunk(2, 1)
    noise = (noisy - clean).square().mean((1, 2, 3))
    snr = 10 * (0.25 / noise).log10()  # the noise of a number in frames has half the std of that of a sample
    assert float(snr.min()) == pytest.approx(-5, abs=1.5)  # hiss that is played faster has lost a part
    assert float(snr.max()) == pytest.approx(20, abs=1.5)
    assert float(snr.median()) == pytest.approx(7.5, abs=4)


def test_noises_are_heard_two_at_a_time_through_an_equaliser(monkeypatch):
    t, rng = torch.arange(40_000) / 16_000, torch.Generator().manual_seed(0)
    tones = [(2**0.5 * torch.sin(2 * torch.pi * f * t)) for f in (500, 6000)]
    monkeypatch.setattr("restore.learn.mixtures.SPEEDS", (1.0,))
    heard = Mixtures(tones, tones, 60).ambience(200, rng)
    power = torch.fft.rfft(torch.hann_window(heard.shape[-1]) * heard).abs().square().flatten(0, 1)
    edge = power.shape[1] * 3000 // 8000
    ratio = 10 * (power[:, :edge].sum(1) / power[:, edge:].sum(1)).log10()
    two = ratio.abs() < 40  # the others are of one tone
    assert 0.35 < float(two.float().mean()) < 0.65
    assert float(((heard[two].square().mean((1, 2)) - 1).abs() < 0.01).float().mean()) > 0.8
    hiss = [torch.randn(400_000, generator=rng)]
    white = torch.fft.rfft(Mixtures(hiss, hiss, 60).ambience(200, rng)).abs().square().flatten(0, 1)
    bands = 10 * torch.stack([b.mean(1) for b in white.chunk(20, 1)]).log10()
    assert float(bands.std(0).mean()) == pytest.approx(2**0.5 * BAND_STD, rel=0.15)
    assert float(bands.mean(1).std()) < 2, "on the whole it prefers none"


def test_noises_are_heard_slower_and_faster():
    """Frequencies move as lengths do, and nothing is louder."""
    t = torch.arange(32_000) / 16_000
    tone = torch.sin(2 * torch.pi * 1000 * t)
    found = {len(n): n for n in Mixtures([tone], [tone], 60).played.all}
    assert sorted(found) == [round(32_000 / speed) for speed in (1.4, 1, 0.7)]
    for length, n in found.items():
        middle = n[length // 4 : length // 4 * 3]
        peak = torch.fft.rfft(torch.hann_window(len(middle)) * middle).abs().argmax() * 16_000 / len(middle)
        assert float(peak) == pytest.approx(1000 * 32_000 / length, rel=0.01)
        assert float(middle.std()) == pytest.approx(0.5**0.5, rel=0.01)
    brief = Mixtures([tone], [tone[:9000]], 60)
    assert [len(n) for n in brief.played.all] == [round(9000 / 0.7), 9000], "faster, it would be no piece"


def test_the_loss_is_that_of_the_posterior_given_what_was_heard():
    """A denoiser that gives back half of what it heard has no loss where that was twice as loud."""

    class Half(Enhancer):
        def forward(self, x, sigma, beside=None):
            return (frames_of(x).adjoint(beside) if x.ndim == 3 else beside) / 2

    d = Half(UNet((2,), (8, 8), (1, 1), 16, beside=BESIDE))
    x = heard(1).repeat(4, 1, 1, 1)

    def loss(y, d=d):
        batch = Batch(torch.cat([x, y], 1), torch.zeros(4))
        return SGMSE(p_mean=0.0, p_std=0.0, wide=0.0).loss(d, batch, torch.Generator().manual_seed(0))

    assert torch.equal(loss(2 * x), torch.zeros(4))
    torch.testing.assert_close(loss(0 * x), 5 * x.square().mean((1, 2, 3)))  # lambda(1) = (1 + 0.25) / 0.25
    torch.testing.assert_close(loss(3 * x, Echo()), 5 * (2 * x).square().mean((1, 2, 3)))
    pair = torch.stack([torch.from_numpy(voice()).float(), torch.randn(16_000)])[None]
    scores = validate_enhancer(d, [pair])
    assert scores == {f"at {snr} dB": pytest.approx(snr, abs=0.3) for snr in (0, 5, 10)}

    class Same(Enhancer):
        def forward(self, x, sigma, beside=None):
            return x

    same = Same(UNet((2,), (8, 8), (1, 1), 16, beside=BESIDE), sigma_min=1e-4, sigma_max=1e-3)
    assert validate_enhancer(same, [pair]) == {k: pytest.approx(v, abs=0.3) for k, v in scores.items()}, "begin at y"


def test_noises_set_aside_are_not_learnt_from(tmp_path):
    for i in range(8):
        rng = torch.Generator().manual_seed(i)
        save(tmp_path / f"in/{i}.wav", voice(seed=i))
        save(tmp_path / f"noise/{i}.wav", 0.1 * torch.randn(8000 + i, generator=rng).numpy())
    told = {"validation": (), "clean": (), "noise": False, "mri": False, "speech": True}
    found = gather([tmp_path / "in"], SGMSE(), None, patch=8, held_out=6, noises=[tmp_path / "noise"], **told)
    aside = [int(p.stem) for p in found.held if p.parent.name == "noise"]
    assert len(found.held) == 4 and len(aside) == 2
    learnt = [len(x) - 8000 for x in found.patches.sounds]
    assert sorted(learnt + aside) == list(range(8))
    for (pair, _), i in zip(found.shown, aside, strict=True):  # what is short is repeated
        torch.testing.assert_close(pair[0, 1, : 8000 + i], read_speech(tmp_path / f"noise/{i}.wav"))
        assert pair.shape == (1, 2, 16_000) and float(pair[0, 1, 8000 + i :].std()) > 0.5


@pytest.mark.parametrize("kind", ["Echo", "Mute"])
def test_what_the_enhancer_says_is_what_comes_back(capsys, inside, monkeypatch, kind):
    """What it heard, or nothing at all: the recording has no other say."""
    asked = []
    monkeypatch.setattr("restore.speech.restore", lambda P, *a, **k: asked.append(P) or restore(P, *a, **k))
    x = voice(1.2) + 0.02 * torch.randn(19_200, generator=torch.Generator().manual_seed(9)).numpy()
    save("noisy.wav", x, subtype="FLOAT")
    target = f"prior._target_=speech_parts.{kind}"
    status, _, err = command(capsys, "speech", "noisy.wav", target, "--samples", "2", "-o", "a.wav")
    assert status == 0, err
    found, sigma = soundfile.read("a.wav")[0], json.loads(Path("a.run.json").read_text())["result"]["sigma"]
    assert asked and not any(P.y.any() or P.operator(torch.ones_like(P.y)).any() for P in asked)
    wanted = x if kind == "Echo" else 0 * x
    assert float(np.abs(found - wanted).max()) < 1e-3
    assert sigma == pytest.approx(float(np.sqrt(np.square(x - wanted).mean())), rel=0.02, abs=1e-3)


def test_as_a_prior_on_noise_it_has_more_of_a_say():
    """The logarithm of the variance is three quarters that of what it leaves, and one that of the noise near by."""
    S = STFT(96_000)
    Y = S(torch.randn(1, 1, 96_000, generator=torch.Generator().manual_seed(0)))
    problem, found = Problem(Y, Identity(S.oshape), steady_noise(Y)), {}
    for name, ear in (("near", None), ("mute", Mute()), ("echo", Echo())):
        tools = SimpleNamespace(prior=Speech(), sampler=DDRM(steps=3), noise_prior=ear)
        told, calls, _ = _with_noise_found(problem, tools, 0, 0)
        found[name] = told.noise.variance
        assert calls == 3 * LISTENINGS + (EM_DRAWS * HEARING.steps if ear else 0)
    wanted = found["near"] ** 0.25 * local(Y).variance ** 0.75
    torch.testing.assert_close(found["mute"], wanted, rtol=1e-3, atol=0)
    assert float(found["echo"].max()) < 1e-2 * float(found["near"].min())


def test_the_commands_learn_it_and_restore_with_it(capsys, inside, monkeypatch):
    monkeypatch.setattr(train, "learn", partial(train.learn, widths=(8, 8), blocks=(1, 1)))
    for i in range(5):
        save(f"in/{i}.wav", voice(seed=i))
        save(f"noise/{i}.wav", 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(i)).numpy())
    learn = ["learn", "in", "--speech", "--noises", "noise", *FEW]
    status, out, err = command(capsys, *learn, "-o", "p")
    assert (status, out) == (0, "wrote p; use it with restore speech --noise-prior p\n"), err
    card = Path("p/README.md").read_text()
    assert "given the noisy recording besides (SGMSE+)" in card and "| noises | ['noise'] |" in card
    assert "| at 5 dB |" in card

    save("noisy.wav", voice(1.2) + 0.02 * torch.randn(19_200, generator=torch.Generator().manual_seed(9)).numpy())
    status, out, err = command(capsys, "speech", "noisy.wav", "--prior", "p", "--samples", "2", "-o", "a.wav")
    assert status == 0, err
    assert "whatever is no speech, as the prior has learnt" in out and "data fit" not in out and "of full scale" in out
    status, out, err = command(capsys, "speech", "noisy.wav", "--noise-prior", "p", "--steps", "2", "-o", "n.wav")
    assert status == 0 and "knows it, found with the speech" in out and "data fit" in out, err
    ladder = json.loads(Path("a.run.json").read_text())["request"]["settings"]["sampler"]
    assert hydra.utils.instantiate(ladder) == HEARING
    command(capsys, "speech", "noisy.wav", "--prior", "p", "--samples", "2", "-o", "b.wav")
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()
    for words in (["--task", "gap"], ["--noise", "0.1"], ["em_rounds=2"]):
        bad(
            capsys,
            "speech",
            "noisy.wav",
            "--prior",
            "p",
            *words,
            "-o",
            "c.wav",
            said="for --task denoise alone",
            status=2,
        )
    bad(capsys, "learn", "in", "--noises", "noise", "-o", "q", said="learnt from together", status=2)
    bad(capsys, "learn", "in", "--speech", "--objective", "sgmse", "-o", "q", said="learnt from together", status=2)
    bad(capsys, *learn, "--objective", "dsm", "-o", "q", said="learnt from together", status=2)
    bad(capsys, *learn, "--noise-only", "-o", "q", said="got sgmse, no speech and noises", status=2)
    save("noise/9.wav", voice(seed=9))
    bad(capsys, *learn, "-o", "p", said="noise recordings", status=2)
    bad(capsys, *learn[:3], "--noises", "nowhere", "-o", "q", said="nowhere", status=2)

"""Scores of audio: what they are by definition, and that silence and short files cost no other file its score."""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from restore.audio_metrics import estoi, log_spectral_distance, pesq, si_sdr

RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal(16000) * np.hanning(16000) * 0.1
NOISE = RNG.standard_normal(16000) * 0.01
SILENT = np.zeros(16000)


def test_si_sdr_is_the_ratio_of_orthogonal_parts_whatever_the_scale():
    noise = NOISE - (NOISE @ TRUTH) / (TRUTH @ TRUTH) * TRUTH
    wanted = 10 * np.log10((TRUTH @ TRUTH) / (noise @ noise))
    for scale in (1.0, -3.0, 0.01):
        assert si_sdr(scale * (TRUTH + noise), TRUTH) == pytest.approx(wanted)
        assert si_sdr(TRUTH + noise, scale * TRUTH) == pytest.approx(wanted)
    assert si_sdr((TRUTH + NOISE).astype(np.float32), TRUTH.astype(np.float32)) == pytest.approx(
        si_sdr(TRUTH + NOISE, TRUTH), abs=1e-3
    )
    assert si_sdr(TRUTH, TRUTH) > 200


def test_log_spectral_distance_of_a_gain_is_the_gain_in_dB():
    steady = RNG.standard_normal(16384) * 0.1  # nothing of it near the floor
    assert log_spectral_distance(0.5 * steady, steady) == pytest.approx(20 * np.log10(2), abs=0.01)
    assert log_spectral_distance(steady, steady) == 0
    assert log_spectral_distance(steady + 1e-7 * RNG.standard_normal(16384), steady) < 0.01
    assert 20 < log_spectral_distance(0 * steady, steady) <= 80


def test_silence_has_a_score_or_none_but_no_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(si_sdr(NOISE, SILENT)) and np.isnan(si_sdr(SILENT, SILENT))
        assert si_sdr(SILENT, TRUTH) == -np.inf
        assert log_spectral_distance(SILENT, SILENT) == 0
        assert np.isfinite(log_spectral_distance(NOISE, SILENT)) and np.isfinite(log_spectral_distance(SILENT, TRUTH))
        assert np.isfinite(log_spectral_distance(TRUTH[:1] + 1, TRUTH[:1]))  # one sample


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for the packages: they do what those do on silence, and tell what they were asked."""
    asked = []

    class NoUtterancesError(RuntimeError):
        pass

    class BufferTooShortError(RuntimeError):
        pass

    def score_pesq(rate, ref, deg, mode):
        asked.append((rate, mode, ref, deg))
        if len(ref) < rate // 4:
            raise BufferTooShortError
        if np.abs(ref).max() < 0.01:
            raise NoUtterancesError
        return np.float32(2.5)

    def score_stoi(x, y, fs, extended):
        asked.append((fs, extended, x, y))
        if len(x) < 0.4 * fs:
            warnings.warn("Not enough STFT frames to compute intermediate intelligibility measure", RuntimeWarning, 2)
            return 1e-5
        return 0.8

    fakes = {"NoUtterancesError": NoUtterancesError, "BufferTooShortError": BufferTooShortError}
    monkeypatch.setitem(sys.modules, "pesq", SimpleNamespace(pesq=score_pesq, **fakes))
    monkeypatch.setitem(sys.modules, "pystoi", SimpleNamespace(stoi=score_stoi))
    return asked


def test_pesq_and_estoi_are_asked_for_the_truth_first_and_the_right_band(packages):
    assert pesq(TRUTH + NOISE, TRUTH, 16000) == 2.5 and pesq(TRUTH + NOISE, TRUTH, 8000) == 2.5
    assert [(rate, mode) for rate, mode, *_ in packages] == [(16000, "wb"), (8000, "nb")]
    assert estoi(TRUTH + NOISE, TRUTH, 16000) == 0.8 and packages[-1][:2] == (16000, True)
    for *_, first, second in packages:
        assert np.array_equal(first, TRUTH) and np.array_equal(second, TRUTH + NOISE)


def test_files_without_speech_have_no_score_and_raise_nothing(packages):
    quiet = 0.001 * NOISE / NOISE.std()
    for data, truth in ((NOISE, SILENT), (NOISE, quiet), (NOISE[:1000], TRUTH[7000:8000])):
        assert np.isnan(pesq(data, truth, 16000))
    assert np.isnan(pesq(SILENT, TRUTH, 16000))
    assert np.isnan(estoi(NOISE, SILENT, 16000)) and np.isnan(estoi(NOISE[:1000], TRUTH[7000:8000], 16000))


def test_what_cannot_be_scored_is_refused_in_words(packages, monkeypatch):
    with pytest.raises(ValueError, match=r"\(15999,\) and \(16000,\)"):
        si_sdr(TRUTH[:-1], TRUTH)
    with pytest.raises(ValueError, match="one channel"):
        log_spectral_distance(TRUTH[None], TRUTH[None])
    with pytest.raises(ValueError, match="one channel"):
        si_sdr(TRUTH[:0], TRUTH[:0])
    with pytest.raises(ValueError, match="8000 and 16000 Hz, got 44100"):
        pesq(TRUTH, TRUTH, 44100)
    for name, score in (("pesq", pesq), ("pystoi", estoi)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'restore-posterior\[audio\]'"):
            score(TRUTH, TRUTH, 16000)


@pytest.mark.parametrize("name", ["pesq", "pystoi"])
def test_the_packages_themselves_rank_speech_in_noise(name):
    pytest.importorskip(name)
    t = np.arange(32000) / 16000
    voice = np.sign(np.sin(2 * np.pi * 120 * t)) * (np.sin(2 * np.pi * 3 * t) > 0) * 0.1  # bursts with harmonics
    noise = np.random.default_rng(1).standard_normal(32000)
    score = pesq if name == "pesq" else estoi
    assert score(voice + 0.001 * noise, voice, 16000) > score(voice + 0.05 * noise, voice, 16000)
    assert np.isnan(score(noise, 0 * voice, 16000))

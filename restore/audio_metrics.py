"""Scores of audio against a known truth, one file at a time.

A score that does not exist for a file, as where the truth is silent, is NaN: it says so, costs the other files nothing
and is left out by `numpy.nanmean`. All take one channel, `(T,)`, of equal length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType

import numpy as np

SILENCE = 1e-5  # of full scale, the rms below which a file is silent: less than a step of 16 bits


def si_sdr(data: np.ndarray, truth: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB: `10 log10(|a s|^2 / |a s - x|^2)` with `a = <x, s> / |s|^2`.

    Le Roux, Wisdom, Erdogan and Hershey, *SDR - half-baked or well done?*, ICASSP 2019, eqs. 4 and 5. Minus infinity
    for what has nothing of the truth in it, as silence; NaN where the truth is silent.

    Raises:
        ValueError: the two do not have one and the same length.
    """
    data, truth = _pair(data, truth)
    if _silent(truth):
        return float("nan")
    target = (data @ truth) / (truth @ truth) * truth
    error = data - target
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (target @ target) / (error @ error)
    return -np.inf if not target.any() else float(10 * np.log10(ratio)) if np.isfinite(ratio) else np.inf


def log_spectral_distance(
    data: np.ndarray, truth: np.ndarray, *, frame: int = 2048, hop: int = 512, floor: float = -80.0
) -> float:
    """In dB: the rms over frequencies of the difference of the two log power spectra, averaged over frames.

    Gray and Markel, *Distance measures for speech processing*, IEEE TASSP 1976. Powers are kept above `floor` dB of the
    loudest of the truth, so that what is as good as silence in both does not count; 0 where both are silent.

    Args:
        frame, hop: of the frames, in samples, with a Hann window.

    Raises:
        ValueError: the two do not have one and the same length.
    """
    data, truth = _pair(data, truth)
    spectra = [_powers(x, frame, hop) for x in (data, truth)]
    least = max(float(spectra[1].max()) * 10 ** (floor / 10), (SILENCE * 10 ** (floor / 20)) ** 2)
    ours, theirs = (10 * np.log10(np.maximum(P, least)) for P in spectra)
    return float(np.sqrt(np.square(ours - theirs).mean(1)).mean())


def pesq(data: np.ndarray, truth: np.ndarray, rate: int) -> float:
    """Perceptual evaluation of speech quality, 1 to 4.6, by the package `pesq`: wide band (ITU-T P.862.2) at 16 kHz,
    narrow band (P.862) at 8 kHz. NaN where no speech is found.

    Raises:
        ValueError: another rate, or not one and the same length.
        ModuleNotFoundError: the extra `audio` is not installed.
    """
    data, truth = _pair(data, truth)
    if rate not in (8000, 16000):
        raise ValueError(f"PESQ is defined at 8000 and 16000 Hz, got {rate}: resample both")
    package = _extra("pesq", "PESQ")
    if _silent(truth) or _silent(data):
        return float("nan")
    try:
        return float(package.pesq(rate, truth, data, "wb" if rate == 16000 else "nb"))
    except (package.NoUtterancesError, package.BufferTooShortError):
        return float("nan")


def estoi(data: np.ndarray, truth: np.ndarray, rate: int) -> float:
    """Extended short-time objective intelligibility, up to 1, by the package `pystoi` (Jensen and Taal 2016). NaN where
    less than 0.4 s of the truth is speech.

    Raises:
        ValueError: the two do not have one and the same length.
        ModuleNotFoundError: the extra `audio` is not installed.
    """
    import warnings

    data, truth = _pair(data, truth)
    package = _extra("pystoi", "ESTOI")
    if _silent(truth):
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # that there is too little speech, and then a score of 1e-5
        try:
            return float(package.stoi(truth, data, rate, extended=True))
        except RuntimeWarning:
            return float("nan")


def scores(data: np.ndarray, truth: np.ndarray, rate: int) -> dict[str, float]:
    """All of them that exist and whose packages are installed, means over the channels of `(C, T)`.

    Args:
        rate: 8000 or 16000 Hz.
    """
    kinds: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "si_sdr": si_sdr,
        "lsd": log_spectral_distance,
        "pesq": partial(pesq, rate=rate),
        "estoi": partial(estoi, rate=rate),
    }
    found: dict[str, float] = {}
    for name, score in kinds.items():
        try:
            each = np.array([score(d, t) for d, t in zip(data, truth, strict=True)])
        except ModuleNotFoundError:
            continue
        if np.isfinite(each).any():
            found[name] = float(each[np.isfinite(each)].mean())
    return found


def _powers(x: np.ndarray, frame: int, hop: int) -> np.ndarray:
    """`(N, F)`, of frames that begin within the audio, which is zero beyond its end."""
    padded = np.pad(x, (0, frame))
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[: len(x) : hop]
    return np.abs(np.fft.rfft(frames * np.hanning(frame + 1)[:-1])) ** 2 / frame


def _pair(data: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if data.ndim != 1 or data.shape != truth.shape or len(data) == 0:
        raise ValueError(
            f"a score compares one channel of audio with a truth of the same length, got shapes {data.shape} and "
            f"{truth.shape}: cut both to the same samples"
        )
    return data.astype(np.float64), truth.astype(np.float64)


def _silent(x: np.ndarray) -> bool:
    return bool(np.sqrt(np.square(x).mean()) < SILENCE)


def _extra(name: str, score: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{score} is computed by the package {name}: pip install 'restore-posterior[audio]'", name=name
        ) from error

"""Clean speech for training: recordings from files, cut into short audio and given as frames of frequencies.

A recording is divided by its rms, the one scale a denoiser of speech knows (`restore.priors.speech`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from operators.stft import STFT
from restore.audio_metrics import si_sdr
from restore.errors import InputError
from restore.priors.base import Denoiser
from restore.priors.speech import HOP, RATE, WINDOW, ErrorTable, SpeechDenoiser, longest, measure_errors

from .base import Batch
from .data import Patches

log = logging.getLogger(__name__)

FILES = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"}
SILENT = 1e-4  # of full scale
SHOWN = 4 * RATE  # samples of a recording to validate on
SNRS = (0, 5, 10)  # dB, to validate at
BATCHES, LEVELS = 6, 18  # behind the table of errors


def read_speech(path: Path) -> Tensor:
    """A recording at 16 kHz as `(T,)`, channels averaged, mean 0, rms 1.

    Raises:
        InputError: not audio, damaged, empty, not finite, silent, of a rate below 16 kHz; soundfile is not installed.
    """
    try:
        import soundfile
    except ImportError as error:
        seen, cure = "audio, and soundfile is not installed", "install it: pip install 'restore-posterior[audio]'"
        raise InputError(path, seen, "soundfile to read it", cure) from error
    wanted = f"a recording at {RATE} Hz or more"
    try:
        values, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except (OSError, RuntimeError) as error:  # what soundfile raises is a RuntimeError
        raise InputError(path, f"damaged or no audio ({error})", wanted, "copy it again, or save it as WAV") from error
    if rate < RATE:
        raise InputError(path, f"{rate} Hz", wanted, "leave it out: its high frequencies are missing")
    x = values.mean(1)
    if len(x) == 0:
        raise InputError(path, "no samples", wanted, "leave it out")
    if not np.isfinite(x).all():
        raise InputError(path, "values that are not finite", wanted, "check how it was saved")
    x = x - x.mean()
    if x.std() < SILENT:
        raise InputError(path, "silence", wanted, "leave it out")
    return torch.from_numpy(at_rate(x, rate) / x.std()).float()


def at_rate(x: np.ndarray, rate: int) -> np.ndarray:
    """Audio at 16 kHz, from a higher rate: the frequencies that it has in common."""
    if rate == RATE:
        return x
    length = max(1, round(len(x) * RATE / rate))
    return np.fft.irfft(np.fft.rfft(x)[: length // 2 + 1], length) * length / len(x)


def load_speech(paths: Sequence[Path], smallest: int = 1) -> list[Tensor]:
    """The usable recordings of at least so many samples, `(T,)`; the others are named and left out.

    Raises:
        InputError: none is left.
    """
    found = []
    for path in paths:
        try:
            x = read_speech(path)
        except InputError as error:
            log.warning("left out %s", error)
            continue
        if len(x) < smallest:
            log.warning("left out %s: %.2f s is less than the %.2f s of a patch", path, len(x) / RATE, smallest / RATE)
            continue
        found.append(x)
    if not found:
        where = paths[0].parent if paths else Path()
        raise InputError(where, f"none of {len(paths)} recordings can be used", "one at least", "see the reasons above")
    return found


class Utterances(Patches):
    """Random short pieces of recordings, as frames, drawn alike from all of their samples.

    Half of them are upside down, which nobody hears, and their loudness varies, for the scale of a noisy recording is
    known roughly, and a piece may be the loudest or the softest.

    Args:
        recordings: as `load_speech` gives them.
        frames: of a piece.
        gain: std of the logarithm of the loudness.
    """

    def __init__(self, recordings: Sequence[Tensor], frames: int, gain: float = 0.4):
        self.all, self.noise, self.gain = list(recordings), [0.0] * len(recordings), gain
        self.transform = STFT(longest(frames), WINDOW, HOP).float()
        self.places = torch.tensor([float(len(x) - longest(frames) + 1) for x in self.all])

    @property
    def channels(self) -> tuple[int, ...]:
        return (2,)

    def noises(self) -> dict[int, list[float]]:
        return {2: [0.0]}

    def audio(self, count: int, rng: torch.Generator) -> Tensor:
        """Pieces `(count, 1, T)`."""
        chosen = torch.multinomial(self.places, count, replacement=True, generator=rng).tolist()
        at = torch.rand(count, generator=rng, dtype=torch.float64).tolist()
        starts = [int(u * self.places[i]) for u, i in zip(at, chosen, strict=True)]
        pieces = [self.all[i][k : k + self.transform.length] for i, k in zip(chosen, starts, strict=True)]
        loudness = torch.exp(self.gain * torch.randn(count, 1, 1, generator=rng))
        sign = torch.randint(2, (count, 1, 1), generator=rng) * 2 - 1
        return sign * loudness * torch.stack(pieces)[:, None]

    def batch(self, count: int, rng: torch.Generator) -> Batch:
        """Frames `(count, 2, 256, N)`."""
        return Batch(self.transform.forward(self.audio(count, rng)), torch.zeros(count))

    def spread(self) -> Tensor:
        """Std of the numbers of frames at each frequency, `(256,)`; no less than a fiftieth of the largest."""
        rng = torch.Generator().manual_seed(0)
        frames = (self.transform.forward(self.audio(32, rng)) for _ in range(32))
        powers = torch.stack([x.square().mean((0, 1, 3)) for x in frames]).mean(0)
        smooth = F.avg_pool1d(powers[None], 7, 1, 3, count_include_pad=False)[0].sqrt()
        return smooth.clamp(min=0.02 * float(smooth.max()))


def validate_speech(denoiser: Denoiser, recordings: Sequence[Tensor]) -> dict[str, float]:
    """Mean SI-SDR (dB) of recordings `(1, 1, T)` out of white noise, by SNR. The noise is the same at each call."""
    found: dict[str, list[float]] = {}
    for i, clean in enumerate(recordings):
        rng = torch.Generator().manual_seed(i)
        noise = torch.randn(clean.shape, generator=rng).to(clean)
        for snr in SNRS:
            sigma = float(clean.std()) * 10 ** (-snr / 20)
            with torch.no_grad():
                estimate = denoiser(clean + sigma * noise, sigma)
            score = si_sdr(estimate[0, 0].cpu().double().numpy(), clean[0, 0].cpu().double().numpy())
            found.setdefault(f"at {snr} dB", []).append(score)
    return {snr: fmean(scores) for snr, scores in found.items()}


def table_of_errors(denoiser: SpeechDenoiser, patches: Utterances, device: torch.device, seed: int) -> ErrorTable:
    """What a denoiser gets wrong of the speech it was trained on."""
    rng = torch.Generator().manual_seed(seed)
    speech = [patches.batch(8, rng).x.to(device) for _ in range(BATCHES)]
    levels = torch.logspace(math.log10(denoiser.sigma_min), math.log10(denoiser.sigma_max), LEVELS)
    return measure_errors(denoiser, speech, levels.tolist(), seed=seed)

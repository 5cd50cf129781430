"""Clean speech in recorded noise, to learn from and to validate on (`restore.learn.sgmse`).

Recordings of noise are few: a piece of one is heard with a quieter piece of another, each slower or faster, through an
equaliser, so that none is heard twice alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from restore.audio_metrics import si_sdr
from restore.priors.enhancer import Enhancer
from restore.priors.speech import frames_of, longest

from .base import Batch
from .speech import SHOWN, SILENT, SNRS, Utterances, load_speech

MIXED = (-5.0, 20.0)  # dB, of speech to noise
SECOND = 20.0  # dB, by which the second piece of noise may be quieter than the first
SPEEDS = (0.7, 1.0, 1.4)  # that noises are played at
BANDS, BAND_STD = 4, 4.0  # of the equaliser: cosines of the frequency, and the std of the dB of each


class Mixtures(Utterances):
    """Clean pieces and the same in recorded noise, all ratios of `MIXED` alike, of whole recordings; the loudness of
    the piece changes them further.

    Args:
        recordings, sounds: speech and noise, as `load_speech` gives them.
        frames: of a piece.
    """

    def __init__(self, recordings: Sequence[Tensor], sounds: Sequence[Tensor], frames: int):
        super().__init__(recordings, frames)
        self.sounds = list(sounds)
        played = [at_speed(n, speed) for n in sounds for speed in SPEEDS]
        self.played = Utterances([n for n in played if len(n) >= longest(frames)], frames, gain=0.0)

    def batch(self, count: int, rng: torch.Generator) -> Batch:
        """Frames `(count, 4, 256, N)`: two channels of the clean piece, two of the noisy one."""
        low, high = MIXED
        clean, noise = self.audio(count, rng), self.ambience(count, rng)
        snr = low + (high - low) * torch.rand(count, 1, 1, generator=rng)
        pair = torch.cat([self.transform.forward(x) for x in (clean, clean + 10 ** (-snr / 20) * noise)], 1)
        return Batch(pair, torch.zeros(count))

    def ambience(self, count: int, rng: torch.Generator) -> Tensor:
        """Two pieces together through an equaliser that keeps their loudness, `(count, 1, T)`."""
        quieter = 10 ** (-SECOND / 20 * torch.rand(count, 1, 1, generator=rng))
        both = (self.played.audio(count, rng) + quieter * self.played.audio(count, rng)) / (1 + quieter**2).sqrt()
        spectrum = torch.fft.rfft(both)
        orders, f = torch.arange(1.0, BANDS + 1), torch.linspace(0, math.pi, spectrum.shape[-1])
        decibels = BAND_STD * torch.randn(count, 1, BANDS, generator=rng) @ torch.cos(orders[:, None] * f)
        heard = torch.fft.irfft(10 ** (decibels / 20) * spectrum, both.shape[-1])
        loudness = [x.square().mean(-1, keepdim=True) for x in (both, heard)]
        return heard * (loudness[0] / loudness[1].clamp(min=1e-12)).sqrt()


def at_speed(x: Tensor, speed: float) -> Tensor:
    """A recording `(T,)` as it sounds so many times faster, frequencies with it; `(T / speed,)`."""
    length = round(len(x) / speed)
    return torch.fft.irfft(torch.fft.rfft(x), length) * (length / len(x))


def mixtures(
    learnt: Sequence[Path], held: Sequence[Path], sounds: Sequence[Path], held_sounds: Sequence[Path], patch: int
) -> tuple[Mixtures, list[Tensor]]:
    """What is learnt from, and pairs `(1, 2, T)` to validate on: the beginnings of a recording and of a noise.

    Raises:
        InputError: no recording or no noise can be used.
    """
    smallest = longest(patch)
    patches = Mixtures(load_speech(learnt, smallest), load_speech(sounds, smallest), patch)
    if not held:
        return patches, []
    noises, pairs = load_speech(held_sounds) if held_sounds else patches.sounds, []
    for i, x in enumerate(load_speech(held)):
        n, x = noises[i % len(noises)], x[:SHOWN]
        pair = torch.stack([x, n.repeat(-(-len(x) // len(n)))[: len(x)]])
        if bool((pair.square().mean(1) > SILENT**2).all()):
            pairs.append(pair[None])
    return patches, pairs


def validate_enhancer(enhancer: Enhancer, pairs: Sequence[Tensor]) -> dict[str, float]:
    """Mean SI-SDR (dB) of the posterior mean of recordings in recorded noise, by SNR; `pairs` as from `mixtures`."""
    found: dict[str, list[float]] = {}
    for i, pair in enumerate(pairs):
        clean, noise = pair[:, :1], pair[:, 1:]
        for snr in SNRS:
            y = clean + float(clean.std() / noise.std()) * 10 ** (-snr / 20) * noise
            S = frames_of(y)
            Y = S.forward(y)
            start = enhancer.sigma_max * torch.randn(Y.shape, generator=torch.Generator().manual_seed(i)).to(Y)
            with torch.no_grad():
                estimate = S.adjoint(Y - enhancer.noise_in(Y)(start, enhancer.sigma_max))
            score = si_sdr(estimate[0, 0].cpu().double().numpy(), clean[0, 0].cpu().double().numpy())
            found.setdefault(f"at {snr} dB", []).append(score)
    return {snr: fmean(scores) for snr, scores in found.items()}

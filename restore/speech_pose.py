"""A segment of a recording as a problem: frames of frequencies, what of them was measured, and its noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from operators.base import Identity
from operators.coloured import FLOOR, NMF, Stationary, Varying
from operators.image import Mask
from operators.noise import Censored, Gaussian
from operators.random import Draws
from operators.speech import Gap, Reverb
from operators.stft import ISTFT, STFT
from restore.problem import Problem
from restore.speech_damage import HOP, RATE, SpeechRequest, runs
from restore.speech_prepare import WINDOW, PreparedSpeech
from restore.tiles import Span

# Noise of what counts as measured, in units of the speech, where none is given.
EXACT = 1e-3
# Numbers in frames for each sample: the noise of overlapping frames is the same noise.
REDUNDANCY = 2 * (WINDOW // 2 + 1) / HOP
# Share of the frames that are the quietest.
QUIET = 0.1
# Frames that the first estimate of a noise counts for in the second; that of the whole segment in that of a moment.
FIRST, WHOLE = 5, 10
# Frames, a second, in which a noise hardly changes.
STEADY = 125
# Sounds that noise which is not white is made of.
RANK = 4
# Weight of the noise that an enhancer hears, of which that from moment to moment has the rest.
HEARD = 0.75


def pose(prepared: PreparedSpeech, request: SpeechRequest, y: Tensor, span: Span, c: int) -> tuple[Problem, STFT]:
    """The problem of one channel of a segment, and the transform whose frames its signal is.

    Args:
        y: the segment in units of the prior, `(1, 1, T)`.
    """
    damage, length = prepared.damage, y.shape[-1]
    frames = STFT(length, WINDOW, HOP)
    sigma = (request.noise or EXACT * float(prepared.scales[c])) / float(prepared.scales[c])
    if damage.response is not None:
        h = torch.from_numpy(damage.response)
        frames = STFT(length + len(h) - 1, WINDOW, HOP)
        white = Gaussian(sigma if request.noise else max(sigma, _floor(y)))
        return Problem(y, Reverb(h, frames.length, "valid") @ ISTFT(frames.length, WINDOW, HOP), white), frames
    if damage.level is not None:
        clipped = torch.from_numpy(_missing_low(prepared, span, c))
        lo, hi = (torch.where(clipped & (s * y > 0), y, s * math.inf)[0] for s in (-1, 1))
        return Problem(y, ISTFT(length, WINDOW, HOP), Censored(sigma, lo, hi)), frames
    if damage.missing is not None:
        gaps = runs(_missing_low(prepared, span, c))
        A = Gap((1, length), gaps) @ ISTFT(length, WINDOW, HOP) if gaps else ISTFT(length, WINDOW, HOP)
        return Problem(A.forward(frames.forward(y)), A, Gaussian(sigma)), frames
    Y = frames.forward(y)
    if damage.cutoff is not None:
        known = torch.arange(Y.shape[2]) < int(damage.cutoff / (RATE / 2) * Y.shape[2])
        band = Mask(known[:, None].expand(Y.shape[2:]).clone(), channels=2)
        return Problem(band.forward(Y), band, Gaussian(sigma)), frames
    if request.noise is not None:
        return Problem(Y, Identity(frames.oshape), Gaussian(sigma)), frames
    return Problem(Y, Identity(frames.oshape), steady_noise(Y)), frames


def steady_noise(Y: Tensor) -> Stationary:
    """Of frames `(1, 2, F, N)`: noise as strong in every frame as it is in the quietest."""
    power, sounding = _variances(Y)
    # The power of Gaussian noise has its quantile at so much of its mean.
    floor = power[:, sounding].quantile(QUIET, dim=1) / -math.log1p(-QUIET)
    return Stationary(floor.clamp(min=FLOOR * float(floor.mean())))


def noise_between_words(Y: Tensor, x: Tensor, first: Stationary) -> Stationary:
    """As strong, at each frequency, as what is heard where a draw `x` of the speech in the `first` noise is weaker than
    that: noise that swells is underestimated by its quietest moments."""
    power, weak = _heard_between_words(Y, x, first)
    return Stationary(((weak * power).sum(1) + FIRST * first.spectrum) / (weak.sum(1) + FIRST))


def noise_from_moment_to_moment(Y: Tensor, x: Tensor, first: Stationary, between: Stationary) -> Varying:
    """The same within a second or so, and as `between` all words where it was not heard then."""

    def near(v: Tensor) -> Tensor:  # sums of a triangle, of fewer frames where there are fewer
        for _ in range(2):
            v = F.avg_pool1d(v[None], STEADY, 1, STEADY // 2)[0]
        return STEADY * v

    power, weak = _heard_between_words(Y, x, first)
    heard = near(weak * power) + WHOLE * between.spectrum[:, None]
    return Varying(heard / (near(weak.to(power)) + WHOLE))


def noise_as_heard(draws: Tensor, near: Varying) -> Varying:
    """A geometric mean of what `draws` of the noise are, by who knows such noise, and of the noise from moment to
    moment: two witnesses, of which the first hears words in noise it does not know, or noise in words, and the second
    only what lasts."""
    return Varying(local(draws).variance ** HEARD * near.variance ** (1 - HEARD))


def _heard_between_words(Y: Tensor, x: Tensor, first: Stationary) -> tuple[Tensor, Tensor]:
    """The variances seen in each number of frames `Y`, and where a draw `x` is weaker than the `first` noise."""
    power, sounding = _variances(Y)
    return power, (local(x).variance < first.variance) & sounding


def _variances(Y: Tensor) -> tuple[Tensor, Tensor]:
    """Seen in each number, `(F, N)`; and which frames are no digital silence, which tells nothing of the noise."""
    power = REDUNDANCY * Y.double().square().mean((0, 1))
    loud = power.mean(0)
    return power, loud > 1e-10 * loud.max()


def few_sounds(steady: Stationary, frames: int, seed: int) -> NMF:
    """Where EM begins: noise of few sounds that come and go, all in all as strong as the steady one."""
    like = (steady.spectrum / REDUNDANCY).sqrt()[:, None].expand(-1, frames)[None, None].expand(1, 2, -1, -1)
    return NMF.start(like, RANK, Draws(seed), redundancy=REDUNDANCY)


def local(frames: Tensor) -> Varying:
    """Noise as strong as these frames `(B, 2, F, N)` are, around each number."""
    power = F.avg_pool2d(frames.double().square().mean((0, 1))[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
    return Varying(REDUNDANCY * power.clamp(min=max(FLOOR * float(power.mean()), 1e-30)))


def _floor(y: Tensor) -> float:
    """The rms of the quietest tenth of the frames."""
    blocks = y[..., : y.shape[-1] // HOP * HOP].reshape(-1, HOP).square().mean(1)
    return float(blocks[blocks > 0].quantile(0.1).sqrt()) if bool((blocks > 0).any()) else 0.0


def _missing_low(prepared: PreparedSpeech, span: Span, c: int) -> np.ndarray:
    """Of the samples of a segment at 16 kHz, those that missing ones of the file have a part in."""
    rate, missing = prepared.recording.rate, prepared.damage.missing
    assert missing is not None
    reach = 0 if rate == RATE else 2 * max(1, round(rate / RATE))
    a, b = (round(n * rate / RATE) for n in (span.start, span.stop))
    a, b = max(0, a - reach), min(prepared.recording.length, b + reach)
    flags = np.zeros(span.stop - span.start, bool)
    for first, last in runs(missing(a, b)[c]):
        low = int((a + first - reach) * RATE / rate) - span.start
        high = -int(-(a + last + reach) * RATE // rate) - span.start
        flags[max(low, 0) : max(high, 0)] = True
    if flags.all():
        middle = len(flags) // 2
        flags[middle : middle + 1] = False
    return flags

"""A restored recording at its own rate, any part of it, put together from the segments at 16 kHz."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from restore.modalities.speech import BLOCK
from restore.speech import Segments
from restore.speech_damage import HOP, RATE
from restore.speech_prepare import SILENCE, PreparedSpeech

# Frames by which the loudness of the band below decides on what lies above: their length, and the band's first bin.
_FRAME, _FIRST = 512, 128


class Result:
    """Draws of a recording, and their mean.

    What was measured and is not drawn stays: samples that are not missing, and, above 8 kHz, what the recording has
    there, weakened frame by frame as the octave below was.

    Args:
        segments: all of them are finished.
    """

    def __init__(self, prepared: PreparedSpeech, segments: Segments):
        self.prepared, self.segments = prepared, segments
        low, r = prepared.low, prepared.recording
        self.length = r.length if prepared.rate == r.rate else low.shape[1]

    def blocks(self, draw: int | None) -> Iterator[np.ndarray]:
        """All of it, `(t, C)` at a time; the mean for `None`."""
        for a in range(0, self.length, BLOCK):
            yield self(draw, a, min(a + BLOCK, self.length)).T

    def __call__(self, draw: int | None, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop`, `(C, stop - start)`, full scale being 1."""
        p = self.prepared
        r, up, length = p.recording, p.up, p.low.shape[1]
        offsets = p.offsets[:, None].astype(np.float32)
        drawn = up(partial(self.low, draw), length, start, stop)
        if p.rate != r.rate:
            return drawn + offsets
        x = np.nan_to_num(r.read(start, stop), posinf=0, neginf=0)
        above = x - offsets - up(self.measured, length, start, stop)
        if r.rate > RATE:
            above *= self._gain(draw, start, stop)
        if p.damage.missing is None:
            return drawn + above + offsets
        gone = p.damage.missing(start, stop)
        filled = drawn + offsets
        if p.damage.level is not None:  # a clipped sample lies beyond the level, on its own side
            filled = np.sign(x) * np.maximum(np.sign(x) * filled, np.abs(x))
        return np.where(gone, filled, x)

    def measured(self, start: int, stop: int) -> np.ndarray:
        """The recording at 16 kHz, `(C, stop - start)`."""
        return np.asarray(self.prepared.low[:, start:stop])

    def low(self, draw: int | None, start: int, stop: int) -> np.ndarray:
        """The same of a draw, or of the mean, as the segments have it; silent where the recording is."""
        out = np.zeros((len(self.prepared.low), stop - start), np.float32)
        for i, span in enumerate(self.prepared.spans):
            a, b = max(start, span.start), min(stop, span.stop)
            if a < b:
                part = self.segments.samples(i)[..., a - span.start : b - span.start]
                chosen = part.mean(0) if draw is None else part[draw]
                out[:, a - start : b - start] += chosen * span.window[a - span.start : b - span.start]
        return out if self.prepared.damage.missing is not None else out * self._heard(start, stop)

    def draws(self, start: int, stop: int) -> np.ndarray:
        """Of all draws, `(sample, C, stop - start)` at 16 kHz."""
        count = self.segments.samples(0).shape[0]
        return np.stack([self.low(i, start, stop) for i in range(count)])

    def _heard(self, start: int, stop: int) -> np.ndarray:
        """0 in blocks of digital silence with more of it on both sides, else 1: `(C, stop - start)`."""
        low = self.prepared.low
        first, last = start // HOP - 1, -(-stop // HOP) + 1
        a, b = max(first * HOP, 0), min(last * HOP, low.shape[1])
        x = np.pad(np.asarray(low[:, a:b]), ((0, 0), (a - first * HOP, last * HOP - b)))
        silent = np.abs(x).reshape(len(low), -1, HOP).max(2) < SILENCE / 10
        within = silent[:, :-2] & silent[:, 1:-1] & silent[:, 2:]
        begin = start - (first + 1) * HOP
        return np.repeat(~within, HOP, 1)[:, begin : begin + stop - start].astype(np.float32)

    def _gain(self, draw: int | None, start: int, stop: int) -> np.ndarray:
        """How much weaker the octave below 8 kHz was made, at most 1: `(C, stop - start)`."""
        ratio = RATE / self.prepared.recording.rate
        first, last = int(start * ratio) // HOP - 1, int(stop * ratio) // HOP + 3
        strength = []
        for read in (partial(self.low, draw), self.measured):
            a, b = first * HOP - _FRAME // 2, last * HOP + _FRAME // 2
            x = _within(read, self.prepared.low.shape[1], a, b)
            frames = np.lib.stride_tricks.sliding_window_view(x, _FRAME, -1)[:, ::HOP]
            strength.append(np.square(np.abs(np.fft.rfft(frames * np.hanning(_FRAME))[..., _FIRST:])).sum(-1))
        gain = np.sqrt(np.clip(strength[0] / np.maximum(strength[1], 1e-20), 0, 1))
        at = (first + np.arange(gain.shape[1])) * HOP / ratio
        rows = [np.interp(np.arange(start, stop), at, row) for row in gain]
        return np.stack(rows).astype(np.float32)


def _within(read, length: int, start: int, stop: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    a, b = min(max(start, 0), length), min(max(stop, 0), length)
    return np.pad(read(a, b), ((0, 0), (a - start, stop - b)))

"""Sampling rates changed block by block: any part of the result, without the rest. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

# Zero crossings of the sinc on each side, shape of Kaiser's window (stop band 90 dB down), and the cutoff as a share of
# what the lower rate can carry: nothing aliases, and all below 0.91 of it is kept.
ZEROS, BETA, ROLLOFF = 64, 9.0, 0.955


class Resampler:
    """From one sampling rate to another by a windowed sinc without delay: sample 0 stays where it is.

    Args:
        old, new: in Hz.
    """

    def __init__(self, old: int, new: int):
        common = math.gcd(old, new)
        self.up, self.down = new // common, old // common
        widest = max(self.up, self.down)
        # A multiple of `down`, so that a block that starts at one gives samples of the whole.
        self.half = math.ceil(ZEROS * widest / self.down) * self.down
        self.filter = np.ones(1)
        if widest > 1:
            t = np.arange(-self.half, self.half + 1)
            kaiser = np.i0(BETA * np.sqrt(np.clip(1 - (t / (ZEROS * widest)) ** 2, 0, None))) / np.i0(BETA)
            h = np.where(abs(t) <= ZEROS * widest, np.sinc(ROLLOFF * t / widest) * kaiser, 0.0)
            self.filter = self.up * h / h.sum()

    def length(self, samples: int) -> int:
        """How many samples there are at the new rate."""
        return -(-samples * self.up // self.down)

    def __call__(self, read: Callable[[int, int], np.ndarray], length: int, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop` of the result, `(..., stop - start)` float32.

        Args:
            read: gives samples `(..., b - a)` of the signal from `a` to `b`, within it.
            length: of the signal, which is zero outside.
        """
        from scipy.signal import upfirdn

        if self.up == self.down:
            return _padded(read, length, start, stop).astype(np.float32)
        first = (start * self.down - self.half) // self.up // self.down * self.down
        last = (stop * self.down + self.half) // self.up + 1
        x = _padded(read, length, first, last)
        skipped = start + (self.half - first * self.up) // self.down
        y = upfirdn(self.filter.astype(np.float32), x.astype(np.float32), self.up, self.down, axis=-1)
        return y[..., skipped : skipped + stop - start]


def _padded(read: Callable[[int, int], np.ndarray], length: int, start: int, stop: int) -> np.ndarray:
    a, b = min(max(start, 0), length), min(max(stop, 0), length)
    x = read(a, b)
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(a - start, stop - b)])

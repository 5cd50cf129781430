"""Pictures larger than memory: overlapping tiles, and the canvas on which they are blended strip by strip.

Neighbouring tiles overlap by `overlap` pixels. The outer thirds of an overlap are seen by the sampler and thrown away
(there the tile's own border is felt); in the middle third one tile fades into the next. The windows of all tiles
add up to one everywhere, so no sum of weights is kept.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, for indexing the last two axes."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Span:
    """One tile along one axis: pixels `start .. start + len(window)` and the weight of each in the result."""

    start: int
    window: np.ndarray

    @property
    def stop(self) -> int:
        return self.start + len(self.window)


def cut(length: int, tile: int, overlap: int, align: int = 1) -> list[Span]:
    """Tiles of at most `tile` pixels that cover an axis of `length`, of equal size but for `align`.

    Args:
        length: pixels along the axis, a multiple of `align`.
        tile: pixels of a tile; an axis that fits is one tile with a window of ones.
        overlap: least number of pixels that neighbours share.
        align: tiles start and end at multiples of this.

    Raises:
        ValueError: the tile is smaller than two overlaps.
    """
    if length <= tile:
        return [Span(0, np.ones(length, np.float32))]
    if tile < 2 * (overlap + align):
        raise ValueError(
            f"a tile of {tile} pixels is too small for overlaps of {overlap}: give at least {2 * (overlap + align)}"
        )
    count = -(-(length - overlap) // (tile - overlap - align + 1))
    tile = -(-(length + (count - 1) * overlap) // (count * align)) * align
    starts = [round((length - tile) * i / (count - 1) / align) * align for i in range(count)]
    spans = []
    for i, start in enumerate(starts):
        window = np.ones(tile, np.float32)
        if i > 0:
            rise = _rise(starts[i - 1] + tile - start)
            window[: len(rise)] *= rise
        if i < count - 1:
            fall = 1 - _rise(start + tile - starts[i + 1])
            window[tile - len(fall) :] *= fall
        spans.append(Span(start, window))
    return spans


def _rise(shared: int) -> np.ndarray:
    """Weights of the later tile over `shared` pixels: 0, a smooth step in the middle third, 1."""
    third = shared // 3
    t = np.clip((np.arange(shared) - third + 0.5) / (shared - 2 * third), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


class Spool:
    """Rows of a picture `(C, H, W)` written one after another to a nameless file, which vanishes with the process."""

    def __init__(self, shape: tuple[int, int, int], folder: Path):
        self.shape = shape
        # Closed by `close`, or by the system when the process ends, however it ends.
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def append(self, rows: np.ndarray) -> None:
        """Add `(C, rows, W)`."""
        self.file.write(np.ascontiguousarray(rows.swapaxes(0, 1), dtype=np.float32).tobytes())

    def read(self) -> np.ndarray:
        """All of it, `(C, H, W)` float32."""
        channels, height, width = self.shape
        self.file.seek(0)
        rows = np.fromfile(self.file, np.float32, channels * height * width)
        return rows.reshape(height, channels, width).swapaxes(0, 1)

    def close(self) -> None:
        self.file.close()


class Canvas:
    """Blends tiles of several draws into whole pictures, their mean and their spread, holding one strip in memory.

    The spread is `(1, H, W)`: the standard deviation over the draws, as root mean square over the channels.

    Tiles come row by row, from the top. Call `finish_above(row)` when no later tile will touch the rows above it.

    Args:
        shape: `(C, H, W)` of the picture.
        draws: number of draws in each tile.
        folder: where the unfinished results are spooled (a place with space for `draws + 2` pictures in float32).
    """

    def __init__(self, shape: tuple[int, int, int], draws: int, folder: Path):
        self.shape, self.top = shape, 0
        self.strip = np.zeros((draws, shape[0], 0, shape[2]), np.float32)
        self.samples = [Spool(shape, folder) for _ in range(draws if draws > 1 else 0)]
        self.mean, self.std = Spool(shape, folder), Spool((1, *shape[1:]), folder)

    def add(self, samples: np.ndarray, row: Span, column: Span) -> None:
        """Add a tile, `(draws, C, h, w)`."""
        missing = row.stop - self.top - self.strip.shape[2]
        if missing > 0:
            self.strip = np.pad(self.strip, ((0, 0), (0, 0), (0, missing), (0, 0)))
        weight = row.window[:, None] * column.window
        self.strip[..., row.start - self.top : row.stop - self.top, column.start : column.stop] += samples * weight

    def finish_above(self, row: int) -> None:
        """Spool the rows above `row`."""
        done, self.strip = np.split(self.strip, [row - self.top], axis=2)
        self.strip, self.top = self.strip.copy(), row
        self.mean.append(done.mean(0))
        variance = done.var(0, ddof=1) if len(done) > 1 else np.zeros_like(done[0])
        self.std.append(np.sqrt(variance.mean(0, keepdims=True)))
        for spool, sample in zip(self.samples, done, strict=False):
            spool.append(sample)

    def close(self) -> None:
        for spool in (*self.samples, self.mean, self.std):
            spool.close()

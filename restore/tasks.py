"""A person's tasks, as problems: what the answer's size is, and which problem each tile of it poses.

A tile is a rectangle of the answer. Its problem may reach beyond it where data depend on pixels outside: the operator
is that of the whole picture, restricted to the data that lie in the tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators.base import LinearOperator, Shape
from restore.tiles import Box

Make = Callable[..., LinearOperator]


class Unrestorable(ValueError):
    """A picture that this task cannot be done on: what was seen, what was wanted, the cure."""

    def __init__(self, seen: str, wanted: str, cure: str):
        super().__init__(seen, wanted, cure)
        self.seen, self.wanted, self.cure = seen, wanted, cure


@dataclass(frozen=True)
class Piece:
    """The problem of one tile.

    Attributes:
        operator, y: of the signal that explains the data in the tile; `y` is `(1, *oshape)`.
        origin: row and column of that signal's first pixel in the answer; negative where it reaches beyond.
        inside: rows and columns of that signal that are the tile.
    """

    operator: LinearOperator
    y: Tensor
    origin: tuple[int, int]
    inside: tuple[slice, slice]


class Task(ABC):
    """What is to be done to one picture.

    Args:
        data: what was measured, float32 `(C, H, W)` in [0, 1].
        make: makes the operator of a tile from those of its constructor arguments that depend on the tile.

    Attributes:
        shape: `(C, H, W)` of the answer.
        factor: how many times larger the answer is than the data, in each direction.
        reach: how many pixels of the answer around it one datum depends on.
    """

    factor = 1
    reach = 0

    def __init__(self, data: np.ndarray, make: Make):
        self.data, self._make = data, make
        self._made: dict[Shape, LinearOperator] = {}
        channels, height, width = data.shape
        self.shape = (channels, height * self.factor, width * self.factor)

    @abstractmethod
    def piece(self, box: Box) -> Piece:
        """The problem of one tile, a multiple of `factor` in place and size.

        Raises:
            Unrestorable: nothing was measured there.
        """

    @property
    def kept(self) -> np.ndarray | None:
        """The pixels that were measured, `(H, W)` bool; `None` means all."""
        return None

    def operator(self, ishape: Shape, **others: object) -> LinearOperator:
        """The operator of a tile, made once for all tiles of a size: making one can mean an SVD."""
        if ishape not in self._made:
            self._made[ishape] = self._make(ishape=ishape, **others)
        return self._made[ishape]


class Denoise(Task):
    """`y = x + noise`."""

    def piece(self, box: Box) -> Piece:
        y = _tensor(self.data[:, *box.slices])
        return Piece(self.operator(tuple(y.shape[1:])), y, (box.top, box.left), (slice(None), slice(None)))


class Inpaint(Task):
    """Pixels are missing: `missing` is `(H, W)` bool."""

    def __init__(self, data: np.ndarray, make: Make, missing: np.ndarray):
        super().__init__(data, make)
        self.missing = missing

    @property
    def kept(self) -> np.ndarray:
        return ~self.missing

    def piece(self, box: Box) -> Piece:
        kept = self.kept[box.slices]
        if not kept.any():
            raise Unrestorable(
                f"a hole that covers all {box.height} x {box.width} pixels of a tile",
                "some pixels in each tile",
                "give larger tiles, such as tile=2048, or make the picture smaller first",
            )
        operator = self._make(mask=torch.from_numpy(kept), channels=len(self.data))
        y = operator(_tensor(self.data[:, *box.slices]))
        return Piece(operator, y, (box.top, box.left), (slice(None), slice(None)))


class Deblur(Task):
    """A photograph through a point spread function.

    With boundary `valid` the scene continues beyond the frame by the kernel, and is inferred there too. With
    `circular` it continues on the other side, which is only kept where the picture is a single tile.

    Args:
        data, make: as for `Task`.
        kernel: `(kh, kw)`, summing to one.
        boundary: `valid` or `circular`.
    """

    def __init__(self, data: np.ndarray, make: Make, kernel: Tensor, boundary: str):
        super().__init__(data, make)
        (kh, kw), (H, W) = kernel.shape, data.shape[1:]
        if kh > H or kw > W:
            raise Unrestorable(
                f"the kernel ({kw} x {kh} pixels) is larger than the picture ({W} x {H})",
                "a kernel smaller than the picture",
                "crop the kernel's empty borders, or check that it belongs to this picture",
            )
        self.kernel, self.boundary, self.reach = kernel, boundary, max(kh, kw) // 2

    def piece(self, box: Box) -> Piece:
        y = _tensor(self.data[:, *box.slices])
        if self.boundary == "circular" and (box.height, box.width) == self.shape[1:]:
            operator = self.operator(self.shape, kernel=self.kernel, boundary="circular")
            return Piece(operator, y, (0, 0), (slice(None), slice(None)))
        kh, kw = self.kernel.shape
        top, left = kh - 1 - kh // 2, kw - 1 - kw // 2
        ishape = (self.shape[0], box.height + kh - 1, box.width + kw - 1)
        return Piece(
            self.operator(ishape, kernel=self.kernel, boundary="valid"),
            y,
            (box.top - top, box.left - left),
            (slice(top, top + box.height), slice(left, left + box.width)),
        )


class Upscale(Task):
    """A small picture of a larger one.

    The operator is circular, a photograph is not: data continue by reflection for a few pixels beyond the frame (in the
    middle of the picture by the data themselves), and what is inferred there is cut off.

    Args:
        data, make: as for `Task`.
        factor: how many times larger the answer is.
    """

    pad = 8

    def __init__(self, data: np.ndarray, make: Make, factor: int):
        self.factor, self.reach = factor, 2 * factor
        super().__init__(data, make)

    def piece(self, box: Box) -> Piece:
        f, p = self.factor, self.pad
        rows = _reflected(np.arange(box.top // f - p, (box.top + box.height) // f + p), self.data.shape[1])
        columns = _reflected(np.arange(box.left // f - p, (box.left + box.width) // f + p), self.data.shape[2])
        y = _tensor(self.data[:, rows[:, None], columns])
        operator = self.operator((self.shape[0], len(rows) * f, len(columns) * f))
        inside = (slice(p * f, p * f + box.height), slice(p * f, p * f + box.width))
        return Piece(operator, y, (box.top - p * f, box.left - p * f), inside)


def _reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Indices beyond `0 .. length - 1` mirrored back, the border pixel repeated."""
    folded = index % (2 * length)
    return np.minimum(folded, 2 * length - 1 - folded)


def _tensor(data: np.ndarray) -> Tensor:
    """`(C, h, w) -> (1, C, h, w)`, a copy of its own."""
    return torch.from_numpy(np.array(data, np.float32, order="C"))[None]

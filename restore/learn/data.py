"""Pictures for training: a folder, held in memory as bytes, cut into random patches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from restore.errors import FolderEmpty, InputError

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


def find_pictures(folders: Sequence[Path]) -> list[Path]:
    """Every picture in the folders and their subfolders, sorted within each.

    Raises:
        InputError: a folder is missing.
        FolderEmpty: a folder holds no pictures.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            seen = "a file" if folder.exists() else "no such folder"
            raise InputError(folder, seen, "a folder of pictures", "check the path")
        here = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not here:
            raise FolderEmpty(folder, "no pictures in it", ", ".join(sorted(SUFFIXES)), "name a folder that has some")
        found += here
    return found


def load_pictures(paths: Sequence[Path], smallest: int = 1) -> list[Tensor]:
    """The usable pictures as uint8 tensors `(C, H, W)`, grey (1) or colour (3); the others are named and left out.

    Args:
        smallest: pictures with a side below this are left out too.

    Raises:
        InputError: none is left.
    """
    pictures = []
    for path in paths:
        try:
            pixels = read_bytes(path)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on damaged files
            log.warning("left out %s: %s", path, error)
            continue
        if min(pixels.shape[:2]) < smallest:
            height, width = pixels.shape[:2]
            log.warning("left out %s: %dx%d is smaller than the %d-pixel patch", path, width, height, smallest)
            continue
        pictures.append(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
    if not pictures:
        where = paths[0].parent if paths else Path()
        raise InputError(where, f"none of {len(paths)} pictures can be used", "one at least", "see the reasons above")
    return pictures


def read_bytes(path: Path) -> np.ndarray:
    """One picture as uint8 `(H, W, 1 or 3)`, without its alpha; 16-bit grey is rounded to 8 bits.

    Raises:
        OSError, SyntaxError: not a picture, or damaged.
        ValueError: its samples have no known range (32-bit integers, floats).
    """
    with Image.open(path) as image:
        if image.mode in ("I", "F"):
            raise ValueError("32-bit samples have no known range; training reads 8 and 16 bits")
        if image.mode.startswith("I;16"):
            pixels = np.round(np.asarray(image) / 257).astype(np.uint8)
        else:
            pixels = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


class Patches:
    """Random square patches of colour and grey pictures, in `[-1, 1]`.

    A picture is drawn with a probability proportional to its number of pixels. A patch is flipped and turned at random,
    and sometimes cut larger and shrunk, so that one picture shows its content at several scales. Recordings of noise
    are not: rows are not columns, and shrunk noise is weaker.

    Args:
        pictures: uint8, `(C, H, W)`.
        size: side of a patch.
        grey: share of the batches drawn as luminance; 1 if no picture has colour.
        shrink: share of the patches that are shrunk, by a factor up to `largest`.
        turn: whether patches are flipped and turned.
    """

    largest = 2.0

    def __init__(
        self, pictures: Sequence[Tensor], size: int, grey: float = 0.35, shrink: float = 0.3, turn: bool = True
    ):
        self.colour = [p for p in pictures if p.shape[0] == 3]
        self.all, self.size, self.shrink, self.turn = list(pictures), size, shrink, turn
        self.grey = grey if self.colour else 1.0

    def batch(self, count: int, rng: torch.Generator) -> Tensor:
        """`(count, 1 or 3, size, size)`: one number of channels per batch."""
        grey = torch.rand((), generator=rng).item() < self.grey
        pool = self.all if grey else self.colour
        area = torch.tensor([float(p.shape[1] * p.shape[2]) for p in pool])
        chosen = torch.multinomial(area, count, replacement=True, generator=rng).tolist()
        patches = torch.stack([self._patch(pool[i], grey, rng) for i in chosen])
        return patches.float() / 127.5 - 1

    def _patch(self, picture: Tensor, grey: bool, rng: torch.Generator) -> Tensor:
        draw = torch.rand(8, generator=rng).tolist()
        height, width = picture.shape[1:]
        side = self.size
        if draw[0] < self.shrink:
            side = min(int(self.size * (1 + draw[1] * (self.largest - 1))), height, width)
        top, left = int(draw[2] * (height - side + 1)), int(draw[3] * (width - side + 1))
        patch = picture[:, top : top + side, left : left + side]
        if grey and patch.shape[0] == 3:
            patch = T.rgb_to_grayscale(patch)
        if side != self.size:
            patch = T.resize(patch, [self.size, self.size], antialias=True)
        if not self.turn:
            return patch
        if draw[4] < 0.5:
            patch = patch.flip(2)
        if draw[5] < 0.5:
            patch = patch.flip(1)
        return patch.transpose(1, 2) if draw[6] < 0.5 else patch

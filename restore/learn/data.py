"""Pictures for training: a folder, held in memory as bytes, cut into random patches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as T

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


def find_pictures(folders: Sequence[Path]) -> list[Path]:
    """Every picture below the folders, sorted. Raises FileNotFoundError where a folder is missing or holds none."""
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder")
        here = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not here:
            raise FileNotFoundError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        found += here
    return found


def load_pictures(paths: Sequence[Path], smallest: int = 1) -> list[Tensor]:
    """The readable pictures as uint8 tensors `(C, H, W)`, grey (1) or colour (3); the others are named and left out.

    Args:
        smallest: pictures with a side below this are left out too.

    Raises:
        ValueError: none is left.
    """
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as image:
                grey = image.mode in ("1", "L", "LA", "I;16", "I", "F")
                if image.mode in ("I;16", "I", "F"):
                    raise ValueError(f"{image.mode} pixels; training reads 8-bit pictures")
                pixels = np.array(image.convert("L" if grey else "RGB"))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            log.warning("left out %s: %s", path, error)
            continue
        if min(pixels.shape[:2]) < smallest:
            log.warning("left out %s: %dx%d is smaller than the %d-pixel patch", path, *pixels.shape[1::-1], smallest)
            continue
        pictures.append(torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous())
    if not pictures:
        raise ValueError(f"none of the {len(paths)} pictures can be used; the reasons are above")
    return pictures


class Patches:
    """Random square patches of colour and grey pictures, in `[-1, 1]`.

    A picture is drawn with a probability proportional to its number of pixels. A patch is flipped and turned at random,
    and sometimes cut larger and shrunk, so that one picture shows its content at several scales.

    Args:
        pictures: uint8, `(C, H, W)`.
        size: side of a patch.
        grey: share of the batches drawn as luminance; 1 if no picture has colour.
        shrink: share of the patches that are shrunk, by a factor up to `largest`.
    """

    largest = 2.0

    def __init__(self, pictures: Sequence[Tensor], size: int, grey: float = 0.35, shrink: float = 0.3):
        self.colour = [p for p in pictures if p.shape[0] == 3]
        self.all, self.size, self.shrink = list(pictures), size, shrink
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
        if draw[4] < 0.5:
            patch = patch.flip(2)
        if draw[5] < 0.5:
            patch = patch.flip(1)
        return patch.transpose(1, 2) if draw[6] < 0.5 else patch

"""Pictures for training: folders, held in memory as bytes (as floats where noisy), cut into random patches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from restore.errors import FolderEmpty, InputError
from restore.modalities.image import read_picture
from restore.modalities.units import own_units

from .base import Batch

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
FEW = 100  # patches
LUMINANCE = (0.2989**2 + 0.587**2 + 0.114**2) ** 0.5  # std of the luminance of white noise of std 1 in each channel


def find_pictures(folders: Sequence[Path], suffixes: Collection[str] = SUFFIXES, kind: str = "pictures") -> list[Path]:
    """Every picture, or file with one of the suffixes, in the folders and their subfolders, sorted within each.

    Raises:
        InputError: a folder is missing.
        FolderEmpty: a folder holds no pictures, or what the `kind` of files is called.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            seen = "a file" if folder.exists() else "no such folder"
            raise InputError(folder, seen, f"a folder of {kind}", "check the path")
        here = sorted(p for p in folder.rglob("*") if p.name.lower().endswith(tuple(suffixes)) and p.is_file())
        if not here:
            raise FolderEmpty(folder, f"no {kind} in it", ", ".join(sorted(suffixes)), "name a folder that has some")
        found += here
    return found


def read_bytes(path: Path) -> Tensor:
    """One picture as uint8 `(1 or 3, H, W)`, without its alpha; 16-bit grey is rounded to 8 bits.

    Raises:
        OSError, SyntaxError: not a picture, or damaged.
        ValueError: its samples have no known range (32-bit integers, floats).
    """
    with Image.open(path) as image:
        if image.mode in ("I", "F"):
            raise ValueError("32-bit samples have no known range; training on clean pictures reads 8 and 16 bits")
        if image.mode.startswith("I;16"):
            pixels = np.round(np.asarray(image) / 257).astype(np.uint8)
        else:
            pixels = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


class Noisy(NamedTuple):
    """A noisy picture.

    Attributes:
        pixels: float32 `(1 or 3, H, W)` in `[-1, 1]` and beyond, nothing rounded; NaN where nothing was seen.
        scale: how much in its file is 1 in `[0, 1]`.
    """

    pixels: Tensor
    scale: float

    @property
    def shape(self) -> torch.Size:
        return self.pixels.shape


def read_noisy(path: Path, masked: bool = False, from_zero: bool = False) -> Noisy:
    """One noisy picture in the units in which it is restored (`restore.modalities.units`); grey that is stored as
    colour is grey.

    Args:
        masked: transparent pixels were not seen: NaN.
        from_zero: the noise depends on the brightness, so zero stays zero.

    Raises:
        InputError: not a picture, damaged, of one value, or negative where the noise depends on the brightness.
    """
    picture = read_picture(path)
    data = picture.data
    if float(data.min()) == float(data.max()):
        raise InputError(path, f"all values are {data.min():g}", "a noisy picture", "check how it was saved")
    units = own_units(picture, data, noisy=True, from_zero=from_zero)
    if len(data) == 3 and np.array_equal(data[0], data[1]) and np.array_equal(data[0], data[2]):
        data = data[:1]
    pixels = 2 * torch.tensor(units.inward(data), dtype=torch.float32) - 1
    if masked and picture.alpha is not None:
        pixels[:, torch.tensor(picture.alpha) == 0] = torch.nan
    return Noisy(pixels, units.scale)


def warn_of_clipping(pictures: Sequence[Tensor], white: bool = True, most: float = 0.02) -> None:
    """Log a warning where more than a share `most` of noisy pixels lies exactly at 0 or 1.

    Args:
        white: whether the noise is as strong in black as elsewhere, so that black pixels count.
    """
    ends = sum(float(((p.abs() if white else p) == 1).sum()) for p in pictures) / sum(p.numel() for p in pictures)
    if ends > most:
        log.warning(
            "%.0f %% of the noisy pixels lie at the ends of the range: noise that was clipped there is another noise. "
            "Save pictures with room %s, or as floats",
            100 * ends,
            "below black and above white" if white else "above white",
        )


def warn_of_few(pictures: Sequence[Tensor], size: int) -> None:
    """Log a warning where the pictures make up fewer than `FEW` patches."""
    patches = sum((p.shape[1] // size) * (p.shape[2] // size) for p in pictures)
    if patches < FEW:
        log.warning(
            "few data: %d picture%s, %d patches of %d x %d that do not overlap; a network wants %d or more. Expect "
            "smoother results, with less detail, than from more pictures of the same kind",
            len(pictures), "s" * (len(pictures) != 1), patches, size, size, FEW,
        )  # fmt: skip


class Sized(Protocol):
    """What has the shape of a picture, `(C, H, W)`."""

    @property
    def shape(self) -> torch.Size: ...


P = TypeVar("P", bound=Sized)


def load_pictures(paths: Sequence[Path], smallest: int = 1) -> list[Tensor]:
    """The usable pictures as `read_bytes` reads them; see `load`."""
    return load(paths, read_bytes, smallest)


def load(paths: Sequence[Path], read: Callable[[Path], P], smallest: int = 1) -> list[P]:
    """The usable pictures, `(C, H, W)`, grey (1) or colour (3); the others are named and left out.

    Args:
        read: how one is read.
        smallest: pictures with a side below this are left out too.

    Raises:
        InputError: none is left.
    """
    pictures = []
    for path in paths:
        try:
            picture = read(path)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on damaged files
            words = str(error).removeprefix(f"{path}: ")  # what is ours names the file itself
            log.warning("left out %s: %s", path, words)
            continue
        height, width = picture.shape[1:]
        if min(height, width) < smallest:
            log.warning("left out %s: %dx%d is smaller than the %d-pixel patch", path, width, height, smallest)
            continue
        pictures.append(picture)
    if not pictures:
        where = paths[0].parent if paths else Path()
        raise InputError(where, f"none of {len(paths)} pictures can be used", "one at least", "see the reasons above")
    return pictures


class Patches:
    """Random square patches of colour and grey pictures, in `[-1, 1]`.

    A picture is drawn with a probability proportional to its number of pixels. A patch is flipped and turned at random,
    and sometimes cut larger and shrunk, so that one picture shows its content at several scales. Recordings of noise
    are not: rows are not columns, and shrunk noise is weaker. Noisy pictures are turned and not shrunk; the noise of
    their luminance is weaker than that of a channel, and each patch says what it carries. Half of the patches at least
    are of clean pictures where there are some: only these show what lies below the noise.

    Args:
        pictures: uint8, or float32 in `[-1, 1]` with NaN where nothing was seen, `(C, H, W)`.
        size: side of a patch.
        grey: share of the batches drawn as luminance; 1 if no picture has colour.
        shrink: share of the patches that are shrunk, by a factor up to `largest`.
        turn: whether patches are flipped and turned.
        noise: std of the white noise of each picture, in `[-1, 1]` units; by default all are clean.
        luminance: whether grey patches are cut from colour pictures too.
    """

    largest = 2.0

    def __init__(
        self,
        pictures: Sequence[Tensor],
        size: int,
        grey: float = 0.35,
        shrink: float = 0.3,
        turn: bool = True,
        noise: Sequence[float] | None = None,
        luminance: bool = True,
    ):
        self.all, self.size, self.shrink, self.turn = list(pictures), size, shrink, turn
        self.noise = [0.0] * len(self.all) if noise is None else list(noise)
        self.colour = [p for p in self.all if p.shape[0] == 3]
        self.in_colour = torch.tensor([p.shape[0] == 3 for p in self.all])
        self.area = torch.tensor([float(p.shape[1] * p.shape[2]) for p in self.all])
        self.clean = torch.tensor([sigma == 0 for sigma in self.noise])
        self.luminance = luminance
        self.grey = grey if self.colour else 1.0
        if not luminance:
            self.grey = float(self.area[~self.in_colour].sum() / self.area.sum())

    @property
    def channels(self) -> tuple[int, ...]:
        """The numbers of channels that batches have: a stem that saw nothing would answer all the same."""
        if self.grey == 0:
            return (3,)
        return (1, 3) if self.colour else (1,)

    def noises(self) -> dict[int, list[float]]:
        """For each number of channels the stds of the noise in its batches, in `[-1, 1]` units."""
        found: dict[int, set[float]] = {}
        for picture, sigma in zip(self.all, self.noise, strict=True):
            for channels in {1 if self.luminance else picture.shape[0], picture.shape[0]}:
                found.setdefault(channels, set()).add(weaker(sigma, picture, grey=channels == 1))
        return {channels: sorted(found[channels]) for channels in sorted(found)}

    def batch(self, count: int, rng: torch.Generator) -> Batch:
        """Patches `(count, 1 or 3, size, size)`: one number of channels per batch."""
        grey = torch.rand((), generator=rng).item() < self.grey
        area = self.area if grey and self.luminance else self.area * (self.in_colour != grey)
        if (clean := area[self.clean].sum()) > 0:
            area = torch.where(self.clean, area * (area[~self.clean].sum() / clean).clamp(min=1), area)
        chosen = torch.multinomial(area, count, replacement=True, generator=rng).tolist()
        x = torch.stack([self._patch(self.all[i], self.noise[i], grey, rng) for i in chosen])
        sigma = torch.tensor([weaker(self.noise[i], self.all[i], grey) for i in chosen])
        unseen = x.isnan()
        return Batch(x.nan_to_num(nan=0.0), sigma, ~unseen) if unseen.any() else Batch(x, sigma)

    def _patch(self, picture: Tensor, noise: float, grey: bool, rng: torch.Generator) -> Tensor:
        draw = torch.rand(8, generator=rng).tolist()
        height, width = picture.shape[1:]
        side = self.size
        if draw[0] < self.shrink and noise == 0:
            side = min(int(self.size * (1 + draw[1] * (self.largest - 1))), height, width)
        top, left = int(draw[2] * (height - side + 1)), int(draw[3] * (width - side + 1))
        patch = picture[:, top : top + side, left : left + side]
        if grey and patch.shape[0] == 3:
            patch = T.rgb_to_grayscale(patch)
        if side != self.size:
            patch = T.resize(patch, [self.size, self.size], antialias=True)
        if patch.dtype == torch.uint8:
            patch = patch.float() / 127.5 - 1
        if not self.turn:
            return patch
        if draw[4] < 0.5:
            patch = patch.flip(2)
        if draw[5] < 0.5:
            patch = patch.flip(1)
        return patch.transpose(1, 2) if draw[6] < 0.5 else patch


def weaker(noise: float, picture: Tensor, grey: bool) -> float:
    """The std of the noise of a picture, or of its luminance."""
    return noise * LUMINANCE if grey and picture.shape[0] == 3 else noise

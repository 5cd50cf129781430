"""`Picture`: the pixels of a file as numbers, and all it takes to write the same kind of file again. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError

Depth = Literal["uint8", "uint16", "float32"]

MAX_PIXELS = 200_000_000


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture as it was stored: rows and columns are not turned by the EXIF orientation, which is kept as a tag.

    Attributes:
        path: the file it was read from.
        data: float32 `(C, H, W)`, `C` 1 (grey) or 3 (RGB), as encoded (no gamma is undone). Integer files are scaled to
            [0, 1]; the values of a float TIFF are kept as they are.
        alpha: float32 `(H, W)`, 0 = transparent, or `None`.
        format: "PNG", "TIFF", "JPEG", "WEBP" or "BMP".
        depth: how a sample is stored in the file.
        icc: ICC profile, or `None`.
        exif: EXIF block without the `Exif\\0\\0` that JPEG puts in front, or `None`.
        dpi: horizontal and vertical resolution in dots per inch, or `None`.
        kept: what only this format knows (PNG chunks, TIFF layout, lossless WebP): for its own writer.
        notes: in words, each thing that cannot come back as it was.
    """

    path: Path
    data: np.ndarray
    alpha: np.ndarray | None
    format: str
    depth: Depth
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    kept: Any = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        channels, height, width = self.data.shape
        colour = ("grey" if channels == 1 else "colour") + ("" if self.alpha is None else " with alpha")
        bits = {"uint8": "8-bit", "uint16": "16-bit", "float32": "32-bit float"}[self.depth]
        span = f"values {self.data.min():.3g} to {self.data.max():.3g}"
        return f"{width} x {height} pixels, {colour}, {bits} {self.format}, {span}"


def from_samples(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, Depth]:
    """`data (C, H, W)`, `alpha (H, W)` or `None`, and the depth, of samples `(H, W, S)`; an even `S` ends in alpha."""
    depth: Depth = {"uint8": "uint8", "uint16": "uint16"}.get(samples.dtype.name, "float32")  # type: ignore[assignment]
    planes = np.ascontiguousarray(np.moveaxis(samples, -1, 0), dtype=np.float32)
    if depth != "float32":
        planes /= np.float32(np.iinfo(depth).max)
    if len(planes) % 2 == 0:
        return planes[:-1], planes[-1], depth
    return planes, None, depth


def to_samples(data: np.ndarray, alpha: np.ndarray | None, depth: Depth) -> np.ndarray:
    """The inverse: samples `(H, W, S)`. Integer depths are clipped to [0, 1] and rounded to the nearest value."""
    planes = [*data] if alpha is None else [*data, alpha]
    samples = np.empty((*data.shape[1:], len(planes)), depth)
    for s, plane in enumerate(planes):
        samples[..., s] = plane if depth == "float32" else np.rint(np.clip(plane, 0, 1) * np.iinfo(depth).max)
    return samples


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse a picture of more than `MAX_PIXELS` before its pixels are unpacked, or one without any.

    Raises:
        InputError: naming the size.
    """
    if width < 1 or height < 1:
        raise InputError(path, f"a picture of {width} x {height} pixels", "at least one pixel", "save it again")
    if width * height > MAX_PIXELS:
        raise InputError(
            path,
            f"a picture of {width} x {height} pixels ({width * height / 1e6:.0f} megapixels)",
            f"at most {MAX_PIXELS / 1e6:.0f} megapixels",
            "cut it into parts, or make it smaller first",
        )


@contextlib.contextmanager
def decoding(path: Path, kind: str, wanted: str = "a whole picture") -> Iterator[None]:
    """Say in words that a decoder failed. Decoders raise what they like on damaged bytes, hence the wide net.

    Raises:
        InputError: in place of whatever the decoder raised, except for lack of memory.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # A decoder that trips over an index or a key of its own has nothing to say to a person.
        plain = str(error).strip().split("\n")[0] if isinstance(error, (OSError, ValueError, SyntaxError)) else ""
        seen = f"damaged or incomplete {kind}" + (f" ({plain})" if plain else "")
        raise InputError(path, seen, wanted, "copy or save the file again") from error

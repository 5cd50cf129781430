"""TIFF with 8-bit, 16-bit and float samples (TIFF 6.0), one picture per file.

Pixels are read by tifffile, or by Pillow where tifffile lacks the codec (LZW, JPEG, palettes, CMYK). Descriptive tags,
the EXIF and GPS directories and the ICC profile are carried over byte for byte by `image_tags`.
"""

from __future__ import annotations

import io
import logging
import mmap
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import TiffImagePlugin

from ..errors import InputError
from .image_picture import Picture, check_size, decoding, from_samples
from .image_pil import samples_of
from .image_tags import ByteOrder, Directory, pack, pack_block, parse, parse_block

_ICC = 34675
_RESOLUTION = frozenset({282, 283, 296})
# Description, make, model, orientation, software, date, artist, host, copyright; XMP, IPTC.
_DESCRIPTIVE = frozenset({270, 271, 272, 274, 305, 306, 315, 316, 33432, 700, 33723})
# How the pixels lie in the file: written anew.
_STRUCTURE = frozenset({
    254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 284, 285, 292, 297, 317, 320, 322, 323,
    324, 325, 330, 332, 334, 338, 339, 340, 341, 347, 512, 513, 514, 519, 520, 521, 529, 530, 531, 532, 50838, 50839,
})  # fmt: skip
_ORIENTATION = 274
_NOT_COMPRESSED, _DEFLATE = (1,), (8, 32946)
_ASSOCIATED = 1

# What tifffile has to say of a damaged file is said in our own error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Layout:
    """What only a TIFF file knows: how its pixels lie, and its resolution tags as they were."""

    order: ByteOrder
    compress: bool
    predictor: bool
    planar: bool
    white_is_zero: bool
    extra: int | None
    resolution: dict[int, tuple[int, int, bytes]]

    @property
    def premultiplied(self) -> bool:
        """Whether colours are stored multiplied by alpha."""
        return self.extra == _ASSOCIATED


def read(path: Path) -> Picture:
    """Read a TIFF file with one picture (reduced copies of it are passed over).

    Raises:
        InputError: truncated, damaged, several pages, other than grey or RGB, samples of another kind, too large.
    """
    notes: tuple[str, ...] = ()
    with decoding(path, "TIFF"), tifffile.TiffFile(path) as tif:
        all_pages: list[Any] = list(tif.pages)
        pages = [page for page in all_pages if not page.is_reduced]
        count = max(len(pages), (tif.imagej_metadata or {}).get("images", 1))
        if count == 0:
            raise ValueError("it holds no picture")
        if count != 1:
            raise InputError(path, f"{count} pages", "a TIFF of one page", "save each page as a file of its own")
        page = pages[0]
        check_size(path, page.imagewidth, page.imagelength)
        _check(path, page)
        samples, white_is_zero, notes = _samples(path, page)
        order: ByteOrder = ">" if tif.byteorder == ">" else "<"
        if tif.is_bigtiff:
            tags, notes = Directory(), (*notes, "BigTIFF: written as plain TIFF, without its descriptive tags")
        else:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                tags = parse(view, order, page.offset)  # type: ignore[arg-type]  # a map slices like bytes
        layout = Layout(
            order,
            compress=page.compression not in _NOT_COMPRESSED,
            predictor=page.predictor != 1,
            planar=page.planarconfig == 2 and page.samplesperpixel > 1,
            white_is_zero=white_is_zero,
            extra=int(page.extrasamples[0]) if page.extrasamples else None,
            resolution={code: tags.entries[code] for code in _RESOLUTION & tags.entries.keys()},
        )
        if page.compression not in (*_NOT_COMPRESSED, *_DEFLATE):
            notes = (*notes, f"{page.compression.name} compression: written with Deflate, which loses nothing")
        if lost := sorted(tags.entries.keys() - _STRUCTURE - _DESCRIPTIVE - _RESOLUTION - {_ICC}):
            notes = (*notes, f"TIFF tags not kept: {', '.join(map(str, lost))}")
        kept = tags.only(_DESCRIPTIVE)
        if page.is_shaped or tif.is_imagej:
            kept.entries.pop(270, None)  # a description that states the old shape in JSON or ImageJ's words
    if samples.dtype.kind == "f":
        _check_finite(path, samples)
    # A CMYK profile was used up on the way to RGB.
    icc = tags.entries[_ICC][2] if _ICC in tags.entries and page.photometric.name != "SEPARATED" else None
    data, alpha, depth = from_samples(samples)
    return Picture(
        path, data, alpha, "TIFF", depth,
        icc=icc,
        exif=pack_block(kept, order) if kept.entries or kept.children else None,
        dpi=_dpi(layout),
        kept=layout,
        notes=notes,
    )  # fmt: skip


def write(path: Path, samples: np.ndarray, like: Picture) -> tuple[str, ...]:
    """Write samples `(H, W, S)`, uint8, uint16 or float32, laid out as `like` where it was a TIFF; returns notes."""
    described, order = parse_block(like.exif or b"")
    tags = described.only(_DESCRIPTIVE)
    if isinstance(like.kept, Layout):
        layout = like.kept
        tags.entries.update(layout.resolution)
    else:
        layout = Layout(order, False, False, False, False, None, {})
        if like.dpi is not None:
            tags.entries.update(_resolution_tags(like.dpi, order))
    if like.icc is not None:
        tags.entries[_ICC] = (7, len(like.icc), like.icc)
    channels = samples.shape[-1]
    if layout.white_is_zero and channels <= 2:
        samples = samples.copy()
        samples[..., 0] = np.iinfo(samples.dtype).max - samples[..., 0]
    planar = layout.planar and channels > 1
    tifffile.imwrite(
        path,
        np.ascontiguousarray(np.moveaxis(samples, -1, 0)) if planar else samples[..., 0] if channels == 1 else samples,
        byteorder=layout.order,
        photometric="rgb" if channels >= 3 else "miniswhite" if layout.white_is_zero else "minisblack",
        planarconfig=("separate" if planar else "contig") if channels > 1 else None,
        compression="zlib" if layout.compress else None,
        predictor=layout.predictor and layout.compress and samples.dtype.kind == "u",
        extrasamples=[layout.extra if layout.extra is not None else 2] if channels % 2 == 0 else None,
        metadata=None,
        software=False,
    )
    _merge_tags(path, tags, layout.order)
    return ()


def _check(path: Path, page: Any) -> None:
    """Refuse in words what a picture of one or three channels cannot hold, and a file shorter than it says it is."""
    extras = len(page.extrasamples)
    colours = page.samplesperpixel - extras
    kind = page.photometric.name
    known = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "PALETTE": 1, "YCBCR": 3, "SEPARATED": 4}
    if len(page.shape) > 3 or page.imagedepth > 1:
        raise InputError(path, f"pixels of shape {page.shape}", "one flat picture", "save each slice as one file")
    if known.get(kind) != colours or extras > 1:
        raise InputError(
            path, f"{page.samplesperpixel} channels of kind {kind}", "grey or RGB, with or without one alpha channel",
            "save one channel, or three as RGB",
        )  # fmt: skip
    bits = {1: (1, 8, 16), 3: (16, 32, 64)}.get(int(page.sampleformat), ())
    if page.bitspersample not in bits or (kind == "MINISWHITE" and page.sampleformat == 3):
        form = {1: "unsigned integer", 2: "signed integer", 3: "float"}.get(int(page.sampleformat), "other")
        raise InputError(
            path, f"samples of {page.bitspersample} bits ({form})", "8 or 16 bits unsigned, or float",
            "save it as 16-bit or as 32-bit float",
        )  # fmt: skip
    size = path.stat().st_size
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if max(ends, default=0) > size or not ends:
        seen = f"an incomplete TIFF ({size} bytes, its pixels end at byte {max(ends, default=0)})"
        raise InputError(path, seen, "a whole picture", "copy or save the file again")


def _samples(path: Path, page: Any) -> tuple[np.ndarray, bool, tuple[str, ...]]:
    """Samples `(H, W, S)` in [uint8, uint16, float32] with black = 0; whether the file had white = 0; notes."""
    white_is_zero = page.photometric.name == "MINISWHITE"
    if page.photometric.name not in ("MINISBLACK", "MINISWHITE", "RGB") or page.bitspersample == 1:
        return _samples_by_pillow(path, page)
    try:
        samples = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return _samples_by_pillow(path, page)
    if samples.ndim == 2:
        samples = samples[..., None]
    elif page.planarconfig == 2:
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    notes: tuple[str, ...] = ()
    if samples.dtype.kind == "f" and samples.dtype != np.float32:
        notes = (f"{8 * samples.itemsize}-bit float: written as 32-bit float",)
        samples = samples.astype(np.float32)
    if white_is_zero:
        samples = samples.copy()
        samples[..., 0] = np.iinfo(samples.dtype).max - samples[..., 0]
    return samples, white_is_zero, notes


def _samples_by_pillow(path: Path, page: Any) -> tuple[np.ndarray, bool, tuple[str, ...]]:
    """The same for files that tifffile alone cannot unpack. Pillow turns white-is-zero around, except in 16 bits."""
    raw = bytearray(path.read_bytes())
    if _ORIENTATION in page.tags:  # Pillow would turn the picture; here it stays as stored
        struct.pack_into(page.parent.byteorder + "H", raw, page.tags[_ORIENTATION].valueoffset, 1)

    def opened() -> TiffImagePlugin.TiffImageFile:
        return TiffImagePlugin.TiffImageFile(io.BytesIO(raw))

    def unpacked(rawmode: str) -> np.ndarray:
        decoder = opened()
        tile = decoder.tile[0]
        assert isinstance(tile.args, tuple)
        decoder.tile = [tile._replace(args=(rawmode, *tile.args[1:]))]
        decoder.load()
        return np.asarray(decoder).astype(np.uint16)

    image = opened()
    wide = image.tile[0].args == (f"{image.mode};16N", False, page.offset) and page.planarconfig == 1
    image.load()
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)[..., None]
        return (65535 - grey if page.photometric.name == "MINISWHITE" else grey), False, ()
    if image.mode == "F":
        return np.asarray(image)[..., None], False, ()
    if page.bitspersample <= 8:
        samples, notes = samples_of(image, path)
        return samples, False, notes
    # As in `image_png`: Pillow keeps 8 of the 16 bits, so it is asked twice. libtiff hands out native byte pairs.
    if not wide:
        seen = f"{page.bitspersample}-bit {page.photometric.name} with {page.compression.name} compression"
        raise InputError(path, seen, "a compression that can be unpacked here", "save it without compression")
    first, second = unpacked(f"{image.mode};16B"), unpacked(f"{image.mode};16L")
    return (second << 8 | first if sys.byteorder == "little" else first << 8 | second), False, ()


def _check_finite(path: Path, samples: np.ndarray) -> None:
    bad = ~np.isfinite(samples)
    if bad.any():
        row, column, channel = (int(i[0]) for i in np.nonzero(bad))
        where = f"row {row}, column {column}, channel {channel}"
        seen = f"{int(bad.sum())} of {bad.size} values are NaN or infinite, the first at {where}"
        cure = "put any number there and mark those pixels as missing in a mask"
        raise InputError(path, seen, "finite values", cure)


def _merge_tags(path: Path, tags: Directory, order: ByteOrder) -> None:
    """Give a finished classic TIFF a new first directory at its end: its own entries and `tags`."""
    with open(path, "r+b") as file:
        (offset,) = struct.unpack(order + "L", file.read(8)[4:])
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            own = parse(view, order, offset)  # type: ignore[arg-type]
        placeholder = {c: e for c, e in own.entries.items() if c not in _RESOLUTION}
        end = file.seek(0, 2)
        end += file.write(b"\0" * (end % 2))
        file.write(pack(Directory(placeholder | tags.entries, tags.children), order, end))
        file.seek(4)
        file.write(struct.pack(order + "L", end))


def _dpi(layout: Layout) -> tuple[float, float] | None:
    """Dots per inch from the resolution tags (TIFF 6.0: unit 2 = inch, 3 = centimetre)."""
    try:
        unit = struct.unpack(layout.order + "H", layout.resolution[296][2])[0]
        x, y = (struct.unpack(layout.order + "LL", layout.resolution[code][2]) for code in (282, 283))
        scale = {2: 1.0, 3: 2.54}[unit]
        return scale * x[0] / x[1], scale * y[0] / y[1]
    except (KeyError, ZeroDivisionError, struct.error):
        return None


def _resolution_tags(dpi: tuple[float, float], order: ByteOrder) -> dict[int, tuple[int, int, bytes]]:
    x, y = (struct.pack(order + "LL", round(1000 * d), 1000) for d in dpi)
    return {282: (5, 1, x), 283: (5, 1, y), 296: (3, 1, struct.pack(order + "H", 2))}

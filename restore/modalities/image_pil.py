"""JPEG, WebP and BMP, read and written by Pillow; and how any Pillow picture becomes samples.

The format classes of Pillow are called directly: `Image.open` takes a JPEG of two views for another format, and warns
at 89 megapixels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import BmpImagePlugin, Image, ImageCms, ImageFile, JpegImagePlugin, WebPImagePlugin

from ..errors import InputError
from .image_picture import Picture, check_size, decoding, from_samples

_EXIF_PREFIX = b"Exif\0\0"
_JPEG_SEGMENT = 65533
# The largest width or height that the format can say.
MAX_SIDE = {"JPEG": 65500, "WEBP": 16383}
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}


def read(path: Path, kind: str) -> Picture:
    """Read a file whose format is `kind`: "JPEG", "WEBP" or "BMP".

    Raises:
        InputError: truncated, damaged, animated, in unusual colours, or too large.
    """
    raw = path.read_bytes()
    with decoding(path, kind):
        image = _READERS[kind](io.BytesIO(raw))
        check_size(path, *image.size)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise InputError(
                path, f"an animation of {frames} frames", "a single picture", "save one of its frames as PNG"
            )
        samples, notes = samples_of(image, path)
    icc = image.info.get("icc_profile")
    if image.mode == "CMYK":
        icc = None  # the profile was used up on the way to sRGB
    if image.info.get("xmp"):
        notes += ("XMP metadata are not kept",)
    if image.info.get("mp"):
        notes += ("a file of several pictures: only the first is used",)
    data, alpha, depth = from_samples(samples)
    return Picture(
        path, data, alpha, kind, depth,
        icc=icc, exif=exif_of(image), dpi=dpi_of(image), kept=kind == "WEBP" and _is_lossless(raw), notes=notes,
    )  # fmt: skip


def write(path: Path, samples: np.ndarray, like: Picture, kind: str) -> tuple[str, ...]:
    """Write uint8 samples `(H, W, S)` as `kind`; returns notes. JPEG: quality 95, no chroma subsampling."""
    notes: list[str] = []
    image = Image.fromarray(samples.squeeze(-1) if samples.shape[-1] == 1 else samples)
    options: dict[str, Any] = {}
    if kind == "BMP":
        if like.icc or like.exif:
            notes.append("BMP cannot hold the colour profile and EXIF data: dropped")
    else:
        if like.icc:
            options["icc_profile"] = like.icc
        exif = _EXIF_PREFIX + like.exif if like.exif else b""
        if kind == "JPEG" and len(exif) > _JPEG_SEGMENT:
            notes.append("the EXIF data are too long for JPEG: dropped")
        elif exif:
            options["exif"] = exif
    if like.dpi and kind != "WEBP":
        options["dpi"] = like.dpi
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": "4:4:4"}
    if kind == "WEBP":
        lossless = like.kept if like.format == "WEBP" else like.format != "JPEG"
        # `exact` keeps the colours under transparent pixels.
        options |= {"quality": 95, "lossless": lossless, "exact": True}
    with open(path, "wb") as file:
        image.save(file, format=kind, **options)
    return tuple(notes)


def samples_of(image: Image.Image, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """8-bit samples `(H, W, S)` of a Pillow picture of any mode, and what had to change on the way, in words.

    Raises:
        InputError: a mode without a meaning here (Lab, 32-bit integers).
    """
    image.load()
    notes: tuple[str, ...] = ()
    clear = "transparency" in image.info
    if image.mode == "1":
        notes, image = ("black-and-white picture: written as 8-bit grey",), image.convert("L")
    elif image.mode in ("P", "PA"):
        notes, image = _from_palette(image, clear or image.mode == "PA")
    elif image.mode in ("L", "RGB") and clear:
        notes = ("one transparent colour: written as an alpha channel",)
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    elif image.mode == "CMYK":
        notes, image = ("CMYK picture: written as RGB (sRGB)",), _from_cmyk(image)
    elif image.mode in ("YCbCr", "RGBX"):
        image = image.convert("RGB")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(
            path,
            f"a picture of kind {image.mode}",
            "grey, RGB, palette or CMYK",
            "save it as RGB or grey with 8 or 16 bits",
        )
    samples = np.asarray(image)
    return samples[..., None] if samples.ndim == 2 else samples, notes


def _is_lossless(raw: bytes) -> bool:
    """Whether a WebP file holds its pixels in the lossless coding: walks the RIFF chunks up to the pixels."""
    at = 12
    while at + 8 <= len(raw):
        name = raw[at : at + 4]
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        length = int.from_bytes(raw[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return False


def exif_of(image: Image.Image) -> bytes | None:
    """The EXIF block of a Pillow picture, without JPEG's prefix."""
    block = image.info.get("exif") or b""
    return block.removeprefix(_EXIF_PREFIX) or None


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch where the file says so in physical units."""
    x, y = image.info.get("dpi", (0, 0))
    return (float(x), float(y)) if x > 0 and y > 0 else None


def _from_palette(image: Image.Image, clear: bool) -> tuple[tuple[str, ...], Image.Image]:
    colours = image.convert("RGBA" if clear else "RGB")
    rgb = np.asarray(colours)
    # A colour profile stands for three channels: greys that have one stay in colour.
    if (rgb[..., :1] == rgb[..., 1:3]).all() and not image.info.get("icc_profile"):
        return ("palette picture of greys: written as grey",), colours.convert("LA" if clear else "L")
    return ("palette picture: written as RGB",), colours


def _from_cmyk(image: Image.Image) -> Image.Image:
    """sRGB through the picture's own profile where it has one."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            turned = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if turned is not None:
                return turned
        except (ImageCms.PyCMSError, OSError):
            pass  # an unreadable profile: the plain formula below is the best there is
    return image.convert("RGB")

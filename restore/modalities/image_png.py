"""PNG, 8 and 16 bits per sample (W3C PNG, third edition).

Pillow reads 16-bit colour PNG as 8 bits and cannot write it. Its decoder is sound, though, so 16-bit samples are read
with it in two passes, high bytes and low bytes. The writer is our own and serves every depth; chunks that describe the
picture (gamma, chromaticities, text, resolution) go through it verbatim.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import PngImagePlugin

from ..errors import InputError
from .image_picture import Picture, check_size, decoding, from_samples
from .image_pil import dpi_of, exif_of, samples_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_VERBATIM = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"tEXt", b"zTXt", b"iTXt")
_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
_BLOCK_BYTES = 1 << 20


def read(path: Path) -> Picture:
    """Read a PNG file of any colour type and depth, interlaced or not.

    Raises:
        InputError: truncated, damaged, animated, or too large.
    """
    raw = path.read_bytes()
    with decoding(path, "PNG"):
        chunks = list(_chunks(raw))
        if not chunks or chunks[0][0] != b"IHDR" or chunks[-1][0] != b"IEND":
            raise ValueError("it ends before its last chunk")
        width, height, bits, colour_type = struct.unpack(">IIBB", chunks[0][1][:10])
    check_size(path, width, height)
    if any(name == b"acTL" for name, _ in chunks):
        raise InputError(path, "an animated PNG", "a single picture", "save one of its frames as PNG")
    notes: tuple[str, ...] = ()
    with decoding(path, "PNG"):
        image = PngImagePlugin.PngImageFile(io.BytesIO(raw))
        if bits == 16:
            samples = _samples16(raw, image, colour_type)
        else:
            samples, notes = samples_of(image, path)
            if bits < 8 and colour_type == 0 and not notes:
                notes = (f"{bits}-bit grey: written with 8 bits",)
    data, alpha, depth = from_samples(samples)
    return Picture(
        path, data, alpha, "PNG", depth,
        icc=image.info.get("icc_profile"),
        exif=exif_of(image),
        dpi=dpi_of(image),
        kept=tuple((name, body) for name, body in chunks if name in _VERBATIM),
        notes=notes,
    )  # fmt: skip


def write(path: Path, samples: np.ndarray, like: Picture) -> tuple[str, ...]:
    """Write samples `(H, W, S)`, uint8 or uint16, `S` = grey, grey+alpha, RGB, RGB+alpha; returns notes."""
    chunks: list[tuple[bytes, bytes]] = []
    if like.icc is not None:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(like.icc)))
    if like.exif is not None:
        chunks.append((b"eXIf", like.exif))
    if like.format == "PNG":
        chunks.extend(like.kept or ())
    elif like.dpi is not None:
        per_metre = [round(d / 0.0254) for d in like.dpi]
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, _COLOUR_TYPE[channels], 0, 0, 0)
    with open(path, "wb") as file:
        file.write(SIGNATURE)
        _put(file, b"IHDR", header)
        for name, body in chunks:
            _put(file, name, body)
        compressor = zlib.compressobj(6, strategy=zlib.Z_FILTERED)
        for block in _filtered(samples):
            if packed := compressor.compress(block):
                _put(file, b"IDAT", packed)
        _put(file, b"IDAT", compressor.flush())
        _put(file, b"IEND", b"")
    return ()


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Chunks `(name, body)`; pixel data come with an empty body. Every checksum is compared.

    Pillow does not look at the checksums of the pixel data, so a flipped bit would pass it unseen.
    """
    at = len(SIGNATURE)
    while at + 12 <= len(raw):
        (length,) = struct.unpack_from(">I", raw, at)
        name, end = raw[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(raw):
            return
        if struct.unpack_from(">I", raw, end) != (zlib.crc32(memoryview(raw)[at + 4 : end]),):
            raise ValueError(f"wrong checksum in chunk {name.decode('latin-1')} at byte {at}")
        yield name, b"" if name == b"IDAT" else raw[at + 8 : end]
        if name == b"IEND":
            return
        at = end + 4


def _samples16(raw: bytes, image: PngImagePlugin.PngImageFile, colour_type: int) -> np.ndarray:
    """Samples `(H, W, S)` of a 16-bit PNG, exactly; a transparent colour (tRNS) becomes an alpha channel."""

    def unpack(rawmode: str) -> np.ndarray:
        # Pillow undoes filters and interlacing on whole pixels; the raw mode only says which bytes it hands out.
        decoder = PngImagePlugin.PngImageFile(io.BytesIO(raw))
        decoder.tile = [decoder.tile[0]._replace(args=rawmode)]
        decoder.load()
        return np.asarray(decoder).astype(np.uint16)

    if colour_type == 0:
        samples = np.asarray(image).astype(np.uint16)[..., None]
    elif colour_type == 4:
        pairs = unpack("RGBA")  # the four bytes of grey and alpha, high byte first
        samples = pairs[..., 0::2] << 8 | pairs[..., 1::2]
    else:
        mode = "RGB" if colour_type == 2 else "RGBA"
        # ";16B" hands out the first byte of each pair (the high one), ";16L" the second.
        samples = unpack(mode + ";16B") << 8 | unpack(mode + ";16L")
    key = image.info.get("transparency")
    if key is not None and colour_type in (0, 2):
        opaque = (samples != np.asarray(key, np.uint16)).any(-1, keepdims=True)
        samples = np.concatenate([samples, opaque * np.uint16(65535)], -1)
    return samples


def _put(file: BinaryIO, name: bytes, body: bytes) -> None:
    file.write(struct.pack(">I", len(body)) + name)
    file.write(body)
    file.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(name))))


def _filtered(samples: np.ndarray) -> Iterator[bytes]:
    """Blocks of filtered rows; per row the filter with the smallest sum of absolute differences (PNG section 12.7)."""
    height, width, channels = samples.shape
    step = channels * samples.itemsize
    rows = max(1, _BLOCK_BYTES // (width * step))
    above = np.zeros((1, width, step), np.int16)
    for top in range(0, height, rows):
        part = np.ascontiguousarray(samples[top : top + rows])
        if part.itemsize == 2:
            part = part.astype(">u2")
        x = part.view(np.uint8).reshape(len(part), width, step).astype(np.int16)
        up = np.concatenate([above, x[:-1]])
        left = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], 1)
        corner = np.concatenate([np.zeros_like(x[:, :1]), up[:, :-1]], 1)
        # Distances of the Paeth predictor p = left + up - corner to its three neighbours (PNG section 9.4).
        to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
        paeth = np.where(
            (to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner)
        )  # fmt: skip
        guesses = (np.zeros_like(x), left, up, (left + up) // 2, paeth)
        residues = np.stack([(x - g).astype(np.uint8).reshape(len(x), -1) for g in guesses])
        cost = np.abs(residues.view(np.int8).astype(np.int16)).sum(-1, dtype=np.int64)
        best = cost.argmin(0)
        chosen = residues[best, np.arange(len(x))]
        yield np.concatenate([best[:, None].astype(np.uint8), chosen], 1).tobytes()
        above = x[-1:]

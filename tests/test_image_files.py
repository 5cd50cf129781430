"""Pictures come back as they went in, in every format, depth and channel count; each bad file is refused in words."""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, JpegImagePlugin
from skimage import data as pictures

from restore.errors import FolderEmpty, InputError, OutputError
from restore.files import atomic_write
from restore.modalities import image_tags
from restore.modalities.image import (
    Picture,
    list_pictures,
    mask_from_alpha,
    read_mask,
    read_picture,
    write_picture,
)

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIZES = [(1, 1), (1, 9), (37, 23)]
COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}


def samples(shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    """Random samples that reach both ends of the range; floats go outside of [0, 1]."""
    x = np.random.default_rng(seed).uniform(-1, 2, shape)
    if dtype == np.float32:
        return x.astype(np.float32)
    return np.rint(np.clip(x, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def exif_block() -> bytes:
    """Orientation, maker, and the Exif and GPS directories, as a camera would write them."""
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Maker"
    exif[0x8769] = {0x829A: (1, 60), 0x927C: b"made by the maker " * 9}
    exif[0x8825] = {1: "N", 2: (51.0, 28.0, 38.0)}
    return exif.tobytes().removeprefix(b"Exif\0\0")


def same(a: Picture, b: Picture) -> None:
    """`b` is `a`, whatever file it lies in."""
    np.testing.assert_array_equal(a.data, b.data)
    assert (a.alpha is None) == (b.alpha is None)
    if a.alpha is not None:
        np.testing.assert_array_equal(a.alpha, b.alpha)
    assert (a.format, a.depth, a.icc, a.exif) == (b.format, b.depth, b.icc, b.exif)
    assert a.dpi == pytest.approx(b.dpi) if a.dpi else b.dpi is None
    assert a.kept == b.kept


# A PNG codec in plain loops, written from the standard: the witness for the fast one.


def predicted(kind: int, left: int, up: int, corner: int) -> int:
    p = left + up - corner
    paeth = min((abs(p - left), 0, left), (abs(p - up), 1, up), (abs(p - corner), 2, corner))[2]
    return (0, left, up, (left + up) // 2, paeth)[kind]


def png_rows(x: np.ndarray) -> bytes:
    """Scan lines of `(H, W, S)` samples, each with the next of the five filters."""
    rows = x.astype(x.dtype.newbyteorder(">")).view(np.uint8).reshape(len(x), -1).tolist()
    step = x.shape[2] * x.itemsize
    out = bytearray()
    for r, row in enumerate(rows):
        above = rows[r - 1] if r else [0] * len(row)
        out.append(r % 5)
        for i, value in enumerate(row):
            left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
            out.append((value - predicted(r % 5, left, above[i], corner)) % 256)
    return bytes(out)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_encoded(x: np.ndarray, extra: bytes = b"", interlaced: bool = False) -> bytes:
    height, width, channels = x.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * x.itemsize, COLOUR_TYPE[channels], 0, 0, interlaced)
    adam7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = [x[r::dr, c::dc] for r, c, dr, dc in adam7] if interlaced else [x]
    body = b"".join(png_rows(p) for p in passes if p.size)
    parts = (png_chunk(b"IHDR", header), extra, png_chunk(b"IDAT", zlib.compress(body)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_decoded(raw: bytes) -> np.ndarray:
    """Samples `(H, W, S)` of a PNG without interlacing."""
    at, packed, header = 8, b"", b""
    while at < len(raw):
        (length,) = struct.unpack_from(">I", raw, at)
        name, body = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]
        packed += body if name == b"IDAT" else b""
        header = body if name == b"IHDR" else header
        at += 12 + length
    width, height, bits, colour_type = struct.unpack(">IIBB", header[:10])
    channels = {v: k for k, v in COLOUR_TYPE.items()}[colour_type]
    step, stride = channels * bits // 8, width * channels * bits // 8
    stream, above, rows = zlib.decompress(packed), [0] * stride, b""
    for r in range(height):
        kind, *row = stream[r * (stride + 1) : (r + 1) * (stride + 1)]
        for i in range(stride):
            left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
            row[i] = (row[i] + predicted(kind, left, above[i], corner)) % 256
        above, rows = row, rows + bytes(row)
    return np.frombuffer(rows, f">u{bits // 8}").reshape(height, width, channels)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_is_read_exactly(tmp_path: Path, channels: int, dtype: type, interlaced: bool) -> None:
    for size in SIZES:
        x = samples((*size, channels), dtype)
        (tmp_path / "a.png").write_bytes(png_encoded(x, interlaced=interlaced))
        picture = read_picture(tmp_path / "a.png")
        planes = [*picture.data] if picture.alpha is None else [*picture.data, picture.alpha]
        assert picture.depth == x.dtype.name and len(planes) == channels
        np.testing.assert_array_equal(np.stack(planes, -1), x.astype(np.float32) / np.float32(np.iinfo(dtype).max))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_is_written_exactly(tmp_path: Path, channels: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.modalities.image_png._BLOCK_BYTES", 500)  # several blocks of rows
    text = png_chunk(b"gAMA", struct.pack(">I", 45455)) + png_chunk(b"tEXt", b"Title\0Ponte")
    extra = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(ICC)) + text + png_chunk(b"eXIf", exif_block())
    photo = np.repeat(pictures.camera()[100:140, 200:223, None], channels, -1).astype(dtype)  # noise uses no filter
    for x in (*(samples((*size, channels), dtype) for size in SIZES), photo, photo * 0 + 9):
        (tmp_path / "a.png").write_bytes(png_encoded(x, extra))
        picture = read_picture(tmp_path / "a.png")
        assert (picture.icc, picture.exif, picture.notes) == (ICC, exif_block(), ())
        assert write_picture(tmp_path / "b.png", picture.data, picture) == ()
        same(picture, read_picture(tmp_path / "b.png"))
        raw = (tmp_path / "b.png").read_bytes()
        np.testing.assert_array_equal(png_decoded(raw), x)
        assert text in raw
    with Image.open(tmp_path / "b.png") as image:  # another reader takes it for what it is
        image.load()
        assert image.info["icc_profile"] == ICC and image.getexif()[271] == "Maker"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiff_round_trip_is_exact(tmp_path: Path, channels: int, dtype: type) -> None:
    for size, planar, packed, order in itertools.product(SIZES, (False, True), (None, "zlib"), "<>"):
        if planar and channels == 1:
            continue
        x = samples((*size, channels), dtype)
        tifffile.imwrite(
            tmp_path / "a.tif",
            np.moveaxis(x, -1, 0) if planar else x[..., 0] if channels == 1 else x,
            photometric="rgb" if channels >= 3 else "minisblack",
            planarconfig=("separate" if planar else "contig") if channels > 1 else None,
            extrasamples=["unassalpha"] if channels % 2 == 0 else None,
            compression=packed,
            byteorder=order,
            resolution=(300, 300),
            resolutionunit="INCH",
            metadata=None,
            iccprofile=ICC,
            extratags=[(274, "H", 1, 6, True), (271, "s", 6, "Maker", True)],
        )
        picture = read_picture(tmp_path / "a.tif")
        assert picture.icc == ICC and picture.dpi == (300, 300) and picture.notes == ()
        assert write_picture(tmp_path / "b.tif", picture.data, picture) == ()
        same(picture, read_picture(tmp_path / "b.tif"))
        with tifffile.TiffFile(tmp_path / "b.tif") as tif:
            page = tif.pages.first
            back = page.asarray().reshape(x.shape if not planar else (channels, *size))
            np.testing.assert_array_equal(np.moveaxis(back, 0, -1) if planar else back, x)
            assert back.dtype == x.dtype and tif.byteorder == order and (page.planarconfig == 2) == planar
            assert page.tags[274].value == 6 and page.tags[271].value == "Maker" and page.iccprofile == ICC


def test_tiff_keeps_the_exif_directories(tmp_path: Path) -> None:
    like = Picture(Path("a.jpg"), np.zeros((1, 3, 4), np.float32), None, "JPEG", "uint8", ICC, exif_block(), (240, 120))
    write_picture(tmp_path / "a.tif", like.data, like)
    first = read_picture(tmp_path / "a.tif")
    write_picture(tmp_path / "b.tif", first.data, first)
    same(first, read_picture(tmp_path / "b.tif"))
    assert first.exif is not None and first.dpi == (240, 120)
    assert image_tags.parse_block(first.exif)[0] == image_tags.parse_block(exif_block())[0]
    with Image.open(tmp_path / "b.tif") as image:  # another reader finds them too
        exif = image.getexif()
        assert exif[271] == "Maker" and exif.get_ifd(0x8825)[2] == (51.0, 28.0, 38.0)
        assert exif.get_ifd(0x8769)[0x927C] == b"made by the maker " * 9


def lzw(raw: bytes) -> bytes:
    """TIFF LZW with the table cleared before it grows: nine bits per code throughout."""
    codes = [c for i in range(0, len(raw), 200) for c in (256, *raw[i : i + 200])] + [257]
    bits = "".join(f"{c:09b}" for c in codes)
    return int(bits.ljust(-len(bits) % 8 + len(bits), "0"), 2).to_bytes((len(bits) + 7) // 8, "big")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_lzw_tiff_keeps_its_16_bits_and_its_orientation(tmp_path: Path, channels: int, order: str) -> None:
    x = samples((5, 7, channels), np.uint16)
    body = lzw(x.astype(order + "u2").tobytes())
    layout = {256: 7, 257: 5, 259: 5, 262: 2 if channels == 3 else 1, 273: 8, 274: 6, 277: channels}
    tags = layout | {278: 5, 279: len(body)}
    entries = {code: (3, 1, struct.pack(order + "H", value)) for code, value in tags.items()}
    entries[258] = (3, channels, struct.pack(order + "H", 16) * channels)
    body += b"\0" * (len(body) % 2)
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HL", 42, 8 + len(body))
    directory = image_tags.pack(image_tags.Directory(entries), order, 8 + len(body))  # type: ignore[arg-type]
    (tmp_path / "a.tif").write_bytes(start + body + directory)
    picture = read_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.moveaxis(picture.data, 0, -1), x.astype(np.float32) / np.float32(65535))
    assert "LZW" in picture.notes[0]
    write_picture(tmp_path / "b.tif", picture.data, picture)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif").reshape(x.shape), x)


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_jpeg_webp_bmp_round_trip(tmp_path: Path, suffix: str, mode: str) -> None:
    if suffix != ".webp" and mode == "RGBA":
        return
    astronaut = Image.fromarray(pictures.astronaut()).crop((180, 20, 263, 101))
    image = astronaut.convert(mode)
    if mode == "RGBA":
        image.putalpha(astronaut.convert("L"))
    options = {".webp": {"lossless": True, "exact": True}, ".jpg": {"quality": 92}, ".bmp": {}}[suffix]
    if suffix != ".bmp":
        options |= {"icc_profile": ICC, "exif": b"Exif\0\0" + exif_block()}
    image.save(tmp_path / f"a{suffix}", **options)
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.data.shape == (1 if mode == "L" and suffix != ".webp" else 3, 81, 83) and picture.notes == ()
    assert write_picture(tmp_path / f"b{suffix}", picture.data, picture) == ()
    back = read_picture(tmp_path / f"b{suffix}")
    if suffix == ".jpg":  # lossy: close, with the metadata byte for byte
        assert np.sqrt(np.mean((picture.data - back.data) ** 2)) < 0.008
        with Image.open(tmp_path / "b.jpg") as written:
            assert mode == "L" or JpegImagePlugin.get_sampling(written) == 0  # 4:4:4
        back = replace(back, data=picture.data)
    same(picture, back)
    assert suffix == ".bmp" or (picture.icc, picture.exif) == (ICC, exif_block())


def test_integers_are_rounded_and_clipped(tmp_path: Path) -> None:
    like = Picture(Path("a.png"), np.zeros((1, 1, 4), np.float32), None, "PNG", "uint8")
    write_picture(tmp_path / "a.png", np.array([[[-0.3, 0.499 / 255, 0.501 / 255, 1.7]]]), like)
    assert png_decoded((tmp_path / "a.png").read_bytes()).ravel().tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize(
    ("mode", "suffix", "channels", "note"),
    [
        ("P", ".png", 3, "palette"),
        ("P", ".tif", 3, "palette"),
        ("1", ".png", 1, "black-and-white"),
        ("1", ".tif", 1, "black-and-white"),
        ("CMYK", ".jpg", 3, "CMYK"),
        ("CMYK", ".tif", 3, "CMYK"),
    ],
)
def test_other_colours_are_turned_with_a_note(tmp_path: Path, mode: str, suffix: str, channels: int, note: str) -> None:
    image = Image.fromarray(pictures.astronaut()[:64, :61]).convert(mode)
    image.save(tmp_path / f"a{suffix}")
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.data.shape == (channels, 64, 61) and note in " ".join(picture.notes)
    wanted = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(64, 61, channels) / 255
    assert np.abs(np.moveaxis(picture.data, 0, -1) - wanted).mean() < 0.01


def test_a_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        x = samples((6, 5, 3), dtype)
        key = struct.pack(">3H", *x[2, 3].tolist())
        (tmp_path / "a.png").write_bytes(png_encoded(x, png_chunk(b"tRNS", key)))
        picture = read_picture(tmp_path / "a.png")
        clear = (x == x[2, 3]).all(-1)
        assert clear.sum() >= 1 and picture.alpha is not None
        np.testing.assert_array_equal(picture.alpha, 1.0 - clear)


def test_another_suffix_converts_with_a_note(tmp_path: Path) -> None:
    alpha = samples((8, 6), np.float32).clip(0, 1)
    like = Picture(
        Path("a.tif"), samples((3, 8, 6), np.float32), alpha, "TIFF", "float32", ICC, exif_block(), (200, 200)
    )
    for suffix, words in ((".png", "16 bits"), (".jpg", "no alpha"), (".webp", "8 bits"), (".bmp", "cannot hold")):
        notes = " ".join(write_picture(tmp_path / f"a{suffix}", like.data, like))
        back = read_picture(tmp_path / f"a{suffix}")
        assert words in notes and "TIFF written as" in notes
        if suffix in (".png", ".webp"):
            step = 0.5001 / (65535 if suffix == ".png" else 255)
            assert np.abs(back.data - like.data.clip(0, 1)).max() < step and np.abs(back.alpha - alpha).max() < step
        assert suffix == ".bmp" or (back.icc, back.exif) == (ICC, exif_block())
    assert "profile" in " ".join(write_picture(tmp_path / "g.tif", like.data[:1], like))
    with pytest.raises(OutputError, match=r"unknown kind of picture '\.gif'"):
        write_picture(tmp_path / "a.gif", like.data, like)


def test_alpha_grows_with_the_picture(tmp_path: Path) -> None:
    alpha = np.zeros((6, 5), np.float32)
    alpha[:, 2:] = 1
    like = Picture(Path("a.png"), np.full((3, 6, 5), 0.5, np.float32), alpha, "PNG", "uint16")
    write_picture(tmp_path / "a.png", np.full((3, 24, 20), 0.25, np.float32), like)
    back = read_picture(tmp_path / "a.png")
    assert back.alpha is not None and back.alpha.shape == (24, 20)
    assert back.alpha[:, :4].max() < 0.05 and back.alpha[:, 12:].min() > 0.95
    with pytest.raises(ValueError, match="whole factor"):
        write_picture(tmp_path / "a.png", np.zeros((3, 24, 19), np.float32), like)


def damaged(folder: Path) -> dict[str, str]:
    """Bad files, by name, with a word of what must be said of each."""
    picture = pictures.astronaut()[:80, :90]
    words = {
        "text.png": "not a picture",
        "empty.png": "0 bytes",
        "folder.png": "a folder",
        "asronaut.png": "did you mean",
    }
    (folder / "text.png").write_text("this is no picture")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    for name, options in {
        "astronaut.png": {}, "a.jpg": {}, "a.webp": {}, "a.bmp": {}, "a.tif": {}, "z.tif": {"compression": "tiff_lzw"},
    }.items():  # fmt: skip
        Image.fromarray(picture).save(folder / name, **options)
        raw = (folder / name).read_bytes()
        for cut in (0.2, 0.5, 0.95):
            (folder / f"{cut}{name}").write_bytes(raw[: int(cut * len(raw))])
            words[f"{cut}{name}"] = "incomplete"
    flipped = bytearray((folder / "astronaut.png").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (folder / "flipped.png").write_bytes(flipped)
    x = samples((4, 5, 3), np.float32)
    x[1, 2, 0], x[3, 3, 1] = np.nan, np.inf
    tifffile.imwrite(folder / "nan.tif", x, photometric="rgb")
    tifffile.imwrite(
        folder / "spectral.tif", samples((8, 9, 7), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    tifffile.imwrite(folder / "pages.tif", samples((3, 8, 9), np.uint8), photometric="minisblack")
    tifffile.imwrite(folder / "integers.tif", np.zeros((8, 9), np.int32))
    frames = [Image.fromarray(picture[::-1])]
    Image.fromarray(picture).save(folder / "moving.webp", save_all=True, append_images=frames)
    Image.fromarray(picture).save(folder / "moving.png", save_all=True, append_images=frames)
    Image.fromarray(picture).save(folder / "a.gif")
    huge = struct.pack(">IIBBBBB", 20000, 10001, 8, 2, 0, 0, 0)
    parts = (png_chunk(b"IHDR", huge), png_chunk(b"IDAT", zlib.compress(b"")), png_chunk(b"IEND", b""))
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return words | {
        "flipped.png": "checksum",
        "nan.tif": "2 of 60 values are NaN or infinite, the first at row 1, column 2, channel 0",
        "spectral.tif": "7 channels", "pages.tif": "3 pages", "integers.tif": "32 bits", "moving.webp": "2 frames",
        "moving.png": "animated", "a.gif": "a GIF", "huge.png": "200 megapixels",
    }  # fmt: skip


def test_bad_files_are_refused_in_words(tmp_path: Path) -> None:
    for name, words in damaged(tmp_path).items():
        with pytest.raises(InputError) as caught:
            read_picture(tmp_path / name)
        message = str(caught.value)
        assert words in message.replace("Did", "did") and str(tmp_path / name) in message, message
        assert "; wanted " in message and "\n" not in message


def test_large_pictures_pass_without_a_warning(tmp_path: Path) -> None:
    Image.new("L", (13000, 7000)).save(tmp_path / "a.png")  # 91 megapixels: Pillow would warn
    assert read_picture(tmp_path / "a.png").data.shape == (1, 7000, 13000)


def test_masks(tmp_path: Path) -> None:
    holes = np.zeros((7, 9), bool)
    holes[2:4, 3:8] = True
    grey = holes.astype(np.uint8) * 255
    layers = [grey, np.stack([grey] * 3, -1), np.stack([np.full_like(grey, 255)] * 3 + [grey], -1), holes]
    for i, layer in enumerate(layers):  # grey, RGB, white strokes on a transparent layer, one bit
        Image.fromarray(layer).save(tmp_path / f"{i}.png")
        np.testing.assert_array_equal(read_mask(tmp_path / f"{i}.png", (7, 9)), holes)
        np.testing.assert_array_equal(read_mask(tmp_path / f"{i}.png", (7, 9), invert=True), ~holes)
    with pytest.raises(InputError, match=r"9 x 7 pixels; wanted .* 10 x 7"):
        read_mask(tmp_path / "0.png", (7, 10))
    with pytest.raises(InputError, match="90 degrees"):
        read_mask(tmp_path / "0.png", (9, 7))
    Image.fromarray(np.zeros_like(grey)).save(tmp_path / "black.png")
    Image.fromarray(holes.astype(np.uint8)).save(tmp_path / "ones.png")
    for name, invert, words in (("black", False, "nothing is missing"), ("black", True, "everything is missing"),
                                ("ones", False, "0 and 255")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            read_mask(tmp_path / f"{name}.png", (7, 9), invert)


def test_alpha_as_mask() -> None:
    alpha = np.ones((3, 4), np.float32)
    picture = Picture(Path("a.png"), np.zeros((3, 3, 4), np.float32), alpha, "PNG", "uint8")
    with pytest.raises(InputError, match="nothing is missing"):
        mask_from_alpha(picture)
    alpha[1, 2], alpha[0, 0] = 0, 0.5
    np.testing.assert_array_equal(mask_from_alpha(picture), alpha == 0)
    with pytest.raises(InputError, match="everything is missing"):
        mask_from_alpha(replace(picture, alpha=0 * alpha))
    with pytest.raises(InputError, match="no alpha"):
        mask_from_alpha(replace(picture, alpha=None))


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(FolderEmpty, match=r"no pictures in this folder; wanted .*\.png"):
        list_pictures(tmp_path)
    for name in ("b/2.TIF", "a.png", "b/1.jpeg", ".hidden.png", ".cache/c.png", "notes.txt", "b/.1.0f.part.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in list_pictures(tmp_path)] == ["a.png", "b/1.jpeg", "b/2.TIF"]
    with pytest.raises(InputError, match="no such file"):
        list_pictures(tmp_path / "c")


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like = Picture(Path("a.png"), np.zeros((3, 8, 6), np.float32), None, "PNG", "uint8")
    write_picture(tmp_path / "a.png", like.data, like)
    before = (tmp_path / "a.png").read_bytes()
    with open(tmp_path / "a.png", "rb") as reader:  # whoever reads the old file meanwhile reads all of it
        write_picture(tmp_path / "a.png", like.data, like)
        assert reader.read() == before
        assert not os.path.samestat(os.fstat(reader.fileno()), os.stat(tmp_path / "a.png"))

    def broken(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("restore.modalities.image_png._filtered", broken)
        write_picture(tmp_path / "a.png", like.data + 1, like)
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"half a pic")
        raise RuntimeError
    with pytest.raises(ValueError, match="1 of 144 values"):
        write_picture(tmp_path / "a.png", np.where(np.arange(144).reshape(3, 8, 6) == 7, np.nan, 0), like)
    assert (tmp_path / "a.png").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for path, words in (("file/a.png", "part of its path is a file"), ("folder.png", "it is a folder"),
                        ("x" * 300 + ".png", "too long"), ("/proc/none/a.png", "folder cannot be made")):  # fmt: skip
        if path.startswith("/proc") and not Path("/proc").is_dir():
            continue
        with pytest.raises(OutputError, match=words), atomic_write(tmp_path / path) as temporary:
            temporary.write_bytes(b"x")
    with atomic_write(tmp_path / "new" / "folders" / "a.json") as temporary:
        temporary.write_text("{}")
    assert (tmp_path / "new/folders/a.json").read_text() == "{}"


def test_torch_is_not_needed_to_judge_a_file() -> None:
    code = "import sys, restore.modalities.image; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tiff_with_white_as_zero_and_with_associated_alpha(tmp_path: Path) -> None:
    x = samples((6, 5), np.uint8)
    tifffile.imwrite(tmp_path / "white.tif", x, photometric="miniswhite")
    picture = read_picture(tmp_path / "white.tif")
    np.testing.assert_array_equal(picture.data[0], (255 - x).astype(np.float32) / np.float32(255))
    write_picture(tmp_path / "b.tif", picture.data, picture)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), x)
    alpha = np.array([[0, 51, 255]], np.uint8)
    rgba = np.stack([alpha // 3] * 3 + [alpha], -1)
    tifffile.imwrite(tmp_path / "associated.tif", rgba, photometric="rgb", extrasamples=["assocalpha"])
    picture = read_picture(tmp_path / "associated.tif")
    write_picture(tmp_path / "c.tif", picture.data, picture)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "c.tif"), rgba)
    write_picture(tmp_path / "c.png", picture.data, picture)  # PNG wants the colours themselves: 17/51 = 85/255
    np.testing.assert_array_equal(png_decoded((tmp_path / "c.png").read_bytes())[0, :, 0], [0, 85, 85])


def test_reduced_copies_in_a_tiff_are_passed_over(tmp_path: Path) -> None:
    x = samples((16, 12), np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(x, photometric="minisblack", metadata=None)
        tif.write(x[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").data[0], x.astype(np.float32) / np.float32(65535))

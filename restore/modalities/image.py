"""A person's pictures: read as numbers in [0, 1], written back as the same kind of file.

A file is judged by its first bytes, not by its name. No torch here: bad input is refused before torch is loaded.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import FolderEmpty, InputError, OutputError
from ..files import atomic_write
from . import image_pil, image_png, image_tiff
from .image_picture import MAX_PIXELS, Depth, Picture, to_samples

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Picture",
    "kind_of",
    "list_pictures",
    "mask_from_alpha",
    "read_mask",
    "read_picture",
    "write_picture",
]

FORMATS = {
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP",
}  # fmt: skip
_KNOWN = " ".join(FORMATS)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_picture(path: str | Path) -> Picture:
    """Read a PNG, TIFF, JPEG, WebP or BMP file.

    Raises:
        InputError: missing, a folder, empty, no picture, damaged, incomplete, or of a kind that cannot be used.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "PNG":
        return image_png.read(path)
    if kind == "TIFF":
        return image_tiff.read(path)
    return image_pil.read(path, kind)


def write_picture(path: str | Path, data: np.ndarray, like: Picture) -> tuple[str, ...]:
    """Write `data` as the kind of file that `like` was: same depth, alpha, profile, EXIF, resolution.

    The suffix chooses the format. Integer formats are clipped to [0, 1] and rounded; float TIFF keeps its values.
    Alpha is resized where `data` is larger by a whole factor. The write is atomic.

    Args:
        path: where to write; one of the suffixes in `FORMATS`.
        data: array or CPU tensor `(C, H, W)` with `C` 1 or 3; `H` and `W` those of `like`, or a multiple.
        like: the picture that `data` stands for.

    Returns:
        Notes in words: what the format, or a change of format, could not keep. `like.notes` is not repeated.

    Raises:
        InputError: the suffix is unknown or the picture too large for it; OutputError: the place cannot be written to.
        ValueError: `data` has another shape, or values that are not finite.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            path, f"unknown kind of picture {path.suffix!r}", f"one of {_KNOWN}", "give the output such a suffix"
        )
    data = np.asarray(data, np.float32)
    if data.ndim != 3 or data.shape[0] not in (1, 3) or 0 in data.shape:
        raise ValueError(f"a picture to write has shape (1 or 3, H, W), got {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError(f"{int((~np.isfinite(data)).sum())} of {data.size} values to write are NaN or infinite")
    if max(data.shape[1:]) > image_pil.MAX_SIDE.get(kind, data.size):
        size = f"{data.shape[2]} x {data.shape[1]} pixels"
        raise OutputError(
            path, size, f"at most {image_pil.MAX_SIDE[kind]} on a side for {kind}", "write a .png or .tif instead"
        )
    notes: list[str] = []
    if kind != like.format:
        notes.append(f"{like.format} written as {kind}")
    if like.icc is not None and len(data) != len(like.data):
        notes.append("the colour profile is for another number of channels: dropped")
        like = replace(like, icc=None)
    depth = _depth(kind, like.depth, notes)
    alpha = like.alpha
    if alpha is not None and kind in ("JPEG", "BMP"):
        notes.append(f"{kind} has no alpha channel: dropped")
        alpha = None
    if alpha is not None:
        alpha = _resized(alpha, data.shape[1:])
        if kind != "TIFF" and isinstance(like.kept, image_tiff.Layout) and like.kept.premultiplied:
            data = np.divide(data, alpha, out=np.zeros_like(data), where=alpha > 0)
    samples = to_samples(data, alpha, depth)
    with atomic_write(path) as temporary:
        if kind == "PNG":
            notes.extend(image_png.write(temporary, samples, like))
        elif kind == "TIFF":
            notes.extend(image_tiff.write(temporary, samples, like))
        else:
            notes.extend(image_pil.write(temporary, samples, like, kind))
    return tuple(notes)


def read_mask(path: str | Path, shape: tuple[int, int], invert: bool = False) -> np.ndarray:
    """A mask picture as bool `(H, W)`, `True` = missing: white marks what is missing, or black where `invert`.

    Values above one half count as white; transparent pixels count as black.

    Raises:
        InputError: not a picture, another size than `shape = (H, W)`, or nothing or everything marked.
    """
    mask = read_picture(path)
    height, width = mask.data.shape[1:]
    if (height, width) != tuple(shape):
        turned = (width, height) == tuple(shape)
        raise InputError(
            path, f"a mask of {width} x {height} pixels", f"the size of the picture, {shape[1]} x {shape[0]}",
            "turn the mask by 90 degrees: it must lie as the picture is stored" if turned
            else "draw the mask on the picture itself, or resize it without smoothing",
        )  # fmt: skip
    brightness = mask.data.mean(0) * (1.0 if mask.alpha is None else mask.alpha)
    missing = (brightness > 0.5) != invert
    colour = "black" if invert else "white"
    hint = "or mark fewer pixels, or invert the mask"
    if not missing.any():
        top = float(brightness.max())
        hint = f"paint what is missing {colour}, or invert the mask"
        if 0 < top <= 0.5:
            hint += f" (its brightest value is {top:.3g} of 1: a mask stored as 0 and 1 must be stored as 0 and 255)"
    return _checked(path, missing, f"all pixels {colour}", f"no pixel {colour}", hint)


def mask_from_alpha(picture: Picture) -> np.ndarray:
    """The fully transparent pixels of a picture as bool `(H, W)`, `True` = missing.

    Raises:
        InputError: no alpha channel, or nothing or everything transparent.
    """
    if picture.alpha is None:
        raise InputError(
            picture.path,
            "no alpha channel",
            "transparent pixels that mark what is missing",
            "give a mask picture with --mask",
        )
    hint = "erase what is missing, or give a mask picture with --mask"
    return _checked(picture.path, picture.alpha <= 0, "all pixels transparent", "no pixel transparent", hint)


def list_pictures(folder: str | Path) -> list[Path]:
    """All pictures below `folder`. Raises as `list_files`."""
    return list_files(folder, FORMATS, "pictures")


def list_files(folder: str | Path, suffixes: Iterable[str], what: str) -> list[Path]:
    """All files below `folder` with one of the suffixes, sorted; hidden files and folders (our own unfinished ones too)
    are passed over.

    Args:
        what: they are, in the plural.

    Raises:
        InputError: `folder` is not a folder. FolderEmpty: it holds no such file.
    """
    folder, suffixes = Path(folder), list(suffixes)
    if not folder.is_dir():
        raise (
            no_such_file(folder) if not folder.exists() else InputError(folder, "a file", "a folder", "name its folder")
        )
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        seen = (Path(root, name) for name in files if not name.startswith("."))
        found += [file for file in seen if file.suffix.lower() in suffixes]
    if not found:
        wanted = f"files of the kinds {' '.join(suffixes)}"
        raise FolderEmpty(folder, f"no {what} in this folder", wanted, "name another folder")
    return sorted(found)


def kind_of(path: Path) -> str:
    """The format by the first bytes of the file."""
    if path.is_dir():
        raise InputError(path, "a folder", "a picture file", "name a file inside it")
    if not path.exists():
        raise no_such_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise InputError(
            path, f"cannot be opened ({error.strerror})", "a readable file", "check its permissions"
        ) from error
    if not start:
        raise InputError(path, "an empty file (0 bytes)", "a picture", "copy or save the file again")
    if start.startswith(image_png.SIGNATURE):
        return "PNG"
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start.startswith(_TIFF_STARTS):
        return "TIFF"
    if start.startswith(b"BM"):
        return "BMP"
    other = {b"GIF8": "a GIF", b"ftyp": "a HEIC or AVIF picture", b"%PDF": "a PDF"}
    seen = next((words for mark, words in other.items() if mark in (start[:4], start[4:8])), None)
    if seen is None:
        seen = f"not a picture (it starts with {start[:8]!r})"
    raise InputError(path, seen, f"a picture ({_KNOWN})", "open it where it came from and save it as PNG")


def no_such_file(path: Path, wanted: str = "a picture") -> InputError:
    """What is said of a file that is not there, with the name that was meant if one is near."""
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, 1)
    return InputError(path, "no such file", wanted, f"did you mean {near[0]}?" if near else "check the path")


def _depth(kind: str, depth: Depth, notes: list[str]) -> Depth:
    """The depth in which a format can hold samples of `depth`; a loss is added to `notes`."""
    if kind == "TIFF":
        return depth
    possible: Depth = "uint16" if kind == "PNG" and depth != "uint8" else "uint8"
    if depth == "float32":
        notes.append(f"float samples: clipped to [0, 1] and written with {possible[4:]} bits")
    elif possible != depth:
        notes.append("16-bit samples: written with 8 bits")
    return possible


def _resized(alpha: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`alpha` at the size `shape`, the same whole factor both ways (Lanczos, clipped to the range it had)."""
    height, width = alpha.shape
    factor = shape[0] // height
    if shape != (height * factor, width * factor):
        raise ValueError(f"data of {shape} does not fit an alpha channel of {alpha.shape}: wanted a whole factor")
    if factor == 1:
        return alpha
    larger = Image.fromarray(alpha).resize((width * factor, height * factor), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(larger), alpha.min(), alpha.max())


def _checked(path: str | Path, missing: np.ndarray, everything: str, nothing: str, hint: str) -> np.ndarray:
    if missing.all() or not missing.any():
        seen = f"{everything}: everything is missing" if missing.any() else f"{nothing}: nothing is missing"
        raise InputError(path, seen, "some of each", hint)
    return missing

"""Which axis of an array is which: by its names, by its format, or by a guess that is said in words. No torch here."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

NAMES = ("slice", "coil", "y", "x", "z", "-")
# No scanner has more receivers.
_MOST_COILS = 128

Array = Any  # what has a shape and gives numbers when it is indexed: numpy's, a file mapped into memory, h5py's


@dataclass(frozen=True, eq=False)
class Layout:
    """An array and what its axes are.

    Attributes:
        array, names: with an axis for each name of `NAMES`.
        words: the same for a person.
        complex: whether the numbers are.
        format, spacing, affine, mask, noise, phase_axis, notes: as in `Scan`.
    """

    array: Array
    names: tuple[str, ...]
    words: str
    complex: bool
    format: str
    spacing: tuple[float, float, float] | None = None
    affine: np.ndarray | None = None
    mask: np.ndarray | None = None
    noise: np.ndarray | None = None
    phase_axis: str = "y"
    notes: tuple[str, ...] = ()


def layout(
    path: Path, array: Array, format: str, told: str | None, known: Sequence[str] | None = None, **others: Any
) -> Layout:
    """Name the axes of an array: as `told` by the person, as `known` from the format, or by their lengths.

    Raises:
        InputError: the names do not fit the array, or it has too many axes to guess.
    """
    shape = tuple(array.shape)
    if told is not None:
        names, how = _told(path, shape, told), "as --axes says"
    elif known is not None:
        names, how = tuple(known), f"as {format} has them"
    else:
        names, how = _guessed(path, shape), "guessed by their lengths; --axes says otherwise"
    shown = [(n, s) for n, s in zip(names, shape, strict=True) if not (n == "-" and s == 1)]
    words = ", ".join(f"{n} {s}" for n, s in shown) + f" ({how})"
    coils = dict(shown).get("coil", 1)
    if 0 in shape:
        zero = names[shape.index(0)]
        raise InputError(path, f"zero {zero}s: {words}", "at least one of each", "check how it was saved")
    if coils > _MOST_COILS:
        cure = "name the axes in the order of the file, as in --axes coil,y,x"
        raise InputError(path, f"{coils} coils: {words}", f"at most {_MOST_COILS}", cure)
    is_complex = np.dtype(array.dtype).kind == "c"
    return Layout(array, names, words, is_complex, format, **others)


def _told(path: Path, shape: tuple[int, ...], told: str) -> tuple[str, ...]:
    names = [n.strip() for n in told.split(",")]
    unknown = [n for n in names if n not in NAMES]
    several = [n for n in names if n != "-" and names.count(n) > 1]
    long = [s for s in shape if s > 1]
    seen = f"axes of {' x '.join(map(str, shape))} numbers, named {told}"
    wanted = f"a name for each: {', '.join(NAMES)} (- takes the first)"
    if unknown or several or "y" not in names or "x" not in names or ("slice" in names and "z" in names):
        raise InputError(path, seen, wanted, "y and x once, slice or z and coil at most once")
    if len(names) == len(shape):
        return tuple(names)
    if len(names) == len(long):  # axes of length one need no name
        rest = iter(names)
        return tuple(next(rest) if s > 1 else "-" for s in shape)
    raise InputError(path, seen, wanted, f"give {len(shape)} names, or {len(long)} without the axes of length 1")


def _guessed(path: Path, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The coil axis is the shortest of three; of four the first two are slices and coils, or the last two."""
    long = [i for i, s in enumerate(shape) if s > 1 or s == 0]
    names = ["-"] * len(shape)
    if len(long) < 2 or len(long) > 4:
        seen = f"an array of {' x '.join(map(str, shape))} numbers"
        raise InputError(path, seen, "two to four axes longer than 1", "name them, as in --axes slice,coil,y,x")
    sizes = [shape[i] for i in long]
    if len(long) == 2:
        order = ["y", "x"]
    elif len(long) == 3:
        short = int(np.argmin(sizes))
        order = ["y", "x"]
        order.insert(short, "coil" if sizes[short] <= _MOST_COILS else "slice")
    else:
        first = min(sizes[:2]) <= min(sizes[2:])  # a plane has no short side
        order = ["slice", "coil", "y", "x"] if first else ["y", "x", "coil", "slice"]
    for i, name in zip(long, order, strict=True):
        names[i] = name
    return tuple(names)


def plane(array: Array, names: Sequence[str], i: int) -> np.ndarray:
    """Slice `i` of an array as `(coil, y, x)` complex64; only that is read."""
    index = tuple({"slice": i, "-": 0}.get(n, slice(None)) for n in names)
    block = np.asarray(array[index])
    kept = [n for n in names if n not in ("slice", "-")]
    if "coil" not in kept:
        block, kept = block[None], ["coil", *kept]
    return np.ascontiguousarray(block.transpose([kept.index(n) for n in ("coil", "y", "x")]), np.complex64)


def decoupled(found: Layout) -> tuple[Array, Layout]:
    """Three-dimensional k-space as slices: transformed along `z`, which is fully sampled, coil by coil, into a nameless
    file that vanishes with the last use of it."""
    sizes = dict(zip(found.names, found.array.shape, strict=True))
    shape = (sizes["z"], sizes.get("coil", 1), sizes["y"], sizes["x"])
    with tempfile.TemporaryFile() as file:  # its memory stays, until nobody holds it any more
        out = np.memmap(file, np.complex64, "w+", shape=shape)
    for c in range(shape[1]):
        index = tuple({"coil": c, "-": 0}.get(n, slice(None)) for n in found.names)
        kept = [n for n in found.names if n not in ("coil", "-")]
        block = np.asarray(found.array[index]).transpose([kept.index(n) for n in ("z", "y", "x")])
        x = np.fft.ifft(np.fft.ifftshift(block, 0), axis=0, norm="ortho")
        out[:, c] = np.fft.fftshift(x, 0)
    note = f"three-dimensional: its {sizes['z']} points along z, fully sampled, became as many slices"
    new = replace(found, names=("slice", "coil", "y", "x"), notes=(*found.notes, note))
    return out, new

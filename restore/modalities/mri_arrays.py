"""Scans as plain arrays: NumPy's files, MATLAB's, BART's, NIfTI. No torch here."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .image_picture import decoding
from .mri_axes import Layout, layout
from .mri_off_grid import off_grid
from .mri_scan import Scan
from .needed import needed

# What programs call these things. The first that is there is taken.
_DATA = ("kspace", "ksp", "kdata", "k_space", "data")
_TRAJECTORY = ("trajectory", "traj", "coords", "coord", "k")
_DENSITY = ("density", "dcf", "weights")
# Dimensions of BART's files that are not 1: readout, two phase encodings, coils, ..., slices.
_BART = {0: "x", 1: "y", 2: "z", 3: "coil", 13: "slice"}


def read_npy(path: Path, key: str | None, axes: str | None, matrix: tuple[int, int] | None) -> Layout:
    """A `.npy` file, mapped into memory."""
    with decoding(path, "NumPy file", "a whole scan"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return layout(path, *_paired(array, ".npy", axes))


def read_npz(path: Path, key: str | None, axes: str | None, matrix: tuple[int, int] | None) -> Layout | Scan:
    """A `.npz` file: with a trajectory, not Cartesian; `mask` and `noise` are taken where they are there."""
    with decoding(path, "NumPy file", "a whole scan"), np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    notes: tuple[str, ...] = ()
    if key is None:
        key = next((n for n in _DATA if n in arrays), None) or _largest(path, arrays)
        notes = taken(key, arrays)
    data = _chosen(path, arrays, key)
    points = next((arrays[n] for n in _TRAJECTORY if n in arrays and n != key), None)
    if points is None:
        noise = arrays.get("noise")
        mask = arrays.get("mask")
        return layout(path, *_paired(data, ".npz", axes), noise=noise, mask=_as_mask(mask, data.shape), notes=notes)
    density = next((arrays[n] for n in _DENSITY if n in arrays), None)
    if matrix is None and "matrix" in arrays:
        matrix = tuple(int(n) for n in arrays["matrix"])  # type: ignore[assignment]
    return off_grid(path, ".npz", data, points, density, matrix)


def read_mat(path: Path, key: str | None, axes: str | None, matrix: tuple[int, int] | None) -> Layout:
    """A MATLAB file of version 5; structures are looked into."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    with decoding(path, "MATLAB file", "a whole scan"):
        try:
            stored = loadmat(path, chars_as_strings=True)
        except (MatReadError, TypeError, EOFError) as error:
            raise ValueError(str(error)) from error
    arrays = dict(_numbers({n: v for n, v in stored.items() if not n.startswith("__")}))
    notes: tuple[str, ...] = ()
    if key is None:
        key = _largest(path, arrays)
        notes = taken(key, arrays)
    return layout(path, *_paired(_chosen(path, arrays, key), ".mat", axes), notes=notes)


def read_cfl(path: Path, key: str | None, axes: str | None, matrix: tuple[int, int] | None) -> Layout:
    """BART's pair of files: `.hdr` has the dimensions, `.cfl` the numbers, first index fastest."""
    header, data = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    cure = "copy both files of the pair again"
    if not header.exists():
        raise InputError(header, "no such file", "the header of the .cfl file", cure)
    try:
        lines = [line for line in header.read_text().splitlines() if line.strip() and not line.startswith("#")]
        dims = [int(word) for word in lines[0].split()]
    except (ValueError, IndexError) as error:
        raise InputError(header, "no dimensions in it", "a line of whole numbers", cure) from error
    wanted, there = math.prod(dims) * 8, data.stat().st_size
    if 0 in dims:
        raise InputError(path, f"dimensions {' '.join(map(str, dims))}", "none of them zero", cure)
    if there != wanted:
        seen = f"{there} bytes in {data.name}, but {header.name} says {' x '.join(map(str, dims))} complex numbers"
        raise InputError(path, seen, f"{wanted} bytes", cure)
    array = np.memmap(data, np.complex64, "r", shape=tuple(dims), order="F")
    long = [i for i, n in enumerate(dims) if n > 1]
    names = ["-"] * len(dims)
    for i in long:
        names[i] = _BART.get(i, "-")
    # Two phase encodings and no readout is a slice of three dimensions; all three are.
    plane = [i for i in (0, 1, 2) if i in long]
    for i, name in zip(plane, ("z", "y", "x") if len(plane) == 3 else ("y", "x"), strict=False):
        names[i] = name
    others = [i for i in long if i not in _BART]
    notes = (f"dimensions {', '.join(map(str, others))} of BART are longer than 1: the first is taken",)
    if len(plane) < 2 and axes is None:
        raise InputError(path, f"dimensions {' '.join(map(str, dims))}", "two axes of a picture", "name them by --axes")
    return layout(path, array, "BART", axes, names, notes=notes if others and axes is None else ())


READERS: dict[str, Callable[..., Layout | Scan]] = {
    "npy": read_npy, "npz": read_npz, "mat": read_mat, "cfl": read_cfl,
}  # fmt: skip


def read_nifti(path: Path, phase: str | Path | None, axes: str | None) -> Layout:
    """A NIfTI file of pictures: complex, or magnitudes, with their phase in another file or without any."""
    volume, header = nifti(path)
    volume = _numeric(path, volume)
    if phase is not None:
        angle = _numeric(Path(phase), nifti(Path(phase))[0])
        if angle.shape != volume.shape:
            seen, wanted = " x ".join(map(str, angle.shape)), " x ".join(map(str, volume.shape))
            raise InputError(phase, f"a phase of {seen}", f"{wanted}, as {path.name}", "give the phase of this file")
        if np.abs(angle).max() > 2 * np.pi + 0.01:
            seen = f"values up to {np.abs(angle).max():.4g}"
            raise InputError(phase, seen, "a phase in radians", "scale it: many scanners store -4096 to 4095")
        volume = np.abs(volume) * np.exp(1j * angle)
    names = ["x", "y", "slice", *["-"] * (volume.ndim - 3)] if volume.ndim > 2 else ["x", "y"]
    zooms = [float(z) for z in header.get_zooms()[:3]] + [1.0] * (3 - len(header.get_zooms()[:3]))
    notes = ("only the first volume is taken",) if volume.ndim > 3 and max(volume.shape[3:]) > 1 else ()
    return layout(
        path, volume, "NIfTI", axes, names, spacing=(zooms[1], zooms[0], zooms[2]),
        affine=header.get_best_affine(), notes=notes,
    )  # fmt: skip


def nifti(path: Path, upright: bool = False) -> tuple[np.ndarray, Any]:
    """The numbers of a NIfTI file and its header; `upright` turns the axes towards right, front and top, and leaves out
    those of length one.

    Raises:
        InputError: damaged, or no NIfTI; nibabel is not installed.
    """
    nibabel = needed("nibabel", path)
    with decoding(path, "NIfTI file", "a whole volume"):
        try:
            stored = nibabel.load(path)
            if upright:
                stored = nibabel.as_closest_canonical(nibabel.squeeze_image(stored))
            return np.asarray(stored.dataobj), stored.header
        except (
            nibabel.filebasedimages.ImageFileError, nibabel.wrapstruct.WrapStructError,
            nibabel.spatialimages.HeaderDataError, EOFError, zlib.error,
        ) as error:  # fmt: skip
            raise ValueError(str(error)) from error


def _numeric(path: Path, values: np.ndarray) -> np.ndarray:
    """Single precision, real or complex. Raises InputError for colours."""
    if values.dtype.kind not in "uifcb":
        raise InputError(path, f"values of type {values.dtype}", "numbers, real or complex", "save one channel")
    return values.astype(np.complex64 if values.dtype.kind == "c" else np.float32)


def read_array(path: str | Path) -> np.ndarray:
    """Any single array: a mask, or coil maps. Raises InputError."""
    from .mri import kind_of

    path = Path(path)
    kind = kind_of(path)
    if kind == "h5":
        from .mri_h5 import read_dataset

        return read_dataset(path)
    if kind == "nifti":
        return _numeric(path, nifti(path)[0])
    if kind == "npy":
        with decoding(path, "NumPy file", "a whole array"):
            return np.load(path, allow_pickle=False)
    if kind == "cfl":
        return np.asarray(read_cfl(path, None, None, None).array)
    if kind == "npz":
        with decoding(path, "NumPy file", "a whole array"), np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    else:
        from scipy.io import loadmat

        with decoding(path, "MATLAB file", "a whole array"):
            arrays = {n: v for n, v in loadmat(path).items() if not n.startswith("__")}
    if len(arrays) != 1:
        raise InputError(path, f"arrays {', '.join(arrays)}", "one array", "save it by itself")
    return next(iter(arrays.values()))


def _paired(array: np.ndarray, format: str, axes: str | None) -> tuple[np.ndarray, str, str | None]:
    """The array with real and imaginary part in a last axis of 2 made complex."""
    if array.dtype.kind in "fiu" and array.ndim > 2 and array.shape[-1] == 2:
        real = np.asarray(array, np.float32)
        return real[..., 0] + 1j * real[..., 1], f"{format}, real and imaginary part apart", axes
    return array, format, axes


def _as_mask(mask: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    if mask is None or np.squeeze(mask).ndim != 2:
        return None
    return np.squeeze(mask).astype(bool)


def _numbers(stored: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of numbers in a MATLAB file, structures looked into, by their names."""
    for name, value in stored.items():
        if value.dtype.names and value.size == 1:
            inner = value.reshape(-1)[0]
            yield from _numbers({n: inner[n] for n in value.dtype.names}, f"{prefix}{name}.")
        elif value.dtype.kind in "fiuc":
            yield f"{prefix}{name}", value


def _largest(path: Path, arrays: dict[str, np.ndarray]) -> str:
    """The name of the largest array, of the complex ones if there are any."""
    found = {n: a for n, a in arrays.items() if a.dtype.kind == "c"} or arrays
    if not found:
        raise InputError(path, "no array of numbers in it", "k-space", "save the array itself")
    return max(found, key=lambda n: found[n].size)


def taken(key: str, arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """A note that says which array of several that could be k-space was taken."""
    others = [n for n, a in arrays.items() if n != key and a.shape == arrays[key].shape]
    return (f"the array {key} is taken, not {', '.join(others)}: --key says otherwise",) if others else ()


def _chosen(path: Path, arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        raise InputError(path, f"no array {key!r} in it", f"one of {', '.join(arrays)}", "name one of them by --key")
    return arrays[key]

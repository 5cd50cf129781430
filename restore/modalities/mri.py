"""A person's MRI scans: k-space read as complex numbers, slice by slice, whatever file they lie in. No torch here.

A file is judged by its first bytes, not by its name, but for BART's `.cfl`, which has none. What is taken for which
axis is said in `Scan.axes`; the person can name the axes instead, in the order in which the file has them: `slice`,
`coil`, `y`, `x`, `z` (a third axis of k-space, fully sampled, which becomes slices), `-` (its first entry is taken).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from .image import no_such_file
from .mri_axes import Array, Layout, decoupled, plane
from .mri_scan import Scan, fft2, ifft2

__all__ = ["FORMATS", "Scan", "fft2", "ifft2", "read_images", "read_maps", "read_mask", "read_scan"]

FORMATS = (".h5", ".cfl", ".npy", ".npz", ".mat", ".nii", ".nii.gz")
# Of k-space, more than this share of the energy along an axis lies in the middle quarter of it; of pictures, less.
_CENTRAL = 0.6
# No picture has fewer pixels along an axis.
_SHORTEST = 16


def read_scan(
    path: str | Path,
    *,
    axes: str | None = None,
    key: str | None = None,
    image: bool = False,
    matrix: tuple[int, int] | None = None,
    phase: str | Path | None = None,
) -> Scan:
    """Read a fastMRI or ISMRMRD `.h5`, BART `.cfl`, `.npy`, `.npz`, `.mat` (all versions), or NIfTI file.

    Args:
        axes: what the axes are, in the order of the file, such as `coil,y,x`; default: what the format says, else a
            guess by their lengths.
        key: name of the array in a file that has several.
        image: the numbers are complex pictures, and not k-space. NIfTI always is.
        matrix: `(y, x)` of the picture, where there is a trajectory.
        phase: a NIfTI file with the phase in radians of one of magnitudes.

    Raises:
        InputError: no such file, damaged, truncated, real numbers, or not k-space as it seems.
    """
    from . import mri_arrays, mri_h5

    path = Path(path)
    kind = kind_of(path)
    if phase is not None and kind != "nifti":
        raise InputError(path, "no NIfTI file", "a NIfTI file of magnitudes for --phase", "leave out --phase")
    readers = {**mri_arrays.READERS, "h5": mri_h5.read}
    nifti = kind == "nifti"
    found = mri_arrays.read_nifti(path, phase, axes) if nifti else readers[kind](path, key, axes, matrix)
    scan = found if isinstance(found, Scan) else _scan(path, found, image or nifti)
    if matrix is not None and scan.trajectory is None:
        raise InputError(path, f"{scan}: no trajectory", "points off the grid for --matrix", "leave out --matrix")
    return scan


def kind_of(path: Path) -> str:
    """`h5`, `npy`, `npz`, `mat`, `cfl` or `nifti`. Raises InputError."""
    wanted = f"a scan ({' '.join(FORMATS)})"
    if path.is_dir():
        raise InputError(path, "a folder", wanted, "name a file inside it")
    if path.suffix in (".cfl", ".hdr") and path.with_suffix(".cfl").exists():
        return "cfl"
    if not path.exists():
        raise no_such_file(path, "a scan")
    with open(path, "rb") as file:
        start = file.read(1024)
    if not start:
        raise InputError(path, "an empty file (0 bytes)", wanted, "copy or save the file again")
    marks = {b"\x89HDF\r\n\x1a\n": "h5", b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"MATLAB 7.3": "h5",
             b"MATLAB 5.0": "mat", b"\x1f\x8b": "nifti"}  # fmt: skip
    for mark, kind in marks.items():
        if start.startswith(mark):
            return kind
    if start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] == b"n+2\0":
        return "nifti"
    raise InputError(path, f"not a scan (it starts with {start[:8]!r})", wanted, "convert it to one of these")


def _scan(path: Path, found: Layout, image: bool) -> Scan:
    """The scan of an array whose axes have names, once it looks like k-space."""
    array: Array = found.array
    if not found.complex and not image:
        cure = "save the complex numbers as they were measured; if these are pictures, say --image"
        raise InputError(path, "real numbers", "k-space, which is complex", cure)
    if "z" in found.names:
        array, found = decoupled(found)
    sizes = dict(zip(found.names, array.shape, strict=True))
    read = lambda i: plane(array, found.names, i)  # noqa: E731
    scan = Scan(
        path=path,
        format=found.format,
        slices=sizes.get("slice", 1),
        coils=sizes.get("coil", 1),
        shape=(sizes["y"], sizes["x"]),
        plane=read,
        axes=found.words,
        spacing=found.spacing,
        affine=found.affine,
        mask=found.mask,
        noise=found.noise,
        phase_axis=found.phase_axis,
        pictured=image,
        notes=found.notes,
    )
    if image:
        return replace(scan, plane=lambda i: fft2(read(i)))
    return _centred(scan, read)


def _centred(scan: Scan, read: Callable[[int], np.ndarray]) -> Scan:
    """The scan with zero frequency in the middle; refused where no place of it could be.

    Raises:
        InputError: the energy is not around zero frequency along some axis.
    """
    k = np.nan_to_num(read(scan.slices // 2))
    if not k.any():
        k = np.nan_to_num(next((k for k in map(read, range(scan.slices)) if np.any(k)), k))
    if not k.any():
        raise InputError(scan.path, "all of it is zero", "measured k-space", "check how it was saved")
    shares = [share_of_centre(k, axis) for axis in (1, 2)]
    if min(shares) >= _CENTRAL:
        return scan
    corner = np.fft.fftshift(k, (1, 2))
    if min(share_of_centre(corner, axis) for axis in (1, 2)) >= _CENTRAL:
        note = "zero frequency is at the corner of the arrays: moved to the middle"
        return replace(scan, plane=lambda i: np.fft.fftshift(read(i), (1, 2)), notes=(*scan.notes, note))
    lacking = [f"{name} ({k.shape[1 + n]} long)" for n, name in enumerate("yx") if shares[n] < _CENTRAL]
    seen = f"the energy along {' and '.join(lacking)} is not around zero frequency, with {scan.axes}"
    cure = "name the axes in the order of the file, as in --axes coil,y,x; if these are complex pictures, say --image"
    raise InputError(scan.path, seen, "k-space, whose middle is the strongest", cure)


def share_of_centre(k: np.ndarray, axis: int) -> float:
    """The share of the energy of `(coil, y, x)` in the middle quarter of an axis; 0 of one too short for a picture."""
    energy = np.square(np.abs(k), dtype=np.float64).sum(tuple(a for a in range(k.ndim) if a != axis))
    n, half = len(energy), len(energy) // 8
    return float(energy[n // 2 - half : n // 2 + half + 1].sum() / energy.sum()) if n >= _SHORTEST else 0.0


def read_mask(path: str | Path, scan: Scan) -> np.ndarray:
    """Which points were sampled, `(y, x)` bool, from a file of an array `(y, x)`, or one along the phase-encode axis.

    Raises:
        InputError: it does not match the scan, or keeps nothing.
    """
    from .mri_arrays import read_array

    mask = np.squeeze(read_array(path)).astype(bool)
    y, x = scan.shape
    lines = {"y": y, "x": x}
    if mask.shape == (y, x):
        found = mask
    elif mask.shape == (lines[scan.phase_axis],):
        found = np.broadcast_to(mask[:, None] if scan.phase_axis == "y" else mask, (y, x)).copy()
    else:
        turned = mask.shape == (x, y)
        raise InputError(
            path, f"a mask of {' x '.join(map(str, mask.shape))}",
            f"{y} x {x} (y, x) or {lines[scan.phase_axis]} lines along {scan.phase_axis}, as the scan has",
            "transpose it" if turned else "give the mask that belongs to this scan",
        )  # fmt: skip
    if not found.any():
        raise InputError(path, "a mask that keeps nothing", "true (or 1) where k-space was sampled", "invert it")
    return found


def read_images(path: str | Path, scan: Scan) -> np.ndarray:
    """The true images of a scan, `(slice, y, x)`, real or complex, from an array of that shape or a NIfTI file.

    Raises:
        InputError: they do not match the scan.
    """
    from .mri_arrays import read_array

    images = read_array(path)
    if kind_of(Path(path)) == "nifti":
        images = images.T
    images = images[None] if images.ndim == 2 else images
    wanted = (scan.slices, *scan.shape)
    if images.shape != wanted:
        seen, words = (" x ".join(map(str, s)) for s in (images.shape, wanted))
        raise InputError(path, f"images of {seen}", f"{words} (slice, y, x), as the scan has", "check --ref")
    return images


def read_maps(path: str | Path, scan: Scan) -> np.ndarray:
    """Coil maps from a file: `(coil, y, x)`, or `(slice, coil, y, x)`, complex64.

    Raises:
        InputError: they do not match the scan, or tell nothing.
    """
    from .mri_arrays import read_array

    maps = np.squeeze(read_array(path))
    if not np.isfinite(maps).all() or not maps.any():
        seen = "zero everywhere" if np.isfinite(maps).all() else "NaN or infinite values"
        raise InputError(path, f"coil maps: {seen}", "finite numbers, zero outside of the body only", "check the file")
    wanted = (scan.coils, *scan.shape)
    # BART and MATLAB have the coils last.
    for order in ((0, 1, 2), (2, 0, 1)):
        if maps.ndim == 3 and maps.transpose(order).shape == wanted:
            return np.ascontiguousarray(maps.transpose(order), np.complex64)[None]
    if maps.shape == (scan.slices, *wanted):
        return maps.astype(np.complex64)
    seen = f"coil maps of {' x '.join(map(str, maps.shape))}"
    words = f"{scan.coils} x {scan.shape[0]} x {scan.shape[1]} (coil, y, x), as the scan has"
    raise InputError(path, seen, words, "give the maps of this scan, or --coils espirit")

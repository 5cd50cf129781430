"""Volumes as files, written plane by plane: NIfTI, `.npy`, PNG. No torch here."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError
from ..files import atomic_write
from .image import Picture, write_picture
from .mri_scan import Scan
from .needed import needed

OUTPUTS = (".nii.gz", ".nii", ".npy", ".png")
# Where the numbers of a NIfTI-1 file begin, its 348 bytes of header and no extension before them.
_OFFSET = 352


def suffix_of(path: Path) -> str | None:
    """The one of `OUTPUTS` that a name ends in, `None` for others."""
    return next((s for s in OUTPUTS if path.name.lower().endswith(s)), None)


def write_volume(
    path: Path,
    shape: tuple[int, ...],
    plane: Callable[[int], np.ndarray],
    scan: Scan,
    *,
    dtype: Any = np.float32,
    window: tuple[float, float] = (0.0, 1.0),
    written: Callable[[Path], None] = lambda temporary: None,
) -> None:
    """Write planes `(y, x)` one after another, so that a volume need not fit into memory. The write is atomic.

    Args:
        path: ends in one of `OUTPUTS`; a PNG has a single plane, in 16 bits.
        shape: `(slice, y, x)` or `(sample, slice, y, x)`.
        plane: gives the planes, counted over all but the last two axes.
        scan: whose pixels these are; a NIfTI file has their spacing, or the affine of the file that was read.
        dtype: of a `.npy` file, which alone can hold complex numbers.
        window: what is black and what is white in a PNG.
        written: called with the file just before it is renamed into its place.

    Raises:
        OutputError: the place cannot be written to. InputError: nibabel is not installed.
    """
    count, suffix = int(np.prod(shape[:-2])), suffix_of(path)
    head = _header(path, shape, scan) if suffix in (".nii", ".nii.gz") else b""
    with atomic_write(path) as temporary:
        if suffix == ".png":
            shown = ((plane(0) - window[0]) / (window[1] - window[0]))[None].astype(np.float32)
            write_picture(temporary, shown, Picture(path, shown, None, "PNG", "uint16"))
        elif suffix == ".npy":
            array = np.lib.format.open_memmap(temporary, "w+", dtype, shape)
            for i in range(count):
                array.reshape(count, *shape[-2:])[i] = plane(i)
            array.flush()
        else:
            with open(temporary, "wb") as raw:
                # No name and no time in it: the same volume gives the same bytes.
                file: Any = gzip.GzipFile("", "wb", 5, raw, mtime=0) if suffix == ".nii.gz" else raw
                file.write(head.ljust(_OFFSET, b"\0"))
                for i in range(count):
                    file.write(np.ascontiguousarray(plane(i), "<f4").tobytes())
                if file is not raw:
                    file.close()
        written(temporary)


def _header(path: Path, shape: tuple[int, ...], scan: Scan) -> bytes:
    """Of NIfTI-1: x, y, slice and samples, first index fastest."""
    nibabel: Any = needed("nibabel", path)
    if max(shape) > 32767:
        raise OutputError(path, f"an axis of {max(shape)}", "at most 32767 for NIfTI", "write a .npy file instead")
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype("<f4")
    header.set_data_shape(shape[:-4:-1] + shape[: len(shape) - 3][::-1])
    spacing = scan.spacing or (1.0, 1.0, 1.0)
    zooms = (spacing[1], spacing[0], spacing[2], 1.0)[: len(shape)]
    if scan.affine is not None:
        header.set_sform(scan.affine, code="scanner")
        header.set_qform(scan.affine, code="scanner", strip_shears=True)
    else:
        header.set_sform(np.diag([*zooms[:3], 1.0]), code="unknown")
    header.set_zooms(zooms)
    header.set_xyzt_units("mm" if scan.spacing else "unknown")
    header["magic"], header["vox_offset"] = b"n+1", _OFFSET
    return header.binaryblock

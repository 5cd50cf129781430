"""Scans in HDF5: fastMRI, ISMRMRD (its acquisitions and header, read with h5py alone), MATLAB 7.3. No torch here.

ISMRMRD: Inati et al. 2017, https://ismrmrd.readthedocs.io; the numbers of its flags count from 1.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .image_picture import decoding
from .mri_arrays import taken
from .mri_axes import Layout, layout
from .mri_off_grid import off_grid
from .mri_scan import Scan, without_oversampling
from .needed import needed

_NOISE, _CALIBRATION, _REVERSE = 19, 20, 22
# Navigators, phase correction, feedback, dummies, surface coils: not of the picture.
_OTHER = (23, 24, 25, 26, 27, 28, 29)
_CARTESIAN = ("cartesian", "epi")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, for reading. Raises InputError where it is damaged or truncated, or h5py is not installed."""
    h5py = needed("h5py", path)
    with decoding(path, "HDF5 file", "a whole scan"), h5py.File(path, "r") as file:
        yield file


def read(path: Path, key: str | None, axes: str | None, matrix: tuple[int, int] | None = None) -> Layout | Scan:
    """Read whatever lies in an HDF5 file.

    Raises:
        InputError: damaged, truncated, or nothing in it that is known.
    """
    with opened(path) as file:
        found = _datasets(file)
        acquisitions = [n for n, d in found.items() if d.dtype.names and "head" in d.dtype.names]
        if acquisitions and key is None:
            return _ismrmrd(path, acquisitions[0], found, matrix)
        matlab = any("MATLAB_class" in d.attrs for d in found.values())
        numbers = {n: d for n, d in found.items() if _is_number(d)}
        notes: tuple[str, ...] = ()
        if key is None:
            key = "kspace" if "kspace" in numbers else _largest(path, numbers)
            notes = taken(key, numbers)
        if key not in numbers:
            raise InputError(path, f"no array {key!r} in it", f"one of {', '.join(numbers)}", "name one by --key")
        array = Stored(path, key, numbers[key].shape, _dtype(numbers[key]), matlab)
        if matlab or key != "kspace" or array.dtype.kind != "c" or len(array.shape) not in (3, 4):
            return layout(path, array, "MATLAB 7.3" if matlab else "HDF5", axes, notes=notes)
        return _fastmri(path, file, array, axes)


@dataclass(frozen=True, eq=False)
class Stored:
    """A dataset that is read when it is indexed, and the file closed again; MATLAB's in MATLAB's order of axes."""

    path: Path
    key: str
    stored: tuple[int, ...]
    dtype: np.dtype
    turned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored[::-1] if self.turned else self.stored

    def __getitem__(self, index: tuple[int | slice, ...]) -> np.ndarray:
        with opened(self.path) as file:
            block = file[self.key][index[::-1] if self.turned else index]
        if block.dtype.names:  # MATLAB's complex numbers are pairs
            block = block["real"] + 1j * block["imag"]
        return block.T if self.turned else block


def read_dataset(path: Path) -> np.ndarray:
    """The only array of numbers in a file. Raises InputError where there are several."""
    found = read(path, None, None)
    if isinstance(found, Scan):
        raise InputError(path, "acquisitions of a scan", "one array", "save it by itself")
    return found.array[(slice(None),) * len(found.array.shape)]


def _datasets(file: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    file.visititems(lambda name, item: found.update({name: item}) if hasattr(item, "dtype") else None)
    return found


def _dtype(dataset: Any) -> np.dtype:
    pair = dataset.dtype.names == ("real", "imag")
    return np.dtype(np.complex64) if pair else dataset.dtype


def _is_number(dataset: Any) -> bool:
    return _dtype(dataset).kind in "fiuc" and len(dataset.shape) >= 2


def _largest(path: Path, numbers: dict[str, Any]) -> str:
    found = {n: d for n, d in numbers.items() if _dtype(d).kind == "c"} or numbers
    if not found:
        raise InputError(path, "no array of numbers in it", "k-space (`kspace`), or ISMRMRD", "look at it with h5dump")
    return max(found, key=lambda n: found[n].size)


def _fastmri(path: Path, file: Any, array: Stored, axes: str | None) -> Layout | Scan:
    """`kspace (slice, [coil,] readout, phase)`; a mask of phase encodings and a header if they are there."""
    names = ("slice", "coil", "y", "x") if len(array.shape) == 4 else ("slice", "y", "x")
    others: dict[str, Any] = {"phase_axis": "x", "notes": ()}
    if "ismrmrd_header" in file:
        header = _Header(path, file["ismrmrd_header"][()])
        others["spacing"] = header.spacing(("x", "y"), array.shape[-2:])
    else:
        others["notes"] = ("no header: the size of the pixels is not known",)
    if "mask" in file and file["mask"].ndim == 1:
        lines = np.asarray(file["mask"]).astype(bool)
        if lines.shape != array.shape[-1:]:
            seen = f"a mask of {len(lines)} lines in the file"
            raise InputError(path, seen, f"{array.shape[-1]}, as its k-space has", "give the right one with --mask")
        others["mask"] = np.broadcast_to(lines, array.shape[-2:]).copy()
    return layout(path, array, "fastMRI", axes, names, **others)


class _Header:
    """What is taken from an ISMRMRD header."""

    def __init__(self, path: Path, xml: bytes | str):
        try:
            root = ET.fromstring(xml)
        except ET.ParseError as error:
            cure = "write it again, or delete it: only the size of the pixels is lost"
            raise InputError(path, f"its header is no XML ({error})", "an ISMRMRD header, or none", cure) from error
        self.root = root.find("{*}encoding")
        self.trajectory = self.text("trajectory", "cartesian").lower()
        self.encoded, self.recon = self.matrix("encodedSpace"), self.matrix("reconSpace")
        self.fov = {n: float(self.text(f"encodedSpace/fieldOfView_mm/{n}", "0")) for n in "xyz"}
        self.recon_fov = {n: float(self.text(f"reconSpace/fieldOfView_mm/{n}", "0")) for n in "xyz"}
        self.calibration = self.text("parallelImaging/calibrationMode", "embedded")

    def text(self, place: str, default: str) -> str:
        steps = "/".join(f"{{*}}{step}" for step in place.split("/"))
        found = None if self.root is None else self.root.findtext(steps)
        return default if found is None else found.strip()

    def matrix(self, space: str) -> dict[str, int]:
        return {n: int(self.text(f"{space}/matrixSize/{n}", "0")) for n in "xyz"}

    def spacing(self, order: tuple[str, str], shape: tuple[int, ...]) -> tuple[float, float, float] | None:
        """mm from pixel to pixel, where the picture has all of the encoded field of view."""
        sizes = [self.fov[n] / s for n, s in zip(order, shape, strict=True)]
        if min(sizes) <= 0:
            return None
        return sizes[0], sizes[1], self.fov["z"] / max(self.encoded["z"], 1) or 1.0

    def oversampled(self) -> int | None:
        """To how many pixels the readout is to be cut, if it was oversampled."""
        small, large = self.recon["x"], self.encoded["x"]
        share = self.recon_fov["x"] / self.fov["x"] if self.fov["x"] and self.recon_fov["x"] else small / max(large, 1)
        return small if 0 < small < large and abs(share - small / large) < 0.02 else None


def _ismrmrd(path: Path, name: str, found: dict[str, Any], matrix: tuple[int, int] | None) -> Scan:
    """Acquisitions, sorted into lines of slices."""
    dataset, notes = found[name], []
    head = dataset.fields("head")[:]
    xml = next((d for n, d in found.items() if n.rsplit("/", 1)[-1] == "xml"), None)
    header = None if xml is None else _Header(path, np.asarray(xml).reshape(-1)[0])
    flags = head["flags"].astype(np.uint64)
    has = lambda *bits: sum((flags >> np.uint64(b - 1)) & np.uint64(1) for b in bits) > 0  # noqa: E731
    noise = _noise(dataset, np.flatnonzero(has(_NOISE)))
    keep = ~has(_NOISE, *_OTHER)
    if header is not None and header.calibration != "embedded":
        keep &= ~has(_CALIBRATION)
    idx = head["idx"]
    for what in ("contrast", "repetition", "phase", "set"):
        values = np.unique(idx[what][keep])
        if len(values) > 1:
            notes.append(f"{len(values)} values of {what}: only the first is taken")
            keep &= idx[what] == values[0]
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise InputError(path, f"{len(head)} acquisitions, none of a picture", "lines of k-space", "check its flags")
    coils = int(head["active_channels"][rows[0]])
    if coils < 1:
        raise InputError(path, "no coil: active_channels is 0", "at least one", "check how it was converted")
    if header is None:
        notes.append("no header: sizes are those of the lines, the size of the pixels is not known")
    if header is not None and header.trajectory not in _CARTESIAN:
        return _spokes(path, dataset, head, rows, header, coils, noise, matrix, tuple(notes))
    if len(np.unique(idx["kspace_encode_step_2"][rows])) > 1:
        cure = "convert it to a three-dimensional array and give --axes z,y,x"
        raise InputError(path, "a three-dimensional ISMRMRD scan", "slices", cure)
    samples = int(head["number_of_samples"][rows].max())
    steps = idx["kspace_encode_step_1"]
    ny = max(header.encoded["y"] if header else 0, int(steps[rows].max()) + 1)
    nx = max(header.encoded["x"] if header else 0, samples)
    if header is not None and header.encoded["y"]:
        ny = header.encoded["y"]
    centre = int(header.text("encodingLimits/kspace_encoding_step_1/center", str(ny // 2))) if header else ny // 2
    lines = steps.astype(int) - centre + ny // 2
    outside = (lines[rows] < 0) | (lines[rows] >= ny)
    if outside.any():
        seen = f"{int(outside.sum())} of {len(rows)} lines outside of the {ny} that the header says"
        raise InputError(path, seen, "all inside", "correct encodingLimits or matrixSize in the header")
    cut = header.oversampled() if header else None
    if cut is not None:
        notes.append(f"readout oversampling removed: {nx} to {cut}")
    slices = [rows[idx["slice"][rows] == s] for s in np.unique(idx["slice"][rows])]
    table = _Lines(path, name, slices, lines, coils, ny, nx, cut)
    x = nx if cut is None else cut
    return Scan(
        path=path,
        format="ISMRMRD",
        slices=len(slices),
        coils=coils,
        shape=(ny, x),
        plane=table.plane,
        axes=f"slice {len(slices)}, coil {coils}, y {ny} (kspace_encode_step_1), x {x} (readout), as ISMRMRD has them",
        spacing=None if header is None else header.spacing(("y", "x"), (ny, nx)),
        noise=noise,
        notes=tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class _Lines:
    """The acquisitions of each slice, read when they are asked for; those of one line are averaged."""

    path: Path
    name: str
    rows: list[np.ndarray]
    lines: np.ndarray
    coils: int
    ny: int
    nx: int
    cut: int | None

    def plane(self, i: int) -> np.ndarray:
        total = np.zeros((self.coils, self.ny, self.nx), np.complex64)
        count = np.zeros((self.ny, self.nx), np.float32)
        with opened(self.path) as file:
            stored = file[self.name][self.rows[i]]
        for row, (head, _, data) in zip(self.rows[i], stored, strict=True):
            line = _complex(data, self.coils)
            line = line[:, int(head["discard_pre"]) : line.shape[1] - int(head["discard_post"])]
            if (int(head["flags"]) >> (_REVERSE - 1)) & 1:
                line = line[:, ::-1]
            # A line shorter than k-space is wide (a partial echo) says where its centre is.
            first = 0 if line.shape[1] == self.nx else self.nx // 2 - int(head["center_sample"])
            if first < 0 or first + line.shape[1] > self.nx:
                seen = f"acquisition {row} has {line.shape[1]} samples, centre {int(head['center_sample'])}"
                raise InputError(self.path, seen, f"samples within {self.nx}", "correct matrixSize in the header")
            here = self.lines[row], slice(first, first + line.shape[1])
            total[:, *here] += line
            count[here] += 1
        k = total / np.maximum(count, 1)
        return k if self.cut is None else without_oversampling(k, 2, self.cut)


def _spokes(
    path: Path, dataset: Any, head: np.ndarray, rows: np.ndarray, header: _Header, coils: int,
    noise: np.ndarray | None, matrix: tuple[int, int] | None, notes: tuple[str, ...],
) -> Scan:  # fmt: skip
    """A scan off the grid; its first slice."""
    slices = head["idx"]["slice"][rows]
    first = rows[slices == slices.min()]
    if len(first) < len(rows):
        notes = (*notes, f"{len(np.unique(slices))} slices off the grid: only the first is taken")
    dimensions = int(head["trajectory_dimensions"][first[0]])
    if dimensions < 2:
        seen = f"trajectory {header.trajectory!r}, but no points of it"
        raise InputError(path, seen, "two numbers for each sample", "write the trajectory into the acquisitions")
    stored = dataset[first]
    data = np.concatenate([_complex(d, coils) for _, _, d in stored], 1)
    points = np.concatenate([np.asarray(t).reshape(-1, dimensions)[:, :2] for _, t, _ in stored])
    sizes = header.recon if header.recon["x"] else header.encoded
    shape = matrix or (sizes["y"], sizes["x"])
    fov = header.recon_fov if header.recon_fov["x"] else header.fov
    spacing = (fov["y"] / shape[0], fov["x"] / shape[1], fov["z"] or 1.0) if fov["x"] and fov["y"] else None
    return off_grid(path, "ISMRMRD", data, points, None, shape, spacing=spacing, noise=noise, notes=notes)


def _noise(dataset: Any, rows: np.ndarray) -> np.ndarray | None:
    """The samples of the noise scans, `(coil, samples)`."""
    if not len(rows):
        return None
    parts = [_complex(data, int(head["active_channels"])) for head, _, data in dataset[rows]]
    return np.concatenate([p for p in parts if len(p) == len(parts[0])], 1)


def _complex(data: Any, coils: int) -> np.ndarray:
    """An acquisition's floats as `(coil, samples)`."""
    return np.ascontiguousarray(data, np.float32).view(np.complex64).reshape(coils, -1)

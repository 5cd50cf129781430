"""What is asked of a scan, and the scan once it was read, judged and found fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import InputError
from restore.intervals import NONE
from restore.jobs import Job, Tools, sha256
from restore.modalities.mri import Scan, read_maps, read_mask, read_scan
from restore.scan_noise import noise_of

GIVEN, ESPIRIT = "given", "espirit"


@dataclass(frozen=True)
class ScanRequest:
    """What is to be done to every scan of a command, as plain data; the attributes are the command's options.

    Attributes:
        noise: standard deviation per real number in the units of the file; `None` estimates it.
        accel: `given`, or keep one line in so many of what was sampled.
        coils: `espirit`, or a file of maps.
        mask: a file that says what was sampled.
        slices: `first`, `after the last`, or all.
        calibration: a file of `restore calibrate`, `none`, or `None` for the one beside the prior's weights.
    """

    settings: dict[str, Any]
    noise: float | None = None
    accel: str = GIVEN
    coils: str = ESPIRIT
    mask: str | None = None
    axes: str | None = None
    key: str | None = None
    image: bool = False
    matrix: tuple[int, int] | None = None
    phase: str | None = None
    slices: tuple[int, int] | None = None
    draws: int = 4
    verb: str = "mri"
    calibration: str | None = None

    def describe(self) -> dict[str, Any]:
        """All that decides the result besides the scan, as plain data; files by their contents."""
        named = ("coils", "mask", "phase", "calibration")
        files = {n: f for n in named if (f := getattr(self, n)) and f not in (ESPIRIT, NONE)}
        return {**asdict(self), **{f"{n}_sha256": sha256(Path(f)) for n, f in files.items()}}


@dataclass(frozen=True)
class PreparedScan:
    """A scan that was read, judged and found fit.

    Attributes:
        chosen: the slices to restore.
        whitening: `(coil, coil)`, makes the noise of all coils white and of std `sigma` per real number.
        sigma, estimated: that std, in the units of the file; from what.
        maps: of a file, `(1 or slice, coil, y, x)`; `None` estimates them, or there is one coil.
        given: a mask that was given.
    """

    job: Job
    scan: Scan
    chosen: range
    whitening: np.ndarray
    sigma: float
    estimated: str
    maps: np.ndarray | None
    given: np.ndarray | None
    sha256: str
    notes: tuple[str, ...]


def prepare_scan(job: Job, request: ScanRequest, tools: Tools) -> PreparedScan:
    """Read a scan and judge it.

    Raises:
        InputError: the scan, its mask or its coil maps cannot be used.
    """
    scan = read_scan(
        job.source, axes=request.axes, key=request.key, image=request.image, matrix=request.matrix, phase=request.phase
    )
    notes = list(scan.notes)
    chosen = range(scan.slices)
    if request.slices is not None:
        chosen = range(*request.slices)
        if chosen.stop > scan.slices:
            seen = f"slice {chosen.stop - 1} asked, and it has {scan.slices}"
            raise InputError(job.source, seen, f"at most {scan.slices - 1}", "they are counted from 0")
    if scan.trajectory is not None and (request.accel != GIVEN or request.mask is not None):
        seen = "points off the grid"
        raise InputError(job.source, seen, "lines on a grid for --accel or --mask", "leave them out")
    given = scan.mask if request.mask is None else _given(Path(request.mask), scan, chosen)
    maps = None if request.coils == ESPIRIT else read_maps(request.coils, scan)
    if scan.coils == 1 and maps is None:
        notes.append("one coil: its map is taken as one everywhere")
    if not tools.prior.accepts((2, *scan.shape)):
        wanted = f"{tools.prior.shape} for this prior, two channels for a complex picture"
        raise InputError(job.source, f"complex pictures of {scan.shape}", wanted, "choose another with --prior")
    whitening, sigma, estimated = noise_of(scan, given, chosen, request.noise)
    return PreparedScan(
        job, scan, chosen, whitening, sigma, estimated, maps, given, sha256(job.source), tuple(notes)
    )  # fmt: skip


def _given(path: Path, scan: Scan, chosen: range) -> np.ndarray:
    """The mask in a file. Raises InputError where it does not match, or mostly keeps what was not sampled."""
    mask = read_mask(path, scan)
    there = np.asarray(scan.kspace(chosen[len(chosen) // 2]).any(0))
    share = float(there[mask].mean())
    if there.any() and share < 0.5:
        seen = f"a mask that keeps points of which {100 * (1 - share):.3g} % are zero in the scan: not sampled"
        raise InputError(path, seen, "true (or 1) where k-space was sampled", "invert it, or give that of this scan")
    return mask

"""Finished slices of a scan in a hidden folder beside the output, until all are.

So the same command goes on where it was stopped, and no more than a slice is in memory.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restore.files import atomic_write
from restore.jobs import Job


@dataclass(frozen=True)
class Told:
    """What is known of a finished slice.

    Attributes:
        empty: it held no data, and is all zero.
        scale, data_fit, nfe, backward, seconds: as elsewhere; the fit is that of the draws, root mean square.
        kept: share of the points that were used.
        centre: fully sampled lines around zero frequency, along y and x.
        left_out_fit: `||y - A mean|| / (sigma sqrt(m))` on points that were measured and left out.
        expected_fit: what it would be if the spread of the draws were right.
        surprise: how much worse the prior denoises the result than what it was trained on; 1 where it fits.
        missed, without, worse: those of `restore.scan_trial`, of one slice of the scan.
        psnr: of the mean magnitude against the picture of all data, whose largest value is the peak.
        shown_psnr: against it too, of what the draws say that a full scan would have shown, noise and all.
        covered: share of the pixels of the body at which that picture is within the interval of what it would show; of
            a truth that was given, within the interval around the mean.
    """

    empty: bool
    scale: float = 0.0
    data_fit: float | None = None
    nfe: float = 0.0
    backward: float = 0.0
    seconds: float = 0.0
    kept: float = 0.0
    centre: tuple[int, int] = (0, 0)
    left_out_fit: float | None = None
    expected_fit: float | None = None
    surprise: float | None = None
    missed: float | None = None
    without: float | None = None
    worse: bool | None = None
    psnr: float | None = None
    shown_psnr: float | None = None
    covered: float | None = None


class Workshop:
    """The hidden folder of a scan's finished slices: draws as complex64 `(sample, y, x)`, and what is told of them.

    What another request, or another file of the same name, left there is removed.

    Args:
        key: says which request and which scan the slices are of.
    """

    def __init__(self, job: Job, key: dict[str, Any]):
        self.folder = job.output.parent / f".{job.side}.slices"
        self.text = json.dumps(key, sort_keys=True)
        if self.folder.exists() and not self._is_ours():
            self.close()

    def told(self, i: int) -> Told | None:
        """What is known of slice `i`, `None` if it is not finished."""
        path = self._path(i, ".json")
        return Told(**json.loads(path.read_text())) if path.exists() else None

    def save(self, i: int, samples: np.ndarray, told: Told) -> None:
        """Keep a slice; what is told of it comes last, and marks it as finished."""
        if not self._is_ours():
            with atomic_write(self.folder / "request.json") as temporary:
                temporary.write_text(self.text)
        with atomic_write(self._path(i, ".npy")) as temporary:
            np.save(temporary, samples)
        with atomic_write(self._path(i, ".json")) as temporary:
            temporary.write_text(json.dumps(asdict(told)))

    def samples(self, i: int) -> np.ndarray:
        """The draws of slice `i`, mapped into memory."""
        return np.load(self._path(i, ".npy"), mmap_mode="r")

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ours(self) -> bool:
        told = self.folder / "request.json"
        return told.exists() and told.read_text() == self.text

    def _path(self, i: int, ending: str) -> Path:
        return self.folder / f"slice-{i:05d}{ending}"

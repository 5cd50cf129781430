"""Restored scans as files: the picture, its phase, spread and draws, a panel, the check in k-space, the record."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore import __version__, beside
from restore.intervals import Interval
from restore.jobs import Job
from restore.modalities.mri_write import suffix_of, write_volume
from restore.records import Record, complete, hold, machine, pinned, remove, what_it_is
from restore.report import nice_ceiling, panel
from restore.scan_full import body_of
from restore.scan_interval import half_width
from restore.scan_pose import Slice, misfit, pose, predict
from restore.scan_prepare import PreparedScan, ScanRequest
from restore.scan_workshop import Told, Workshop
from restore.scans import peak_psnr

# Decades of k-space that are shown, from its largest value down.
_DECADES = 4.0


def describe(request: ScanRequest) -> Record:
    """All that decides the result besides the scan."""
    return json.loads(json.dumps({**request.describe(), **pinned(request.settings), "version": __version__}))


def side_files(job: Job, request: ScanRequest) -> list[Path]:
    """What stands beside the picture."""
    return [*map(job.beside, beside.scan_endings(str(suffix_of(job.output)), request.draws))]


def write_scan(
    prepared: PreparedScan, request: ScanRequest, workshop: Workshop, told: Sequence[Told], device: torch.device,
    argv: list[str], truth: np.ndarray | None, interval: Interval,
) -> Record:  # fmt: skip
    """Write everything and the record; returns the record.

    Args:
        interval: what the spread of the draws is taken for.
        truth: the true images of all slices, `(slice, y, x)`, to score the result by.

    Raises:
        OutputError: the place cannot be written to.
    """
    job, output = prepared.job, prepared.job.output
    old = hold(job, side_files(job, request))
    volume = _Volume(prepared, workshop, told, interval)
    notes = _volumes(volume, request)
    if truth is not None:
        told = _scored(volume, told, truth)
    notes += _pictures(volume, request, told, truth)
    files = [path.name for path in side_files(job, request)[1:]]
    remove(job, old.difference(files))
    record: Record = {
        "argv": ["restore", *argv],
        "request": describe(request),
        "input": {"path": str(job.source.absolute()), "sha256": prepared.sha256, "is": str(prepared.scan)},
        "noise": {"sigma": prepared.sigma, "estimated": prepared.estimated},
        "result": {**_result(request, told), "noise": _relative(prepared.sigma, told)},
        "slices": [vars(t) for t in told],
        "interval": interval.record(),
        "files": files,
        "machine": machine(device),
        "notes": [*prepared.notes, *notes],
    }
    volume.write(output, volume.mean, window=(0.0, volume.top), written=lambda path: complete(job, record, path))
    workshop.close()
    return record


class _Volume:
    """The slices of a workshop as volumes in files."""

    def __init__(self, prepared: PreparedScan, workshop: Workshop, told: Sequence[Told], interval: Interval):
        self.prepared, self.workshop, self.told, self.interval = prepared, workshop, told, interval
        self.shape = (len(prepared.chosen), *prepared.scan.shape)
        self.top = nice_ceiling(float(self.mean(len(prepared.chosen) // 2).max()))

    def samples(self, n: int) -> np.ndarray:
        """Of the `n`-th of the chosen slices, `(sample, y, x)` complex64."""
        return self.workshop.samples(self.prepared.chosen[n])

    def mean(self, n: int) -> np.ndarray:
        return np.abs(self.samples(n)).mean(0)

    def spread(self, n: int) -> np.ndarray:
        """Half-width of the interval of each pixel, or the standard deviation if there is no calibration."""
        std = np.abs(self.samples(n)).std(0, ddof=1)
        if self.interval.entry is None or self.told[n].empty:
            return std
        return half_width(self.interval, std, self.told[n].scale, self.prepared.sigma)

    def magnitude(self, n: int, i: int) -> np.ndarray:
        """Of draw `i`."""
        return np.abs(self.samples(n)[i])

    def phase(self, n: int) -> np.ndarray:
        return np.angle(self.samples(n).mean(0))

    def write(self, path: Path, plane: Callable[[int], np.ndarray], **others: Any) -> None:
        write_volume(path, self.shape, plane, self.prepared.scan, **others)

    def write_samples(self, path: Path, draws: int) -> None:
        """All draws: complex in `.npy`, magnitudes in NIfTI."""
        n, shape = self.shape[0], (draws, *self.shape)
        kept = np.asarray if suffix_of(path) == ".npy" else np.abs
        write_volume(
            path, shape, lambda i: kept(self.samples(i % n)[i // n]), self.prepared.scan, dtype=np.complex64
        )  # fmt: skip


def _volumes(volume: _Volume, request: ScanRequest) -> list[str]:
    """Phase, spread and draws; how to read them."""
    job, interval = volume.prepared.job, volume.interval
    suffix = str(suffix_of(job.output))
    phase, spread = job.beside("_phase" + suffix), job.beside("_std" + suffix)
    png = suffix == ".png"
    volume.write(phase, volume.phase, window=(-np.pi, np.pi))
    notes = [f"{phase.name}: phase of the mean of the draws" + (", black -pi, white pi" if png else ", in radians")]
    if png:
        notes.append(f"{job.output.name}: magnitude; black is 0, white (65535) is {volume.top:g}")
    if request.draws < 2:
        return notes
    top = nice_ceiling(float(volume.spread(0).max())) if png else 1.0
    volume.write(spread, volume.spread, window=(0.0, top))
    white = f"; black is 0, white (65535) is {top:g}" if png else ""
    notes.append(f"{spread.name}: {_called(interval)} of the magnitude{white}; {interval.words} ({interval.why})")
    if png:
        for i in range(request.draws):
            path = job.beside(f"_sample-{i + 1:02d}.png")
            volume.write(path, partial(volume.magnitude, i=i), window=(0.0, volume.top))
    else:
        volume.write_samples(job.beside("_samples" + suffix), request.draws)
    return notes


def _called(interval: Interval) -> str:
    return "standard deviation" if interval.entry is None else "half-width of the interval"


def _pictures(volume: _Volume, request: ScanRequest, told: Sequence[Told], known: np.ndarray | None) -> list[str]:
    """Panel and check in k-space of the middle one of the slices that hold data; which one."""
    prepared = volume.prepared
    full = [n for n, t in enumerate(told) if not t.empty]
    n = full[len(full) // 2]
    posed = pose(prepared, request, prepared.chosen[n])
    assert posed is not None
    job, samples = prepared.job, volume.samples(n)
    scale = float(np.quantile(np.abs(posed.alone), 0.995))  # so that white is the same in all pictures
    shown: list[tuple[str, np.ndarray]] = [
        ("gridded" if posed.used is None else "zero-filled", np.abs(posed.alone)[None] / scale),
        (f"magnitude\n{what_it_is(request.draws)}", volume.mean(n)[None] / scale),
        *((f"draw {i + 1}", np.abs(x)[None] / scale) for i, x in enumerate(samples[:2]) if request.draws > 1),
    ]
    if request.draws > 1:
        shown.append((f"{_called(volume.interval)}\n{volume.interval.words}", volume.spread(n) / scale))
    whole = posed.truth if known is None else known[prepared.chosen[n]]
    if whole is not None:
        truth = np.abs(whole)
        error = np.abs(volume.mean(n) - truth) / scale
        title = "all data, coils combined" if known is None else "truth"
        shown += [(title, truth[None] / scale), ("error of the magnitude", error)]
    shown.append(("phase\nred 0, green 2 pi / 3, blue -2 pi / 3", _hued(volume.mean(n) / scale, volume.phase(n))))
    panel(job.beside(beside.PANEL), shown)
    _check(job.beside(beside.KSPACE), prepared, posed, samples.mean(0))
    many = f"slice {prepared.chosen[n]}: " if len(told) > 1 else ""
    notes = [f"{many}{job.beside(beside.KSPACE).name} has k-space on a logarithmic scale of {_DECADES:g} decades"]
    for n, t in enumerate(told):
        if t.empty:
            notes.append(f"slice {prepared.chosen[n]} holds no data (all zero): left zero")
    return notes


def _hued(magnitude: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """A complex picture as colours, `(3, y, x)`: the phase as hue, which goes round as it does."""
    turn = 2 * np.pi / 3 * np.array([0, 1, -1])[:, None, None]
    return np.clip(magnitude, 0, 1) * (0.5 + 0.5 * np.cos(phase - turn))


def _check(path: Path, prepared: PreparedScan, posed: Slice, mean: np.ndarray) -> None:
    """K-space as measured, as the mean predicts it, and the difference where it was measured, over the noise."""
    if posed.used is None:
        title = "difference over noise\nat the nearest place of the grid"
        panel(path, [(title, _gridded(prepared, misfit(posed, mean) / prepared.sigma))])
        return
    assert posed.left_out is not None
    predicted = predict(posed, mean)
    measured = posed.used | posed.left_out
    off = np.sqrt(np.square(np.abs(posed.measured - predicted)).mean(0) / 2) / prepared.sigma * measured
    strength = [np.sqrt(np.square(np.abs(k)).sum(0)) for k in (posed.measured * posed.used, posed.measured, predicted)]
    top = float(strength[1].max())
    logs = [np.clip(1 + np.log10(np.maximum(s, 1e-30) / top) / _DECADES, 0, 1)[None] for s in strength]
    left_out = bool(posed.left_out.any())
    panel(path, [
        ("k-space that was used", logs[0]), *([("all that was measured", logs[1])] if left_out else []),
        ("k-space as the mean predicts it", logs[2]), ("difference over noise, where measured", off),
    ])  # fmt: skip


def _gridded(prepared: PreparedScan, values: np.ndarray) -> np.ndarray:
    """Values at the points of a trajectory as a picture `(y, x)`: root mean squares over what is near."""
    assert prepared.scan.trajectory is not None
    shape = np.array(prepared.scan.shape)
    place = np.clip(np.rint(prepared.scan.trajectory * shape).astype(int) + shape // 2, 0, shape - 1)
    total, count = np.zeros(prepared.scan.shape), np.zeros(prepared.scan.shape)
    np.add.at(total, tuple(place.T), values**2)
    np.add.at(count, tuple(place.T), 1)
    return np.sqrt(total / np.maximum(count, 1))


def _scored(volume: _Volume, told: Sequence[Told], truth: np.ndarray) -> list[Told]:
    """What is told of the slices, held against a truth."""
    return [
        t if t.empty else replace(t, shown_psnr=None, **_against(volume, n, np.abs(truth[volume.prepared.chosen[n]])))
        for n, t in enumerate(told)
    ]


def _against(volume: _Volume, n: int, truth: np.ndarray) -> dict[str, Any]:
    mean, each = volume.mean(n), np.abs(volume.samples(n))
    found: dict[str, Any] = {"psnr": peak_psnr(mean, truth), "covered": None}
    if len(each) > 1:
        half = half_width(volume.interval, each.std(0, ddof=1), volume.told[n].scale, volume.prepared.sigma)
        found["covered"] = float((np.abs(truth - mean) <= half)[body_of(truth)].mean())
    return found


def _relative(sigma: float, told: Sequence[Told]) -> float:
    """The noise as a share of the brightness of the pictures."""
    return float(np.mean([sigma / t.scale for t in told if not t.empty]))


def _result(request: ScanRequest, told: Sequence[Told]) -> Record:
    """Of all slices together; a fit is the root mean square over them."""
    full = [t for t in told if not t.empty]

    def over(name: str, power: int = 1) -> float | None:
        values = [float(v) ** power for t in full if (v := getattr(t, name)) is not None]
        return float(np.mean(values)) ** (1 / power) if values else None

    return {
        "is": what_it_is(request.draws),
        "data_fit": over("data_fit", 2),
        "left_out_fit": over("left_out_fit", 2),
        "expected_fit": over("expected_fit", 2),
        "surprise": over("surprise"),
        "missed": over("missed"),
        "without": over("without"),
        "worse": any(t.worse for t in full),
        "psnr": over("psnr"),
        "shown_psnr": over("shown_psnr"),
        "covered": over("covered"),
        "kept": over("kept"),
        "nfe": over("nfe"),
        "backward": over("backward"),
        "draws": request.draws,
        "slices": len(told),
        "empty": len(told) - len(full),
        "seconds": round(sum(t.seconds for t in told), 3),
    }

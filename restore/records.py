"""Results as files: the picture, what stands beside it, and the `run.json` that tells finished from unfinished.

`run.json` holds the checksum of the output and is renamed into place just before it. So an output with a `run.json`
that names its checksum is finished, whenever and however the run that made it was stopped. Before any side file
is written, a `run.json` without a result claims their names: so what an interrupted run left is known as ours.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore import __version__, beside
from restore.beside import RECORD
from restore.engine import Outcome
from restore.errors import OutputError
from restore.files import atomic_write
from restore.intervals import NONE, Interval, interval
from restore.jobs import Job, Prepared, Request, pixels, sha256
from restore.metrics import psnr
from restore.modalities.image import write_picture
from restore.priors.store import SPECTRA, WEIGHTS, find_prior
from restore.report import panel, std_map

Record = dict[str, Any]

ZERO = "mid-grey is zero"
# A panel shows a large picture averaged down to about so many pixels.
_PANEL_PIXELS = 1_000_000
_SIDE = r"_(?:panel|std|noise|phase|kspace|samples|sample-\d+)\.[\w.]+"


def finished(job: Job, described: Record, side_files: Sequence[Path]) -> bool:
    """Whether this very job was done before.

    Args:
        described: the request, as its record will have it.
        side_files: what it would write besides the output.

    Raises:
        OutputError: the output, or a file that would stand beside it, is there, but not as any run left it: replacing
            it could destroy somebody's work.
    """
    record, owner = _claim(job)
    if owner is not None:
        raise _in_the_way(job.beside(RECORD), f"belongs to {owner}")
    known = set() if record is None else {job.output.name, job.beside(RECORD).name, *record["files"]}
    for path in (job.output, *side_files):
        if path.name not in known and path.exists():
            raise _in_the_way(path, "exists, and was not made by restore")
    if record is None or not job.output.exists():
        return False
    if sha256(job.output) != record["output"]["sha256"]:
        raise _in_the_way(job.output, "was changed since restore made it")
    return (
        "result" in record
        and record["request"] == described
        and record["input"]["sha256"] == sha256(job.source)
        and all((job.output.parent / name).exists() for name in record["files"])
    )


def _in_the_way(path: Path, seen: str) -> OutputError:
    return OutputError(path, seen, "a free name", "choose another with -o, or say --overwrite")


def _claim(job: Job) -> tuple[Record | None, Path | None]:
    """The record of this output, of a finished run or not; or else the other result that a record there belongs to."""
    record = _read(job.beside(RECORD), {"output", "files"})
    if record is None:
        return None, None
    owner = job.output.with_name(Path(record["output"]["path"]).name)  # the folder may have been moved
    return (None, owner) if owner != job.output and owner.exists() else (record, None)


def read_record(path: Path) -> Record | None:
    """What the `run.json` of a result holds, or `None` where there is none that can be read."""
    return _read(path, {"request", "input", "output", "files", "result"})


def _read(path: Path, keys: set[str]) -> Record | None:
    try:
        record = json.loads(path.read_text())
        return record if keys <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _write_record(path: Path, record: Record) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")


def describe_request(request: Request) -> Record:
    """All that decides the result besides the picture, as plain JSON; files by their contents."""
    plain = {**asdict(replace(request, settings={}, sigma=None)), "settings": request.settings}
    if request.mask is not None:
        plain["mask"] = str(request.mask.absolute())
        plain["mask_sha256"] = sha256(request.mask) if request.mask.is_file() else None
    kernel = request.settings["operator"].get("kernel")
    if isinstance(kernel, str) and Path(kernel).is_file():
        plain["kernel_sha256"] = sha256(Path(kernel))
    if request.calibration not in (None, NONE):
        plain["calibration_sha256"] = sha256(Path(request.calibration))
    plain |= pinned(request.settings)
    if request.separated:
        plain |= _pinned("noise_prior", request.settings["noise_prior"])
    plain["version"] = __version__
    return json.loads(json.dumps(plain))


def pinned(settings: Record) -> Record:
    """The prior of some settings by its contents; nothing for one of another kind, without a file of weights."""
    with contextlib.suppress(KeyError, OSError, ValueError):
        return _pinned("prior", settings["prior"]["name"])
    return {}


def _pinned(what: str, name: str) -> Record:
    """A prior by the contents of its files: the weights, and the table that moment matching draws with."""
    folder = find_prior(name)
    table = folder / SPECTRA
    return {
        f"{what}_sha256": sha256(folder / WEIGHTS),
        f"{what}_table_sha256": sha256(table) if table.exists() else None,
    }


def write(
    prepared: Prepared,
    outcome: Outcome,
    request: Request,
    device: torch.device,
    argv: list[str],
    truth: np.ndarray | None,
) -> Record:
    """Write the picture, what was asked for beside it, and the record; returns the record.

    Samples, spread and panel of an earlier run of this output that this one does not replace are removed.

    Args:
        device: on which it was made.
        argv: what was typed.
        truth: the true picture in the units of the file and of the result's shape, to score it.

    Raises:
        OutputError: the place cannot be written to.
    """
    job = prepared.job
    old = hold(job, side_files(job, request))
    found = interval(prepared, request, outcome.draws) if request.extras and outcome.draws > 1 else None
    files, notes = _extras(prepared, outcome, truth, found) if request.extras else ([], [])
    remove(job, old.difference(files))
    mean = pixels(prepared, outcome.canvas.mean.read())
    score = None if truth is None else psnr(mean, truth)
    record: Record = {
        "argv": ["restore", *argv],
        "request": describe_request(request),
        "input": {"path": str(job.source.absolute()), "sha256": prepared.sha256, "is": str(prepared.like)},
        "noise": {
            "sigma": prepared.noise.sigma * prepared.units.scale,
            "sigma_in_unit_range": prepared.noise.sigma,
            "estimated": prepared.noise.estimated,
            "is": prepared.noise.words or None,
        },
        "result": {
            "is": what_it_is(outcome.draws),
            "data_fit": outcome.data_fit,
            "psnr": score,
            "nfe": outcome.nfe,
            "backward": outcome.backward,
            "draws": outcome.draws,
            "tiles": outcome.tiles,
            "seconds": round(outcome.seconds, 3),
        },
        "interval": None if found is None else found.record(),
        "files": files,
        "machine": machine(device),
    }
    with atomic_write(job.output) as temporary:
        notes += write_picture(temporary, mean, prepared.like)
        record["notes"] = [*prepared.notes, *notes]
        complete(job, record, temporary)
    return record


def hold(job: Job, side_files: Sequence[Path]) -> set[str]:
    """Claim the names of what will stand beside the output, before any of it is written; the names held before."""
    before, _ = _claim(job)
    old = set() if before is None else set(before["files"])
    names = [path.name for path in side_files if path != job.beside(RECORD)]
    if old or names:
        held = {"path": str(job.output.absolute()), "sha256": sha256(job.output) if job.output.exists() else None}
        _write_record(job.beside(RECORD), {"output": held, "files": sorted(old.union(names))})
    return old


def remove(job: Job, names: Iterable[str]) -> None:
    """Remove what an earlier run left beside the output."""
    for name in names:
        if re.fullmatch(re.escape(job.side) + _SIDE, name):  # whatever else a record may list
            (job.output.parent / name).unlink(missing_ok=True)


def complete(job: Job, record: Record, temporary: Path) -> None:
    """Write the record of an output that is about to be renamed into place."""
    record["output"] = {"path": str(job.output.absolute()), "sha256": sha256(temporary)}
    _write_record(job.beside(RECORD), record)


def side_files(job: Job, request: Request) -> list[Path]:
    """What stands beside the output of a request."""
    return [*map(job.beside, beside.endings(job.output, request.draws, request.extras, request.separated))]


def machine(device: torch.device) -> Record:
    """What a result was made on."""
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": platform.machine(),
    }


def what_it_is(draws: int) -> str:
    """The main output in words."""
    if draws == 0:
        return "posterior mean, by one call of the prior"
    return "one draw" if draws == 1 else f"mean of {draws} draws"


def _extras(
    prepared: Prepared, outcome: Outcome, truth: np.ndarray | None, found: Interval | None
) -> tuple[list[str], list[str]]:
    """Samples, map of uncertainty and panel: their names, and notes on them. One whole picture in memory at a time."""
    job, canvas, units = prepared.job, outcome.canvas, prepared.units
    spread, board = job.beside(beside.spread(job.output)), job.beside(beside.PANEL)
    files, notes, last = [], [], []
    y, kept = prepared.task.data, prepared.task.kept
    shown = [("what was measured", _small(units.outward(y if kept is None else np.where(kept, y, np.float32(1)))))]
    mean = pixels(prepared, canvas.mean.read())
    shown.append((what_it_is(outcome.draws), _small(mean)))
    if truth is not None:
        last = [("truth", _small(truth)), ("error of the mean", _small(_rms(mean - truth))[0])]
    del mean
    for i, spool in enumerate(canvas.samples, 1):  # none for a single draw, which is the output itself
        path = job.beside(beside.sample(job.output, i))
        sample = pixels(prepared, spool.read())
        write_picture(path, sample, prepared.like)
        files.append(path.name)
        if i <= 2:
            shown.append((f"sample {i}", _small(sample)))
    if found is not None:
        what = "standard deviation" if found.entry is None else "half-width of the interval"
        scaled = found.map(canvas.std.read(), prepared.noise.sigma) * np.float32(units.scale)
        notes.append(f"{std_map(spread, scaled, what)}; {found.words} ({found.why})")
        files.append(spread.name)
        shown.append((f"{what}\n{found.words}", _small(scaled)[0]))
    if outcome.noise is not None:
        path = job.beside(beside.noise(job.output))
        noise = pixels(prepared, outcome.noise.mean.read() + np.float32(0.5))
        write_picture(path, noise, prepared.like)
        notes.append(f"{path.name} is the mean of the separated noise; {ZERO}")
        files.append(path.name)
        shown.append((f"separated noise\n{ZERO}", _small(noise)))
    panel(board, shown + last)
    return [*files, board.name], notes


def _rms(data: np.ndarray) -> np.ndarray:
    """Over the channels, `(C, H, W) -> (1, H, W)`."""
    return np.sqrt(np.square(data).mean(0, keepdims=True))


def _small(data: np.ndarray) -> np.ndarray:
    """`(C, H, W)` averaged down by a whole factor, if it is large."""
    factor = int((data.shape[1] * data.shape[2] / _PANEL_PIXELS) ** 0.5)
    if factor < 2:
        return data
    height, width = (n // factor * factor for n in data.shape[1:])
    rows = data[:, :height, :width].reshape(len(data), height // factor, factor, width).mean(2)
    return rows.reshape(*rows.shape[:2], width // factor, factor).mean(3)

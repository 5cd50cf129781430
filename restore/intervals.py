"""Which calibration serves a picture of a command, and what its map of uncertainty may therefore be called."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from restore.jobs import Prepared, Request, read_kernel
from restore.priors.store import CONFIG, SPECTRA, WEIGHTS, find_prior
from restore.uncertainty.calibration import (
    CALIBRATED,
    CALIBRATION,
    HONESTLY,
    Calibration,
    Condition,
    Entry,
    half_width,
    spread,
)

NONE = "none"
# No calibration serves a picture of which a larger share is cut off at black or white: its noise is another.
CLIPPED = 0.1
# A hole is where missing pixels are further than so many from any measured one.
_REACH = 2


class Asking(Protocol):
    """What a request says of calibrations."""

    @property
    def settings(self) -> dict[str, Any]: ...
    @property
    def calibration(self) -> str | None: ...


@dataclass(frozen=True)
class Interval:
    """What the map of a picture's uncertainty is.

    Attributes:
        entry: the calibration that makes it the half-width of an interval; `None`: the spread of the draws.
        level: of the interval.
        why: where the calibration is from, or why there is none.
    """

    entry: Entry | None
    level: float | None
    why: str

    @property
    def words(self) -> str:
        """What the map may be called."""
        return HONESTLY if self.level is None else CALIBRATED.format(100 * self.level)

    def map(self, std: np.ndarray, sigma: float) -> np.ndarray:
        """Standard deviations of the draws, in [0, 1] units as the noise `sigma` of the data, as the map that is
        written."""
        if self.entry is None:
            return std
        return half_width(spread(std), sigma, self.entry.factor, self.entry.power).astype(np.float32)

    def record(self) -> dict[str, Any]:
        """As plain data."""
        factor, power = (None, None) if self.entry is None else (self.entry.factor, self.entry.power)
        return {"is": self.words, "level": self.level, "factor": factor, "power": power, "why": self.why}


def interval(prepared: Prepared, request: Request, draws: int) -> Interval:
    """The one of the request's calibration, of the one beside the prior's weights, or none.

    Raises:
        InputError: the calibration cannot be read.
    """
    found = serving(request, condition(prepared, request, draws))
    share = clipped(prepared)
    if found.entry is not None and share > CLIPPED:
        cut = f"{share:.0%} of the pixels are black or white, where noise was cut off"
        return Interval(None, None, f"{_name(request)} does not fit: {cut}")
    return found


def serving(request: Asking, wanted: Condition) -> Interval:
    """The interval that serves a condition: of the request's calibration, of the one beside the weights, or none.

    Raises:
        InputError: the calibration cannot be read.
    """
    if request.calibration == NONE:
        return Interval(None, None, "calibration turned off")
    path = chosen(request)
    if path is None:
        return Interval(None, None, "this prior has no calibration: `restore calibrate` makes one")
    calibration = Calibration.load(path)
    entry = calibration.find(wanted)
    if isinstance(entry, str):
        return Interval(None, None, f"{_name(request)} does not fit: {entry}")
    c = entry.condition
    on = f"{entry.pictures} pictures, {c.kind}, noise {c.sigma:.3g}, {c.draws} draws"
    made = "times the spread" if entry.power == 1 else f"sigma (spread / sigma)^{entry.power:.2g}"
    return Interval(entry, calibration.level, f"{entry.factor:.3g} {made} to each side, by {_name(request)}: {on}")


def _name(request: Asking) -> str:
    if request.calibration:
        return Path(request.calibration).name
    return f"the calibration of {request.settings['prior']['name']}"


def clipped(prepared: Prepared) -> float:
    """The share of what was measured that lies at the ends of the range of the file; 0 where it has none."""
    y, kept = prepared.task.data, prepared.task.kept
    if prepared.like.depth == "float32":
        return 0.0
    known = y if kept is None else y[:, kept]
    return float(np.mean((known <= 0) | (known >= 1)))


def condition(prepared: Prepared, request: Request, draws: int) -> Condition:
    """What a picture's calibration has to have been made for."""
    kind, strength = _operator(prepared, request)
    settings = request.settings
    return Condition(
        verb=request.verb,
        kind=kind,
        strength=strength,
        sigma=prepared.noise.sigma,
        draws=draws,
        sampler=settings["sampler"],
        prior=prior_checksum(settings["prior"]),
    )


def prior_checksum(settings: dict[str, Any]) -> str:
    """Of all that a prior computes with: its settings, and in place of a name that means a folder, the files there."""
    told = settings
    with contextlib.suppress(KeyError, OSError, ValueError):
        folder = find_prior(settings["name"])
        files = [folder / name for name in (CONFIG, WEIGHTS, SPECTRA) if (folder / name).exists()]
        told = {**settings, "name": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def chosen(request: Asking) -> Path | None:
    """The file of a request's calibration, or the one beside its prior's weights; `None` without one, or if refused."""
    if request.calibration is not None:
        return None if request.calibration == NONE else Path(request.calibration)
    try:
        path = find_prior(request.settings["prior"]["name"]) / CALIBRATION
    except (KeyError, ValueError):
        return None
    return path if path.exists() else None


def _operator(prepared: Prepared, request: Request) -> tuple[str, float]:
    operator, kept = request.settings["operator"], prepared.task.kept
    if kept is not None:
        near = torch.nn.functional.max_pool2d(torch.from_numpy(kept)[None].float(), 2 * _REACH + 1, 1, _REACH)[0]
        scattered = float(near.numpy()[~kept].mean()) > 0.95
        return "scattered pixels" if scattered else "holes", float(kept.mean())
    if request.verb == "deblur":
        family = operator["kernel"].partition(":")[0]
        k = read_kernel(operator["kernel"]).double()
        places = [torch.arange(n).double() for n in k.shape]
        shares = [k.sum(1 - axis) / k.sum() for axis in (0, 1)]
        variances = [(p.square() * s).sum() - (p * s).sum().square() for p, s in zip(places, shares, strict=True)]
        named = family in ("gaussian", "motion", "disk")
        return f"{family if named else 'measured'} blur", max(math.sqrt(float(sum(variances)) / 2), 0.1)
    if request.verb == "upscale":
        return f"{operator['factor']} times, {operator['kernel']} kernel", 1.0
    return "structured noise" if request.separated else "white noise", 1.0

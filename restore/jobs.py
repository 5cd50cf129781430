"""From a person's file to a task, and from the draws to files: reading, units, noise, writing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators import kernels
from restore.engine import Noise, Outcome, Progress, judge_noise, run
from restore.errors import InputError
from restore.modalities.image import Picture, mask_from_alpha, read_mask, read_picture
from restore.priors.base import Denoiser
from restore.samplers.base import Sampler, SamplerError
from restore.tasks import Deblur, Denoise, Inpaint, Make, Task, Unrestorable, Upscale

# A picture whose largest value is below this is stretched: 12 bits of a camera in 16 bits of a file reach 1/16.
LITTLE = 1 / 8


@dataclass(frozen=True)
class Request:
    """What is to be done to every picture of a command, as plain data.

    Attributes:
        verb: `denoise`, `inpaint`, `deblur` or `upscale`.
        settings: the composed settings.
        noise: standard deviation in the units of the file; `None` estimates it.
        mask, invert_mask: for `inpaint`: a picture, or a folder with a mask of each picture's name.
        draws: how many; 0 is the posterior mean of denoising in one call of the prior.
        extras: whether samples, spread and panel are written.
        sigma: the noise level in [0, 1] units that a replayed run had; goes before `noise`.
        calibration: a file of `restore calibrate`, `none`, or `None` for the one beside the prior's weights.
    """

    verb: str
    settings: dict[str, Any]
    noise: float | None = None
    mask: Path | None = None
    invert_mask: bool = False
    draws: int = 4
    extras: bool = False
    sigma: float | None = None
    calibration: str | None = None

    @property
    def separated(self) -> bool:
        """Whether the noise has a prior of its own."""
        return self.settings.get("noise_prior") is not None


@dataclass(frozen=True)
class Job:
    """One picture of a command.

    Attributes:
        source, output: the file to read and the file to write.
        side: what the names of the files beside the output begin with.
        relative: where the picture lies in its folder, for masks and truths that lie likewise.
    """

    source: Path
    output: Path
    side: str
    relative: Path

    def beside(self, ending: str) -> Path:
        return self.output.parent / f"{self.side}{ending}"


@dataclass(frozen=True)
class Tools:
    """What the settings name, made once per process."""

    prior: Denoiser
    sampler: Sampler
    make: Make
    device: torch.device
    noise_prior: Denoiser | None = None


@dataclass(frozen=True)
class Units:
    """`file value = low + (high - low) * value`: how the numbers of a file become numbers in [0, 1]."""

    low: float = 0.0
    high: float = 1.0

    @property
    def scale(self) -> float:
        return self.high - self.low

    def inward(self, data: np.ndarray) -> np.ndarray:
        return data if (self.low, self.high) == (0.0, 1.0) else (data - np.float32(self.low)) / np.float32(self.scale)

    def outward(self, data: np.ndarray) -> np.ndarray:
        return data if (self.low, self.high) == (0.0, 1.0) else data * np.float32(self.scale) + np.float32(self.low)


@dataclass(frozen=True)
class Prepared:
    """A picture that has been read, judged and found fit.

    Attributes:
        like: the picture that the output is written like.
        copies: channels the file holds of the one that is restored (a grey picture stored as colour), else 1.
        sha256: of the input file.
        notes: in words, what the person should know.
    """

    job: Job
    task: Task
    noise: Noise
    units: Units
    like: Picture
    copies: int
    sha256: str
    notes: tuple[str, ...]


def own_request(request: Request, job: Job) -> Request:
    """The request of one picture: out of a folder of masks, its mask."""
    if request.mask is None or not request.mask.is_dir():
        return request
    mask = request.mask / job.relative
    return replace(request, mask=mask if mask.exists() else mask.with_suffix(".png"))


def prepare(job: Job, request: Request, tools: Tools) -> Prepared:
    """Read a picture and pose its task.

    Raises:
        InputError: the picture or its mask cannot be used.
    """
    picture = read_picture(job.source)
    missing = _missing(picture, request)
    # What stands in the holes decides neither the units nor whether the picture is grey.
    known = picture.data if missing is None else picture.data[:, ~missing]
    units, notes = _own_units(picture, known) if request.separated else _units(picture, known)
    data, copies = units.inward(picture.data), 1
    if len(known) == 3 and np.array_equal(known[0], known[1]) and np.array_equal(known[0], known[2]):
        data, copies = data[:1], 3
        notes.append("a grey picture stored as colour: restored as grey")
    try:
        task, like = _task(data, missing, picture, request, tools.make)
        noise = _noise(task, picture, units, request, tools)
        if not tools.prior.accepts(task.shape):
            wanted = f"{tools.prior.shape} for this prior"
            raise Unrestorable(f"signals of shape {task.shape}", wanted, "choose another with --prior")
        if tools.noise_prior is not None and not tools.noise_prior.accepts(task.shape):
            seen = "a grey picture" if task.shape[0] == 1 else "a picture in colour"
            raise Unrestorable(seen, "the kind that the noise prior was learnt on", "choose another with --noise-prior")
    except Unrestorable as error:
        raise InputError(job.source, error.seen, error.wanted, error.cure) from error
    if noise.sigma > tools.prior.sigma_max:
        notes.append(f"the noise is stronger than the prior was trained for (up to {tools.prior.sigma_max:g})")
    return Prepared(job, task, noise, units, like, copies, sha256(job.source), (*picture.notes, *notes))


def execute(prepared: Prepared, request: Request, tools: Tools, progress: Progress) -> Outcome:
    """Restore a prepared picture.

    Raises:
        InputError: no data in a tile, or the sampler cannot do it.
    """
    try:
        return run(
            prepared.task,
            prepared.noise.sigma,
            tools.prior,
            tools.sampler if request.draws else None,
            draws=max(request.draws, 1),
            seed=request.settings["seed"],
            file=int(prepared.sha256[:8], 16),
            device=tools.device,
            tile=request.settings["tile"],
            spool=nearest_folder(prepared.job.output),
            progress=progress,
            noise_prior=tools.noise_prior,
        )
    except Unrestorable as error:
        raise InputError(prepared.job.source, error.seen, error.wanted, error.cure) from error
    except SamplerError as error:
        raise InputError(
            prepared.job.source, str(error), "numbers that stay finite", "try --noise, or another --sampler"
        ) from error


def pixels(prepared: Prepared, data: np.ndarray) -> np.ndarray:
    """A result `(C, H, W)` in [0, 1] units as the file stores it."""
    return np.repeat(prepared.units.outward(data), prepared.copies, axis=0)


def sha256(path: Path) -> str:
    """Of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nearest_folder(path: Path) -> Path:
    """The innermost folder above `path` that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def read_kernel(text: str) -> torch.Tensor:
    """A point spread function from `gaussian:2.0`, `motion:15,30`, `disk:4` or a file."""
    return kernels.parse(text)


def _missing(picture: Picture, request: Request) -> np.ndarray | None:
    """Where an inpainting task has no data, `(H, W)`; `None` for other tasks."""
    if request.verb != "inpaint":
        return None
    if request.mask is None:
        return mask_from_alpha(picture)
    return read_mask(request.mask, picture.data.shape[1:], request.invert_mask)


def _units(picture: Picture, known: np.ndarray) -> tuple[Units, list[str]]:
    """8-bit pictures are used as they are. Others are mapped to [0, 1] if they lie outside of it or fill little of it,
    because a prior knows pictures whose whites are near 1."""
    low, high = float(known.min()), float(known.max())
    if picture.depth == "uint8" or (low >= 0 and LITTLE < high <= 1):
        return Units(), []
    if low >= 0 and high <= 1:
        low = 0.0
    if low == high:
        raise InputError(picture.path, f"all values are {low:g}", "a picture", "check how it was saved")
    return Units(low, high), [f"values {low:.4g} to {high:.4g} are mapped to 0 to 1 for the work, and back"]


def _own_units(picture: Picture, known: np.ndarray) -> tuple[Units, list[str]]:
    """The units of the recordings that a prior on noise was learnt on: whites near 1, whatever the picture reaches.

    Raises:
        InputError: the picture has other units.
    """
    low, high = float(known.min()), float(known.max())
    if low < -1 or high > 2:
        raise InputError(
            picture.path, f"values {low:.4g} to {high:.4g}", "whites near 1, as in the recordings of the noise",
            "divide its values by that of white",
        )  # fmt: skip
    return Units(), []


def _task(
    data: np.ndarray, missing: np.ndarray | None, picture: Picture, request: Request, make: Make
) -> tuple[Task, Picture]:
    operator = request.settings["operator"]
    if request.verb == "denoise":
        return Denoise(data, make), picture
    if request.verb == "deblur":
        return Deblur(data, make, read_kernel(operator["kernel"]), operator["boundary"]), picture
    if request.verb == "upscale":
        return Upscale(data, make, operator["factor"]), picture
    assert request.verb == "inpaint" and missing is not None
    if request.mask is None:
        assert picture.alpha is not None
        picture = replace(picture, alpha=np.where(missing, np.float32(1), picture.alpha))
    return Inpaint(data, make, missing), picture


def _noise(task: Task, picture: Picture, units: Units, request: Request, tools: Tools) -> Noise:
    if request.sigma is not None:
        return Noise(request.sigma, estimated=request.noise is None)
    if request.noise is not None:
        return Noise(request.noise / units.scale, estimated=False)
    rounding = {"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 0.0}[picture.depth] / 12**0.5 / units.scale
    limits = None if picture.depth == "float32" else (0.0, 1.0)
    prior = tools.prior if tools.noise_prior is None else None
    return judge_noise(task, limits, max(rounding, tools.prior.sigma_min), prior, tools.device)

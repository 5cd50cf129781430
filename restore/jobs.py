"""From a person's file to a task, and from the draws to files: reading, units, noise, writing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators import kernels
from operators.noise import Gamma, Gaussian, Poisson
from restore.denoisers.adaptive import estimate_law, limits_of
from restore.denoisers.posterior import PosteriorMean, at_mid_grey, in_units, in_words, of_std
from restore.denoisers.tweedie import as_tweedie
from restore.engine import Noise, Outcome, Progress, judge_noise, run
from restore.errors import InputError
from restore.modalities.image import Picture, mask_from_alpha, read_mask, read_picture
from restore.modalities.units import Units, own_units
from restore.priors.base import Denoiser
from restore.samplers.base import Sampler, SamplerError
from restore.tasks import Deblur, Denoise, Inpaint, Make, Task, Unrestorable, Upscale


@dataclass(frozen=True)
class Request:
    """What is to be done to every picture of a command, as plain data.

    Attributes:
        verb: `denoise`, `inpaint`, `deblur` or `upscale`.
        settings: the composed settings.
        noise: standard deviation in the units of the file (gain of Poisson and `k` of Gamma noise, which only a score
            knows); `None` estimates it.
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
    if request.separated:
        units, notes = _recorded_units(picture, known)
    else:
        units, notes = _units(picture, known, tools.prior)
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
    if noise.sigma < 0.9 * tools.prior.sigma_min:
        notes.append(f"the noise is weaker than the prior was trained for (from {tools.prior.sigma_min:.2g})")
    return Prepared(job, task, noise, units, like, copies, sha256(job.source), (*picture.notes, *notes))


def execute(prepared: Prepared, request: Request, tools: Tools, progress: Progress) -> Outcome:
    """Restore a prepared picture.

    Raises:
        InputError: no data in a tile, or the sampler cannot do it.
    """
    sigma = prepared.noise.sigma
    try:
        outcome = run(
            prepared.task,
            sigma,
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
        if isinstance(tools.prior, PosteriorMean) and tools.prior.rho:  # sigma is the noise of mid-grey, not of all
            mean = of_std(tools.prior.rho, sigma).variance(torch.from_numpy(prepared.task.data)).double().mean()
            outcome = replace(outcome, data_fit=outcome.data_fit * sigma / float(mean.sqrt()))
        return outcome
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


def _units(picture: Picture, known: np.ndarray, prior: Denoiser) -> tuple[Units, list[str]]:
    rho = prior.rho if isinstance(prior, PosteriorMean) else None
    units = own_units(picture, known, noisy=rho is not None, from_zero=bool(rho))
    if units == Units():
        return units, []
    return units, [f"values {units.low:.4g} to {units.high:.4g} are mapped to 0 to 1 for the work, and back"]


def _recorded_units(picture: Picture, known: np.ndarray) -> tuple[Units, list[str]]:
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
        words = in_words(of_std(tools.prior.rho, request.sigma)) if isinstance(tools.prior, PosteriorMean) else ""
        return Noise(request.sigma, request.noise is None, words)
    limits = None if picture.depth == "float32" else (0.0, 1.0)
    if isinstance(tools.prior, PosteriorMean):
        return _of_score(task.data, units, limits, request, tools.prior)
    if request.noise is not None:
        return Noise(request.noise / units.scale, estimated=False)
    rounding = {"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 0.0}[picture.depth] / 12**0.5 / units.scale
    prior = tools.prior if tools.noise_prior is None else None
    return judge_noise(task, limits, max(rounding, tools.prior.sigma_min), prior, tools.device)


def _of_score(
    data: np.ndarray, units: Units, limits: tuple[float, float] | None, request: Request, prior: PosteriorMean
) -> Noise:
    """The noise of a picture that a score restores: of the type that is known, its level given or by the picture."""
    if request.noise is not None:
        kind = Gaussian if prior.rho == 0 else Poisson if prior.rho == 1 else Gamma
        law, estimated = in_units(as_tweedie(kind(request.noise)), units.scale), False
    else:
        found = estimate_law([data], prior.rho, limits_of(limits, prior.rho))
        law, estimated = found or of_std(prior.rho, prior.usual), True
    return Noise(max(at_mid_grey(law), prior.sigma_min), estimated, in_words(law))

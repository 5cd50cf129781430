"""From a person's scan to draws: what was sampled, its noise, the coils, and slice after slice in bounded memory.

Every slice is a problem of its own, posed in the units of the prior: k-space is divided by the brightness of the slice,
as numbers of a picture file are mapped to [0, 1]. What is finished of a scan lies in a hidden folder beside the output,
so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import masks
from operators.base import LinearOperator
from operators.espirit import espirit, noise_samples, prewhiten
from operators.mri import sense, to_channels, to_complex
from operators.noise import Gaussian
from operators.random import generator
from restore.core import restore
from restore.engine import PIXELS_AT_ONCE, Progress
from restore.errors import InputError
from restore.files import atomic_write
from restore.jobs import Job, Tools, sha256
from restore.modalities.mri import Scan, fft2, ifft2, read_maps, read_mask, read_scan
from restore.priors.base import Denoiser
from restore.priors.covariance import Covariance
from restore.problem import Problem
from restore.samplers.base import SamplerError

GIVEN, ESPIRIT = "given", "espirit"
# From this share of the largest frequency on, k-space off the grid is mostly noise.
EDGE = 0.9
# A noise scan so many times weaker than the edges of k-space is not of these data.
OTHER_SCALE = 10.0
# Lines of the centre that coil maps are estimated from, at most.
CALIBRATION = 24
# Fewer fully sampled lines than these say nothing of coils.
LEAST_CALIBRATION = 12
# Noise at which a finished picture is denoised to see whether the prior knows its kind, in the prior's units.
PROBE = 0.1


@dataclass(frozen=True)
class ScanRequest:
    """What is to be done to every scan of a command, as plain data; the attributes are the command's options.

    Attributes:
        noise: standard deviation per real number in the units of the file; `None` estimates it.
        accel: `given`, or keep one line in so many of what was sampled.
        coils: `espirit`, or a file of maps.
        mask: a file that says what was sampled.
        slices: `first`, `after the last`, or all.
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

    def describe(self) -> dict[str, Any]:
        """All that decides the result besides the scan, as plain data; files by their contents."""
        files = {n: f for n in ("coils", "mask", "phase") if (f := getattr(self, n)) and f != ESPIRIT}
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


@dataclass(frozen=True)
class Slice:
    """The problem of one slice.

    Attributes:
        problem: in the units of the prior.
        scale: what a one of the prior is in the file.
        measured: whitened, `(coil, y, x)` or `(coil, M)`, in the units of the file.
        used: `(y, x)` bool, the points in the problem; `None` off the grid.
        left_out: `(y, x)` bool, the points that were measured and kept from it.
        maps: `(coil, y, x)`, or `None` for one coil.
        alone: the picture of the used data alone, zero-filled or gridded, coils combined, `(y, x)` complex.
        truth: the coil-combined picture of all data where those are complete, else `None`; `(y, x)` complex.
    """

    problem: Problem
    scale: float
    measured: np.ndarray
    used: np.ndarray | None
    left_out: np.ndarray | None
    maps: np.ndarray | None
    alone: np.ndarray
    truth: np.ndarray | None


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
            seen = f"slices {chosen.start} to {chosen.stop - 1} asked of {scan.slices}"
            raise InputError(job.source, seen, f"at most {scan.slices - 1}", "they are counted from 0")
    if scan.trajectory is not None and (request.accel != GIVEN or request.mask is not None):
        seen = "points off the grid"
        raise InputError(job.source, seen, "lines on a grid for --accel or --mask", "leave them out")
    given = scan.mask if request.mask is None else read_mask(request.mask, scan)
    maps = None if request.coils == ESPIRIT else read_maps(request.coils, scan)
    if scan.coils == 1 and maps is None:
        notes.append("one coil: its map is taken as one everywhere")
    if not tools.prior.accepts((2, *scan.shape)):
        wanted = f"{tools.prior.shape} for this prior, two channels for a complex picture"
        raise InputError(job.source, f"complex pictures of {scan.shape}", wanted, "choose another with --prior")
    whitening, sigma, estimated = _noise(scan, given, chosen, request)
    return PreparedScan(
        job, scan, chosen, whitening, sigma, estimated, maps, given, sha256(job.source), tuple(notes)
    )  # fmt: skip


def pose(prepared: PreparedScan, request: ScanRequest, i: int) -> Slice | None:
    """The problem of slice `i`; `None` where it holds no data.

    Raises:
        InputError: NaN in it, no mask that fits, or nothing to tell the coils by.
    """
    scan = prepared.scan
    k = scan.kspace(i)
    there = np.asarray(k.any(0))
    if not there.any():
        return None
    k = np.tensordot(prepared.whitening, k, 1).astype(np.complex64)
    if scan.trajectory is not None:
        return _off_grid(prepared, k, i)
    measured = there if prepared.given is None else there & prepared.given
    if not measured.any():
        cure = "give the mask that belongs to this scan"
        raise InputError(scan.path, f"nothing was sampled where the mask says, in slice {i}", "some points", cure)
    used = measured
    if request.accel != GIVEN:
        rng = generator(request.settings["seed"], int(prepared.sha256[:8], 16))
        used = measured & kept_lines(scan.shape, request.accel, scan.phase_axis, rng)
    maps = _maps(prepared, k * used, used, i)
    A = sense(torch.from_numpy(used), None if maps is None else torch.from_numpy(maps))
    y = to_channels(torch.from_numpy(k))[None, :, torch.from_numpy(used)]
    scale = _scale(A, y, prepared.sigma, brightness(combined(ifft2(_smoothed(k, used)), maps)))
    y = y / scale
    complete = measured.mean() > 0.999
    return Slice(
        problem=Problem(y, A, Gaussian(prepared.sigma / scale)),
        scale=scale,
        measured=k,
        used=used,
        left_out=measured & ~used,
        maps=maps,
        alone=combined(ifft2(k * used), maps),
        truth=combined(ifft2(k), maps) if complete and request.accel != GIVEN else None,
    )


def kept_lines(shape: tuple[int, int], accel: str, phase_axis: str, rng: torch.Generator) -> np.ndarray:
    """What an acceleration keeps, `(y, x)` bool.

    Args:
        accel: `4` keeps a quarter of the lines, drawn at random, of which 0.32 / 4 of all lie in the centre, as in
            fastMRI; `2x2` every second point along both axes, and a block of the centre.

    Raises:
        ValueError: so few lines that none are left beside the centre.
    """
    if "x" in accel:
        y, x = (int(n) for n in accel.split("x"))
        return masks.equispaced(shape, (y, x), centre=CALIBRATION).numpy()
    n, R = shape["yx".index(phase_axis)], float(accel)
    centre = max(round(0.32 / R * n), LEAST_CALIBRATION)
    return masks.random_lines(shape, R, centre=centre, axis=phase_axis, rng=rng).numpy()  # type: ignore[arg-type]


def combined(x: np.ndarray, maps: np.ndarray | None) -> np.ndarray:
    """One picture `(y, x)` of those of the coils `(coil, y, x)`."""
    return x[0] if maps is None else (np.conj(maps) * x).sum(0)


def brightness(x: np.ndarray) -> float:
    """What one of the prior's units is: the 99th percentile of the magnitude."""
    value = float(np.quantile(np.abs(x), 0.99))
    return value if value > 0 else float(np.abs(x).max())


def _scale(A: LinearOperator, y: Tensor, sigma: float, rough: float) -> float:
    """The brightness of the picture that the data give with a white prior of half the `rough` brightness, which is that
    of a picture without detail: bright rims, such as fat, are thin."""
    x = A.solve(A.adjoint(y), 1.0, 4 * (sigma / rough) ** 2)
    return brightness(to_complex(x).numpy())


def centre_block(used: np.ndarray) -> tuple[slice, slice]:
    """A block around zero frequency that was sampled without a gap, as long along each axis as that allows."""
    shape = used.shape

    def window(n: int, width: int) -> slice:
        return slice(n // 2 - width // 2, n // 2 - width // 2 + width)

    def widest(line: np.ndarray) -> int:
        return next((w for w in range(len(line), 0, -1) if line[window(len(line), w)].all()), 0)

    rows, columns = widest(used[:, shape[1] // 2]), widest(used[shape[0] // 2])
    while not used[window(shape[0], rows), window(shape[1], columns)].all():
        rows, columns = rows - (rows >= columns), columns - (columns >= rows)
    return window(shape[0], rows), window(shape[1], columns)


def _off_grid(prepared: PreparedScan, k: np.ndarray, i: int) -> Slice:
    """The problem of data off the grid; coil maps and brightness are those of the picture by gridding."""
    from operators.nufft import NUFFT, SenseNUFFT, density

    scan = prepared.scan
    assert scan.trajectory is not None
    trajectory = torch.from_numpy(np.ascontiguousarray(scan.trajectory, np.float32))
    w = density(trajectory, scan.shape) if scan.density is None else torch.from_numpy(scan.density)
    y = torch.view_as_real(torch.from_numpy(k)).movedim(-1, 1).flatten(0, 1)[None]  # (1, 2 N, M)
    E = NUFFT(trajectory, (2 * scan.coils, *scan.shape))
    gridded = E.adjoint(w.to(y) * y)
    again = E.forward(gridded)
    gridded *= (w * again * y).sum() / (w * again * again).sum()  # whatever units the weights have
    x = to_complex(gridded)[0].numpy()
    maps = _maps(prepared, fft2(x), np.ones(scan.shape, bool), i)
    alone = combined(x, maps)
    scale = brightness(alone)
    A = NUFFT(trajectory, (2, *scan.shape)) if maps is None else SenseNUFFT(trajectory, torch.from_numpy(maps))
    return Slice(Problem(y / scale, A, Gaussian(prepared.sigma / scale)), scale, k, None, None, maps, alone, None)


def _smoothed(k: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The k-space of a picture without aliasing: its gapless centre, faded out by Hann's window; else all of it."""
    rows, columns = centre_block(used)
    if min(rows.stop - rows.start, columns.stop - columns.start) < LEAST_CALIBRATION:
        return k * used
    out = np.zeros_like(k)
    windows = [np.hanning(s.stop - s.start + 2)[1:-1] for s in (rows, columns)]
    out[:, rows, columns] = k[:, rows, columns] * np.outer(*windows)
    return out


def _maps(prepared: PreparedScan, k: np.ndarray, used: np.ndarray, i: int) -> np.ndarray | None:
    """How the whitened coils see, `(coil, y, x)`; `None` for a single one without a file of maps.

    Raises:
        InputError: too few lines around zero frequency to tell.
    """
    scan = prepared.scan
    if prepared.maps is not None:
        maps = prepared.maps[i if len(prepared.maps) > 1 else 0]
        return np.tensordot(prepared.whitening, maps, 1).astype(np.complex64)
    if scan.coils == 1:
        return None
    block = centre_block(used)
    lengths = [s.stop - s.start for s in block]
    if min(lengths) < LEAST_CALIBRATION:
        cure = "give their maps with --coils FILE, or sample the centre"
        raise InputError(
            scan.path, f"no centre lines: {min(lengths)} lines around zero frequency without a gap, in slice {i}",
            f"at least {LEAST_CALIBRATION}, to tell {scan.coils} coils by", cure,
        )  # fmt: skip
    try:
        return whole_maps(k, block)
    except ValueError as error:
        seen, cure = (
            f"the centre of k-space tells nothing of the coils, in slice {i}",
            "give their maps with --coils FILE",
        )
        raise InputError(scan.path, seen, f"coils that see one body ({error})", cure) from error


def whole_maps(k: np.ndarray, block: tuple[slice, slice]) -> np.ndarray:
    """Coil maps by the gapless block in the centre of k-space, `(coil, y, x)`, zero outside of the body."""
    width = min(CALIBRATION, *(s.stop - s.start for s in block))
    return espirit(torch.from_numpy(k), calibration=width).numpy().astype(np.complex64)


def _noise(scan: Scan, given: np.ndarray | None, chosen: range, request: ScanRequest) -> tuple[np.ndarray, float, str]:
    """The matrix that makes the noise of all coils equal and independent, its std then, and where both are from."""
    if request.noise is not None:
        return np.eye(scan.coils, dtype=np.complex64), request.noise, "given"
    middle, least = chosen[len(chosen) // 2], 4 * scan.coils
    parts = [_edges(scan, given, i) for i in sorted({chosen[0], middle, chosen[-1]})]
    edges = min((p for p in parts if p.shape[1] >= least), key=_power, default=None)
    words, n = "estimated at the edges of k-space", edges
    if scan.noise is not None and scan.noise.shape[1] >= least:
        own = scan.noise - scan.noise.mean(1, keepdims=True)
        if edges is None or _power(edges) < OTHER_SCALE**2 * _power(own):
            words, n = "by the noise scan in the file", own
        else:
            words += " (the noise scan in the file is not on the scale of its data)"
    if n is None:
        seen = "too few points at the edges of k-space to tell the noise by"
        raise InputError(scan.path, seen, "a noise level", "give it with --noise, per real number of the file")
    try:
        whitening = prewhiten(torch.eye(scan.coils, dtype=torch.complex64), torch.from_numpy(np.ascontiguousarray(n)))
    except ValueError as error:
        cure = "leave out dead coils, or give the noise level with --noise"
        raise InputError(scan.path, str(error), "noise that is independent in each coil", cure) from error
    sigma = (_power(n) / 2) ** 0.5
    return sigma * whitening.numpy(), sigma, words + (", all coils whitened to it" if scan.coils > 1 else "")


def _power(n: np.ndarray) -> float:
    return float(np.square(np.abs(n)).mean())


def _edges(scan: Scan, given: np.ndarray | None, i: int) -> np.ndarray:
    """What was sampled farthest from zero frequency, `(coil, points)`: mostly noise; nothing of too few points."""
    k = scan.kspace(i)
    if scan.trajectory is not None:
        return k[:, np.abs(scan.trajectory).max(1) > EDGE / 2]
    try:
        return noise_samples(torch.from_numpy(k if given is None else k * given)).numpy()
    except ValueError:
        return k[:, 0, :0]


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
        psnr: of the mean magnitude against the picture of all data, whose largest value is the peak.
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
    psnr: float | None = None


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


def execute_scan(
    prepared: PreparedScan, request: ScanRequest, tools: Tools, workshop: Workshop, progress: Progress
) -> list[Told]:
    """Restore the slices that are not finished yet, one after another; what is told of all.

    Raises:
        InputError: a slice cannot be used, or the sampler cannot do it.
    """
    total, found = len(prepared.chosen), []
    for n, i in enumerate(prepared.chosen):
        told = workshop.told(i)
        if told is None:
            samples, told = _restored(prepared, request, tools, i, partial(_shared, progress, n, total))
            workshop.save(i, samples, told)
        found.append(told)
        progress((n + 1) / total)
    if all(told.empty for told in found):
        raise InputError(prepared.scan.path, "all slices are zero", "measured k-space", "check how it was saved")
    return found


def _shared(progress: Progress, n: int, total: int, part: float) -> None:
    """The share of all slices that `part` of the `n`-th stands for."""
    progress((n + part) / total)


def _restored(
    prepared: PreparedScan, request: ScanRequest, tools: Tools, i: int, progress: Progress
) -> tuple[np.ndarray, Told]:
    posed = pose(prepared, request, i)
    if posed is None:
        return np.zeros((request.draws, *prepared.scan.shape), np.complex64), Told(empty=True)
    p, device = posed.problem, tools.device
    problem = Problem(p.y.to(device), p.operator.to(device), p.noise)
    chunk = max(1, PIXELS_AT_ONCE // int(np.prod(prepared.scan.shape)))
    chunks = -(-request.draws // chunk)
    calls = iter(range(1, 1 << 30))
    try:
        result = restore(
            problem,
            tools.prior,
            tools.sampler,
            num_samples=request.draws,
            chunk=chunk,
            seed=request.settings["seed"],
            file=(int(prepared.sha256[:8], 16) << 16) + i,
            callback=lambda step, steps, sigma, x: progress(next(calls) / (steps * chunks)),
        )
    except SamplerError as error:
        cure = "try --noise, or another --sampler"
        raise InputError(prepared.scan.path, f"slice {i}: {error}", "numbers that stay finite", cure) from error
    draws = to_complex(result.samples)[:, 0].cpu().numpy() * posed.scale
    if posed.maps is not None:
        draws *= posed.maps.any(0)  # where no coil sees anything there is no answer
    block = None if posed.used is None else centre_block(posed.used)
    told = Told(
        empty=False,
        scale=posed.scale,
        data_fit=float(result.residual().double().square().mean().sqrt()),
        nfe=result.nfe,
        backward=result.backward,
        seconds=round(result.seconds, 3),
        kept=1.0 if posed.used is None else float(posed.used.mean()),
        centre=(0, 0) if block is None else tuple(s.stop - s.start for s in block),  # type: ignore[arg-type]
        surprise=surprise(tools.prior, result.mean[None], (prepared.sha256, i)),
        psnr=None if posed.truth is None else peak_psnr(np.abs(draws).mean(0), np.abs(posed.truth)),
        **_left_out(posed, draws, prepared.sigma),
    )
    return draws.astype(np.complex64), told


def _left_out(posed: Slice, draws: np.ndarray, sigma: float) -> dict[str, float]:
    """How well the draws predict what was measured and left out."""
    if posed.left_out is None or not posed.left_out.any():
        return {}
    y = posed.measured[:, posed.left_out]
    predicted = np.stack([predict(posed, x)[:, posed.left_out] for x in draws])
    error = np.abs(y - predicted.mean(0)) ** 2
    # Per real number: noise of the datum, spread of the draws, and the error of a mean of few draws.
    K = len(draws)
    spread = 0.0 if K < 2 else float((predicted.var(0, ddof=1)).mean() / 2) * (1 + 1 / K)
    return {
        "left_out_fit": float(np.sqrt(error.mean() / 2)) / sigma,
        "expected_fit": float(np.sqrt(sigma**2 + spread)) / sigma,
    }


def misfit(posed: Slice, x: np.ndarray) -> np.ndarray:
    """How far each point of the data lies from what a picture predicts, root mean square over coils and both parts,
    `(y, x) -> (M,)` in the units of the file."""
    p = posed.problem
    r = p.y - p.operator.forward(to_channels(torch.from_numpy(x)[None])[None] / posed.scale)
    return r[0].square().mean(0).sqrt().numpy() * posed.scale


def predict(posed: Slice, x: np.ndarray) -> np.ndarray:
    """All of k-space on the grid that a picture predicts, `(y, x) -> (coil, y, x)`."""
    return fft2(x[None] if posed.maps is None else posed.maps * x)


def surprise(prior: Denoiser, x: Tensor, key: tuple[str, int]) -> float:
    """Mean squared error of denoising a finished picture, over that which the prior expects of pictures it knows.

    Noise of std `PROBE` is added to `x`, `(1, 2, y, x)`, and taken away by the prior, whose own covariance says how
    well it should do: the trace, by Hutchinson's estimate.
    """
    rng = generator(int(key[0][:8], 16), key[1])
    sigma = min(max(PROBE, prior.sigma_min), prior.sigma_max)
    n = torch.randn(x.shape, generator=rng, dtype=x.dtype).to(x.device)
    probe = torch.randn(x.shape, generator=rng, dtype=x.dtype).sign().to(x.device)
    with torch.no_grad():
        noisy = x + sigma * n
        error = float((prior(noisy, sigma) - x).double().square().mean())
        C: Covariance = prior.covariance(noisy, sigma)
        expected = float((probe * C(probe)).double().mean())
    return error / expected


def peak_psnr(data: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the largest value of the truth."""
    error = float(np.square(data - truth, dtype=np.float64).mean())
    return float(20 * np.log10(truth.max() / max(error**0.5, 1e-20)))

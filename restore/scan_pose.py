"""The problem of one slice: what was sampled, its brightness, the coils, the operator.

It is posed in the units of the prior: k-space is divided by the brightness of the slice, as numbers of a picture file
are mapped to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators import masks
from operators.base import LinearOperator
from operators.espirit import espirit
from operators.mri import sense, to_channels, to_complex
from operators.noise import Gaussian
from operators.random import generator
from restore.errors import InputError
from restore.modalities.mri import fft2, ifft2
from restore.problem import Problem
from restore.scan_prepare import GIVEN, PreparedScan, ScanRequest

# Lines of the centre that coil maps are estimated from, at most.
CALIBRATION = 24
# Fewer fully sampled lines than these say nothing of coils.
LEAST_CALIBRATION = 12


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

    @property
    def noise(self) -> float:
        """Standard deviation per real number, in the units of the file."""
        return self.problem.linear_gaussian[1] * self.scale

    def images(self, samples: Tensor) -> np.ndarray:
        """Draws `(sample, 2, y, x)` as complex images in the units of the file, `(sample, y, x)`.

        They are zero where no coil sees anything: there is no answer, and the draws are those of the prior.
        """
        x = to_complex(samples)[:, 0].cpu().numpy() * self.scale
        return x if self.maps is None else x * self.maps.any(0)


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
    rows, columns = masks.centre_block(torch.from_numpy(used))
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
    block = masks.centre_block(torch.from_numpy(used))
    lengths = [s.stop - s.start for s in block]
    if min(lengths) < LEAST_CALIBRATION:
        cure = "give their maps with --coils FILE, or sample the centre"
        raise InputError(
            scan.path, f"no centre lines: {min(lengths)} around zero frequency without a gap, in slice {i}",
            f"at least {LEAST_CALIBRATION}, to tell {scan.coils} coils by", cure,
        )  # fmt: skip
    try:
        return whole_maps(k)
    except ValueError as error:
        seen, cure = (
            f"the centre of k-space tells nothing of the coils, in slice {i}",
            "give their maps with --coils FILE",
        )
        raise InputError(scan.path, seen, f"coils that see one body ({error})", cure) from error


def whole_maps(k: np.ndarray) -> np.ndarray:
    """Coil maps by the gapless block in the centre of k-space, `(coil, y, x)`, zero outside of the body."""
    return espirit(torch.from_numpy(k), calibration=CALIBRATION).numpy()


def misfit(posed: Slice, x: np.ndarray) -> np.ndarray:
    """How far each point of the data lies from what a picture predicts, root mean square over coils and both parts,
    `(y, x) -> (M,)` in the units of the file."""
    p = posed.problem
    r = p.y - p.operator.forward(to_channels(torch.from_numpy(x)[None])[None] / posed.scale)
    return r[0].square().mean(0).sqrt().numpy() * posed.scale


def predict(posed: Slice, x: np.ndarray) -> np.ndarray:
    """All of k-space on the grid that a picture predicts, `(y, x) -> (coil, y, x)`."""
    return fft2(x[None] if posed.maps is None else posed.maps * x)

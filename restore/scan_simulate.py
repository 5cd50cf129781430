"""K-space of pictures whose truth is known: coils, a phase, lines left out, noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from operators.noise import Gaussian
from operators.random import Draws, generator
from restore.errors import InputError
from restore.modalities.image import FORMATS, read_picture
from restore.modalities.mri import Scan, fft2, ifft2, read_scan
from restore.scan_pose import brightness, combined, kept_lines, whole_maps

COILS = 8


@dataclass(frozen=True)
class Truth:
    """What is measured, slice by slice.

    Attributes:
        shape: `(slice, coil, y, x)` of the k-space.
        slices: gives the picture `(y, x)` of slice `i` and what the coils see of it, `(coil, y, x)`, both complex.
        phase_axis: along which lines are left out.
        like: the scan it was read from, `None` of a picture.
    """

    shape: tuple[int, int, int, int]
    slices: Callable[[int], tuple[np.ndarray, np.ndarray]]
    phase_axis: str
    like: Scan | None = None


def read_truth(path: Path, coils: int | None, seed: int, file: int) -> Truth:
    """A picture, a NIfTI volume or fully sampled k-space. Pictures are given a smooth phase and `coils` coils.

    Raises:
        InputError: none of these, or lines are missing in it.
    """
    if path.suffix.lower() in FORMATS:
        magnitude = read_picture(path).data.mean(0).astype(np.float32)
        return _pictured(1, coils or COILS, magnitude.shape, lambda i: magnitude, seed, file)
    scan = read_scan(path)
    if scan.trajectory is not None:
        raise InputError(path, "points off the grid", "k-space on a grid", "name another scan")
    if scan.pictured:
        picture = lambda i: ifft2(scan.plane(i))[0]  # noqa: E731
        return _pictured(scan.slices, coils or COILS, scan.shape, picture, seed, file, scan)
    if coils is not None:
        raise InputError(path, "k-space, which has its own coils", "a picture for coils=N", "leave out coils=N")
    return Truth((scan.slices, scan.coils, *scan.shape), lambda i: _whole(scan, i), scan.phase_axis, scan)


def measured(truth: Truth, accel: str, sigma: float, seed: int, file: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """K-space `(coil, y, x)`, zero where nothing is sampled, and the picture `(y, x)`, slice by slice.

    Args:
        accel: as of `kept_lines`.
        sigma: std of the noise per real number, in units in which the picture is as bright as a prior's: the 99th
            percentile of its magnitude is 1.
        seed, file: determine lines, phase and noise.
    """
    mask = kept_lines(truth.shape[2:], accel, truth.phase_axis, generator(seed, file))
    for i in range(truth.shape[0]):
        x, seen = truth.slices(i)
        k = fft2(seen)
        if x.any():
            rng, level = Draws(seed, (i,), file), Gaussian(sigma * brightness(x))
            noisy = [level.sample(torch.from_numpy(part.copy())[None], rng)[0].numpy() for part in (k.real, k.imag)]
            k = (noisy[0] + 1j * noisy[1]).astype(np.complex64)
        yield k * mask, x


def _pictured(
    slices: int, coils: int, shape: tuple[int, ...], picture: Callable[[int], np.ndarray], seed: int, file: int,
    like: Scan | None = None,
) -> Truth:  # fmt: skip
    maps, phase = _coils(coils, (shape[0], shape[1])), _phase((shape[0], shape[1]), seed, file)

    def one(i: int) -> tuple[np.ndarray, np.ndarray]:
        x = picture(i)
        x = (x if np.iscomplexobj(x) and np.any(np.imag(x)) else np.abs(x) * phase).astype(np.complex64)
        return x, maps * x

    return Truth((slices, coils, shape[0], shape[1]), one, "y" if like is None else like.phase_axis, like)


def _whole(scan: Scan, i: int) -> tuple[np.ndarray, np.ndarray]:
    """The coil-combined picture of fully sampled k-space, and the coils' pictures."""
    k = scan.kspace(i)
    there = np.asarray(k.any(0))
    if there.any() and there.mean() < 0.99:
        seen = f"{100 * (1 - there.mean()):.3g} % of the points of slice {i} are zero: not sampled"
        raise InputError(scan.path, seen, "fully sampled k-space, whose truth is known", "name another scan")
    x = ifft2(k)
    if not there.any() or scan.coils == 1:
        return x[0], x
    return combined(x, whole_maps(k)), x


def _coils(count: int, shape: tuple[int, int]) -> np.ndarray:
    """Smooth maps of coils on a ring around the picture, whose squares add up to one: `(coil, y, x)`."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    angle = 2 * np.pi * np.arange(count) / count
    far = (y[:, None] - 1.2 * np.sin(angle)[:, None, None]) ** 2 + (x - 1.2 * np.cos(angle)[:, None, None]) ** 2
    turn = np.cos(angle)[:, None, None] * y[:, None] + np.sin(angle)[:, None, None] * x
    maps = np.exp(-far / 2 + 1j * (turn + angle[:, None, None]))
    return (maps / np.sqrt(np.square(np.abs(maps)).sum(0))).astype(np.complex64)


def _phase(shape: tuple[int, int], seed: int, file: int) -> np.ndarray:
    """A smooth random phase, `(y, x)` complex of modulus one: a few cosines of at most one period."""
    a = torch.randn(3, 3, generator=generator(seed, file, 2), dtype=torch.float64).numpy()
    y, x = (np.cos(np.pi * np.arange(3)[:, None] * np.linspace(0, 1, n)) for n in shape)
    return np.exp(1j * (y.T @ a @ x)).astype(np.complex64)

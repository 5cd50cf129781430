"""`Scan`: what was read of an MRI file, and the Fourier transforms that reading takes. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Scan:
    """What was read: k-space with zero frequency in the middle, `(coil, y, x)` complex64 per slice.

    Attributes:
        path, format: the file, and its kind in words.
        slices, coils: how many.
        shape: `(y, x)` of k-space, or of the picture where there is a trajectory.
        plane: reads slice `i`: `(coil, y, x)`, or `(coil, M)` where there is a trajectory; zeros were not sampled.
        axes: in words, what was taken for which axis.
        spacing: mm from pixel to pixel along y, x and from slice to slice, or `None`.
        affine: of a NIfTI file that was read, `(4, 4)`.
        mask: `(y, x)` bool, the points that the file says were sampled; `None`: those that are not zero.
        noise: a noise scan, `(coil, samples)` complex64.
        trajectory: `(M, 2)` in cycles per pixel, y before x, in [-1/2, 1/2).
        density: `(M,)`, weights of the trajectory's points, if the file has them.
        phase_axis: `y` or `x`, along which lines are left out.
        pictured: whether the file holds pictures, whose k-space was computed.
        notes: in words, what the person should know.
    """

    path: Path
    format: str
    slices: int
    coils: int
    shape: tuple[int, int]
    plane: Callable[[int], np.ndarray] = field(repr=False)
    axes: str
    spacing: tuple[float, float, float] | None = None
    affine: np.ndarray | None = None
    mask: np.ndarray | None = None
    noise: np.ndarray | None = None
    trajectory: np.ndarray | None = None
    density: np.ndarray | None = None
    phase_axis: str = "y"
    pictured: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        (y, x), s, c = self.shape, self.slices, self.coils
        kind = "pictures" if self.pictured else "k-space"
        size = f"{self.trajectory.shape[0]} points for {y} x {x}" if self.trajectory is not None else f"{y} x {x}"
        return f"{self.format}, {kind} {size} (y, x), {s} slice{'s' * (s > 1)}, {c} coil{'s' * (c > 1)}"

    def kspace(self, i: int) -> np.ndarray:
        """Slice `i`, as `plane`, once it is known to be finite.

        Raises:
            InputError: NaN or infinities, said by line; the file ends before this slice.
        """
        k = np.array(self.plane(i), np.complex64)  # a copy: torch wants memory that can be written to
        bad = np.asarray(~np.isfinite(k).all(0))
        if bad.any():
            seen = f"{int(bad.sum())} points of slice {i} are NaN or infinite"
            if k.ndim == 3:
                along = 0 if bad.all(1).any() or bad.any(1).sum() <= bad.any(0).sum() else 1
                lines = np.flatnonzero(bad.any(1 - along))
                name = "yx"[along]
                seen = f"NaN or infinite values in {len(lines)} of {self.shape[along]} lines of slice {i} ({name} = "
                seen += ", ".join(map(str, lines[:5])) + ", ..." * (len(lines) > 5) + ")"
            cure = "set them to zero, which means not measured"
            raise InputError(self.path, seen, "finite numbers", cure)
        return k


def fft2(x: np.ndarray) -> np.ndarray:
    """Centred orthonormal Fourier transform of the last two axes."""
    k = np.fft.fft2(np.fft.ifftshift(x, (-2, -1)), norm="ortho")
    return np.fft.fftshift(k, (-2, -1)).astype(np.complex64)


def ifft2(k: np.ndarray) -> np.ndarray:
    """Its inverse."""
    x = np.fft.ifft2(np.fft.ifftshift(k, (-2, -1)), norm="ortho")
    return np.fft.fftshift(x, (-2, -1)).astype(np.complex64)


def without_oversampling(k: np.ndarray, axis: int, length: int) -> np.ndarray:
    """`k` with an axis of the picture cut to its middle `length` pixels; white noise stays white."""
    x = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(k, axis), axis=axis, norm="ortho"), axis)
    first = x.shape[axis] // 2 - length // 2
    x = np.take(x, range(first, first + length), axis)
    cut = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(x, axis), axis=axis, norm="ortho"), axis)
    return cut.astype(np.complex64)

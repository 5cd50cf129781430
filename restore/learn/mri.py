"""MR images for training: magnitudes from volumes and pictures, made complex by a phase drawn at random.

A complex image is two channels, real and imaginary, in units in which the 99th percentile of its magnitude is 1. A
network sees it twice as large, which brings it to the spread of pictures in `[-1, 1]`.

Volumes that are shared freely are magnitudes: their phase is lost. That of a scan is smooth but for a few places. The
echo shifted in its window gives a linear phase, shims and eddy currents one of low order, susceptibility and coils a
smooth field, and it jumps where coils were combined and where fat meets water.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

from restore.errors import InputError
from restore.modalities.mri_arrays import nifti

from .base import Batch
from .data import SUFFIXES, Patches, load, read_bytes

FILES = {*SUFFIXES, ".nii", ".nii.gz"}
INSIDE = 2.0  # of the network's units in one of ours
EVERY = 4  # neighbouring slices are alike: of the planes that are not the main one, one slice in so many is taken
LARGE = 400  # pixels a side: such a picture of a slice was enlarged
SHOWN = 4  # slices of a volume to validate on


class Slices(NamedTuple):
    """Magnitudes of one head, float32 `(1, H, W)`, 99th percentile 1 each: the main plane, then the other planes."""

    main: list[Tensor]
    others: list[Tensor]

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self.main), *self.main[0].shape[1:]])


def read_slices(path: Path) -> Slices:
    """The slices of a NIfTI volume, those with next to nothing left out, or a picture of a slice.

    The main plane is the axial one, or the first whose pixels are about square; planes whose pixels are not are left
    out. Large pictures are halved: what was enlarged or compressed is not sharp.

    Raises:
        InputError: see `read_magnitudes`; no plane has square pixels; all black.
        OSError, SyntaxError, ValueError: not a picture, see `read_bytes`.
    """
    if path.suffix.lower() in SUFFIXES:
        picture = read_bytes(path).float().mean(0, keepdim=True)
        if min(picture.shape[1:]) >= LARGE:
            picture = T.resize(picture, [n // 2 for n in picture.shape[1:]], antialias=True)
        values, planes = picture.permute(1, 2, 0).numpy(), [2]
    else:
        values, spacing = read_magnitudes(path)
        planes = [axis for axis in (2, 1, 0) if square(np.delete(spacing, axis))]
        if not planes:
            seen = "a spacing of " + " x ".join(f"{s:g}" for s in spacing)
            raise InputError(path, seen, "one plane with square pixels", "resample it")
    if not (values > 0).any():
        raise InputError(path, "all values are 0", "magnitudes", "check how it was saved")
    dark = 0.1 * np.percentile(values[values > 0], 99)
    found = [
        [torch.from_numpy(s / np.percentile(s, 99))[None] for s in plane if (s > dark).mean() > 0.05]
        for plane in (np.moveaxis(values, axis, 0)[:: 1 if axis == planes[0] else EVERY] for axis in planes)
    ]
    if not found[0]:
        raise InputError(path, "next to nothing in any slice", "a head", "leave it out")
    return Slices(found[0], [s for plane in found[1:] for s in plane])


def square(spacing: np.ndarray) -> bool:
    """Whether pixels of these sides are about square."""
    return bool(spacing.max() < 1.5 * spacing.min())


def read_magnitudes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A volume of magnitudes, float32, axes towards right, front and top, and its spacing in mm, `(3,)`.

    Raises:
        InputError: damaged, no volume, not of magnitudes; nibabel is not installed.
    """
    values, header = nifti(path, upright=True)
    wanted = "a volume of magnitudes, (X, Y, Z)"
    if values.ndim != 3:
        raise InputError(path, f"of shape {values.shape}", wanted, "save its volumes one by one")
    if values.dtype.kind not in "uif":
        cure = "save the magnitude: the phase is drawn anew for each patch"
        raise InputError(path, f"values of type {values.dtype}", wanted, cure)
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(path, "values that are not finite", wanted, "set them to 0")
    if values.min() < -0.05 * values.max():
        seen = f"values from {values.min():g} to {values.max():g}"
        raise InputError(path, seen, wanted, "this may be a phase, a difference or a CT: leave it out")
    return values.clip(min=0), np.array(header.get_zooms()[:3], float)


def load_slices(paths: Sequence[Path], size: int) -> list[Tensor]:
    """The slices in the usable files, in units of the network, for patches of `size`; the other files are named and
    left out. Raises InputError where none is left."""
    heads = load(paths, read_slices, size)
    return [INSIDE * s for head in heads for s in (*head.main, *head.others) if min(s.shape[1:]) >= size]


def load_shown(paths: Sequence[Path]) -> list[Tensor]:
    """Complex images to validate on, `(1, 2, H, W)` in units of the network: `SHOWN` slices from the middle of each
    volume, each with one phase for good."""
    heads = [head.main for head in load(paths, read_slices)]
    shown = [head[int(len(head) * (0.2 + 0.6 * k / SHOWN))] for head in heads for k in range(min(SHOWN, len(head)))]
    return [INSIDE * with_phase(s[None, :, :256, :256], torch.Generator().manual_seed(i)) for i, s in enumerate(shown)]


class ComplexPatches(Patches):
    """Random patches of MR images, real and imaginary, from magnitudes as `load_slices` gives them.

    Besides what `Patches` does: contrast and shading are varied, since coils see what is near and no two scans have the
    same settings; there is a phase, of its own for each patch; some are cut off in k-space, as scans are, which rings
    at edges; and the brightness varies, since the scale of a scan that is not yet reconstructed is known roughly.
    """

    @property
    def channels(self) -> tuple[int, ...]:
        return (2,)

    def batch(self, count: int, rng: torch.Generator) -> Batch:
        """Patches `(count, 2, size, size)`."""
        m = super().batch(count, rng).x / INSIDE
        x = band_limited(with_phase(shaded(m, rng), rng), rng)
        scale = torch.exp(uniform(count, rng, -0.35, 0.35))  # 0.7 to 1.4
        return Batch(INSIDE * scale * x, torch.zeros(count))


def uniform(count: int, rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """One number for each patch, `(count, 1, 1, 1)`."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=rng)


def smooth_field(like: Tensor, spacing: int, rng: torch.Generator) -> Tensor:
    """Random fields, `(B, 1, H, W)`, of a std of about 1, that forget themselves over `spacing` pixels."""
    B, _, H, W = like.shape
    nodes = torch.randn(B, 1, H // spacing + 2, W // spacing + 2, generator=rng)
    return 1.3 * F.interpolate(nodes, size=(H, W), mode="bicubic", align_corners=True)


def shaded(m: Tensor, rng: torch.Generator) -> Tensor:
    """Magnitudes `(B, 1, H, W)` in another contrast, half of them, and seen by coils that are nearer to one side."""
    gamma = torch.where(uniform(len(m), rng) < 0.5, torch.exp(uniform(len(m), rng, -0.4, 0.4)), 1.0)
    shade = uniform(len(m), rng, 0, 0.3) * smooth_field(m, 48, rng)
    return m**gamma * shade.exp()


def with_phase(m: Tensor, rng: torch.Generator) -> Tensor:
    """Magnitudes `(B, 1, H, W)` as complex images, `(B, 2, H, W)`: many of nearly one phase, some with a turn in forty
    pixels; one in seven has a jump."""
    B, _, H, W = m.shape
    strength = uniform(B, rng).square()
    v, u = (torch.arange(n)[:, None] / 64 - n / 128 for n in (H, W))
    u = u.T
    polynomial = torch.zeros_like(m)
    for term, std in ((u, 3.0), (v, 3.0), (u * u, 1.0), (u * v, 1.0), (v * v, 1.0)):  # radians at 64 pixels
        polynomial += std * torch.randn(B, 1, 1, 1, generator=rng) * term
    fields = smooth_field(m, 32, rng) + 0.3 * smooth_field(m, 12, rng)
    jump = uniform(B, rng, -math.pi, math.pi) * (uniform(B, rng) < 0.15) * (smooth_field(m, 32, rng) > 0)
    phase = uniform(B, rng, -math.pi, math.pi) + strength * (polynomial + fields) + jump
    return torch.cat([m * phase.cos(), m * phase.sin()], 1)


def band_limited(x: Tensor, rng: torch.Generator, share: float = 0.3) -> Tensor:
    """Complex images `(B, 2, H, W)`, a `share` of them without the outer part of k-space, of each axis its own.

    They are mirrored first, so that what is cut off is not the jump from one side to the other.
    """
    chosen = (torch.rand(len(x), generator=rng) < share).nonzero()[:, 0]
    if len(chosen) == 0:
        return x
    H, W = x.shape[-2:]
    part = x[chosen]
    part = torch.cat([part, part.flip(-2)], -2)
    part = torch.cat([part, part.flip(-1)], -1)
    rows = torch.fft.fftfreq(2 * H).abs()[:, None] <= uniform(len(part), rng, 0.3, 0.5)
    columns = torch.fft.rfftfreq(2 * W) <= uniform(len(part), rng, 0.3, 0.5)
    limited = torch.fft.irfft2(torch.fft.rfft2(part) * (rows & columns), s=(2 * H, 2 * W))
    return x.index_copy(0, chosen, limited[..., :H, :W])

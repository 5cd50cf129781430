"""Noisy MR images for training: complex, such as fully sampled scans give. Nothing is made up but a turn of the phase.

White noise of a scan is white noise of the real and the imaginary part of its image, as long as both are kept: that of
a magnitude is not, and magnitudes are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from restore.denoisers.adaptive import estimate_law
from restore.denoisers.tweedie import Tweedie
from restore.errors import InputError
from restore.modalities.image_picture import decoding
from restore.modalities.mri_arrays import nifti

from .base import Batch
from .data import Noisy, Patches, load, warn_of_few
from .mri import INSIDE, SHOWN, uniform
from .told import level

FILES = {".npy", ".nii", ".nii.gz"}
FAINT = 0.3  # of the brightest slice: above or below the head
WANTED = "complex images, (slices, rows, columns) in .npy or a complex NIfTI volume"


class Images(NamedTuple):
    """The slices of one file, each `(2, H, W)` in units of the network."""

    slices: list[Noisy]

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self.slices), *self.slices[0].shape[1:]])


def read_images(path: Path) -> Images:
    """Complex images, as `restore mri` writes draws; the 99th percentile of a slice's magnitude is 1, slices with next
    to nothing are left out.

    Raises:
        InputError: damaged, not complex, not of two or three axes, not finite, all zero.
    """
    if path.suffix == ".npy":
        with decoding(path, "NumPy file", "a whole volume"):
            values = np.load(path, allow_pickle=False)
    else:
        values = np.moveaxis(np.atleast_3d(nifti(path)[0]), 2, 0)
    if not np.iscomplexobj(values):
        cure = "keep real and imaginary part: the noise of a magnitude is not white. Clean magnitudes need no --noise"
        raise InputError(path, f"values of type {values.dtype}", WANTED, cure)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise InputError(path, f"of shape {values.shape}", WANTED, "save its volumes one by one")
    values = values.reshape(-1, *values.shape[-2:]).astype(np.complex64)
    if not np.isfinite(values).all():
        raise InputError(path, "values that are not finite", WANTED, "set them to 0")
    bright = np.percentile(np.abs(values), 99, axis=(1, 2))
    if not bright.any():
        raise InputError(path, "all values are 0", WANTED, "check how it was saved")
    kept = [(z / b, b) for z, b in zip(values, bright, strict=True) if b > FAINT * bright.max()]
    parts = [(torch.from_numpy(np.stack([z.real, z.imag])), float(b)) for z, b in kept]
    return Images([Noisy(INSIDE * x, b) for x, b in parts])


def load_images(paths: Sequence[Path], size: int = 0) -> list[Noisy]:
    """The slices in the usable files; the other files are named and left out. Raises InputError where none is left."""
    return [s for images in load(paths, read_images, size) for s in images.slices]


def noisy_scans(
    paths: Sequence[Path], held: Sequence[Path], law: Tweedie, size: int
) -> tuple[NoisyComplexPatches, list[tuple[Tensor, float]]]:
    """Patches, and images to validate on, `(1, 2, H, W)` with the std of their noise: from the middle of the files held
    out, or some that are learnt from.

    Raises:
        InputError: no file can be used.
        ValueError: the noise is as strong as the images.
    """
    learnt = load_images(paths, size)
    levels = [level(law, s) for s in learnt]
    if max(levels) >= INSIDE:
        brightest = max(s.scale for s in learnt)
        raise ValueError(f"a noise of {law.phi**0.5:g} is as strong as the images, whose brightest are {brightest:g}")
    warn_of_few([s.pixels for s in learnt], size)
    others = [read_images(path).slices for path in held] or [learnt]
    shown = [images[int(len(images) * (0.2 + 0.6 * k / SHOWN))] for images in others for k in range(SHOWN)]
    return (
        NoisyComplexPatches([s.pixels for s in learnt], size, levels),
        [(s.pixels[None, :, :256, :256], level(law, s)) for s in shown],
    )


def white_noise(paths: Sequence[Path], where: Path) -> Tweedie:
    """The noise that the images share, from the images alone, in the units of their files.

    Raises:
        InputError: no file can be used, or it cannot be told.
    """
    images = load_images(paths)
    law = estimate_law([s.scale / INSIDE * s.pixels.numpy() for s in images[:: max(1, len(images) // 40)]], 0.0)
    if law is None:
        raise InputError(where, "too few pixels to tell how strong the noise is", "more slices", "say --noise 0.1")
    return law


class NoisyComplexPatches(Patches):
    """Random patches of noisy complex images, flipped and turned, each with its phase turned by a random angle, half of
    them conjugated, and its brightness varied, which takes its noise along."""

    def __init__(self, pictures: Sequence[Tensor], size: int, noise: Sequence[float]):
        super().__init__(pictures, size, noise=noise, shrink=0.0, luminance=False)

    @property
    def channels(self) -> tuple[int, ...]:
        return (2,)

    def batch(self, count: int, rng: torch.Generator) -> Batch:
        """Patches `(count, 2, size, size)`."""
        x, sigma, _ = super().batch(count, rng)
        real, imaginary = x[:, :1], x[:, 1:] * (2.0 * (uniform(count, rng) < 0.5) - 1)
        angle = uniform(count, rng, -math.pi, math.pi)
        c, s = angle.cos(), angle.sin()
        turned = torch.cat([c * real - s * imaginary, s * real + c * imaginary], 1)
        scale = torch.exp(uniform(count, rng, -0.35, 0.35))  # as that of magnitudes
        return Batch(scale * turned, scale.flatten() * sigma)

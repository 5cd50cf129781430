"""Measurements of clean pictures, as a person would have them: with holes, blurred, small, noisy."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators.image import Blur, Downsample, Mask
from operators.noise import Gaussian
from operators.random import Draws, generator
from restore.jobs import read_kernel


@dataclass(frozen=True)
class Spec:
    """An operator as it is typed: `identity`, `mask:0.7`, `blur:gaussian:2.0`, `downsample:2`, `mri:R=4`.

    Attributes:
        verb: which one undoes it.
        options: what that verb has to be told.
    """

    text: str
    verb: str
    options: dict[str, str]


@dataclass(frozen=True)
class Measured:
    """`data` is float32 `(C, h, w)`, not clipped; `missing` is `(h, w)` bool or `None`; `truth` the part it is of."""

    data: np.ndarray
    missing: np.ndarray | None
    truth: np.ndarray


def parse_spec(text: str) -> Spec:
    """Read an operator.

    Raises:
        ValueError: unknown, or with arguments out of range.
    """
    name, _, rest = text.partition(":")
    if name == "identity" and not rest:
        return Spec(text, "denoise", {})
    if name == "mask":
        try:
            share = float(rest)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            raise ValueError(f"operator {text!r}: give the share of missing pixels between 0 and 1, as in mask:0.7")
        return Spec(text, "inpaint", {"share": rest})
    if name == "blur" and rest:
        read_kernel(rest)
        return Spec(text, "deblur", {"kernel": rest})
    if name == "downsample":
        if rest not in ("2", "3", "4"):
            raise ValueError(f"operator {text!r}: give the factor 2, 3 or 4, as in downsample:2")
        return Spec(text, "upscale", {"factor": rest})
    if name == "mri":
        found = re.fullmatch(r"R=(\d+(?:\.\d+)?|[1-9]x[1-9])(?:,coils=([1-9]\d?))?", rest)
        if found is None or ("x" not in found[1] and not 1 < float(found[1]) <= 64):
            raise ValueError(f"operator {text!r}: give the acceleration above 1, as in mri:R=4 or mri:R=2x2,coils=8")
        return Spec(text, "mri", {"accel": found[1], **({"coils": found[2]} if found[2] else {})})
    known = "identity, mask:0.7, blur:gaussian:2.0, downsample:2 or mri:R=4"
    raise ValueError(f"unknown operator {text!r}: give {known}")


def measure(truth: np.ndarray, spec: Spec, sigma: float, seed: int, file: int) -> Measured:
    """Measure a clean picture.

    The scene goes on beyond the frame by reflection, as a real one goes on somehow; no pixel is wrapped around.

    Args:
        truth: `(C, H, W)`.
        sigma: standard deviation of the noise.
        seed, file: determine the noise and the mask.

    Raises:
        ValueError: the kernel is larger than the picture.
    """
    rng, missing = Draws(seed, file=file), None
    if spec.verb == "upscale":
        f = int(spec.options["factor"])
        truth = truth[:, : truth.shape[1] // f * f, : truth.shape[2] // f * f]
        if not truth.size:
            raise ValueError(f"the picture is smaller than {f} pixels")
        scene = _tensor(np.pad(truth, ((0, 0), (4 * f, 4 * f), (4 * f, 4 * f)), "symmetric"))
        z = Downsample(tuple(scene.shape[1:]), f)(scene)[..., 4:-4, 4:-4]
    elif spec.verb == "deblur":
        kernel = read_kernel(spec.options["kernel"])
        (kh, kw), (H, W) = kernel.shape, truth.shape[1:]
        if kh > H or kw > W:
            raise ValueError(f"the kernel ({kw} x {kh}) is larger than the picture ({W} x {H})")
        rows, columns = (kh - 1 - kh // 2, kh // 2), (kw - 1 - kw // 2, kw // 2)
        scene = _tensor(np.pad(truth, ((0, 0), rows, columns), "symmetric"))
        z = Blur(kernel, tuple(scene.shape[1:]), boundary="valid")(scene)
    else:
        z = _tensor(truth)
    data = Gaussian(sigma).sample(z, rng)[0].numpy()
    if spec.verb == "inpaint":
        chance = torch.rand(truth.shape[1:], generator=generator(seed, file, 1)).numpy()
        missing = chance < float(spec.options["share"])
        Mask(torch.from_numpy(~missing))  # refuses a mask that keeps nothing
        data[:, missing] = 0
    return Measured(data, missing, truth)


def _tensor(data: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))[None]

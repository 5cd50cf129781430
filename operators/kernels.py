"""Point spread functions and antialiasing kernels: float64 tensors `(kh, kw)` that sum to one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def block(factor: int) -> Tensor:
    """The mean over `factor x factor` pixels."""
    return torch.full((factor, factor), 1 / factor**2, dtype=torch.float64)


def bicubic(factor: int) -> Tensor:
    """The cubic kernel stretched by `factor` against aliasing, as in `imresize`: `4 factor` taps, one less if odd.

    Source: Keys 1981, a = -1/2.
    """
    taps = 4 * factor - factor % 2
    t = ((torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / factor).abs()
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    w = torch.where(t <= 1, near, far)
    w = w / w.sum()
    return w[:, None] * w[None]


def gaussian(sigma: float) -> Tensor:
    """A sampled Gaussian of standard deviation `sigma` pixels, cut at four sigma.

    Raises:
        ValueError: `sigma` is not positive.
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"the Gaussian kernel needs a positive sigma in pixels, got {sigma}")
    radius = math.ceil(4 * sigma)
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    w = torch.exp(-0.5 * (t / sigma) ** 2)
    w = w / w.sum()
    return w[:, None] * w[None]


def motion(length: float, angle: float = 0.0) -> Tensor:
    """Uniform motion along a line: each pixel holds the share of the exposure that the line spends in it.

    Args:
        length: in pixels, at least one.
        angle: in degrees, counter-clockwise from the horizontal.

    Raises:
        ValueError: the length is below one pixel, or a number is not finite.
    """
    if not (length >= 1 and math.isfinite(length) and math.isfinite(angle)):
        raise ValueError(f"the motion kernel needs a length of at least one pixel and an angle, got {length}, {angle}")
    n = 64 * math.ceil(length)
    t = ((torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5) * length
    half = math.ceil(length / 2)
    theta = math.radians(angle)
    rows, columns = ((t * d).round().long() + half for d in (-math.sin(theta), math.cos(theta)))
    k = torch.zeros(2 * half + 1, 2 * half + 1, dtype=torch.float64)
    return centred(k.index_put_((rows, columns), torch.full_like(t, 1 / n), accumulate=True))


def disk(radius: float) -> Tensor:
    """Defocus: a uniform disk, each pixel weighted by the part of it that is covered.

    Raises:
        ValueError: `radius` (in pixels) is not positive.
    """
    if not (radius > 0 and math.isfinite(radius)):
        raise ValueError(f"the disk kernel needs a positive radius in pixels, got {radius}")
    half, fine = math.ceil(radius), 16
    t = (torch.arange((2 * half + 1) * fine, dtype=torch.float64) + 0.5) / fine - half - 0.5
    inside = (t[:, None] ** 2 + t**2 <= radius**2).double()
    k = inside.unflatten(0, (-1, fine)).unflatten(2, (-1, fine)).mean((1, 3))
    return centred(k) if k.sum() > 0 else torch.ones(1, 1, dtype=torch.float64)


def centred(kernel: Tensor) -> Tensor:
    """Normalised to sum one, empty margins cut, and padded so that the centre of mass is the middle pixel.

    Raises:
        ValueError: the kernel has negative or non-finite entries, or is zero everywhere.
    """
    k = kernel.double()
    if not bool(torch.isfinite(k).all()):
        raise ValueError("the kernel holds NaN or infinite values")
    if float(k.min()) < 0:
        raise ValueError(f"the kernel has negative entries (smallest {float(k.min()):.3g}): subtract its background")
    if float(k.sum()) == 0:
        raise ValueError("the kernel is zero everywhere")
    k = k / k.sum()
    for _ in range(2):
        occupied = k.sum(1).nonzero().flatten()
        k = k[int(occupied[0]) : int(occupied[-1]) + 1]
        n = len(k)
        middle = round(float((k.sum(1) * torch.arange(n)).sum()))
        half = max(middle, n - 1 - middle)
        padded = torch.zeros(2 * half + 1, k.shape[1], dtype=torch.float64)
        padded[half - middle : half - middle + n] = k
        k = padded.T
    return k.contiguous()


def from_file(path: str | Path) -> Tensor:
    """A measured point spread function from a picture or an array: TIFF, NPY, PNG or anything Pillow reads.

    Channels are averaged (alpha is ignored), then see `centred`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read as a two-dimensional kernel.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no kernel file {path}")
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path)
        elif path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            array = tifffile.imread(path)
        else:
            from PIL import Image

            with Image.open(path) as picture:
                mode = picture.mode
                array = np.asarray(picture.convert("RGBA" if mode == "P" else mode))
        k = torch.from_numpy(array.astype(np.float64))
    except Exception as error:  # each reader has its own exceptions for a broken file
        raise ValueError(f"{path} cannot be read as a kernel: {error}") from error
    if k.ndim == 3 and k.shape[-1] in (1, 2, 3, 4):
        k = k[..., : 1 if k.shape[-1] < 3 else 3].mean(-1)
    if k.ndim != 2:
        raise ValueError(f"{path} holds an array of shape {tuple(k.shape)}: a kernel is one two-dimensional picture")
    try:
        return centred(k)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


LARGEST = 200  # pixels: above, the kernel alone takes a gigabyte and no picture is large enough for it

_NAMED: dict[str, tuple[Callable[..., Tensor], str]] = {
    "gaussian": (gaussian, "gaussian:SIGMA"),
    "motion": (motion, "motion:LENGTH,ANGLE"),
    "disk": (disk, "disk:RADIUS"),
}


def parse(text: str) -> Tensor:
    """A kernel as a person writes it: `gaussian:2.0`, `motion:15,30`, `disk:4`, or the path of a picture of one.

    Raises:
        FileNotFoundError: it is neither a known form nor a file.
        ValueError: the numbers cannot be read, do not fit, or the file holds no kernel.
    """
    name, _, numbers = text.partition(":")
    forms = ", ".join(form for _, form in _NAMED.values())
    if name not in _NAMED:
        if not Path(text).is_file():
            raise FileNotFoundError(f"{text!r} is neither a kernel file nor one of {forms}")
        return from_file(text)
    make, form = _NAMED[name]
    try:
        values = [float(v) for v in numbers.split(",")]
    except ValueError:
        values = []
    wanted = form.count(",") + 1
    if len(values) != wanted:
        raise ValueError(f"the kernel {text!r} cannot be read: write {form}, with numbers")
    if values[0] > LARGEST:
        raise ValueError(f"the kernel {text!r} is too large: {form.split(',')[0]} may be {LARGEST} pixels at most")
    return make(*values)

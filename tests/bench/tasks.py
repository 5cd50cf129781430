"""What the photograph benchmark asks: pictures `(1, C, H, W)` in `[0, 1]`, damage of several kinds, scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torch import Tensor

from operators import kernels
from operators.base import Identity, LinearOperator
from operators.image import Blur, Downsample, Mask
from operators.noise import Gaussian
from operators.random import Draws, generator
from restore.problem import Problem

SETS = {"Set12": "L", "CBSD68": "RGB"}  # Pillow's mode: grey, colour
FIRST = 12


def find_pictures(data: Path) -> list[Path]:
    """The twelve pictures of Set12 and the first twelve of CBSD68."""
    pictures = []
    for name in SETS:
        here = sorted(p for p in (data / "images" / "test" / name).glob("*") if p.suffix in (".png", ".webp", ".jpg"))
        if not here:
            raise FileNotFoundError(f"no pictures in {data / 'images' / 'test' / name}: name the folder with --data")
        pictures += here[:FIRST]
    return pictures


def load(path: Path, crop: int | None = None, even: bool = False) -> Tensor:
    """`(1, C, H, W)`, float32. `crop` takes the middle; `even` drops the last row or column of an odd size."""
    pixels = torch.from_numpy(np.asarray(Image.open(path).convert(SETS.get(path.parent.name, "RGB"))).copy())
    x = (pixels[None, None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)[None]).float() / 255
    H, W = x.shape[-2:]
    if crop is not None:
        h, w = min(crop, H), min(crop, W)
        top, left = (H - h) // 2, (W - w) // 2
        x, (H, W) = x[..., top : top + h, left : left + w], (h, w)
    return x[..., : H - H % 2, : W - W % 2] if even else x


@dataclass(frozen=True)
class Task:
    """One kind of damage; `sigma` is the std of its noise in `[0, 1]`, `operator_name` its name in `configs/`."""

    name: str
    operator_name: str
    title: str
    sigma: float
    operator: Callable[[tuple[int, ...], int], LinearOperator]  # of the picture's shape and the file's number
    even: bool = False

    def problem(self, truth: Tensor, file: int) -> Problem:
        """The same `y` for every method: mask and noise are seeded by the file's number."""
        A, noise = self.operator(tuple(truth.shape[1:]), file), Gaussian(self.sigma)
        return Problem(noise.sample(A(truth), Draws(2024, file=file)), A, noise)


def _missing(shape: tuple[int, ...], file: int) -> Mask:
    return Mask(torch.rand(shape[1:], generator=generator(70, file)) > 0.7, channels=shape[0])


TASKS = {
    task.name: task
    for task in (
        Task("inpaint", "mask", "70 % of the pixels missing, noise 0.05", 0.05, _missing),
        Task(
            "deblur",
            "blur",
            "Gaussian blur, std 2 pixels, noise 0.02",
            0.02,
            lambda shape, _: Blur(kernels.gaussian(2.0), shape),
        ),
        Task(
            "upscale",
            "downsample",
            "2x bicubic with antialiasing, noise 0.02",
            0.02,
            lambda shape, _: Downsample(shape, 2, "bicubic"),
            even=True,
        ),
    )
}

DENOISE = Task("denoise", "identity", "white noise 0.1", 0.1, lambda shape, _: Identity(shape))
FOUR: dict[str, Task] = {DENOISE.name: DENOISE, **TASKS}


def psnr(estimate: Tensor, truth: Tensor) -> float:
    """In dB, peak 1, the estimate clipped to `[0, 1]`."""
    return -10 * (estimate.clamp(0, 1) - truth).double().square().mean().log10().item()


def ssim(estimate: Tensor, truth: Tensor) -> float:
    """Wang et al. 2004 with its Gaussian window, mean over the channels."""
    a, b = (v[0].double().numpy() for v in (estimate.clamp(0, 1), truth))
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a, b, channel_axis=0, **options))

"""Structured noise for the benchmark and the demo: rows of a scanner, a texture of digits, coloured Gaussian noise.

Signed, `(1, H, W)` in the units of pictures in [0, 1]; determined by `rng` alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

WHITE = 0.02  # std of the white part of every case


def stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    """Offset of each row, a third of them strong, that drifts along the row by about a third of itself."""
    offset = rng.normal(0, np.where(rng.random(size) < 1 / 3, 0.15, 0.04), size)
    f = np.fft.rfftfreq(size)
    waves = np.fft.irfft(np.fft.rfft(rng.standard_normal((size, size))) * np.exp(-((f * 60) ** 2)), size)
    drift = waves / waves.std()
    return (offset[:, None] * (1 + 0.35 * drift))[None].clip(-0.5, 0.5).astype(np.float32)


def digits(size: int, rng: np.random.Generator) -> np.ndarray:
    """Digits in Pillow's bundled font, light and dark, of several sizes, about one on each 32 x 32 pixels."""
    picture = Image.new("L", (size, size), 128)
    draw = ImageDraw.Draw(picture)
    for _ in range(size**2 // 32**2):
        at = tuple(rng.integers(-16, size, 2).tolist())
        value = 128 + int(rng.choice([-1, 1]) * rng.integers(50, 90))
        draw.text(at, str(rng.integers(10)), fill=value, font=ImageFont.load_default(int(rng.integers(22, 44))))
    return (np.asarray(picture, np.float32)[None] - 128) / 255


def spectrum(size: int) -> Tensor:
    """Variances of the modes of a noise of long diagonal waves, std 0.1: `(1, size, size // 2 + 1)`."""
    f = torch.fft.fftfreq(size, dtype=torch.float64)[:, None]
    g = torch.fft.rfftfreq(size, dtype=torch.float64)
    power = torch.exp(-(((f - 0.15) / 0.05) ** 2 + ((g - 0.1) / 0.05) ** 2)) + 0.05 / (1 + 400 * (f**2 + g**2))
    full = torch.fft.irfft2(power.to(torch.complex128), s=(size, size))  # its value at 0 is the mean over all modes
    return (power * 0.1**2 / full[0, 0])[None].float()


def record(folder: Path, make, count: int = 100, size: int = 128, seed: int = 1) -> Path:
    """Noise-only recordings as 8-bit pictures around mid-grey."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        stored = np.rint(255 * (make(size, rng)[0] + 0.5).clip(0, 1)).astype(np.uint8)
        Image.fromarray(stored).save(folder / f"{i:03d}.png")
    return folder

"""Scores against a known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from restore.errors import InputError


def fitting(truth: np.ndarray, shape: tuple[int, ...], source: Path) -> np.ndarray:
    """The part of `truth` that a result of `shape = (C, H, W)` shows: all of it, but for rows and columns at the bottom
    and right that a whole factor of upscaling leaves over.

    Raises:
        InputError: the result is not that of this truth.
    """
    (channels, height, width), (c, h, w) = shape, truth.shape
    if c != channels or not (0 <= h - height < 4 and 0 <= w - width < 4):
        raise InputError(
            source,
            f"the true picture is {w} x {h} with {c} channel(s), the result {width} x {height} with {channels}",
            "a truth of the same size",
            "check --ref",
        )
    return truth[:, :height, :width]


def psnr(data: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all channels; the peak is 1, or the range of a truth that goes beyond."""
    error = np.mean([np.square(a - b).mean(dtype=np.float64) for a, b in zip(data, truth, strict=True)])
    peak = max(1.0, float(truth.max() - truth.min()))
    return float(10 * np.log10(peak**2 / max(float(error), 1e-20)))


def ssim(data: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) as scikit-image computes it, for pictures in [0, 1]."""
    from skimage.metrics import structural_similarity

    side = min(7, *data.shape[1:])
    return float(structural_similarity(data, truth, win_size=side - 1 + side % 2, channel_axis=0, data_range=1.0))

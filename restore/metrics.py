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


def umse(estimate: np.ndarray, copies: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """Mean squared error of an estimate without a truth: `mean (a - f)^2 - (b - c)^2 / 2`, unbiased.

    Marcos-Morales, Leibovich, Mohan et al., *Evaluating Unsupervised Denoising Requires Unsupervised Metrics*, ICML
    2023 (arXiv:2210.05553). It may come out below zero where the error is small and the pixels are few.

    Args:
        estimate: `f(y)`, any shape, made from a noisy copy `y` that is none of the three.
        copies: `(a, b, c)`, noisy copies of the truth, of the shape of the estimate. The noise of each is independent
            of the others' and of that of `y`, has a mean of zero, and may be of any kind; its variance is that of `a`.
    """
    a, b, c = (copy.astype(np.float64) for copy in copies)
    return float(np.mean((a - estimate) ** 2 - (b - c) ** 2 / 2))


def upsnr(umse: float, peak: float = 1.0) -> float:
    """`10 log10(peak^2 / umse)` in dB, NaN where `umse` is not positive. Average `umse` over pictures before: the
    logarithm of a noisy number is biased."""
    return float(10 * np.log10(peak**2 / umse)) if umse > 0 else float("nan")


def four_copies(noisy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One noisy picture as four of half the size: the pixels of each square of two by two, for the metric above.

    `(C, H, W)` to four of `(C, H // 2, W // 2)`: one for the denoiser and three for `umse` (the single-image version of
    the paper). Biased where neighbours differ in truth: the three squares of differences go in as if they were noise.
    """
    height, width = (n - n % 2 for n in noisy.shape[1:])
    even, odd = noisy[:, 0:height:2, :width], noisy[:, 1:height:2, :width]
    return even[..., ::2], even[..., 1::2], odd[..., ::2], odd[..., 1::2]

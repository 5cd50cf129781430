"""Slice after slice of a scan: draws, and what is told of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.masks import centre_block
from operators.random import generator
from restore.core import Restoration, restore
from restore.engine import PIXELS_AT_ONCE, Progress, part_of
from restore.errors import InputError
from restore.intervals import Interval
from restore.jobs import Tools
from restore.priors.base import Denoiser
from restore.priors.covariance import Covariance
from restore.problem import Problem
from restore.samplers.base import SamplerError
from restore.scan_full import body_of
from restore.scan_interval import predicted, scan_interval
from restore.scan_pose import Slice, pose, predict
from restore.scan_prepare import PreparedScan, ScanRequest
from restore.scan_trial import trial
from restore.scan_workshop import Told, Workshop

# Noise at which a finished picture is denoised to see whether the prior knows its kind, in the prior's units.
PROBE = 0.1


def execute_scan(
    prepared: PreparedScan, request: ScanRequest, tools: Tools, workshop: Workshop, progress: Progress
) -> tuple[list[Told], Interval]:
    """Restore the slices that are not finished yet, one after another; what is told of all, and what their spread is.

    Raises:
        InputError: a slice cannot be used, or the sampler cannot do it; all are zero.
    """
    total, found = len(prepared.chosen), []
    middle, posed = middle_slice(prepared, request)
    interval = scan_interval(prepared, request, posed)
    for n, i in enumerate(prepared.chosen):
        told = workshop.told(i)
        if told is None:
            here = posed if i == middle else pose(prepared, request, i)
            if here is None:
                samples, told = np.zeros((request.draws, *prepared.scan.shape), np.complex64), Told(empty=True)
            else:
                result = drawn(prepared, request, tools, i, here, part_of(progress, n, total))
                samples = here.images(result.samples).astype(np.complex64)
                told = _told(prepared, tools, i, here, result, samples, interval)
                if i == middle and (tried := trial(posed, tools, request.settings["seed"])) is not None:
                    told = replace(told, **asdict(tried))
            workshop.save(i, samples, told)
        found.append(told)
        progress((n + 1) / total)
    return found, interval


def middle_slice(prepared: PreparedScan, request: ScanRequest) -> tuple[int, Slice]:
    """Of the slices that hold data, the one nearest to the middle, posed.

    Raises:
        InputError: none holds data, or it cannot be used.
    """
    chosen = prepared.chosen
    for i in sorted(chosen, key=lambda i: abs(i - chosen[len(chosen) // 2])):
        if (posed := pose(prepared, request, i)) is not None:
            return i, posed
    raise InputError(prepared.scan.path, "all slices are zero", "measured k-space", "check how it was saved")


def drawn(
    prepared: PreparedScan, request: ScanRequest, tools: Tools, i: int, posed: Slice, progress: Progress
) -> Restoration:
    """The draws of a slice, in units of the prior.

    Raises:
        InputError: the sampler cannot do it.
    """
    p, device = posed.problem, tools.device
    chunk = max(1, PIXELS_AT_ONCE // int(np.prod(prepared.scan.shape)))
    chunks = -(-request.draws // chunk)
    calls = iter(range(1, 1 << 30))
    try:
        return restore(
            Problem(p.y.to(device), p.operator.to(device), p.noise),
            tools.prior,
            tools.sampler,
            num_samples=request.draws,
            chunk=chunk,
            seed=request.settings["seed"],
            file=(int(prepared.sha256[:8], 16) << 16) + i,
            callback=lambda step, steps, sigma, x: progress(next(calls) / (steps * chunks)),
        )
    except SamplerError as error:
        cure = "try --noise, or another --sampler"
        raise InputError(prepared.scan.path, f"slice {i}: {error}", "numbers that stay finite", cure) from error


def _told(
    prepared: PreparedScan, tools: Tools, i: int, posed: Slice, result: Restoration, draws: np.ndarray,
    interval: Interval,
) -> Told:  # fmt: skip
    block = None if posed.used is None else centre_block(torch.from_numpy(posed.used))
    return Told(
        empty=False,
        scale=posed.scale,
        data_fit=float(result.residual().double().square().mean().sqrt()),
        nfe=result.nfe,
        backward=result.backward,
        seconds=round(result.seconds, 3),
        kept=1.0 if posed.used is None else float(posed.used.mean()),
        centre=(0, 0) if block is None else tuple(s.stop - s.start for s in block),  # type: ignore[arg-type]
        surprise=surprise(tools.prior, result.mean[None], (prepared.sha256, i)),
        **_left_out(posed, draws, prepared.sigma),
        **_of_full_scan(posed, draws, interval),
    )


def _of_full_scan(posed: Slice, draws: np.ndarray, interval: Interval) -> dict[str, Any]:
    """The draws against the picture of all data, where those are complete."""
    if posed.truth is None:
        return {}
    truth = np.abs(posed.truth)
    mean, half = predicted(posed, draws, interval)
    found = {"psnr": peak_psnr(np.abs(draws).mean(0), truth), "shown_psnr": peak_psnr(mean, truth)}
    if half is not None:
        found["covered"] = float((np.abs(truth - mean) <= half)[body_of(truth, posed.noise)].mean())
    return found


def _left_out(posed: Slice, draws: np.ndarray, sigma: float) -> dict[str, Any]:
    """How well the draws predict what was measured and left out."""
    if posed.left_out is None or not posed.left_out.any():
        return {}
    y = posed.measured[:, posed.left_out]
    predicted = np.stack([predict(posed, x)[:, posed.left_out] for x in draws])
    error = np.abs(y - predicted.mean(0)) ** 2
    # Per real number: noise of the datum, spread of the draws, and the error of a mean of few draws.
    K = len(draws)
    spread = 0.0 if K < 2 else float((predicted.var(0, ddof=1)).mean() / 2) * (1 + 1 / K)
    return {
        "left_out_fit": float(np.sqrt(error.mean() / 2)) / sigma,
        "expected_fit": float(np.sqrt(sigma**2 + spread)) / sigma,
    }


def surprise(prior: Denoiser, x: Tensor, key: tuple[str, int]) -> float:
    """Mean squared error of denoising a finished picture, over that which the prior expects of pictures it knows.

    Noise of std `PROBE` is added to `x`, `(1, 2, y, x)`, and taken away by the prior, whose own covariance says how
    well it should do: the trace, by Hutchinson's estimate.
    """
    rng = generator(int(key[0][:8], 16), key[1])
    sigma = min(max(PROBE, prior.sigma_min), prior.sigma_max)
    n = torch.randn(x.shape, generator=rng, dtype=x.dtype).to(x.device)
    probe = torch.randn(x.shape, generator=rng, dtype=x.dtype).sign().to(x.device)
    with torch.no_grad():
        noisy = x + sigma * n
        error = float((prior(noisy, sigma) - x).double().square().mean())
        C: Covariance = prior.covariance(noisy, sigma)
        expected = float((probe * C(probe)).double().mean())
    return error / expected


def peak_psnr(data: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the largest value of the truth."""
    error = float(np.square(data - truth, dtype=np.float64).mean())
    return float(20 * np.log10(truth.max() / max(error**0.5, 1e-20)))

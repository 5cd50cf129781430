"""How well the noise level is estimated: from the picture alone, and by EM with the prior; on pictures set aside.

    python tests/bench/noise_level.py --data ../shared/data

One line per task, level and method: the estimate over the truth, its mean over the pictures in colour and in grey and
the extremes; and the rms of its logarithm, in percent. `denoise` uses `fit_denoising`, the others `fit_noise` with
one draw of 20 steps in each of six rounds. At the end, pictures that are texture throughout.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch
from photos import sampler_for
from set_aside import pictures
from skimage import data as photographs
from tasks import TASKS
from torch import Tensor

from operators.image import Mask
from operators.noise import Gaussian
from operators.random import Draws
from restore.em import fit_denoising, fit_noise
from restore.estimate import estimate_noise
from restore.priors.base import Denoiser
from restore.priors.store import load_prior
from restore.problem import Problem

SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2)
TEXTURES = ("grass", "gravel", "brick")
Estimates = Iterator[tuple[str, float, float]]  # method, estimate, seconds


def denoising(x: Tensor, sigma: float, file: int, prior: Denoiser) -> Estimates:
    y = Gaussian(sigma).sample(x, Draws(2024, file=file)) if sigma else x
    start = time.perf_counter()
    alone = estimate_noise(y[0].numpy())
    assert alone is not None
    yield "picture alone", alone, time.perf_counter() - start
    start = time.perf_counter()
    yield "EM", fit_denoising(y, prior, alone)[-1], time.perf_counter() - start


def restoring(task: str, x: Tensor, sigma: float, file: int, prior: Denoiser, samplers: list[str]) -> Estimates:
    A, noise = TASKS[task].operator(tuple(x.shape[1:]), file), Gaussian(sigma)
    y = noise.sample(A(x), Draws(2024, file=file))
    kept = (A.adjoint(torch.ones_like(y))[0, 0] > 0).numpy() if isinstance(A, Mask) else None
    start = time.perf_counter()
    alone = estimate_noise((A.adjoint(y) if isinstance(A, Mask) else y)[0].numpy(), kept)
    assert alone is not None
    yield "picture alone", alone, time.perf_counter() - start
    problem = Problem(y, A, Gaussian(alone))
    for name in samplers:
        start = time.perf_counter()
        sampler = sampler_for(TASKS[task].operator_name, name, ["sampler.steps=20"])
        found = fit_noise(problem, prior, sampler, rounds=6, num_samples=1)[-1]
        assert isinstance(found, Gaussian)
        yield f"EM, {name}", found.sigma, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with images/train/...")
    parser.add_argument("--prior", default="photos")
    parser.add_argument("--tasks", default="denoise,inpaint,deblur")
    parser.add_argument("--samplers", default="diffpir,moment_matching")
    parser.add_argument("--pictures", type=int, default=12, help="how many; every second one is grey")
    parser.add_argument("--crop", type=int, default=128)
    args = parser.parse_args()

    torch.set_num_threads(1)
    prior = load_prior(args.prior)
    truths = pictures(args.data, args.crop)
    half = len(truths) // 2
    chosen = [k for i in range(half) for k in (i, i + half)][: args.pictures]
    for task in args.tasks.split(","):
        for sigma in SIGMAS:
            found: dict[str, list[tuple[float, float]]] = {}
            for i in chosen:
                rows = (
                    denoising(truths[i], sigma, i, prior)
                    if task == "denoise"
                    else restoring(task, truths[i], sigma, i, prior, args.samplers.split(","))
                )
                for method, estimate, seconds in rows:
                    found.setdefault(method, []).append((estimate / sigma, seconds))
            for method, each in found.items():
                ratios, seconds = zip(*each, strict=True)
                wrong = 100 * math.sqrt(fmean(math.log(max(r, 1e-3)) ** 2 for r in ratios))
                print(
                    f"{task} {sigma:g}, {method}: {fmean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), "
                    f"off by {wrong:.1f} %, {fmean(seconds):.2f} s",
                    flush=True,
                )
    for name in TEXTURES:
        x = torch.from_numpy(getattr(photographs, name)())[None, None].float() / 255
        for sigma in (0.0, *SIGMAS):
            found = {method: estimate for method, estimate, _ in denoising(x[..., :192, :192], sigma, 0, prior)}
            print(f"{name}, noise {sigma:g}: " + ", ".join(f"{m} {e:.4f}" for m, e in found.items()), flush=True)


if __name__ == "__main__":
    main()

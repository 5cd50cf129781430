"""What the library costs over a plain torch loop: 100 steps of DDNM on a colour picture, a denoiser that costs nothing.

    python tests/bench/overhead.py                   # exit status 1 if a ratio is above 3

Both sides do the same mathematics (checked: the same random numbers give the same picture) and draw the same noise.
They run in turns and the median of each is taken.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from operators.image import Downsample, Mask
from operators.noise import Gaussian
from operators.random import generator
from restore.core import restore
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.ddnm import DDNM

SHAPE, STEPS, SIGMA_Y, ETA, LIMIT = (3, 256, 256), 100, 0.05, 0.85, 3.0


class Shrink(Denoiser):
    """The denoiser of white noise of unit variance."""

    shape, sigma_min, sigma_max = SHAPE, 0.001, 10.0

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return x / (1 + sigma**2)


def plain(y: Tensor, forward: Callable, pinv: Callable, s: float) -> Tensor:
    """DDNM+ for an operator with one singular value `s`, as one would write it in a script."""
    g = generator(0, 0, 0)
    ramp = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    sigmas = [*((10.0 ** (1 / 7) + ramp * (0.001 ** (1 / 7) - 10.0 ** (1 / 7))) ** 7).tolist(), 0.0]
    x = sigmas[0] * torch.randn(1, *SHAPE, generator=g)
    for sigma, tau in pairwise(sigmas):
        D = x / (1 + sigma**2)
        if tau == 0:
            return D
        n = torch.randn(1, *SHAPE, generator=g)
        ddim = tau * (ETA * n + math.sqrt(1 - ETA**2) * (x - D) / sigma)
        if s * tau >= SIGMA_Y:
            lam, fresh = 1.0, math.sqrt(tau**2 - (SIGMA_Y / s) ** 2)
        else:
            lam, fresh = s * tau * math.sqrt(1 - ETA**2) / SIGMA_Y, tau * ETA
        x = D + ddim + pinv(lam * (y - forward(D)) + forward(fresh * n - ddim))
    return x


def cases() -> dict[str, tuple]:
    kept = torch.rand(SHAPE[1:], generator=generator(1)) > 0.7
    index = kept.flatten().nonzero().flatten()

    def scatter(y: Tensor) -> Tensor:
        x = torch.zeros(1, 3, 256 * 256)
        x[..., index] = y
        return x.reshape(1, *SHAPE)

    return {
        "mask, 70 % missing": (Mask(kept, 3), lambda x: x.flatten(2)[..., index], scatter, 1.0),
        "2 x block average": (
            Downsample(SHAPE, 2, "block"),
            lambda x: F.avg_pool2d(x, 2),
            lambda y: F.interpolate(y, scale_factor=2, mode="nearest"),
            0.5,
        ),
    }


def main(repeats: int = 5) -> int:
    torch.set_num_threads(1)
    worst = 0.0
    for name, (A, forward, pinv, s) in cases().items():
        y = A(torch.rand(1, *SHAPE, generator=generator(2))) + SIGMA_Y * torch.randn(
            1, *A.oshape, generator=generator(3)
        )
        P, prior = Problem(y, A, Gaussian(SIGMA_Y)), Shrink()
        runs: dict[str, Callable[[], Tensor]] = {
            "restore": lambda P=P, prior=prior: restore(P, prior, DDNM(steps=STEPS, eta=ETA), num_samples=1).samples,
            "plain": lambda y=y, forward=forward, pinv=pinv, s=s: plain(y, forward, pinv, s),
        }
        torch.testing.assert_close(runs["restore"](), runs["plain"](), rtol=0, atol=1e-4)
        seconds: dict[str, list[float]] = {key: [] for key in runs}
        for _ in range(repeats):
            for key, run in runs.items():
                start = time.perf_counter()
                run()
                seconds[key].append(time.perf_counter() - start)
        ours, theirs = (statistics.median(seconds[key]) for key in runs)
        worst = max(worst, ours / theirs)
        print(
            f"{name:20s} restore {ours:.2f} s   plain torch {theirs:.2f} s   "
            f"ratio {ours / theirs:.2f} (limit {LIMIT:.0f})"
        )
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())

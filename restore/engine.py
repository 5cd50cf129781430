"""One picture through the whole path: task, tiles, draws, and the picture they are blended into."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from operators.noise import Gaussian
from operators.random import TileDraws
from restore.core import restore
from restore.estimate import estimate_noise
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.tasks import Denoise, Piece, Task, Unrestorable
from restore.tiles import Box, Canvas, Span, cut

# Pixels of context on either side of the seam between tiles: about half of what the shipped prior can see.
CONTEXT = 32
# Pixels in flight at a time: enough to keep a CPU busy, few enough for a laptop's memory.
PIXELS_AT_ONCE = 600_000

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Noise:
    """The noise level a problem is posed with, in [0, 1] units, and where it came from."""

    sigma: float
    estimated: bool


@dataclass(frozen=True)
class Outcome:
    """What came out of `run`.

    Attributes:
        canvas: samples, mean and spread; the caller closes it.
        data_fit: `||y - A x|| / (sigma sqrt(m))` over all tiles and draws: 1 for draws from the posterior. For a
            posterior mean it lies below.
        nfe: denoiser calls per draw and tile.
        backward: products with the denoiser's Jacobian per draw and tile.
        draws: how many; 0 where the mean took one call of the prior instead.
        tiles, seconds: how many, and how long.
    """

    canvas: Canvas
    data_fit: float
    nfe: float
    backward: float
    draws: int
    tiles: int
    seconds: float


def judge_noise(task: Task, limits: tuple[float, float] | None, smallest: float) -> Noise:
    """The noise level of the task's data, at least `smallest`.

    Args:
        limits: the values at which the file clips, if it does.

    Raises:
        Unrestorable: too few or too scattered pixels to judge by.
    """
    sigma = estimate_noise(task.data, task.kept, limits)
    if sigma is None:
        raise Unrestorable("too few pixels to estimate the noise from", "a noise level", "give it, as in --noise 0.02")
    return Noise(max(sigma, smallest), estimated=True)


def run(
    task: Task,
    sigma: float,
    prior: Denoiser,
    sampler: Sampler | None,
    *,
    draws: int,
    seed: int,
    file: int,
    device: torch.device,
    tile: int,
    spool: Path,
    progress: Progress = lambda done: None,
) -> Outcome:
    """Restore one picture.

    Args:
        task: what is to be done.
        sigma: noise std of `task.data`.
        prior: in [0, 1] units, on `device`.
        sampler: `None` for the mean of the posterior in one call of the prior, which exists for denoising only.
        draws: how many (1 without a sampler); draw `i` is determined by `(seed, file, i)` alone.
        tile: largest side of a tile, in pixels of the answer; a large kernel makes it larger.
        spool: folder for unfinished results.
        progress: called with the share of the work that is done.

    Raises:
        Unrestorable: a tile without data.
        SamplerError: the sampler cannot serve this problem, or met NaN.
    """
    assert sampler is not None or isinstance(task, Denoise)
    rows, columns = _grid(task, tile)
    canvas = Canvas(task.shape, draws, spool)
    start, done, total = time.perf_counter(), 0, len(rows) * len(columns)
    squares = weight = nfe = backward = 0.0
    try:
        for i, row in enumerate(rows):
            for column in columns:
                piece = task.piece(Box(row.start, column.start, len(row.window), len(column.window)))
                height, width = piece.operator.ishape[-2:]
                problem = Problem(piece.y.to(device), piece.operator.to(device), Gaussian(sigma))
                if sampler is None:
                    with torch.no_grad():
                        samples = prior(problem.y, sigma)
                    nfe += 1
                else:
                    result = restore(
                        problem,
                        prior,
                        sampler,
                        num_samples=draws,
                        chunk=_chunk(piece),
                        seed=seed,
                        file=file,
                        draws=partial(TileDraws, origin=piece.origin, window=(height, width)),
                        callback=_Steps(progress, done / total, 1 / total, math.ceil(draws / _chunk(piece))),
                    )
                    samples, nfe, backward = result.samples, nfe + result.nfe, backward + result.backward
                m = problem.y.numel()
                squares += m * float(problem.data_fit(samples).double().square().mean())
                weight += m
                canvas.add(samples[(..., *piece.inside)].cpu().numpy(), row, column)
                done += 1
                progress(done / total)
            canvas.finish_above(rows[i + 1].start if i + 1 < len(rows) else task.shape[1])
    except BaseException:
        canvas.close()
        raise
    return Outcome(
        canvas=canvas,
        data_fit=(squares / weight) ** 0.5,
        nfe=nfe / total,
        backward=backward / total,
        draws=0 if sampler is None else draws,
        tiles=total,
        seconds=time.perf_counter() - start,
    )


def _grid(task: Task, tile: int) -> tuple[list[Span], list[Span]]:
    overlap = 3 * (CONTEXT + task.reach)
    rows, columns = (cut(n, max(tile, 2 * (overlap + task.factor)), overlap, task.factor) for n in task.shape[1:])
    return rows, columns


def _chunk(piece: Piece) -> int:
    """Draws of a tile to run together."""
    height, width = piece.operator.ishape[-2:]
    return max(1, PIXELS_AT_ONCE // (height * width))


class _Steps:
    """Turns the steps of one tile's chunks into a share of all the work."""

    def __init__(self, progress: Progress, before: float, share: float, chunks: int):
        self.progress, self.before, self.share, self.chunks, self.calls = progress, before, share, chunks, 0

    def __call__(self, step: int, steps: int, sigma: float, x: torch.Tensor) -> None:
        self.calls += 1
        self.progress(self.before + self.share * self.calls / (steps * self.chunks))

"""One picture through the whole path: task, tiles, draws, and the picture they are blended into."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from operators.noise import Gaussian
from operators.random import TileDraws
from restore.core import restore
from restore.em import fit_denoising
from restore.estimate import estimate_noise
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.base import Sampler
from restore.structured import apart, joint
from restore.tasks import Denoise, Piece, Task, Unrestorable
from restore.tiles import Box, Canvas, Span, cut

# Pixels of context on either side of the seam between tiles: about half of what the shipped prior can see.
CONTEXT = 32
# Pixels in flight at a time: enough to keep a CPU busy, few enough for a laptop's memory.
PIXELS_AT_ONCE = 600_000
# Side of the window of a picture that its noise is judged by: 1 % of the level for a second's work.
JUDGED = 192

Progress = Callable[[float], None]


def part_of(progress: Progress, n: int, total: int) -> Progress:
    """The progress of the `n`-th of `total` parts of a work."""
    return lambda share: progress((n + share) / total)


@dataclass(frozen=True)
class Noise:
    """The noise level a problem is posed with, in [0, 1] units, and where it came from; in words if not white."""

    sigma: float
    estimated: bool
    words: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came out of `run`.

    Attributes:
        canvas: samples, mean and spread; the caller closes the outcome.
        data_fit: `||y - A x|| / (sigma sqrt(m))` over all tiles and draws: 1 for draws from the posterior. For a
            posterior mean it lies below.
        nfe: denoiser calls per draw and tile.
        backward: products with the denoiser's Jacobian per draw and tile.
        draws: how many; 0 where the mean took one call of the prior instead.
        tiles, seconds: how many, and how long.
        noise: the mean of the noise that was separated, if it has a prior of its own.
    """

    canvas: Canvas
    data_fit: float
    nfe: float
    backward: float
    draws: int
    tiles: int
    seconds: float
    noise: Canvas | None = None

    def close(self) -> None:
        for canvas in (self.canvas, self.noise):
            if canvas is not None:
                canvas.close()


def judge_noise(
    task: Task, limits: tuple[float, float] | None, smallest: float, prior: Denoiser | None, device: torch.device
) -> Noise:
    """The noise level of the task's data, at least `smallest`: from the picture alone, and for denoising then by EM
    with the prior. For other tasks the picture alone knows better (`tests/bench/noise_level.py`): draws of a learnt
    prior fit holes too closely or too loosely, and what was blurred or averaged hides no noise anyway.

    Args:
        limits: the values at which the file clips, if it does.
        prior: `None` where noise has a structure, which EM would count as white.

    Raises:
        Unrestorable: too few or too scattered pixels to judge by.
    """
    sigma = estimate_noise(task.data, task.kept, limits)
    if sigma is None:
        raise Unrestorable("too few pixels to estimate the noise from", "a noise level", "give it, as in --noise 0.02")
    window = _judged_by(task.data, limits) if isinstance(task, Denoise) else None
    if prior is not None and window is not None and prior.accepts(window.shape):
        found = fit_denoising(torch.from_numpy(window)[None].to(device), prior, sigma)[-1]
        if sigma / 4 < found < 4 * sigma:  # a denoiser that is no posterior mean leads down to nothing, or far up
            sigma = found
    return Noise(max(sigma, smallest), estimated=True)


def _judged_by(data: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray | None:
    """The window of the picture with the fewest clipped pixels, the middle one if it is as good as any: `(C, h, w)`;
    `None` where too much is cut off everywhere for noise to be white."""
    tops, lefts = (
        [(n - side) // 2, *range(0, n - side + 1, side)] for n in data.shape[1:] for side in [min(n, JUDGED)]
    )
    windows = [data[:, top : top + JUDGED, left : left + JUDGED] for top in tops for left in lefts]
    if limits is None:
        return windows[0].copy()
    shares = [float(np.mean((w <= limits[0]) | (w >= limits[1]))) for w in windows]
    least = min(shares)
    return windows[shares.index(least)].copy() if least < 0.01 else None


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
    noise_prior: Denoiser | None = None,
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
        noise_prior: for denoising with a sampler: of structured noise, in the units of the data; `sigma` is then that
            of the white part.

    Raises:
        Unrestorable: a tile without data.
        SamplerError: the sampler cannot serve this problem, or met NaN.
    """
    assert isinstance(task, Denoise) or (sampler is not None and noise_prior is None)
    assert sampler is not None or noise_prior is None
    rows, columns = _grid(task, tile)
    canvas = Canvas(task.shape, draws, spool)
    separated = None if noise_prior is None else Canvas(task.data.shape, 1, spool)
    start, done, total = time.perf_counter(), 0, len(rows) * len(columns)
    squares = weight = nfe = backward = 0.0
    try:
        for i, row in enumerate(rows):
            for column in columns:
                piece = task.piece(Box(row.start, column.start, len(row.window), len(column.window)))
                height, width = piece.operator.ishape[-2:]
                problem = Problem(piece.y.to(device), piece.operator.to(device), Gaussian(sigma))
                asked, known = (problem, prior) if noise_prior is None else joint(problem, prior, noise_prior)
                if sampler is None:
                    with torch.no_grad():
                        samples = prior(problem.y, sigma)
                    nfe += 1
                else:
                    result = restore(
                        asked,
                        known,
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
                squares += m * float(asked.data_fit(samples).double().square().mean())
                weight += m
                if separated is not None:
                    x, n = apart(result)
                    samples = x.samples
                    separated.add(n.mean[None].cpu().numpy(), row, column)
                canvas.add(samples[(..., *piece.inside)].cpu().numpy(), row, column)
                done += 1
                progress(done / total)
            for board in (canvas, separated):
                if board is not None:
                    board.finish_above(rows[i + 1].start if i + 1 < len(rows) else task.shape[1])
    except BaseException:
        canvas.close()
        if separated is not None:
            separated.close()
        raise
    return Outcome(
        canvas=canvas,
        data_fit=(squares / weight) ** 0.5,
        nfe=nfe / total,
        backward=backward / total,
        draws=0 if sampler is None else draws,
        tiles=total,
        seconds=time.perf_counter() - start,
        noise=separated,
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

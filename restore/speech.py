"""From a person's recording to draws, segment after segment in bounded memory.

The work is done at 16 kHz on frames of frequencies, in the units of the prior; the rest of a recording, above 8 kHz,
follows the band below it. Segments overlap, see the same random numbers there, and fade into each other; those that
are finished lie in a hidden folder beside the output, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from operators.coloured import Coloured, Stationary, Varying
from operators.diagonal import Diagonal
from operators.noise import Censored, Gaussian, NoiseModel
from operators.random import TileDraws
from restore.core import restore
from restore.em import fit_noise
from restore.engine import PIXELS_AT_ONCE, Progress, part_of
from restore.errors import InputError
from restore.jobs import Tools
from restore.priors.base import Beyond, Rescaled
from restore.priors.enhancer import Enhancer, NoiseHeard
from restore.problem import Problem
from restore.samplers.base import SamplerError
from restore.samplers.ddrm import DDRM
from restore.scan_workshop import Workshop
from restore.speech_damage import HOP, RATE, SpeechRequest
from restore.speech_pose import (
    REDUNDANCY,
    few_sounds,
    local,
    noise_as_heard,
    noise_between_words,
    noise_from_moment_to_moment,
    pose,
)
from restore.speech_prepare import SILENCE, PreparedSpeech
from restore.tiles import Span

# Draws by which the noise between words is found, one after the other, each in the noise that the one before left.
LISTENINGS = 2
# Draws in each round of EM, and of the noise that an enhancer hears.
EM_DRAWS = 2
# By which these are drawn; `configs/recipe/enhancer_ddrm.yaml` is the same for an enhancer by itself.
HEARING = DDRM(steps=7)


@dataclass(frozen=True)
class Told:
    """What is known of a finished segment.

    Attributes:
        empty: it is silent.
        data_fit, nfe, backward, seconds: as elsewhere; the fit is that of the draws, root mean square, if the noise is
            known or found.
        sigma: of the noise, root mean square over the frames (or of the samples), in units of full scale.
    """

    empty: bool
    data_fit: float | None = None
    nfe: float = 0.0
    backward: float = 0.0
    seconds: float = 0.0
    sigma: float = 0.0


class Segments(Workshop):
    """A `Workshop` of segments: draws `(sample, channel, t)` at 16 kHz, full scale being 1."""

    def told(self, i: int) -> Told | None:  # type: ignore[override]
        path = self._path(i, ".json")
        return Told(**json.loads(path.read_text())) if path.exists() else None


def execute_speech(
    prepared: PreparedSpeech, request: SpeechRequest, tools: Tools, segments: Segments, progress: Progress
) -> list[Told]:
    """Restore the segments that are not finished yet, one after another; what is told of all.

    Raises:
        InputError: the sampler cannot do it.
    """
    total, found = len(prepared.spans), []
    for i, span in enumerate(prepared.spans):
        told = segments.told(i)
        if told is None:
            samples, told = _restored(prepared, request, tools, span, part_of(progress, i, total))
            segments.save(i, samples, told)  # type: ignore[arg-type]
        found.append(told)
        progress((i + 1) / total)
    return found


def _restored(
    prepared: PreparedSpeech, request: SpeechRequest, tools: Tools, span: Span, progress: Progress
) -> tuple[np.ndarray, Told]:
    """Draws of all channels of a segment, `(sample, channel, t)`, and what is told of them."""
    count = 1 if prepared.copies else len(prepared.low)
    told, parts = [], []
    for c in range(count):
        samples, one = _channel(prepared, request, tools, span, c, part_of(progress, c, count))
        parts.append(samples)
        told.append(one)
    out = np.stack(parts, 1)
    if prepared.copies:
        out = np.repeat(out, len(prepared.low), 1)
    full = [t for t in told if not t.empty]
    if not full:
        return out, Told(empty=True)
    fits = [t.data_fit**2 for t in full if t.data_fit is not None]
    return out, Told(
        empty=False,
        data_fit=float(np.mean(fits)) ** 0.5 if fits else None,
        nfe=float(np.mean([t.nfe for t in full])),
        backward=float(np.mean([t.backward for t in full])),
        seconds=round(sum(t.seconds for t in full), 3),
        sigma=float(np.mean([t.sigma**2 for t in full])) ** 0.5,
    )


def _channel(
    prepared: PreparedSpeech, request: SpeechRequest, tools: Tools, span: Span, c: int, progress: Progress
) -> tuple[np.ndarray, Told]:
    scale, start, stop = float(prepared.scales[c]), span.start, span.stop
    before = 0 if prepared.damage.response is None else len(prepared.damage.response) - 1
    audio = _window(prepared.low[c], start, stop)
    if np.sqrt(np.square(audio).mean()) < SILENCE:
        return np.zeros((request.draws, stop - start), np.float32), Told(empty=True)
    y = torch.from_numpy(audio / scale)[None, None]  # (1, 1, T)
    problem, frames = pose(prepared, request, y, span, c)
    problem = Problem(problem.y.to(tools.device), problem.operator.to(tools.device), problem.noise)
    prior, Y = tools.prior, problem.y
    if isinstance(prior, Enhancer):
        prior, problem = _enhancing(prior, Y)
    key = int(prepared.sha256[:8], 16)
    chunk = max(1, PIXELS_AT_ONCE // (frames.oshape[1] * frames.oshape[2]))
    chunks = -(-request.draws // chunk)
    calls = iter(range(1, 1 << 30))
    seed, nfe, seconds = request.settings["seed"], 0.0, 0.0
    try:
        if isinstance(problem.noise, Stationary):
            problem, nfe, seconds = _with_noise_found(problem, tools, request.settings["em_rounds"], seed)
        result = restore(
            problem,
            prior,
            tools.sampler,
            num_samples=request.draws,
            chunk=chunk,
            seed=seed,
            file=key,
            draws=partial(TileDraws, origin=(0, (start - before) // HOP), window=(frames.oshape[1], frames.oshape[2])),
            callback=lambda step, steps, sigma, x: progress(next(calls) / (steps * chunks)),
        )
    except SamplerError as error:
        cure = "try another --sampler" + (", or --noise" if not isinstance(prior, NoiseHeard) else "")
        where = f"{start / RATE:.1f} to {stop / RATE:.1f} s"
        raise InputError(prepared.job.source, f"{where}: {error}", "numbers that stay finite", cure) from error
    fit: float | None
    sigma, speech = _sigma(problem), result.samples
    if isinstance(prior, NoiseHeard):
        sigma, fit, speech = _rms(result.mean), None, Y - result.samples
    elif isinstance(problem.noise, Varying):  # all in all: one by one, the faintest would decide
        fit = _rms(problem.y - result.samples) / sigma
    else:
        redundant = problem.operator.oshape == frames.oshape
        fit = float(result.residual().double().square().mean().sqrt()) * math.sqrt(REDUNDANCY if redundant else 1)
    drawn = frames.adjoint(speech)[:, 0, before:].cpu().numpy() * scale
    return drawn.astype(np.float32), Told(
        empty=False,
        data_fit=fit,
        nfe=result.nfe + nfe / request.draws,
        backward=result.backward,
        seconds=result.seconds + seconds,
        sigma=sigma * scale,
    )


def _enhancing(enhancer: Enhancer, Y: Tensor) -> tuple[NoiseHeard, Problem]:
    """What to draw the noise from: a prior that is the posterior, and that nothing else was measured."""
    return enhancer.noise_in(Y), Problem(0 * Y, Diagonal(0 * Y[0]), Gaussian(1.0))


def _with_noise_found(problem: Problem, tools: Tools, rounds: int, seed: int) -> tuple[Problem, float, float]:
    """The problem with its noise as it is between words, or by EM or a prior on noise if there are any; the calls of
    the prior that took, and the seconds.

    A prior tells how strong the noise is from moment to moment: by a draw of it, to which the speech is a noise of the
    variances of a draw; an enhancer by draws of the noise.
    """
    start, y, A = time.perf_counter(), problem.y, problem.operator
    assert isinstance(problem.noise, Stationary)
    draw = partial(restore, sampler=tools.sampler, num_samples=1, seed=seed)
    between = Stationary(problem.noise.spectrum.to(y.device))
    for _ in range(LISTENINGS):
        first, x = between, draw(Problem(y, A, between), tools.prior).samples
        between = noise_between_words(y, x, first)
    near = noise_from_moment_to_moment(y, x, first, between)
    found: NoiseModel = near
    nfe = LISTENINGS * tools.sampler.steps
    if isinstance(tools.noise_prior, Enhancer):
        heard, unmeasured = _enhancing(tools.noise_prior, y)
        draws = restore(unmeasured, heard, HEARING, num_samples=EM_DRAWS, seed=seed).samples
        found = noise_as_heard(draws, near)
        nfe += EM_DRAWS * HEARING.steps
    elif tools.noise_prior is not None:
        prior = Beyond(Rescaled(tools.noise_prior, 1 / _sigma(Problem(y, A, between))), tools.prior.sigma_max)
        found = local(draw(Problem(y, A, local(x)), prior).samples)
        nfe += tools.sampler.steps
    elif rounds:
        start_of_em = Problem(y, A, few_sounds(between, y.shape[-1], seed))
        found = fit_noise(start_of_em, tools.prior, tools.sampler, rounds=rounds, num_samples=EM_DRAWS, seed=seed)[-1]
        nfe += rounds * EM_DRAWS * tools.sampler.steps
    return Problem(y, A, found), nfe, time.perf_counter() - start


def _rms(frames: Tensor) -> float:
    """Of the audio that has these frames."""
    return math.sqrt(REDUNDANCY * float(frames.double().square().mean()))


def _sigma(problem: Problem) -> float:
    """Of the noise, per sample, in units of the prior."""
    if isinstance(problem.noise, Coloured):
        return float(problem.noise.variance.mean().sqrt())
    assert isinstance(problem.noise, Gaussian | Censored)
    return problem.noise.sigma


def _window(x: np.ndarray, start: int, stop: int) -> np.ndarray:
    """`x[start:stop]`, zero beyond its ends, in memory."""
    a, b = min(max(start, 0), len(x)), min(max(stop, 0), len(x))
    return np.pad(np.asarray(x[a:b], np.float32), (a - start, stop - b))

"""From a person's recording to draws: what is missing or noisy in it, and segment after segment in bounded memory.

The work is done at 16 kHz on frames of frequencies, in the units of the prior; the rest of a recording, above 8 kHz,
follows the band below it. Segments overlap, see the same random numbers there, and fade into each other; those that
are finished lie in a hidden folder beside the output, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base import Identity
from operators.coloured import NMF
from operators.image import Mask
from operators.noise import Gaussian
from operators.random import Draws, TileDraws
from operators.speech import Gap, Reverb
from operators.stft import ISTFT, STFT
from restore.core import restore
from restore.em import fit_noise
from restore.engine import PIXELS_AT_ONCE, Progress, part_of
from restore.errors import InputError
from restore.jobs import Job, Tools, sha256
from restore.modalities.resampling import Resampler
from restore.modalities.speech import BLOCK, Recording, read_recording
from restore.problem import Problem
from restore.samplers.base import Sampler, SamplerError
from restore.scan_workshop import Workshop
from restore.tiles import Span, cut

TASKS = ("denoise", "gap", "declip", "bandwidth", "dereverb")
# Those of which a draw is the answer: a mean of draws has nothing where they differ in phase.
SINGLE = ("gap", "bandwidth")
RATE, WINDOW, HOP = 16_000, 510, 128
# Frames of context on either side of the seam between segments.
CONTEXT = 32
# Below this rms, of full scale, there is nothing but rounding.
SILENCE = 1e-5
# A mean that is a smaller share of the peak is that of the sound: taken off, digital silence would be none.
OFFSET = 0.01
# Noise of what counts as measured, in units of the speech, where none is given.
EXACT = 1e-3
# Numbers in frames for each sample: the noise of overlapping frames is the same noise.
REDUNDANCY = 2 * (WINDOW // 2 + 1) / HOP
# Share of the frames that are the quietest.
QUIET = 0.1
# Noises by EM: sounds they are made of, rounds, steps of the sampler in each, draws in each.
RANK, ROUNDS, STEPS, EM_DRAWS = 4, 1, 10, 2
# A gap is silence for at least so long and at most so long, in seconds.
SHORTEST, LONGEST = 0.002, 0.3
# A clipped recording has at least so many samples in a row at its largest value, again and again.
FLAT, TIMES = 3, 8
# Speech at least so far below its loudest frequency is no speech: dB.
EMPTY = -60.0
# A room response is cut where what is left of it is weaker than this, in dB, and after so many seconds.
TAIL, LONGEST_TAIL = -40.0, 1.0


@dataclass(frozen=True)
class SpeechRequest:
    """What is to be done to every recording of a command, as plain data; the attributes are the command's options.

    Attributes:
        task: one of `TASKS`.
        noise: standard deviation of white noise, full scale being 1; `None` finds the noise, or takes next to none.
        gaps: beginnings and ends in seconds; empty: where there is digital silence, or NaN.
        cutoff: Hz, for bandwidth; `None` finds it.
        clip: the level at which the recording is clipped; `None` finds it.
        response: a recording of the room, for dereverb.
        draws: how many.
        extras: whether draws, spread and panel are written.
    """

    settings: dict[str, Any]
    task: str = "denoise"
    noise: float | None = None
    gaps: tuple[tuple[float, float], ...] = ()
    cutoff: float | None = None
    clip: float | None = None
    response: str | None = None
    draws: int = 4
    extras: bool = False
    verb: str = "speech"

    def describe(self) -> dict[str, Any]:
        """All that decides the result besides the recording, as plain data; files by their contents."""
        told = {} if self.response is None else {"response_sha256": sha256(Path(self.response))}
        return {**asdict(self), **told}


@dataclass(frozen=True, eq=False)
class Damage:
    """What is wrong with a recording.

    Attributes:
        words: the same, for people.
        missing: of samples `a` to `b` of the file, `(C, b - a)` bool: which were not measured.
        level: beyond which those lie that were clipped.
        cutoff: Hz, up to which it was measured.
        response: of the room, at 16 kHz, its direct sound first.
    """

    words: str
    missing: Callable[[int, int], np.ndarray] | None = None
    level: float | None = None
    cutoff: float | None = None
    response: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class PreparedSpeech:
    """A recording that was read, judged and found fit.

    Attributes:
        low: the recording at 16 kHz, `(C, T)`, without its offsets; zeros where samples are missing.
        offsets, scales: of each channel: its mean; what a one of the prior is.
        copies: whether all channels are the same.
        spans: the segments of `low`.
    """

    job: Job
    recording: Recording
    damage: Damage
    low: np.ndarray
    offsets: np.ndarray
    scales: np.ndarray
    copies: bool
    spans: list[Span]
    sha256: str
    notes: tuple[str, ...]

    @property
    def rate(self) -> int:
        """Of the result: more than that of the recording where its band is extended."""
        return max(self.recording.rate, RATE) if self.damage.cutoff is not None else self.recording.rate

    @property
    def down(self) -> Resampler:
        return Resampler(self.recording.rate, RATE)

    @property
    def up(self) -> Resampler:
        return Resampler(RATE, self.rate)


@dataclass(frozen=True)
class Told:
    """What is known of a finished segment.

    Attributes:
        empty: it is silent.
        data_fit, nfe, backward, seconds: as elsewhere; the fit is that of the draws, root mean square.
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


def prepare_speech(job: Job, request: SpeechRequest, tools: Tools) -> PreparedSpeech:
    """Read a recording and judge it.

    Raises:
        InputError: it cannot be used, or nothing of what the task mends is found in it.
    """
    recording = read_recording(job.source)
    notes = [*recording.notes]
    damage = _damage(recording, request)
    _check_finite(recording, request)
    if not tools.prior.accepts((2, WINDOW // 2 + 1, 64)):
        wanted = f"{tools.prior.shape} for this prior, two channels for complex frames"
        raise InputError(job.source, f"frames of {WINDOW // 2 + 1} frequencies", wanted, "choose another with --prior")
    offsets, copies, full = _looked_at(recording)
    if offsets.any():
        notes.append(f"an offset of {offsets[np.abs(offsets).argmax()]:.2g} is taken off for the work, and put back")
    if full > 1e-4 and request.task == "denoise":
        notes.append(f"{100 * full:.2g} % of the samples are at the largest value: --task declip mends clipping")
    if copies:
        notes.append("all channels are the same: restored as one")
    if recording.rate > RATE:
        notes.append(f"above {RATE // 2000} kHz nothing is drawn: what is there follows the loudness of the band below")
    low = _resampled(recording, damage, offsets)
    scales = np.array([_scale(channel) for channel in low])
    frames = -(-low.shape[1] // HOP)
    tile = max(request.settings["tile"], 2 * (3 * CONTEXT + 1))
    spans = cut(frames * HOP, tile * HOP, 3 * CONTEXT * HOP, HOP)
    return PreparedSpeech(
        job, recording, damage, low, offsets, scales, copies, spans, sha256(job.source), tuple(notes)
    )  # fmt: skip


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
    fit = float(np.mean([t.data_fit**2 for t in full if t.data_fit is not None])) ** 0.5
    return out, Told(
        empty=False,
        data_fit=fit,
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
    key = int(prepared.sha256[:8], 16)
    chunk = max(1, PIXELS_AT_ONCE // (frames.oshape[1] * frames.oshape[2]))
    chunks = -(-request.draws // chunk)
    calls = iter(range(1, 1 << 30))
    seed, nfe, seconds = request.settings["seed"], 0.0, 0.0
    try:
        if isinstance(problem.noise, NMF):
            problem, nfe, seconds = _with_fitted_noise(problem, tools, seed)
        result = restore(
            problem,
            tools.prior,
            tools.sampler,
            num_samples=request.draws,
            chunk=chunk,
            seed=seed,
            file=key,
            draws=partial(TileDraws, origin=(0, (start - before) // HOP), window=(frames.oshape[1], frames.oshape[2])),
            callback=lambda step, steps, sigma, x: progress(next(calls) / (steps * chunks)),
        )
    except SamplerError as error:
        cure = "try --noise, or another --sampler"
        where = f"{start / RATE:.1f} to {stop / RATE:.1f} s"
        raise InputError(prepared.job.source, f"{where}: {error}", "numbers that stay finite", cure) from error
    fit = float(result.residual().double().square().mean().sqrt())
    if problem.operator.oshape == frames.oshape:
        fit *= math.sqrt(REDUNDANCY)
    drawn = frames.adjoint(result.samples)[:, 0, before:].cpu().numpy() * scale
    return drawn.astype(np.float32), Told(
        empty=False,
        data_fit=fit,
        nfe=result.nfe + nfe / request.draws,
        backward=result.backward,
        seconds=result.seconds + seconds,
        sigma=_sigma(problem) * scale,
    )


def pose(prepared: PreparedSpeech, request: SpeechRequest, y: Tensor, span: Span, c: int) -> tuple[Problem, STFT]:
    """The problem of one channel of a segment, and the transform whose frames its signal is.

    Args:
        y: the segment in units of the prior, `(1, 1, T)`.
    """
    damage, length = prepared.damage, y.shape[-1]
    frames = STFT(length, WINDOW, HOP)
    sigma = (request.noise or EXACT * float(prepared.scales[c])) / float(prepared.scales[c])
    if damage.response is not None:
        h = torch.from_numpy(damage.response)
        frames = STFT(length + len(h) - 1, WINDOW, HOP)
        white = Gaussian(sigma if request.noise else max(sigma, _floor(y)))
        return Problem(y, Reverb(h, frames.length, "valid") @ ISTFT(frames.length, WINDOW, HOP), white), frames
    if damage.missing is not None:
        gaps = _runs(_missing_low(prepared, span, c))
        A = Gap((1, length), gaps) @ ISTFT(length, WINDOW, HOP) if gaps else ISTFT(length, WINDOW, HOP)
        return Problem(A.forward(frames.forward(y)), A, Gaussian(sigma)), frames
    Y = frames.forward(y)
    if damage.cutoff is not None:
        known = torch.arange(Y.shape[2]) < int(damage.cutoff / (RATE / 2) * Y.shape[2])
        band = Mask(known[:, None].expand(Y.shape[2:]).clone(), channels=2)
        return Problem(band.forward(Y), band, Gaussian(sigma)), frames
    if request.noise is not None:
        return Problem(Y, Identity(frames.oshape), Gaussian(sigma)), frames
    return Problem(Y, Identity(frames.oshape), first_noise(Y, request.settings["seed"])), frames


def first_noise(Y: Tensor, seed: int) -> NMF:
    """Where EM begins, for frames `(1, 2, F, N)`: noise as strong in every frame as it is in the quietest."""
    power = Y.double().square().mean((0, 1))  # (F, N)
    loud = power.mean(0)
    heard = power[:, loud > 1e-10 * loud.max()]  # digital silence tells nothing of the noise
    floor = heard.quantile(QUIET, dim=1) / -math.log1p(-QUIET)  # as that of the power of Gaussian noise, to its mean
    like = floor.sqrt()[:, None].expand(power.shape)[None, None].expand(1, 2, -1, -1)
    return NMF.start(like, RANK, Draws(seed), redundancy=REDUNDANCY)


def _with_fitted_noise(problem: Problem, tools: Tools, seed: int) -> tuple[Problem, float, float]:
    """The problem with the noise that EM finds, the calls of the prior that took, and the seconds."""
    start = time.perf_counter()
    few: Sampler = replace(tools.sampler, steps=min(STEPS, tools.sampler.steps))
    found = fit_noise(problem, tools.prior, few, rounds=ROUNDS, num_samples=EM_DRAWS, seed=seed)[-1]
    calls = ROUNDS * EM_DRAWS * few.steps
    return Problem(problem.y, problem.operator, found), calls, time.perf_counter() - start


def _sigma(problem: Problem) -> float:
    """Of the noise, per sample, in units of the prior."""
    if isinstance(problem.noise, NMF):
        return float(problem.noise.variance.mean().sqrt())
    assert isinstance(problem.noise, Gaussian)
    return problem.noise.sigma


def _floor(y: Tensor) -> float:
    """The rms of the quietest tenth of the frames."""
    blocks = y[..., : y.shape[-1] // HOP * HOP].reshape(-1, HOP).square().mean(1)
    return float(blocks[blocks > 0].quantile(0.1).sqrt()) if bool((blocks > 0).any()) else 0.0


def _window(x: np.ndarray, start: int, stop: int) -> np.ndarray:
    """`x[start:stop]`, zero beyond its ends, in memory."""
    a, b = min(max(start, 0), len(x)), min(max(stop, 0), len(x))
    return np.pad(np.asarray(x[a:b], np.float32), (a - start, stop - b))


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Beginnings and ends of what is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _missing_low(prepared: PreparedSpeech, span: Span, c: int) -> np.ndarray:
    """Of the samples of a segment at 16 kHz, those that missing ones of the file have a part in."""
    rate, missing = prepared.recording.rate, prepared.damage.missing
    assert missing is not None
    reach = 0 if rate == RATE else 2 * max(1, round(rate / RATE))
    a, b = (round(n * rate / RATE) for n in (span.start, span.stop))
    a, b = max(0, a - reach), min(prepared.recording.length, b + reach)
    flags = np.zeros(span.stop - span.start, bool)
    for first, last in _runs(missing(a, b)[c]):
        low = int((a + first - reach) * RATE / rate) - span.start
        high = -int(-(a + last + reach) * RATE // rate) - span.start
        flags[max(low, 0) : max(high, 0)] = True
    if flags.all():
        middle = len(flags) // 2
        flags[middle : middle + 1] = False
    return flags


def _looked_at(recording: Recording) -> tuple[np.ndarray, bool, float]:
    """The mean of each channel where it is no small part of the peak, else zero; whether all channels are the same; the
    share of samples at the peak."""
    total, copies, peak = np.zeros(recording.channels), recording.channels > 1, 0.0
    for _, x in recording.blocks():
        x = np.nan_to_num(x, posinf=0, neginf=0)
        total += x.sum(0, dtype=np.float64)
        copies = copies and bool((x == x[:, :1]).all())
        peak = max(peak, float(np.abs(x).max()))
    at = sum(int((np.abs(x) >= peak).sum()) for _, x in recording.blocks()) if peak else 0
    mean = total / recording.length
    return np.where(np.abs(mean) > OFFSET * peak, mean, 0.0), copies, at / recording.samples.size


def _check_finite(recording: Recording, request: SpeechRequest) -> None:
    """Raises InputError for NaN that is not a gap."""
    bad = sum(int((~np.isfinite(x)).sum()) for _, x in recording.blocks())
    if bad and request.task != "gap":
        cure = "--task gap fills them in"
        raise InputError(recording.path, f"{bad} samples are NaN or infinite", "finite samples", cure)
    if bad == recording.samples.size:
        raise InputError(recording.path, "all samples are NaN or infinite", "a recording", "check how it was saved")


def _resampled(recording: Recording, damage: Damage, offsets: np.ndarray) -> np.ndarray:
    """The recording at 16 kHz without its offsets, `(C, T)` float32, in a nameless file mapped into memory."""
    down = Resampler(recording.rate, RATE)
    length = down.length(recording.length)
    raw = tempfile.TemporaryFile()  # noqa: SIM115
    low = np.memmap(raw, np.float32, "w+", shape=(recording.channels, length))

    def read(a: int, b: int) -> np.ndarray:
        x = recording.read(a, b) - offsets[:, None].astype(np.float32)
        if damage.missing is not None and b > a:
            x = _bridged(np.nan_to_num(x), damage.missing(a, b))
        return x

    for a in range(0, length, BLOCK):
        b = min(a + BLOCK, length)
        low[:, a:b] = down(read, recording.length, a, b)
    return low


def _bridged(x: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """`(C, t)` with straight lines over what is missing, so that it does not ring where the rate changes."""
    for row, gone in zip(x, missing, strict=True):
        if gone.any() and not gone.all():
            there = np.flatnonzero(~gone)
            row[gone] = np.interp(np.flatnonzero(gone), there, row[there])
        elif gone.all():
            row[:] = 0
    return x


def _scale(x: np.ndarray) -> float:
    """What a one of the prior's units is: the rms of the speech, pauses included, that of the noise taken off."""
    blocks = np.square(np.asarray(x[: len(x) // HOP * HOP], np.float64).reshape(-1, HOP)).mean(1)
    heard = blocks[blocks > SILENCE**2]
    if heard.size == 0:
        return max(float(np.sqrt(np.square(np.asarray(x), dtype=np.float64).mean())), SILENCE)
    power, noise = heard.mean(), np.quantile(heard, 0.1)
    return float(np.sqrt(power - min(noise, 0.9 * power)))


def _damage(recording: Recording, request: SpeechRequest) -> Damage:
    """Raises InputError where there is nothing to mend."""
    if request.task == "gap":
        return _gaps(recording, request.gaps)
    if request.task == "declip":
        return _clipping(recording, request.clip)
    if request.task == "bandwidth":
        return _band(recording, request.cutoff)
    if request.task == "dereverb":
        assert request.response is not None
        h = room(request.response)
        return Damage(f"a room whose response lasts {len(h) / RATE:.2f} s", response=h)
    return Damage("noise")


def _gaps(recording: Recording, given: tuple[tuple[float, float], ...]) -> Damage:
    rate = recording.rate
    spans = [(round(a * rate), round(b * rate)) for a, b in given]
    for (a, b), (_, end) in zip(spans, given, strict=True):
        if not 0 <= a < b <= recording.length:
            seen = f"a gap that ends at {end:g} s, in {recording.seconds:.3f} s"
            raise InputError(recording.path, seen, "gaps within the recording", "check --gaps")
    words = "given"
    if not spans:
        words, spans = "found by their digital silence", _silences(recording)
    if not spans:
        seen = f"no gap: no digital silence of {1000 * SHORTEST:g} to {1000 * LONGEST:g} ms, and no NaN"
        raise InputError(recording.path, seen, "gaps", "say where they are, as in --gaps 1.20-1.25,3-3.1")
    gone = sum(b - a for a, b in spans)
    if gone >= recording.length:
        raise InputError(recording.path, "gaps everywhere", "some samples", "check --gaps")

    def missing(a: int, b: int) -> np.ndarray:
        flags = np.zeros((recording.channels, b - a), bool)
        for first, last in spans:
            flags[:, max(first - a, 0) : max(last - a, 0)] = True
        return flags | ~np.isfinite(recording.read(a, b))

    longest = 1000 * max(b - a for a, b in spans) / rate
    many = f"{len(spans)} gap{'s' * (len(spans) > 1)}"
    return Damage(f"{many}, {1000 * gone / rate:.3g} ms of it missing, at most {longest:.3g} ms, {words}", missing)


def _silences(recording: Recording) -> list[tuple[int, int]]:
    """Samples that are zero in all channels, or NaN, for neither too short nor too long, with sound around them."""
    flags = np.concatenate([((x == 0) | ~np.isfinite(x)).all(1) for _, x in recording.blocks()])
    nan = np.concatenate([(~np.isfinite(x)).any(1) for _, x in recording.blocks()])
    rate, found = recording.rate, []
    for a, b in _runs(flags | nan):
        inside = a > 0 and b < recording.length and SHORTEST <= (b - a) / rate <= LONGEST
        if inside or nan[a:b].any():
            found.append((a, b))
    return found


def _clipping(recording: Recording, given: float | None) -> Damage:
    level = given or _clip_level(recording)
    if level is None:
        seen = "it does not look clipped: its largest value is not met again and again"
        raise InputError(recording.path, seen, "a flat top", "give the level, as in --clip 0.8")
    clipped = sum(int((np.abs(x) >= level).sum()) for _, x in recording.blocks())
    if not clipped:
        raise InputError(recording.path, f"no sample reaches {level:g}", "clipped samples", "lower --clip")
    share = 100 * clipped / recording.samples.size
    how = "given" if given else "found"
    words = f"clipped at {level:.4g} ({how}), {share:.2g} % of the samples"
    return Damage(words, lambda a, b: np.abs(recording.read(a, b)) >= level, level=level)


def _clip_level(recording: Recording) -> float | None:
    """A hair below the largest value, if the recording stays there for some samples again and again."""
    peak = max(float(np.nan_to_num(np.abs(x)).max()) for _, x in recording.blocks())
    level = peak * (1 - 1e-3)
    if peak == 0:
        return None
    times = 0
    for _, x in recording.blocks():
        for row in x.T:
            times += sum(b - a >= FLAT for a, b in _runs(np.abs(row) >= level))
    return level if times >= TIMES else None


def _band(recording: Recording, given: float | None) -> Damage:
    cutoff, how = given, "given"
    if cutoff is None:
        how = "found"
        cutoff = recording.rate / 2 * 0.95 if recording.rate < RATE else _edge(recording)
    top = min(recording.rate, RATE) / 2
    if cutoff is None or cutoff > 0.97 * RATE / 2:
        seen = f"nothing is missing up to {RATE / 2000:g} kHz, which is as far as the prior goes"
        raise InputError(recording.path, seen, "a narrow band", "give where it ends, as in --cutoff 4000")
    if cutoff > top:
        raise InputError(recording.path, f"a cutoff of {cutoff:g} Hz", f"at most {top:g} Hz", "lower --cutoff")
    return Damage(f"nothing above {cutoff:.4g} Hz ({how})", cutoff=cutoff)


def _edge(recording: Recording) -> float | None:
    """The frequency above which there is next to nothing, in Hz."""
    n, total = 1024, np.zeros(513)
    for _, x in recording.blocks():
        mono = np.nan_to_num(x).mean(1)
        for k in range(0, len(mono) - n + 1, n):
            total += np.abs(np.fft.rfft(mono[k : k + n] * np.hanning(n))) ** 2
    if not total.any():
        return None
    loud = np.flatnonzero(total > total.max() * 10 ** (EMPTY / 10))
    return float(loud[-1]) * recording.rate / n


def room(path: str | Path) -> np.ndarray:
    """The response of a room at 16 kHz from its direct sound on, which is made one; `(k,)`, `k - 1` whole hops.

    Raises:
        InputError: not a recording, silent, or not finite.
    """
    recording = read_recording(path)
    h = Resampler(recording.rate, RATE)(lambda a, b: recording.read(a, b)[0], recording.length, 0,
                                        Resampler(recording.rate, RATE).length(recording.length))  # fmt: skip
    if not np.isfinite(h).all() or not h.any():
        raise InputError(path, "silence, NaN or infinite samples", "the response of a room", "check the file")
    direct = int(np.abs(h).argmax())
    h = h[direct:] / h[direct]
    left = np.cumsum(np.square(h[::-1]))[::-1]
    last = int(np.flatnonzero(left > left[0] * 10 ** (TAIL / 10))[-1]) + 1
    last = min(last, int(LONGEST_TAIL * RATE))
    return np.pad(h[:last], (0, -(last - 1) % HOP)).astype(np.float32)

"""Restored recordings as files: the sound, draws, the spread as a spectrogram, a panel, the record."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from restore import __version__, beside
from restore.audio_metrics import scores
from restore.jobs import Job
from restore.modalities.resampling import Resampler
from restore.modalities.speech import Recording, encoding, largest, write_recording
from restore.records import Record, complete, hold, machine, pinned, remove
from restore.report import panel
from restore.speech import Told
from restore.speech_damage import RATE, SINGLE, SpeechRequest
from restore.speech_prepare import PreparedSpeech
from restore.speech_result import Result
from restore.uncertainty.calibration import HONESTLY

# Of the spectrograms: length of a frame and hop in samples at 16 kHz, decibels shown, columns, frames at a time.
_FRAME, _HOP, _RANGE, _COLUMNS, _AT_ONCE = 512, 128, 80.0, 1500, 2048


def describe(request: SpeechRequest) -> Record:
    """All that decides the result besides the recording."""
    return json.loads(json.dumps({**request.describe(), **pinned(request.settings), "version": __version__}))


def side_files(job: Job, request: SpeechRequest) -> list[Path]:
    """What stands beside the output."""
    return [*map(job.beside, beside.speech_endings(job.output, request.draws, request.extras))]


def what_it_is(request: SpeechRequest) -> str:
    """The main output in words."""
    if request.draws == 1 or request.task in SINGLE:
        return "one draw" if request.draws == 1 else f"the first of {request.draws} draws"
    return f"mean of {request.draws} draws"


def write_speech(
    prepared: PreparedSpeech, request: SpeechRequest, result: Result, told: Sequence[Told], device: torch.device,
    argv: list[str], truth: Recording | None = None,
) -> Record:  # fmt: skip
    """Write everything and the record; returns the record.

    Args:
        truth: to score the result against.

    Raises:
        OutputError: the place cannot be written to, or the format does not take the recording.
    """
    job, recording = prepared.job, prepared.recording
    output, main = job.output, 0 if request.task in SINGLE else None
    old = hold(job, side_files(job, request))
    draws = range(request.draws) if request.extras and request.draws > 1 else range(0)
    kind, subtype = encoding(output, recording)
    factor, notes = _fitting(result, [main, *draws], subtype)
    if kind != recording.format or subtype != recording.subtype:
        notes.append(f"written as {kind}, {subtype.lower().replace('_', ' ')}")
    if prepared.rate != recording.rate:
        notes.append(f"written with {prepared.rate} Hz, for it has a wider band now")

    def write(path: Path, draw: int | None, written: Callable[[Path], None] = lambda temporary: None) -> None:
        blocks = (factor * block for block in result.blocks(draw))
        write_recording(path, blocks, recording.channels, prepared.rate, recording, written)

    for i in draws:
        write(job.beside(beside.sample(output, i + 1)), i)
    if request.extras:
        notes += _pictures(prepared, request, result, main)
    files = [path.name for path in side_files(job, request)[1:]]
    remove(job, old.difference(files))
    record: Record = {
        "argv": ["restore", *argv],
        "request": describe(request),
        "input": {"path": str(job.source.absolute()), "sha256": prepared.sha256, "is": str(recording)},
        "damage": prepared.damage.words,
        "result": {
            "is": what_it_is(request),
            "factor": factor,
            **_result(prepared, request, told),
            **({} if truth is None else _scores(prepared, result, main, truth)),
        },
        "segments": [vars(t) for t in told],
        "interval": {"is": HONESTLY, "why": "no calibration for recordings"},
        "files": files,
        "machine": machine(device),
        "notes": [*prepared.notes, *notes],
    }
    write(output, main, written=lambda path: complete(job, record, path))
    return record


def _fitting(result: Result, draws: Sequence[int | None], subtype: str) -> tuple[float, list[str]]:
    """What all files are multiplied by so that nothing is clipped; said where it is not one."""
    top = max(float(np.abs(block).max()) for draw in draws for block in result.blocks(draw))
    if top <= largest(subtype):
        return 1.0, []
    factor = (1 - 1e-4) * largest(subtype) / top
    words = "float WAV keeps it as it is" if subtype.startswith("PCM") else "a WAV of floats keeps it as it is"
    return factor, [f"peaks of {top:.3g} do not fit: all of it is {-20 * np.log10(factor):.2g} dB quieter; {words}"]


def _result(prepared: PreparedSpeech, request: SpeechRequest, told: Sequence[Told]) -> Record:
    full = [t for t in told if not t.empty]

    def over(name: str, power: int = 1) -> float | None:
        values = [float(v) ** power for t in full if (v := getattr(t, name)) is not None]
        return float(np.mean(values)) ** (1 / power) if values else None

    seconds = sum(t.seconds for t in told)
    return {
        "data_fit": over("data_fit", 2),
        "sigma": over("sigma", 2),
        "nfe": over("nfe"),
        "backward": over("backward"),
        "draws": request.draws,
        "segments": len(told),
        "empty": len(told) - len(full),
        "seconds": round(seconds, 3),
        "real_time_factor": round(seconds / prepared.recording.seconds, 3),
    }


def _scores(prepared: PreparedSpeech, result: Result, main: int | None, truth: Recording) -> Record:
    """Of the result and of what was measured against the truth, at 16 kHz."""
    recording = prepared.recording

    def at_16k(rate: int, read: Callable[[int, int], np.ndarray], length: int) -> np.ndarray:
        down = Resampler(rate, RATE)
        return down(read, length, 0, down.length(length))

    x = at_16k(truth.rate, truth.read, truth.length)
    restored = at_16k(prepared.rate, partial(result, main), result.length)
    before = at_16k(recording.rate, lambda a, b: np.nan_to_num(recording.read(a, b)), recording.length)
    T = min(x.shape[1], restored.shape[1], before.shape[1])
    return {name: scores(y[:, :T], x[:, :T], RATE) for name, y in (("scores", restored), ("scores_before", before))}


def _pictures(prepared: PreparedSpeech, request: SpeechRequest, result: Result, main: int | None) -> list[str]:
    """The spread as a spectrogram, and the panel; how to read them."""
    job, length = prepared.job, prepared.low.shape[1]
    shown = [
        ("what was measured", partial(_powers, result.measured)),
        (what_it_is(request), partial(_powers, partial(result.low, main))),
    ]
    if request.draws > 1:
        draws = [i for i in range(2) if i != main]
        shown += [(f"draw {i + 1}", partial(_powers, partial(result.low, i))) for i in draws]
    pictures = [(title, _spectrogram(power, length)) for title, power in shown]
    top = max(float(p.max()) for _, p in pictures)
    spread = _spectrogram(partial(_spread, result), length) if request.draws > 1 else None
    scaled = [(title, _decibels(p, top)[None] / _RANGE) for title, p in pictures]
    notes = [f"{job.beside(beside.PANEL).name} shows 0 to {RATE // 2000} kHz, {_RANGE:g} dB down from the loudest"]
    if spread is not None:
        title = f"standard deviation of the draws, dB above -{_RANGE:g}\n{HONESTLY}"
        scaled.append((title, _decibels(spread, top)))
        path = job.beside(beside.SPREAD)
        panel(path, [(title, _decibels(spread, top))])
        notes.append(
            f"{path.name}: how far the draws differ, in each frequency and frame, in dB above {_RANGE:g} dB below the "
            f"loudest of what was measured; {HONESTLY}"
        )
    panel(job.beside(beside.PANEL), scaled)
    return notes


def _spectrogram(power: Callable[[int, int], np.ndarray], length: int) -> np.ndarray:
    """Mean powers `(F, columns)`, high frequencies on top, of `power(first frame, after the last) -> (frames, F)`."""
    count = -(-length // _HOP)
    wide = -(-count // _COLUMNS)
    columns: list[np.ndarray] = []
    step = max(1, _AT_ONCE // wide) * wide
    for first in range(0, count, step):
        P = power(first, min(first + step, count))
        P = np.pad(P, ((0, -len(P) % wide), (0, 0)), mode="edge")
        columns += [*P.reshape(-1, wide, P.shape[1]).mean(1)]
    return np.stack(columns, 1)[::-1]


def _powers(read: Callable[[int, int], np.ndarray], first: int, stop: int) -> np.ndarray:
    """Of frames, `(frames, F)`: the mean over the channels."""
    return np.square(np.abs(_frames(read, first, stop))).mean(0)


def _spread(result: Result, first: int, stop: int) -> np.ndarray:
    """The variance of frames over the draws, `(frames, F)`: the mean over the channels."""
    draws = _frames(result.draws, first, stop)  # (sample, C, frames, F)
    return np.square(np.abs(draws - draws.mean(0))).sum(0).mean(0) / (len(draws) - 1)


def _frames(read: Callable[[int, int], np.ndarray], first: int, stop: int) -> np.ndarray:
    """Windowed frames in the middle of hops, `(..., frames, F)`."""
    length = (stop - first - 1) * _HOP + _FRAME
    a = first * _HOP + _HOP // 2 - _FRAME // 2
    x = read(max(a, 0), a + length)
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(max(-a, 0), 0)])
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, length - x.shape[-1])])
    frames = np.lib.stride_tricks.sliding_window_view(x, _FRAME, -1)[..., ::_HOP, :]
    return np.fft.rfft(frames * np.hanning(_FRAME).astype(np.float32)).astype(np.complex64)


def _decibels(power: np.ndarray, top: float) -> np.ndarray:
    """Decibels above `_RANGE` below `top`, not below 0."""
    return np.clip(10 * np.log10(np.maximum(power, 1e-30) / max(top, 1e-30)) + _RANGE, 0, _RANGE)

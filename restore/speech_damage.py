"""What is to be done to a recording, and what is wrong with it: gaps, clipping, a narrow band, a room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import InputError
from restore.jobs import sha256
from restore.modalities.resampling import Resampler
from restore.modalities.speech import Recording, read_recording

TASKS = ("denoise", "gap", "declip", "bandwidth", "dereverb")
# Those of which a draw is the answer: a mean of draws has nothing where they differ in phase.
SINGLE = ("gap", "bandwidth")
RATE, HOP = 16_000, 128
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


def find_damage(recording: Recording, request: SpeechRequest) -> Damage:
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
    for a, b in runs(flags | nan):
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
            times += sum(b - a >= FLAT for a, b in runs(np.abs(row) >= level))
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


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Beginnings and ends of what is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]

"""A recording that is read, judged, and brought to 16 kHz and into the units of the prior."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore.errors import InputError
from restore.jobs import Job, Tools, sha256
from restore.modalities.resampling import Resampler
from restore.modalities.speech import BLOCK, Recording, read_recording
from restore.speech_damage import HOP, RATE, Damage, SpeechRequest, find_damage
from restore.tiles import Span, cut

WINDOW = 510
FRAMES = (2, WINDOW // 2 + 1, 64)  # some of them, which a prior must accept
# Frames of context on either side of the seam between segments.
CONTEXT = 32
# Below this rms, of full scale, there is nothing but rounding.
SILENCE = 1e-5
# A mean that is a smaller share of the peak is that of the sound: taken off, digital silence would be none.
OFFSET = 0.01


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


def prepare_speech(job: Job, request: SpeechRequest, tools: Tools) -> PreparedSpeech:
    """Read a recording and judge it.

    Raises:
        InputError: it cannot be used, or nothing of what the task mends is found in it.
    """
    recording = read_recording(job.source)
    notes = [*recording.notes]
    damage = find_damage(recording, request)
    _check_finite(recording, request)
    if not tools.prior.accepts(FRAMES):
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


def true_recording(path: Path, recording: Recording) -> Recording:
    """What a result is to be scored against. Raises InputError where it is not of the same length and channels."""
    truth = read_recording(path)
    if truth.channels != recording.channels or abs(truth.seconds - recording.seconds) > 1e-3:
        seen = f"{truth.channels} channel{'s' * (truth.channels > 1)} of {truth.seconds:.3f} s"
        wanted = f"{recording.channels} of {recording.seconds:.3f} s, as {recording.path} has"
        raise InputError(path, seen, wanted, "give the clean recording that belongs to it")
    if not all(np.isfinite(x).all() for _, x in truth.blocks()):
        raise InputError(path, "NaN or infinite samples", "finite samples", "give a clean recording with --ref")
    return truth


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

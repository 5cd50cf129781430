"""A person's recordings: WAV, FLAC, OGG and MP3 files, read and written through soundfile. No torch here.

What was read lies in a nameless temporary file that is mapped into memory, so that a long recording does not fill it.
Files are judged by their contents, not by their names.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, OutputError
from .image import list_files, no_such_file
from .needed import needed

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
FLOATS = ("FLOAT", "DOUBLE")
# Samples of all channels that are read, made or written at a time.
BLOCK = 1 << 18
_KNOWN = "an audio file (WAV, FLAC, OGG, MP3)"
_TAGS = ("title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre")
_VARIANTS = {"WAVEX": "WAV", "RF64": "WAV"}  # written as they were read, under the same suffix


@dataclass(frozen=True, eq=False)
class Recording:
    """What was read.

    Attributes:
        path: of the file.
        format, subtype: as libsndfile names them, such as `WAV` and `PCM_16`.
        rate: samples per second.
        samples: `(T, C)` float32, full scale from -1 to 1, mapped into memory; NaN and infinities as they were.
        tags: title, artist and the like.
        notes: in words, what the person should know.
    """

    path: Path
    format: str
    subtype: str
    rate: int
    samples: np.ndarray = field(repr=False)
    tags: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        return self.samples.shape[0]

    @property
    def channels(self) -> int:
        return self.samples.shape[1]

    @property
    def seconds(self) -> float:
        return self.length / self.rate

    def __str__(self) -> str:
        bits = f"{BITS[self.subtype]} bit" if self.subtype in BITS else self.subtype.lower().replace("_", " ")
        many = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        return f"{self.format}, {bits}, {self.rate} Hz, {many}, {self.seconds:.2f} s"

    def read(self, start: int, stop: int) -> np.ndarray:
        """`(C, stop - start)`."""
        return self.samples[start:stop].T

    def blocks(self) -> Iterable[tuple[int, np.ndarray]]:
        """All of it, a part at a time: where it begins, and `(t, C)`."""
        return ((a, self.samples[a : a + BLOCK]) for a in range(0, self.length, BLOCK))


def list_recordings(folder: str | Path) -> list[Path]:
    """All recordings below `folder`, sorted. Raises as `restore.modalities.image.list_pictures`."""
    return list_files(folder, FORMATS, "recordings")


def read_recording(path: str | Path) -> Recording:
    """Read all of a recording.

    Raises:
        InputError: no such file, not audio, no samples, or truncated; soundfile is not installed.
    """
    path = Path(path)
    sf = needed("soundfile", path, "audio")
    if path.is_dir():
        raise InputError(path, "a folder", _KNOWN, "name a file inside it")
    if not path.exists():
        raise no_such_file(path, "a recording")
    if not path.stat().st_size:
        raise InputError(path, "an empty file (0 bytes)", _KNOWN, "copy or save the file again")
    _check_riff(path)
    try:
        with sf.SoundFile(path) as file:
            if file.format not in (*FORMATS.values(), *_VARIANTS):
                seen, cure = f"a file of the kind {file.format}", "convert it to WAV"
                raise InputError(path, seen, _KNOWN, cure)
            samples, count = _decoded(file)
            told, tags = file.frames, {k: v for k in _TAGS if (v := getattr(file, k))}
            kind = file.format, file.subtype, file.samplerate
    except (sf.LibsndfileError, RuntimeError) as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        seen, cure = f"cannot be read as audio ({reason})", "copy the file again, or convert it to WAV"
        raise InputError(path, seen, _KNOWN, cure) from error
    if count < told and kind[0] != "MP3":  # MP3 files tell their length by guess
        raise _truncated(path, f"{count} of {told} samples are there")
    if count == 0:
        raise InputError(path, "no samples in it", "a recording", "check how it was saved")
    return Recording(path, *kind, samples, tags)


def write_recording(
    path: Path, blocks: Iterable[np.ndarray], channels: int, rate: int, like: Recording,
    written: Callable[[Path], None] = lambda temporary: None,
) -> None:  # fmt: skip
    """Write samples `(t, channels)` one part after another, in the bit depth of another recording where the format of
    the suffix has it. Whole numbers are the nearest ones; nothing is clipped, for nothing may lie outside.

    Args:
        path: ends in one of `FORMATS`.
        written: called with the file just before it is renamed into its place.

    Raises:
        OutputError: the place cannot be written to, or the format does not take this rate or so many channels.
        ValueError: samples beyond what a whole number can hold.
    """
    from ..files import atomic_write

    sf = needed("soundfile", path, "audio")
    kind, subtype = encoding(path, like)
    with atomic_write(path) as temporary:
        try:
            with sf.SoundFile(temporary, "w", rate, channels, subtype, format=kind) as file:
                for key, value in like.tags.items():
                    setattr(file, key, value)
                for block in blocks:
                    file.write(_stored(block, subtype))
        except sf.LibsndfileError as error:
            seen = f"{channels} channels of {rate} Hz cannot be written as {kind} ({error.error_string.rstrip('.')})"
            raise OutputError(path, seen, "a format that takes them", "choose WAV, as in -o name.wav") from error
        written(temporary)


def encoding(path: Path, like: Recording) -> tuple[str, str]:
    """Format and subtype of an output, as near to those of `like` as the suffix allows."""
    sf = needed("soundfile", path, "audio")
    kind = FORMATS[path.suffix.lower()]
    if kind == _VARIANTS.get(like.format, like.format):
        return like.format, like.subtype
    if sf.check_format(kind, like.subtype):
        return kind, like.subtype
    if kind == "FLAC" and like.subtype in (*FLOATS, "PCM_32"):
        return kind, "PCM_24"
    return kind, str(sf.default_subtype(kind))


def largest(subtype: str) -> float:
    """The largest sample that a subtype holds; infinity for floats."""
    return np.inf if subtype in FLOATS else 1 - 2.0 ** (1 - BITS.get(subtype, 16))


def _stored(block: np.ndarray, subtype: str) -> np.ndarray:
    """Samples as soundfile takes them. Floats it would scale by one less than it reads whole numbers by."""
    bits = BITS.get(subtype)
    if bits is None:
        return block
    whole = np.rint(block.astype(np.float64) * 2 ** (bits - 1))
    if whole.size and not -(2 ** (bits - 1)) <= whole.min() <= whole.max() < 2 ** (bits - 1):
        raise ValueError(f"samples up to {np.abs(block).max():.4g} do not fit into {bits} bits")
    return (whole.astype(np.int64) << (32 - bits)).astype(np.int32)


def _decoded(file: Any) -> tuple[np.ndarray, int]:
    """All samples `(T, C)`, in a nameless file that goes with the array; and how many."""
    raw, count = tempfile.TemporaryFile(), 0  # noqa: SIM115
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        raw.write(block.tobytes())
        count += len(block)
    raw.flush()
    shape = (count, file.channels)
    return (np.memmap(raw, np.float32, "r", shape=shape) if count else np.zeros(shape, np.float32)), count


def _check_riff(path: Path) -> None:
    """Refuse a WAV file that ends before its header says. Raises InputError."""
    with open(path, "rb") as file:
        head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF":
        return
    told, size = struct.unpack("<I", head[4:8])[0] + 8, path.stat().st_size
    if size < told < 0x7FFFFFFF:  # larger ones were written as a stream, whose end was not known
        raise _truncated(path, f"{size} of {told} bytes are there")


def _truncated(path: Path, seen: str) -> InputError:
    return InputError(path, f"truncated: {seen}", "the whole file", "copy or save the file again")

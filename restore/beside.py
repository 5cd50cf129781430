"""Names of the files that stand beside a result. No torch here: what is in the way is seen before any work begins."""

from __future__ import annotations

from pathlib import Path

from restore.modalities.image import FORMATS

RECORD = ".run.json"
PANEL = "_panel.png"
KSPACE = "_kspace.png"
SPREAD = "_std.png"


def sample(output: Path, number: int) -> str:
    """What the name of a draw ends in; the first is number 1."""
    return f"_sample-{number:02d}{output.suffix}"


def spread(output: Path) -> str:
    """What the name of the map of standard deviations ends in."""
    return "_std.tif" if FORMATS[output.suffix.lower()] == "TIFF" else "_std.png"


def noise(output: Path) -> str:
    """What the name of the separated noise ends in."""
    return f"_noise{output.suffix}"


def endings(output: Path, draws: int, extras: bool, separated: bool = False) -> list[str]:
    """What the names of all files beside `output` end in.

    Args:
        draws, extras: those of a `Request`.
        separated: whether the noise has a prior of its own.
    """
    if not extras:
        return [RECORD]
    several = [*(sample(output, i) for i in range(1, draws + 1)), spread(output)] if draws > 1 else []
    return [RECORD, *several, *([noise(output)] if separated else []), PANEL]


def scan_endings(suffix: str, draws: int) -> list[str]:
    """What the names of all files beside the picture of a scan end in.

    Args:
        suffix: of the picture, as `.nii.gz`.
        draws: how many.
    """
    maps = ["_phase" + suffix, *(["_std" + suffix] if draws > 1 else [])]
    if draws > 1:
        maps += [f"_sample-{i:02d}.png" for i in range(1, draws + 1)] if suffix == ".png" else ["_samples" + suffix]
    return [RECORD, *maps, PANEL, KSPACE]


def speech_endings(output: Path, draws: int, extras: bool) -> list[str]:
    """What the names of all files beside a recording end in.

    Args:
        draws, extras: those of a `SpeechRequest`.
    """
    if not extras:
        return [RECORD]
    several = [*(sample(output, i) for i in range(1, draws + 1)), SPREAD] if draws > 1 else []
    return [RECORD, *several, PANEL]

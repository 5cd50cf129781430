"""Which noise do these pictures have? As typed after `--noise`, or found in the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore.denoisers.adaptive import estimate_law, limits_of
from restore.denoisers.posterior import KINDS, in_words
from restore.denoisers.tweedie import Tweedie, as_tweedie
from restore.errors import InputError
from restore.estimate import estimate_noise
from restore.modalities.image import read_picture
from restore.modalities.units import LITTLE

from .options import Law

MOST = 40  # pictures to judge by
SMALLEST = 16  # side of a picture that anything can be learnt from


@dataclass(frozen=True)
class Judged:
    """The noise that pictures share, in the units of their files, and the pictures that can be used.

    Attributes:
        law: type and level.
        words: the same, and where it comes from.
        paths, sides: of what can be used: the files and the smaller of height and width.
        pixels: how many there are altogether.
    """

    law: Tweedie
    words: str
    paths: list[Path]
    sides: list[int]
    pixels: int

    @property
    def told(self) -> float | Tweedie:
        """The law as `restore.learn.train.learn` takes it."""
        return self.law if self.law.rho else self.law.phi**0.5


def judge(paths: Sequence[Path], typed: Law, where: Path) -> Judged:
    """Type and level of the noise, each as typed or else by the pictures (evenly spread ones where there are many).

    Raises:
        InputError: no picture can be used, the noise cannot be told, or values are negative where they cannot be.
    """
    used: list[Path] = []
    sides: list[int] = []
    shown: list[np.ndarray] = []
    pixels, depths = 0, set()
    reasons: list[InputError] = []
    step = max(1, len(paths) // MOST)
    for i, path in enumerate(paths):
        try:
            picture = read_picture(path)
        except InputError as error:
            reasons.append(error)
            continue
        height, width = picture.data.shape[1:]
        if min(height, width) < SMALLEST:
            wanted = f"{SMALLEST} pixels or more on each side to learn from"
            reasons.append(InputError(path, f"{width} x {height} pixels", wanted, "use --prior photos instead"))
        elif float(picture.data.min()) == float(picture.data.max()):
            seen, cure = f"all values are {picture.data.min():g}: there is no noise in it", "leave it out"
            reasons.append(InputError(path, seen, "a noisy picture", cure))
        else:
            used.append(path)
            sides.append(min(height, width))
            pixels += height * width
            depths.add(picture.depth)
            if i % step == 0 or not shown:
                shown.append(picture.data)
    if not used:
        if len(reasons) == 1:
            raise reasons[0]
        seen = f"none of {len(paths)} pictures can be learnt from, the first because: {reasons[0].seen}"
        raise InputError(where, seen, reasons[0].wanted, reasons[0].cure)
    limits = None if depths == {"float32"} else (0.0, 1.0)
    law, how = _law(shown, typed, limits, where)
    units = "" if all(p.max() > LITTLE and p.max() <= 2 for p in shown) else " in the units of the file"
    return Judged(law, f"{in_words(law)}{units}, {how}", used, sides, pixels)


def _law(
    pictures: Sequence[np.ndarray], typed: Law, limits: tuple[float, float] | None, where: Path
) -> tuple[Tweedie, str]:
    if typed.level is not None:
        assert typed.kind is not None
        return as_tweedie(KINDS[typed.kind](typed.level)), "as given"  # type: ignore[call-arg]
    rho = None if typed.kind is None else float(list(KINDS).index(typed.kind))
    negative = min(float(p.min()) for p in pictures) < 0
    if negative and rho:
        raise InputError(
            where, f"negative values, and {typed.kind} noise has none", "counts of light, which begin at zero",
            "add what was subtracted, or say --noise gaussian",
        )  # fmt: skip
    if negative:
        rho = 0.0
    spread = [p[:: max(1, len(p) // 3)] for p in pictures]
    law = estimate_law(spread, rho, limits) or estimate_law(spread, rho, limits_of(limits, 1.0))
    if law is not None:
        return law, "estimated from the pictures" if rho is None else "its level estimated from the pictures"
    found = [s for p in pictures if (s := estimate_noise(p, None, limits))] if not rho else []
    if not found:
        cure = "give it, as --noise 0.1 (std of Gaussian noise), poisson:0.02 or gamma:50"
        raise InputError(
            where, "too few pixels, or too little noise, to tell which noise it is", "noisy pictures", cure
        )
    return Tweedie(0, float(np.median(found)) ** 2), "estimated; too few pixels to tell its type, taken for Gaussian"

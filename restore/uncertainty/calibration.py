"""Honest intervals: how wide they must be, for the spread of the draws, to cover what they say.

The half-width of an interval is `factor * sigma * (spread / sigma)^power`, `sigma` the noise of the data: the same in
any units. Errors grow with the spread, but seldom in proportion: draws of a learnt prior spread too little where they
are sure, and the spread of a few draws is itself noisy. So `power` is the slope of `log |error|` over `log spread`, by
least squares on the pictures whose truth is known, in denoising. Then intervals cover what they say where the spread is
small as where it is large, and smoother or rougher pictures than those they were fitted on as these. Where something is
missing, errors do not follow the noise, and the power is 1.

A. N. Angelopoulos, S. Bates, A. Fisch, L. Lei, T. Schuster, "Conformal Risk Control", ICLR 2024, arXiv:2208.02814: the
generalisation of split conformal prediction that fits pictures, whose pixels depend on each other while the pictures
themselves are exchangeable. The loss `L_i(factor)` of picture `i` is the share of its values that lie outside the
interval: within [0, 1], and never growing with the factor. The smallest factor with

    n / (n + 1) * mean_i L_i(factor) + 1 / (n + 1) <= 1 - level

keeps `E[L_(n+1)] <= 1 - level` for one more picture exchangeable with the `n` (whose task, noise, prior, sampler and
number of draws are theirs). It is a promise on the average over pictures and their values, not for one of either; it
covers at most `2 / (n + 1)` more than asked. It holds for a power that was given; that ours is one number fitted to
thousands of values of the same pictures is left out of it, and the tests measure what comes of it.

A picture's part is a sample of its values: the average over pictures hardly knows. Factors are looked for on a grid
(1 % apart, rounded up).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from restore.errors import InputError
from restore.files import atomic_write

# What lies beside the weights of a prior that is shipped with its calibration.
CALIBRATION = "calibration.json"
WANTED = "a calibration, as `restore calibrate` writes it"
FACTORS = np.geomspace(0.05, 100, 765)
# The spread is never taken for less, in [0, 1] units: half a step of 8 bits, which the truth is only known to.
FLOOR = 0.5 / 255
WINDOW = 3
# Values of a picture that are kept.
SAMPLED = 2048
# An entry serves noise and strength of operator up to so many times more or less than its own.
NEAR = 1.6

CALIBRATED = "calibrated: mean +- map covers {:g} % of pixels on average"
HONESTLY = "spread of the samples, not a guarantee"


@dataclass(frozen=True)
class Condition:
    """What decides how the errors of a result compare with the spread of its draws.

    Attributes:
        verb: the task.
        kind: of operator, in words: calibrations do not pass from one to another.
        strength: of the operator, positive; what it is depends on the kind (share of pixels kept, width of a blur).
        sigma: standard deviation of the noise, in [0, 1] units.
        draws: how many the mean and the spread are of.
        sampler: its settings.
        prior: a checksum of it, or its settings.
    """

    verb: str
    kind: str
    strength: float
    sigma: float
    draws: int
    sampler: dict[str, Any]
    prior: str


@dataclass(frozen=True)
class Judged:
    """One picture whose truth is known.

    Attributes:
        errors, spreads: of values spread over the picture, in [0, 1] units: `|truth - mean|`, and `spread` there.
        raw: share of its values within the interval of a normal distribution with the mean and spread of the draws.
    """

    condition: Condition
    errors: list[float]
    spreads: list[float]
    raw: float

    def misses(self, power: float) -> np.ndarray:
        """Share of its values outside the interval, for each of `FACTORS`."""
        scores = np.sort(np.array(self.errors) / half_width(np.array(self.spreads), self.condition.sigma, 1.0, power))
        return 1 - np.searchsorted(scores, FACTORS, side="right") / scores.size

    def covered(self, factor: float, power: float) -> float:
        """Share of its values within the interval."""
        return float(1 - self.misses(power)[np.searchsorted(FACTORS, factor)])


@dataclass(frozen=True)
class Entry:
    """A factor, and what it was fitted on.

    Attributes:
        condition: the pictures' (geometric means of strength and noise).
        factor, power: of `half_width`.
        pictures: how many.
        raw: mean over the pictures of `Judged.raw`.
        covered: share of values covered in a picture by the factor of all others, averaged; `None` where the others
            are too few.
        width: mean width of the interval, in [0, 1] units.
    """

    condition: Condition
    factor: float
    power: float
    pictures: int
    raw: float
    covered: float | None
    width: float


@dataclass(frozen=True)
class Calibration:
    """Factors for one level and any number of conditions."""

    level: float
    entries: tuple[Entry, ...]

    def find(self, wanted: Condition) -> Entry | str:
        """The entry that serves a condition, or in words why none does.

        Verb, kind of operator, prior and sampler must be those of the entry, noise and strength near its own. Of the
        entries that are left, the one with the most draws that are not more than `wanted.draws`: a factor for few draws
        covers more, not less, when there are more of them.
        """
        left = list(self.entries)
        for keep, why in (
            (lambda c: c.prior == wanted.prior, "it is for another prior"),
            (lambda c: c.verb == wanted.verb, f"it has nothing for {wanted.verb}"),
            (lambda c: c.kind == wanted.kind, f"it has nothing for {wanted.kind}"),
            (lambda c: c.sampler == wanted.sampler, f"it is for {_other(left, wanted.sampler)}"),
            (lambda c: _near(c.strength, wanted.strength), f"it has nothing near this strength of {wanted.kind}"),
            (lambda c: _near(c.sigma, wanted.sigma), f"it has nothing near noise {wanted.sigma:.3g}"),
            (lambda c: c.draws <= wanted.draws, f"it has nothing for {wanted.draws} draws"),
        ):
            left = [e for e in left if keep(e.condition)]
            if not left:
                return why
        return min(left, key=lambda e: (-e.condition.draws, _distance(e.condition, wanted)))

    def updated(self, entries: Sequence[Entry]) -> Calibration:
        """With these entries, in place of those of the same condition."""
        new = [e.condition for e in entries]
        return Calibration(self.level, (*(e for e in self.entries if e.condition not in new), *entries))

    def save(self, path: Path) -> None:
        """Write as JSON. Raises OutputError."""
        content = {"level": self.level, "entries": [asdict(e) for e in self.entries]}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Calibration:
        """What `save` wrote. Raises InputError where there is none, or it cannot be read."""
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise InputError(path, "no such file", WANTED, "check the name") from error
        except (OSError, ValueError) as error:
            raise InputError(path, f"cannot be read ({error})", WANTED, "check the name, or calibrate again") from error
        try:
            entries = tuple(_entry(e) for e in content["entries"])
            level = float(content["level"])
            if not (entries and 0 < level < 1):
                raise ValueError(f"level {level:g} and {len(entries)} entries")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            seen = f"it does not describe a calibration ({str(error) or type(error).__name__})"
            raise InputError(path, seen, WANTED, "check the name, or calibrate again") from error
        return Calibration(level, entries)


def spread(std: np.ndarray) -> np.ndarray:
    """What intervals are made of: standard deviations over the draws `(1, H, W)`, in [0, 1] units, as root mean square
    over 3 x 3 pixels and never quite zero.

    The standard deviation of a few draws is itself noisy, and its neighbours know something about it: for the same
    coverage, intervals become narrower than with every pixel on its own (`tests/bench/calibrate_photos.py --window 1`).
    """
    variance = torch.from_numpy(np.square(std, dtype=np.float32))[None]
    mean = F.avg_pool2d(variance, WINDOW, 1, WINDOW // 2, count_include_pad=False)[0]
    return np.maximum(mean.sqrt().numpy(), np.float32(FLOOR))


def half_width(spread: np.ndarray, sigma: float, factor: float, power: float) -> np.ndarray:
    """Of the interval, in the units of `spread` and of the noise `sigma`."""
    return factor * sigma * (spread / sigma) ** power


def judge(
    condition: Condition, error: np.ndarray, std: np.ndarray, level: float, inside: np.ndarray | None = None
) -> Judged:
    """Hold a picture against its truth.

    Args:
        error: truth minus mean of the draws, `(C, H, W)` in [0, 1] units.
        std: standard deviation over the draws, `(1, H, W)`.
        level: of the raw interval.
        inside: `(H, W)` bool, the pixels that count; all by default.
    """
    error, unit = np.abs(error), spread(std)
    if inside is not None:
        error, unit, std = error[:, inside], unit[:, inside], std[:, inside]
    raw = float(np.mean(error <= normal_factor(level) * std))
    count = min(error.size, SAMPLED)
    jitter = np.random.default_rng(0).random(count)  # one value of each of so many equal parts
    at = ((np.arange(count) + jitter) * error.size / count).astype(int)
    errors, spreads = (
        [float(f"{x:.4g}") for x in np.broadcast_to(v, error.shape).reshape(-1)[at]] for v in (error, unit)
    )
    return Judged(condition, errors, spreads, raw)


def normal_factor(level: float) -> float:
    """Half-width over standard deviation of the central interval of a normal distribution; 1.645 for 0.9."""
    return NormalDist().inv_cdf((1 + level) / 2)


def exact_coverage(draws: int, level: float) -> float:
    """What `mean +- normal_factor * std` of so few exact draws of a normal distribution covers: less than `level`, for
    both are estimates."""
    from scipy.stats import t

    return float(2 * t.cdf(normal_factor(level) / math.sqrt(1 + 1 / draws), draws - 1) - 1)


def pictures_needed(level: float) -> int:
    """The fewest pictures with which any factor can keep the promise."""
    return math.ceil(level / (1 - level) - 1e-9)


def smallest_factor(misses: np.ndarray, level: float) -> float:
    """The factor of the module's equation for curves `(n, len(FACTORS))`.

    Raises:
        ValueError: errors beyond any factor.
    """
    n = len(misses)
    bound = n / (n + 1) * misses.mean(0) + 1 / (n + 1)
    enough = np.flatnonzero(bound <= 1 - level + 1e-12)
    if not len(enough):
        raise ValueError(f"even the factor {FACTORS[-1]:g} does not reach the truth often enough")
    return float(FACTORS[enough[0]])


def calibrate(judged: Sequence[Judged], level: float) -> Entry:
    """The entry for pictures of one condition, whose noise and strength may differ a little.

    Raises:
        ValueError: too few pictures for the level, or errors beyond any factor.
    """
    if (n := len(judged)) < pictures_needed(level):
        raise ValueError(f"the level {level:g} needs at least {pictures_needed(level)} pictures, there are {n}")
    power = fitted_power(judged) if judged[0].condition.verb == "denoise" else 1.0
    misses = np.array([j.misses(power) for j in judged])
    factor = smallest_factor(misses, level)
    first = asdict(judged[0].condition)
    for name in ("sigma", "strength"):
        first[name] = round(math.exp(np.mean([math.log(getattr(j.condition, name)) for j in judged])), 6)
    half = [half_width(np.array(j.spreads), j.condition.sigma, factor, power).mean() for j in judged]
    return Entry(
        condition=Condition(**first),
        factor=factor,
        power=power,
        pictures=len(judged),
        raw=float(np.mean([j.raw for j in judged])),
        covered=_left_out(misses, level),
        width=2 * float(np.mean(half)),
    )


def fitted_power(judged: Sequence[Judged]) -> float:
    """Slope of `log |error|` over `log spread`, over all values; between 0 and 2, and 1 where the spread is the same
    everywhere."""
    errors = np.concatenate([np.array(j.errors) / j.condition.sigma for j in judged])
    spreads = np.concatenate([np.array(j.spreads) / j.condition.sigma for j in judged])
    x, y = np.log(spreads), np.log(np.maximum(errors, errors.mean() / 1000 + 1e-12))  # of no error there is no log
    variance = x.var()
    return float(np.clip(np.cov(x, y, ddof=0)[0, 1] / variance, 0, 2)) if variance > 1e-6 else 1.0


def _left_out(misses: np.ndarray, level: float) -> float | None:
    if len(misses) <= pictures_needed(level):
        return None
    each = []
    for i in range(len(misses)):
        factor = smallest_factor(np.delete(misses, i, axis=0), level)
        each.append(1 - misses[i, np.searchsorted(FACTORS, factor)])
    return float(np.mean(each))


def _other(entries: Sequence[Entry], sampler: dict[str, Any]) -> str:
    """In words, how the samplers of entries differ from this one; the one that differs least is told."""

    def differences(other: dict[str, Any]) -> list[str]:
        return [k for k in sorted(other.keys() | sampler.keys()) if other.get(k) != sampler.get(k)]

    nearest = min((e.condition.sampler for e in entries), key=lambda s: len(differences(s)))
    names = differences(nearest)
    if "_target_" in names:
        return f"another sampler, {str(nearest.get('_target_')).rpartition('.')[2]}"
    return "other settings of the sampler: " + ", ".join(f"{k}={nearest.get(k)}" for k in names)


def _near(a: float, b: float) -> bool:
    return max(a, b) <= NEAR * min(a, b) * (1 + 1e-9)


def _distance(a: Condition, b: Condition) -> float:
    return abs(math.log(a.sigma / b.sigma)) + abs(math.log(a.strength / b.strength))


def _entry(plain: dict[str, Any]) -> Entry:
    """From JSON. Raises ValueError, TypeError or KeyError."""
    known = {"power": 1.0, **plain}  # files of before there were powers
    entry = Entry(**{**known, "condition": Condition(**plain["condition"])})
    c = entry.condition
    for name, value in (("factor", entry.factor), ("sigma", c.sigma), ("strength", c.strength), ("draws", c.draws)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} {value}")
    if not 0 <= entry.power <= 2:
        raise ValueError(f"power {entry.power}")
    return entry

"""Results against the truth, as rows of a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators.random import generator
from restore.engine import Outcome
from restore.files import atomic_write
from restore.intervals import condition, interval
from restore.jobs import Prepared, Request, pixels
from restore.metrics import fitting, psnr, ssim
from restore.uncertainty.calibration import Judged, judge, normal_factor
from restore.uncertainty.diagnostics import nearer, rank_statistics, ranks, tarp

LEVEL = 0.9
# Ranks are taken at so many pixels a side, far enough apart to be told from each other.
_GRID = 8
_BARS = 9


@dataclass(frozen=True)
class Row:
    """One picture with one setting.

    Attributes:
        psnr, ssim: of the mean of the draws.
        psnr_sample, ssim_sample: of single draws, averaged over them.
        fit: `||y - A x|| / (sigma sqrt(m))`, 1 for draws from the posterior.
        coverage: share of the values within 1.645 standard deviations of the draws from their mean; 0.9 is meant.
        calibrated: share of them within the calibrated interval, where a calibration fits.
        width: mean width of the interval, the calibrated one if there is one, in [0, 1] units.
        ranks: of the truth among the draws, at pixels on a grid, each the mean of its channels.
        nearer: how many draws are nearer to a random picture than the truth is.
        nfe: denoiser calls per draw (and tile).
        seconds: for all draws together.
    """

    setting: str
    picture: str
    draws: int
    psnr: float
    ssim: float
    psnr_sample: float
    ssim_sample: float
    fit: float
    coverage: float | None
    calibrated: float | None
    width: float | None
    ranks: list[int] | None
    nearer: int | None
    nfe: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"PSNR {self.psnr:.2f} (one draw {self.psnr_sample:.2f}), SSIM {self.ssim:.3f}, data fit {self.fit:.2f}, "
            f"90 % covers {_share(self.coverage)}, calibrated {_share(self.calibrated)}, {self.seconds:.1f} s"
        )


def first_draws(prepared: Prepared, outcome: Outcome, truth: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth minus mean `(C, H, W)`, and the standard deviation `(1, H, W)`, of the first draws; both in [0, 1] units.

    Args:
        truth: in the units of the file.
        draws: two at least.

    Raises:
        InputError: the truth has another size.
    """
    spools = outcome.canvas.samples[:draws]
    mean = np.asarray(sum(s.read() for s in spools) / np.float32(draws))
    variance = sum(np.square(s.read() - mean).mean(0, keepdims=True) for s in spools) / np.float32(draws - 1)
    shown = pixels(prepared, mean)
    return (fitting(truth, shown.shape, prepared.job.source) - shown) / prepared.units.scale, np.sqrt(variance)


def judged(
    prepared: Prepared, outcome: Outcome, request: Request, truth: np.ndarray, draws: int, level: float
) -> Judged:
    """How often the truth lies outside intervals around the mean of the first draws; arguments of `first_draws`."""
    return judge(condition(prepared, request, draws), *first_draws(prepared, outcome, truth, draws), level)


def score(prepared: Prepared, outcome: Outcome, request: Request, truth: np.ndarray, setting: str, picture: str) -> Row:
    """Score one outcome against the truth, both in the units of the file.

    Raises:
        InputError: the truth has another size.
    """
    mean = pixels(prepared, outcome.canvas.mean.read())
    truth = fitting(truth, mean.shape, prepared.job.source)
    each = [pixels(prepared, s.read()) for s in outcome.canvas.samples] or [mean]
    return Row(
        setting=setting,
        picture=picture,
        draws=outcome.draws,
        psnr=psnr(mean, truth),
        ssim=ssim(mean, truth),
        psnr_sample=float(np.mean([psnr(s, truth) for s in each])),
        ssim_sample=float(np.mean([ssim(s, truth) for s in each])),
        fit=outcome.data_fit,
        **_uncertainty(prepared, outcome, request, truth, each),
        nfe=outcome.nfe,
        seconds=outcome.seconds,
    )


def _uncertainty(
    prepared: Prepared, outcome: Outcome, request: Request, truth: np.ndarray, each: list[np.ndarray]
) -> dict[str, Any]:
    """The entries of a row that need several draws; `truth` and `each` draw are in the units of the file."""
    if outcome.draws < 2:
        return dict.fromkeys(("coverage", "calibrated", "width", "ranks", "nearer"))
    error, std = first_draws(prepared, outcome, truth, outcome.draws)
    found = interval(prepared, request, outcome.draws)
    half = found.map(std, prepared.noise.sigma) if found.entry else normal_factor(LEVEL) * std
    rows, columns = (((np.arange(_GRID) + 0.5) * n / _GRID).astype(int) for n in truth.shape[1:])
    grid = [torch.from_numpy(x[:, rows[:, None], columns].mean(0)) for x in (truth, *each)]
    white = torch.rand(truth.shape, generator=generator(int(prepared.sha256[:8], 16)))
    place = torch.from_numpy(pixels(prepared, prepared.units.outward(white.numpy()[: len(prepared.task.data)])))
    draws = torch.from_numpy(np.stack(each))
    return {
        "coverage": float(np.mean(np.abs(error) <= normal_factor(LEVEL) * std)),
        "calibrated": float(np.mean(np.abs(error) <= half)) if found.entry else None,
        "width": 2 * float(half.mean()),
        "ranks": ranks(grid[0], torch.stack(grid[1:])).flatten().tolist(),
        "nearer": nearer(torch.from_numpy(truth), draws, place),
    }


def averages(rows: Sequence[Row]) -> list[Row]:
    """One row for each setting: the mean over its pictures."""
    found = []
    for setting in dict.fromkeys(row.setting for row in rows):
        group = [asdict(row) for row in rows if row.setting == setting]
        numbers = {k: _mean([g[k] for g in group]) for k in group[0] if k not in ("setting", "picture", "ranks")}
        kept = {"draws": group[0]["draws"], "ranks": None, "nearer": None}
        found.append(Row(**{**numbers, **kept, "setting": setting, "picture": f"{len(group)} pictures"}))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that are there."""
    there = [v for v in values if v is not None]
    return float(np.mean(there)) if there else None


def _share(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def diagnoses(rows: Sequence[Row]) -> str:
    """For each setting with several draws, a line on the ranks of the truth and one on TARP."""
    lines = []
    for setting in dict.fromkeys(row.setting for row in rows):
        group = [row for row in rows if row.setting == setting and row.ranks is not None]
        if not group:
            continue
        K, names = group[0].draws, f"{len(group)} picture{'s' * (len(group) > 1)}"
        found = rank_statistics(torch.tensor([row.ranks for row in group]), K)
        shares = [100 * float(part.sum() / found.counts.sum()) for part in found.counts.tensor_split(min(_BARS, K + 1))]
        curve = tarp(torch.tensor([row.nearer for row in group]), K)
        bars, uniform = " ".join(f"{s:.0f}" for s in shares), 100 / len(shares)
        lines += [
            f"{setting}: rank of the truth among the {K} draws, {_GRID**2} pixels of {names}: {bars} % (exact: "
            f"{uniform:.0f} each), chi-square p {found.p:.2g}",
            f"{' ' * len(setting)}  TARP, {names}{', coarse' * (len(group) < 100)}: {curve.deviation:.2f} from the "
            f"diagonal at most, where exact draws stay below {curve.chance:.2f}",
        ]
    return "\n".join(lines) + "\n" * bool(lines)


def markdown(rows: Sequence[Row]) -> str:
    """A table for people; a single draw and the mean of the draws apart."""
    width = max(7, *(len(r.setting) for r in rows))
    lines = [
        f"| {'setting':<{width}} | PSNR mean | PSNR draw | SSIM mean | SSIM draw | data fit | covers 90 % "
        "| calibrated | width |   NFE | seconds |",
        f"|:{'-' * width}-|----------:|----------:|----------:|----------:|---------:|------------:"
        "|-----------:|------:|------:|--------:|",
    ]
    for r in rows:
        lines.append(
            f"| {r.setting:<{width}} | {r.psnr:9.2f} | {r.psnr_sample:9.2f} | {r.ssim:9.3f} | {r.ssim_sample:9.3f} "
            f"| {r.fit:8.2f} | {_share(r.coverage):>11} | {_share(r.calibrated):>10} | {_share(r.width):>5} "
            f"| {r.nfe:5.0f} | {r.seconds:7.1f} |"
        )
    return "\n".join(lines) + "\n"


def write_tables(folder: Path, title: str, rows: Sequence[Row]) -> str:
    """`table.md` (averages), `table.csv` and `table.json` (every row) in a folder; returns the averages as text."""
    told = diagnoses(rows)
    text = markdown(averages(rows)) + f"\n{told}" * bool(told)
    lines = io.StringIO()
    writer = csv.DictWriter(
        lines, [k for k in asdict(rows[0]) if k != "ranks"], lineterminator="\n", extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    for name, content in {
        "table.md": f"# {title}\n\n{text}",
        "table.csv": lines.getvalue(),
        "table.json": json.dumps([asdict(row) for row in rows], indent=2) + "\n",
    }.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(content)
    return text

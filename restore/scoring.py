"""Results against the truth, as rows of a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from restore.engine import Outcome
from restore.files import atomic_write
from restore.jobs import Prepared, pixels
from restore.metrics import fitting, psnr, ssim


@dataclass(frozen=True)
class Row:
    """One picture with one setting.

    Attributes:
        psnr, ssim: of the mean of the draws.
        psnr_sample, ssim_sample: of single draws, averaged over them.
        fit: `||y - A x|| / (sigma sqrt(m))`, 1 for draws from the posterior.
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
    nfe: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"PSNR {self.psnr:.2f} (one draw {self.psnr_sample:.2f}), SSIM {self.ssim:.3f}, data fit {self.fit:.2f}, "
            f"{self.seconds:.1f} s"
        )


def score(prepared: Prepared, outcome: Outcome, truth: np.ndarray, setting: str, picture: str) -> Row:
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
        nfe=outcome.nfe,
        seconds=outcome.seconds,
    )


def averages(rows: Sequence[Row]) -> list[Row]:
    """One row for each setting: the mean over its pictures."""
    found = []
    for setting in dict.fromkeys(row.setting for row in rows):
        group = [asdict(row) for row in rows if row.setting == setting]
        numbers = {k: float(np.mean([g[k] for g in group])) for k in group[0] if k not in ("setting", "picture")}
        found.append(Row(setting=setting, picture=f"{len(group)} pictures", **{**numbers, "draws": group[0]["draws"]}))
    return found


def markdown(rows: Sequence[Row]) -> str:
    """A table for people; a single draw and the mean of the draws apart."""
    width = max(7, *(len(r.setting) for r in rows))
    lines = [
        f"| {'setting':<{width}} | PSNR mean | PSNR draw | SSIM mean | SSIM draw | data fit |   NFE | seconds |",
        f"|:{'-' * width}-|----------:|----------:|----------:|----------:|---------:|------:|--------:|",
    ]
    for r in rows:
        lines.append(
            f"| {r.setting:<{width}} | {r.psnr:9.2f} | {r.psnr_sample:9.2f} | {r.ssim:9.3f} | {r.ssim_sample:9.3f} "
            f"| {r.fit:8.2f} | {r.nfe:5.0f} | {r.seconds:7.1f} |"
        )
    return "\n".join(lines) + "\n"


def write_tables(folder: Path, title: str, rows: Sequence[Row]) -> str:
    """`table.md` (averages), `table.csv` and `table.json` (every row) in a folder; returns the averages as text."""
    text = markdown(averages(rows))
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(asdict(rows[0])), lineterminator="\n")
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

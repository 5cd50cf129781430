"""All samplers on photographs, a table for each task: scores of a draw and of the mean of a few, honesty, cost.

    python tests/bench/photo_samplers.py --data ../shared/data --write README.md

Crops of 128 x 128 from the middle of the first pictures of Set12 (grey) and CBSD68 (colour), the shipped prior,
settings as the command line has them but for `LESS`. Results go to a JSON-lines file as they come; a run that was
stopped goes on where it was, and what was measured with another prior or other settings is measured again.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from pathlib import Path
from statistics import fmean, pstdev

import torch
from deepinv.loss.metric import HaarPSI
from photos import CONFIGS, ONE, Row, fingerprint, recorded, sampler_for
from report import write_between
from scipy.stats import t as student
from tasks import FIRST, FOUR, Task, find_pictures, load, psnr, ssim
from torch import Tensor

from restore.core import Restoration, restore
from restore.memory import keep_freed_memory
from restore.priors.base import Denoiser
from restore.priors.store import load_prior
from restore.samplers.base import Sampler, SamplerError

NORMAL = 1.645  # standard deviations on both sides of the mean that hold 90 % of a Gaussian
# What the command line would run takes too long for a table, of samplers that differentiate the denoiser or call it
# hundreds of times: fewer steps here. Ladders then start above the spread of the pixels, not where the prior's do, and
# a chain that is short takes a higher level, at which it moves faster. Tried on one picture set aside from training.
LESS: dict[str, dict[str, float]] = {
    "csgm": {"steps": 40, "sigma_max": 1},
    "daps": {"steps": 30, "sigma_max": 2},
    "dps": {"steps": 80, "sigma_max": 2},
    "fps": {"steps": 30, "sigma_max": 2, "particles": 4},
    "pigdm": {"steps": 40, "sigma_max": 2},
    "pnpdm": {"steps": 15},
    "projection": {"steps": 50},
    "tds": {"steps": 30, "sigma_max": 2, "particles": 2},
    "ula": {"steps": 120, "sigma_min": 0.05},
}
FEW = 2  # draws of those
CHEAP_FIRST = ("ddrm", "ddnm", "diffpir", "moment_matching", "reddiff", "projection")  # then the others by name
NOTE = """Means over {files} crops of 128 x 128 (PSNR ± standard deviation over them), the shipped prior. Coverage:
share of the pixels within 1.645 standard deviations of the mean, both those of the draws, raw; in brackets what as
many exact draws of a Gaussian posterior would give: with few draws less than 0.90. Calls of the denoiser and products
with its Jacobian (back) are those of one draw, as are the seconds, of one thread of a busy machine. Settings are those
of the command line, with fewer steps, and at most {few} draws, for the dear: {less}."""


def names() -> list[str]:
    """All samplers there are, the cheap ones first."""
    there = sorted(path.stem for path in (CONFIGS / "sampler").glob("*.yaml"))
    return sorted(there, key=lambda n: CHEAP_FIRST.index(n) if n in CHEAP_FIRST else len(CHEAP_FIRST))


def pictures(data: Path, number: int) -> list[Path]:
    """The first `number` pictures of each set."""
    paths = find_pictures(data)
    return paths[:number] + paths[FIRST : FIRST + number]


def lessened(operator: str, name: str) -> Sampler:
    """A sampler as the command line would set it, but for `LESS`."""
    return sampler_for(operator, name, [f"sampler.{key}={value}" for key, value in LESS.get(name, {}).items()])


def covered(R: Restoration, truth: Tensor) -> float:
    """Share of the pixels within the raw 90 % interval, mean +- 1.645 standard deviations of the draws."""
    return float(((R.mean - truth[0]).abs() <= NORMAL * R.std).float().mean())


def covered_by_exact(draws: int) -> float:
    """What `covered` expects of exact draws from a Gaussian: mean and standard deviation are estimates themselves."""
    return 2 * float(student.cdf(NORMAL / math.sqrt(1 + 1 / draws), draws - 1)) - 1


def judged(R: Restoration, truth: Tensor) -> Row:
    """Scores of one restoration of `(1, C, H, W)`: means over the draws, but for what is said of their mean."""
    haarpsi = HaarPSI(norm_inputs=None)
    K = len(R.samples)
    return {
        "psnr": fmean(psnr(x[None], truth) for x in R.samples),
        "psnr_mean": psnr(R.mean[None], truth) if K > 1 else None,
        "ssim": fmean(ssim(x[None], truth) for x in R.samples),
        "haarpsi": fmean(float(haarpsi(x[None].clamp(0, 1), truth)) for x in R.samples),
        "fit": float(R.residual().mean()),
        "coverage": covered(R, truth) if K > 1 else None,
        "draws": K,
        "nfe": R.nfe,
        "backward": R.backward,
        "seconds": R.seconds / K,
    }


def tables(rows: list[Row]) -> str:
    """One Markdown table per task, PSNR in dB. A sampler without rows for a task is not in its table."""
    parts = []
    for task in FOUR.values():
        here = [row for row in rows if row["task"] == task.name]
        if not here:
            continue
        lines = [
            f"**{task.title}**",
            "",
            "| sampler | PSNR of a draw | PSNR of the mean | SSIM | HaarPSI | data fit | coverage | calls | back | s |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for name in sorted({row["method"] for row in here}):
            mine = [row for row in here if row["method"] == name]
            mean, coverage, K = "", "", mine[0]["draws"]
            if K > 1:
                mean = f"{_spread(mine, 'psnr_mean')} (of {K})"
                coverage = f"{_mean(mine, 'coverage'):.2f} ({covered_by_exact(K):.2f})"
            scores = " | ".join(
                f"{_mean(mine, key):.{digits}f}" for key, digits in (("ssim", 3), ("haarpsi", 3), ("fit", 2))
            )
            cost = " | ".join(
                f"{_mean(mine, key):.{digits}f}" for key, digits in (("nfe", 0), ("backward", 0), ("seconds", 1))
            )
            lines.append(f"| {name} | {_spread(mine, 'psnr')} | {mean} | {scores} | {coverage} | {cost} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def note(rows: list[Row]) -> str:
    """What the tables show, in words."""
    there = {row["method"] for row in rows}
    less = [
        f"`{name}` " + " ".join(f"{key}={value}" for key, value in LESS[name].items())
        for name in sorted(there & LESS.keys())
    ]
    return NOTE.format(files=len({row["file"] for row in rows}), few=FEW, less=", ".join(less) or "none")


def _mean(rows: list[Row], key: str) -> float:
    return fmean(row[key] for row in rows)


def _spread(rows: list[Row], key: str) -> str:
    return f"{_mean(rows, key):.2f} ± {pstdev(row[key] for row in rows):.1f}"


def measured(task: Task, path: Path, file: int, prior: Denoiser, sampler: Sampler, draws: int, crop: int) -> Row:
    """Raises SamplerError: the sampler cannot do it."""
    truth = load(path, crop, task.even)
    problem = task.problem(truth, file)
    return judged(restore(problem, prior, sampler, num_samples=draws, chunk=1, file=file), truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with images/test/...")
    parser.add_argument("--prior", default="photos")
    parser.add_argument("--methods", help="comma-separated names (default all)")
    parser.add_argument("--tasks", default=",".join(FOUR))
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--files", type=int, default=2, help="pictures of each set")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--results", type=Path, default=Path("outputs/bench/photo_samplers.jsonl"))
    parser.add_argument("--recorded", action="store_true", help="run nothing: print what has been measured")
    parser.add_argument("--write", type=Path, help="put the tables between the markers of this file")
    args = parser.parse_args()

    torch.set_num_threads(1)
    keep_freed_memory()
    prior = load_prior(args.prior)
    digest = fingerprint(prior)
    done = {(r["task"], r["file"], r["config"]): r for r in recorded(args.results)}
    wanted = args.methods.split(",") if args.methods else names()
    paths = pictures(args.data, args.files)

    rows: list[Row] = []
    for name, task in product(wanted, (FOUR[t] for t in args.tasks.split(","))):
        sampler, K = (
            lessened(task.operator_name, name),
            1 if name in ONE else min(FEW, args.draws) if name in LESS else args.draws,
        )
        for number, path in enumerate(paths):
            file = f"{path.parent.name}/{path.name} crop {args.crop}"
            base = {"task": task.name, "file": file, "method": name, "config": f"{sampler} x{K} {digest}"}
            row = done.get((task.name, file, base["config"]))
            if row is None:
                if args.recorded:
                    continue
                try:
                    row = base | measured(task, path, number, prior, sampler, K, args.crop)
                except SamplerError as error:  # a gap in the table, with the reason said
                    print(f"{file} {task.name} {name}: {error}", flush=True)
                    continue
                with args.results.open("a") as out:
                    out.write(json.dumps(row) + "\n")
                scores = " ".join(
                    f"{k} {row[k]:.2f}" for k in ("psnr", "fit", "coverage", "seconds") if row[k] is not None
                )
                print(file, task.name, name, scores, flush=True)
            rows.append(row)

    text = tables(rows) + "\n" + note(rows) + "\n"
    print(text)
    if args.write:
        write_between(args.write, "samplers", text)


if __name__ == "__main__":
    main()

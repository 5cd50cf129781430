"""Priors learnt from noisy pictures against one learnt from clean ones: how much of the gap is closed.

    python tests/bench/noisy_priors.py --data ../shared/data --output out/ --steps 12000

For each noise of the data one network is learnt, at the same number of steps, (i) from clean pictures, (ii) from noisy
ones by SURE-Score, (iii) from noisy ones as if they were clean, (iv) by Ambient-Tweedie, (v) by the same with a tenth
of the pictures clean. Then one sampler with one setting reconstructs crops of pictures set aside: four-fold compressed
sensing and 70 % missing pixels. The share of the gap closed is `(psnr - psnr_iii) / (psnr_i - psnr_iii)`. A further row
has (i) with its ladder cut at the noise of the data.

A training that was stopped goes on where it was; one that is done is not repeated, and neither are scores of the same
weights (`scores.jsonl`); `--table` prints what there is. Pictures: `train_bsd400_gray`, the
last twelve set aside. Only clean pictures are shrunk at random in training (shrinking would average the noise), which
is an advantage of (i). No number is chosen by looking at a clean picture.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import tifffile
import torch
from photos import fingerprint, recorded, sampler_for
from PIL import Image
from report import write_between
from tasks import psnr
from torch import Tensor

from operators.base import LinearOperator
from operators.image import Mask, SubsampledOrthogonal
from operators.noise import Gaussian
from operators.random import Draws, generator
from restore.core import restore
from restore.learn.checkpoint import CHECKPOINT, read_state
from restore.learn.train import learn
from restore.priors.base import Denoiser
from restore.priors.store import load_prior
from restore.problem import Problem

SIZE, SET_ASIDE, SIGMA_Y = 128, 12, 0.05
NETWORK = {"widths": (16, 32, 48, 64), "blocks": (1, 1, 1, 1), "batch": 8, "patch": 64}
CLEAN, NAIVE, CUT = "clean", "as if clean", "clean, not used below the noise"
BARS = {"sure_score": 80, "ambient": 80, "ambient, 10 % clean": 95}


def split(data: Path) -> tuple[list[Path], list[Path]]:
    """Pictures to learn from, and those set aside."""
    folder = data / "images" / "train_bsd400_gray"
    paths = sorted(folder.glob("*.png"))
    if len(paths) <= SET_ASIDE:
        raise FileNotFoundError(f"{len(paths)} pictures in {folder}: name the folder of the data with --data")
    return paths[:-SET_ASIDE], paths[-SET_ASIDE:]


def prepare(paths: list[Path], out: Path, noises: list[float]) -> None:
    """Write what is learnt from: clean pictures (every tenth apart), and noisy ones as floats, nothing clipped."""
    for i, path in enumerate(paths):
        x = np.asarray(Image.open(path).convert("L"))
        part = "tenth" if i % 10 == 0 else "rest"
        for sigma in (0.0, *noises):
            folder = out / f"pictures-{sigma:g}" / part
            folder.mkdir(parents=True, exist_ok=True)
            if sigma == 0:
                Image.fromarray(x).save(folder / f"{path.stem}.png")
                continue
            noise = np.random.default_rng((round(1000 * sigma), i)).standard_normal(x.shape)
            tifffile.imwrite(folder / f"{path.stem}.tif", (x / 255 + sigma * noise).astype(np.float32))


def trainings(out: Path, noises: list[float]) -> dict[tuple[str, float], tuple[list[Path], dict[str, Any]]]:
    """(How, noise of the data) -> folders and options of `learn`."""
    plans: dict[tuple[str, float], tuple[list[Path], dict[str, Any]]] = {}
    for sigma in noises:
        clean, noisy = out / "pictures-0", out / f"pictures-{sigma:g}"
        told = {"data_noise": sigma}
        plans[CLEAN, 0.0] = ([clean], {"objective": "dsm"})
        plans[NAIVE, sigma] = ([noisy], {"objective": "dsm", **told})
        plans["sure_score", sigma] = ([noisy], {"objective": "sure_score", **told})
        plans["ambient", sigma] = ([noisy], {"objective": "ambient", **told})
        some = {"objective": "ambient", "clean": [clean / "tenth"], **told}
        plans["ambient, 10 % clean", sigma] = ([noisy / "rest"], some)
    return plans


def sensing(file: int) -> LinearOperator:
    """A quarter of the DCT coefficients: the lowest 16 x 16, the others at random."""
    low = (torch.arange(16)[:, None] * SIZE + torch.arange(16)).flatten()
    order = torch.randperm(SIZE**2, generator=generator(71, file))
    others = order[~torch.isin(order, low)][: SIZE**2 // 4 - len(low)]
    return SubsampledOrthogonal((1, SIZE, SIZE), indices=torch.cat([low, others]).sort().values)


def missing(file: int) -> LinearOperator:
    return Mask(torch.rand(SIZE, SIZE, generator=generator(70, file)) > 0.7, channels=1)


TASKS: dict[str, Callable[[int], LinearOperator]] = {
    "4x compressed sensing": sensing,
    "70 % missing": missing,
}


def crop(path: Path) -> Tensor:
    """The middle, `(1, 1, SIZE, SIZE)` in [0, 1]."""
    x = torch.from_numpy(np.array(Image.open(path).convert("L"))).float() / 255
    top, left = ((n - SIZE) // 2 for n in x.shape)
    return x[None, None, top : top + SIZE, left : left + SIZE]


def score(prior: Denoiser, task: str, truths: list[Tensor], draws: int) -> float:
    """Mean PSNR of the mean of some draws."""
    sampler, noise, found = sampler_for("mask", "diffpir"), Gaussian(SIGMA_Y), []
    for file, truth in enumerate(truths):
        A = TASKS[task](file)
        problem = Problem(noise.sample(A(truth), Draws(2024, file=file)), A, noise)
        found.append(psnr(restore(problem, prior, sampler, num_samples=draws, file=file).mean[None], truth))
    return fmean(found)


def done(prior: Path, steps: int) -> bool:
    """Whether it was learnt to the end."""
    state = prior / CHECKPOINT
    return state.exists() and read_state(state, torch.device("cpu"))["trainer"]["done"] >= steps


def scored(prior: Denoiser, truths: list[Tensor], draws: int, results: Path) -> dict[str, float]:
    """`score` of both tasks, found in `results` or put there."""
    key = [fingerprint(prior), prior.sigma_min, draws]
    for row in recorded(results):
        if row["key"] == key:
            return row["psnr"]
    found = {task: score(prior, task, truths, draws) for task in TASKS}
    with results.open("a") as out:
        out.write(json.dumps({"key": key, "psnr": found}) + "\n")
    return found


def table(scores: dict[tuple[str, float], dict[str, float]], noises: list[float]) -> str:
    """PSNR of each prior and task, and the share of the gap closed; a prior that has not been learnt is left out."""
    heads = " | ".join(f"{task} (dB) | gap closed" for task in TASKS)
    lines, bars = [f"| noise of the data | learnt | {heads} |", "|--:|---|" + "--:|--:|" * len(TASKS)], []
    for sigma in noises:
        for how in (CLEAN, NAIVE, CUT, *BARS):
            cells = []
            ends, row = [(CLEAN, 0.0), (NAIVE, sigma)], (how, 0.0 if how == CLEAN else sigma)
            if not scores.keys() >= {*ends, row}:
                continue
            for task in TASKS:
                best, worst, own = (scores[each][task] for each in (*ends, row))
                share = 100 * (own - worst) / (best - worst)
                cells.append(f"{own:.2f} | {share:.0f} %")
                if how in BARS:
                    verdict = "met" if best > worst and share >= BARS[how] else "MISSED"
                    bars.append(f"- {how}, noise {sigma:g}, {task}: {share:.0f} %, bar {BARS[how]} %: {verdict}")
            lines.append(f"| {sigma:g} | {how} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *bars])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with images/train_bsd400_gray")
    parser.add_argument("--output", type=Path, required=True, help="folder for pictures, priors and the table")
    parser.add_argument("--steps", type=int, default=12_000, help="of each training")
    parser.add_argument("--noise", default="0.1,0.2", help="stds of the noise of the data")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of the trainings")
    parser.add_argument("--table", action="store_true", help="print what there is, train nothing")
    parser.add_argument("--write", type=Path, help="put the table between the markers of this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    noises = [float(s) for s in args.noise.split(",")]
    train, aside = split(args.data)
    prepare(train, args.output, noises)
    truths = [crop(path) for path in aside]
    scores: dict[tuple[str, float], dict[str, float]] = {}
    results = args.output / "scores.jsonl"
    for (how, sigma), (folders, options) in trainings(args.output, noises).items():
        start = time.monotonic()
        name = f"{how.replace(' %', '').replace(',', '').replace(' ', '-')}-{sigma:g}"
        prior = args.output / name
        if not args.table:
            learn(folders, prior, steps=args.steps, device=args.device, **options, **NETWORK)
        elif not done(prior, args.steps):
            continue
        seconds = time.monotonic() - start
        learnt = load_prior(prior)
        scores[how, sigma] = scored(learnt, truths, args.draws, results)
        print(name, f"{seconds:.0f} s to learn", scores[how, sigma], file=sys.stderr, flush=True)
        if how == CLEAN:
            for cut in noises:
                learnt.sigma_min = cut
                scores[CUT, cut] = scored(learnt, truths, args.draws, results)
    text = table(scores, noises)
    print(text)
    if args.write:
        write_between(args.write, "noisy_priors", text + "\n")


if __name__ == "__main__":
    main()

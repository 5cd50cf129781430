"""What `restore denoise --self-supervised` learns by, chosen by uPSNR: nothing clean has a say.

    python tests/bench/self_supervised.py --data ../shared/data --output out/ --steps 4000
    python tests/bench/self_supervised.py --data ../shared/data --output out/ --table

Each objective learns from twelve noisy pictures (`gb82` in grey, of no test set) and denoises the middles of the same.
The error is estimated from three further noisy copies of each picture (`restore.metrics.umse`). The bounds of `sigma_a`
(`noise2score`) and of the noise of `y1` (`gr2r`) stand behind the name, both in units of the noise; a score is read at
several `sigma_a` too. The last columns are the difference to the first row of that noise and its standard error over
the pictures.

`--told 1.1` tells an objective, and what it learnt, a variance of the noise that is 1.1 times too large.

A training that was stopped goes on, rows are appended to `rows.jsonl` as they come and are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from noise2score import Condition, grey, train
from photos import recorded
from torch import Tensor

from operators.random import Draws
from restore.denoisers.score import ScoreNetwork
from restore.denoisers.tweedie import Tweedie, as_tweedie, posterior_mean
from restore.learn.base import Objective
from restore.learn.gr2r import GR2R
from restore.learn.noise2score import Noise2Score
from restore.metrics import umse, upsnr
from restore.priors.store import load_prior

PICTURES, SIDE = 12, 256
CONDITIONS = ("poisson:0.05", "gamma:50", "gaussian:25")
OBJECTIVES = ("noise2score:0.5:2", "gr2r:0.5:2", "noise2score:0.25:1", "noise2score:0.25:2", "noise2score:1:4")
READ_AT = (0.0, 0.25, 0.5)  # sigma_a in units of the noise
Row = dict[str, Any]


def objective(name: str, kind: str, law: Tweedie) -> Objective:
    method, low, high = name.split(":")
    bounds = {"low": float(low), "high": float(high)}
    if method == "gr2r":
        return GR2R(kind=kind, **bounds)  # type: ignore[arg-type]
    return Noise2Score(rho=law.rho, **bounds)


def estimates(folder: Path, goal: Objective, law: Tweedie) -> dict[str, Callable[[Tensor], Tensor]]:
    """How a prior is read, and what it makes of noisy pictures in `[0, 1]`."""
    prior = load_prior(folder)
    if not goal.learns_score:
        return {"": lambda y: prior(y, prior.sigma_min)}
    network = ScoreNetwork(prior)

    def read(y: Tensor, sigma_a: float) -> Tensor:
        score = lambda y: network(y, sigma_a)  # noqa: E731
        return posterior_mean(score, y, law, smoothing=sigma_a, variable=network.variable)

    return {f"{share:g}": lambda y, share=share: read(y, share * network.denoiser.sigma_min) for share in READ_AT}


def run(text: str, name: str, clean: list[Tensor], args: argparse.Namespace) -> list[Row]:
    """Learn and score: one row for each way to read what was learnt."""
    kind, level = text.split(":")
    condition = Condition(kind, float(level))
    noise, law = condition.noise(), as_tweedie(condition.noise())
    told = Tweedie(law.rho, law.phi * args.told)
    copies = [[noise.sample(x, Draws(k, file=i)) for k in range(400, 404)] for i, x in enumerate(clean)]
    folder = args.output / f"{text}_{name}_{args.told:g}_{args.steps}".replace(":", "_")
    goal = objective(name, kind, told)
    if not (folder / "config.json").exists():
        print(f"learning {folder.name}", flush=True)
        stds = [condition.scale * args.told**0.5] * len(copies)
        train(goal, [2 * y[0] - 1 for y, *_ in copies], stds, folder, args)
    rows = []
    for read, estimate in estimates(folder, goal, told).items():
        errors = []
        for four in copies:
            y, *others = (middle(copy) for copy in four)
            with torch.no_grad():
                found = estimate(y).clamp(0, 1).numpy()
            errors.append(umse(found, (others[0].numpy(), others[1].numpy(), others[2].numpy())))
        rows.append({"noise": text, "objective": name, "read": read, "umse": errors})
    return [row | {"told": args.told, "steps": args.steps, "batch": args.batch} for row in rows]


def middle(x: Tensor) -> Tensor:
    top, left = ((n - SIDE) // 2 for n in x.shape[2:])
    return x[:, :, top : top + SIDE, left : left + SIDE]


def table(rows: list[Row]) -> str:
    lines = ["| noise | variance told | steps | objective | read at | uPSNR (dB) | difference | standard error |"]
    lines.append("|---|--:|--:|---|--:|--:|--:|--:|")
    first: dict[Any, np.ndarray] = {}
    for row in rows:
        key, own = (row["noise"], row["steps"]), np.array(row["umse"])
        base = first.setdefault(key, own)
        gain = (base - own) / base.mean() * 10 / np.log(10)
        lines.append(
            f"| {row['noise']} | {row['told']:g} | {row['steps']} | {row['objective']} | {row['read']} | "
            f"{upsnr(own.mean()):.2f} | {gain.mean():+.2f} | {gain.std(ddof=1) / len(gain) ** 0.5:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = Path(os.environ.get("RESTORE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="folder with images/... (or RESTORE_DATA)")
    parser.add_argument("--output", type=Path, required=True, help="where trainings and rows are kept")
    parser.add_argument("--conditions", default=",".join(CONDITIONS))
    parser.add_argument("--objectives", default=",".join(OBJECTIVES))
    parser.add_argument("--told", type=float, default=1.0, help="the variance told, over the true one")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--widths", type=int, nargs="+", default=(32, 64, 96))
    parser.add_argument("--blocks", type=int, nargs="+", default=(2, 2, 2))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = args.output / "rows.jsonl"
    known = recorded(results)
    clean = [] if args.table else grey(args.data / "images" / "train" / "gb82")[:PICTURES]
    for text in args.conditions.split(",") if not args.table else ():
        for name in args.objectives.split(","):
            key = [text, name, args.told, args.steps]
            if any([row["noise"], row["objective"], row["told"], row["steps"]] == key for row in known):
                continue
            rows = run(text, name, clean, args)
            with results.open("a") as out:
                out.writelines(json.dumps(row) + "\n" for row in rows)
            known += rows
            print(table(known), flush=True)
    print(table(known))


if __name__ == "__main__":
    main()

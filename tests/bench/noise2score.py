"""The table of Noise2Score, trained here: Set12 and BSD68 in grey, Gaussian, Poisson and Gamma noise.

    python tests/bench/noise2score.py --data ../shared/data --output out/ --steps 20000 --conditions gaussian:25
    python tests/bench/noise2score.py --table --steps 2000 --write README.md
    python tests/bench/noise2score.py --data ../shared/data --levels

Every network sees noisy versions of Train400 that are made once, except the supervised twin, which also sees the clean
pictures: the same network, the same number of pictures per step and the same number of steps. Nothing is selected: the
averaged weights of the last step are scored. The blind network of a kind of noise sees a random level per picture,
which it is not told: it is estimated, in training from each noisy picture alone.
Rows are appended to `--results` as they come and are not repeated, a training that was stopped goes on where it wrote
its last checkpoint; the table is printed from what there is for that number of `--steps`.

`--levels` estimates type and level of the noise of twelve pictures (Set12) at nine settings, from each picture alone;
with `--score FOLDER` also by the published medians on that folder's score.

PSNR of pictures in `[0, 1]`, estimates clipped, mean over the pictures. The noise of test picture `i` is seeded by `i`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
import torch
from photos import recorded
from PIL import Image
from report import write_between
from torch import Tensor, channels_last

from operators.noise import Gamma, Gaussian, NoiseModel, Poisson
from operators.random import Draws
from restore.denoisers.adaptive import estimate_law, law_from_score
from restore.denoisers.posterior import at_mid_grey
from restore.denoisers.score import ScoreNetwork
from restore.denoisers.tweedie import Tweedie, as_tweedie
from restore.files import atomic_write
from restore.learn.base import Batch, Objective
from restore.learn.data import Patches
from restore.learn.gr2r import GR2R
from restore.learn.noise2score import Noise2Score
from restore.learn.pure import PURE
from restore.learn.sure import SURE
from restore.learn.trainer import Recipe, Trainer
from restore.priors.base import Denoiser, per_row
from restore.priors.network import EDMDenoiser, UNet
from restore.priors.store import load_prior, save_prior

NOISES: dict[str, Callable[[float], NoiseModel]] = {
    "gaussian": lambda level: Gaussian(level / 255),
    "poisson": Poisson,
    "gamma": Gamma,
}
# Random levels of the blind networks, log-uniform, as published.
BLIND = {"gaussian": (20.0, 55.0), "poisson": (0.005, 0.1), "gamma": (40.0, 120.0)}
CONDITIONS = ("gaussian:25", "gaussian:50", "poisson:0.01", "poisson:0.05", "gamma:100", "gamma:50")
METHODS = ("noise2score", "supervised", "blind", "one_shot", "gr2r")
EVERY = 500  # steps between checkpoints
RESULTS = Path(__file__).with_suffix(".jsonl")  # kept with the code: each row is a quarter of an hour
ROWS = {
    "noise2score published": "Noise2Score, published estimator",
    "noise2score shifted": "**Noise2Score, shifted estimator**",
    "blind shifted": "blind Noise2Score, level known",
    "blind level": "blind Noise2Score, level estimated",
    "blind estimated": "blind Noise2Score, type and level estimated",
    "one_shot": "SURE / PURE",
    "gr2r": "GR2R, split at random",
    "supervised": "supervised twin",
}
# Kim and Ye 2021, Table 2, for (BSD68, Set12) in the order of CONDITIONS; BM3D of Poisson noise is with Anscombe's
# transform. Its supervised Set12 of Gamma 100, 31.72, is below its own Noise2Noise and left out.
PUBLISHED = {
    "BM3D": ((28.59, 29.96), (25.62, 26.33), (30.51, 31.20), (26.77, 27.54), None, None),
    "N2V": ((26.77, 27.56), (24.34, 24.68), (28.73, 30.06), (26.12, 27.21), (29.32, 30.54), (26.98, 27.36)),
    "N2S": ((28.28, 29.16), (25.61, 26.19), (29.76, 30.47), (26.54, 27.53), (30.49, 30.71), (29.25, 29.67)),
    "SURE / PURE": ((28.78, 29.13), (25.80, 26.23), (30.16, 30.69), (24.76, 25.07), None, None),
    "Noise2Score": ((29.12, 30.13), (26.21, 27.16), (30.81, 31.58), (27.12, 27.86), (32.67, 33.01), (30.53, 30.87)),
    "its blind version": (
        (28.95, 30.08),
        (25.81, 26.65),
        (30.63, 31.42),
        (26.77, 27.76),
        (32.54, 32.89),
        (30.42, 30.83),
    ),
    "supervised": ((29.20, 30.36), (26.30, 27.20), (30.98, 31.79), (27.25, 28.04), (32.93, None), (31.16, 31.72)),
}
SETS = ("BSD68", "Set12")
SETTINGS = [("gaussian", s) for s in (15, 25, 50)]
SETTINGS += [("poisson", z) for z in (0.01, 0.03, 0.05)] + [("gamma", k) for k in (100, 75, 50)]


def grey(folder: Path) -> list[Tensor]:
    """Its pictures, float32 `(1, 1, H, W)` in `[0, 1]`. Raises SystemExit where there are none."""
    paths = sorted(p for p in folder.glob("*") if p.suffix in (".png", ".webp", ".jpg"))
    if not paths:
        raise SystemExit(f"{folder} holds no pictures: name the data folder with --data")
    return [torch.from_numpy(np.array(Image.open(p).convert("L")))[None, None].float() / 255 for p in paths]


@dataclass(frozen=True)
class Condition:
    """`kind` of noise and its level; no level is the blind training of that kind."""

    kind: str
    level: float | None

    @property
    def levels(self) -> tuple[float, float]:
        return BLIND[self.kind] if self.level is None else (self.level, self.level)

    def noise(self, u: float = 0.5) -> NoiseModel:
        """At a share `u` of the way, on a logarithmic scale, from the lowest level to the highest."""
        low, high = self.levels
        return NOISES[self.kind](low * (high / low) ** u)

    @property
    def scale(self) -> float:
        """Standard deviation of the noise at mid-grey, in units of `[-1, 1]`."""
        return 2 * at_mid_grey(as_tweedie(self.noise()))


def std_alone(y: Tensor, condition: Condition) -> float:
    """Of the noise at mid-grey, in units of `[-1, 1]`, as found in the picture."""
    law = estimate_law([y[0].numpy()], as_tweedie(condition.noise()).rho)
    assert law is not None
    return 2 * at_mid_grey(law)


def noisy_versions(clean: list[Tensor], condition: Condition) -> list[Tensor]:
    shares = torch.rand(len(clean), generator=torch.Generator().manual_seed(7)).tolist()
    return [
        condition.noise(u).sample(x, Draws(400, file=i)) for i, (x, u) in enumerate(zip(clean, shares, strict=True))
    ]


@dataclass(frozen=True, kw_only=True)
class Twin(Objective):
    """`|D(y) - x|^2` over the variance of the noise at mid-grey; pictures of two channels, noisy `y` and clean `x`."""

    supervised: ClassVar[bool] = True

    def loss(self, denoiser: Denoiser, batch: Batch, rng: torch.Generator) -> Tensor:
        y, x = batch.x.chunk(2, 1)
        return ((denoiser(y, batch.sigma) - x) / per_row(batch.sigma, x)).square().flatten(1).mean(1)

    def trusted(self, denoiser: Denoiser, noises: Mapping[int, Sequence[float]]) -> tuple[float, float]:
        return noises[1][0], noises[1][0]


def objective(condition: Condition, method: str) -> Objective:
    law = as_tweedie(condition.noise())
    if method == "supervised":
        return Twin()
    if method == "one_shot":
        return PURE(gain=2 * law.phi) if condition.kind == "poisson" else SURE()
    if method == "gr2r":
        return GR2R(kind=condition.kind)  # type: ignore[arg-type]
    return Noise2Score(rho=law.rho)


def train(goal: Objective, pictures: list[Tensor], stds: list[float], folder: Path, args: argparse.Namespace) -> None:
    """Write the averaged network of the last step to `folder`; a training that was stopped goes on.

    Args:
        pictures: noisy, `(C, H, W)` in `[-1, 1]`; `stds`: of their noise at mid-grey.
    """
    torch.manual_seed(0)
    patches = Patches(pictures, args.patch, shrink=0.0, noise=stds)
    net = EDMDenoiser(UNet((1,), args.widths, args.blocks))
    net.to(memory_format=channels_last)  # type: ignore[call-overload]
    net.rho = goal.rho
    net.sigma_min, net.sigma_max = goal.trusted(net, patches.noises())
    recipe = Recipe(steps=args.steps, batch=args.batch, patch=args.patch)
    trainer = Trainer(net, goal, patches, recipe, seed=0)
    state = folder.with_name(f"{folder.name}.state.pt")
    if state.exists():
        trainer.load_state_dict(torch.load(state, weights_only=True))
        print(f"  goes on at step {trainer.done}", flush=True)
    start = time.monotonic()
    while trainer.done < recipe.steps:
        trainer.step()
        if trainer.done % EVERY == 0:
            print(f"  step {trainer.done}/{recipe.steps}, {time.monotonic() - start:.0f} s", flush=True)
            with atomic_write(state) as temporary:
                torch.save(trainer.state_dict(), temporary)
    net.load_state_dict(trainer.average)
    save_prior(net, folder)
    state.unlink(missing_ok=True)


def score_estimates(prior: Denoiser, noise: NoiseModel, blind: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Estimators of one trained score: name, and noisy picture in `[0, 1]` to estimate."""
    network = ScoreNetwork(prior)

    def estimated(y: Tensor, rho: float | None = None) -> Tensor:
        law = estimate_law([y[0].numpy()], rho)
        assert law is not None
        return network.denoise(y.clamp(min=0) if law.rho else y, law)

    if blind:
        return {
            "blind shifted": lambda y: network.denoise(y, noise),
            "blind level": lambda y: estimated(y, prior.rho),  # of the noise it was trained on, as the command does
            "blind estimated": estimated,
        }
    return {
        "noise2score published": lambda y: network.denoise(y, noise, form="published"),
        "noise2score shifted": lambda y: network.denoise(y, noise),
    }


def score(
    estimates: dict[str, Callable[[Tensor], Tensor]], noise: NoiseModel, data: Path
) -> dict[str, dict[str, float]]:
    """Mean PSNR by estimator and test set."""
    found: dict[str, dict[str, float]] = {name: {} for name in estimates}
    for test in SETS:
        clean = grey(data / "images" / "test" / test)
        noisy = [noise.sample(x, Draws(0, file=i)) for i, x in enumerate(clean)]
        for name, estimate in estimates.items():
            with torch.no_grad():
                errors = [(estimate(y).clamp(0, 1) - x).double() for x, y in zip(clean, noisy, strict=True)]
            found[name][test] = fmean(-10 * float(e.square().mean().log10()) for e in errors)
    return found


def run(text: str, method: str, args: argparse.Namespace) -> None:
    """Train what is not trained, score it and append a row."""
    kind, level = text.split(":")
    condition, blind = Condition(kind, float(level)), method == "blind"
    if method == "one_shot" and kind == "gamma":
        return
    if any(key(row) == (text, method, args.steps) for row in recorded(args.results)):
        return
    folder = args.output / (f"{kind}_blind_{args.steps}" if blind else f"{kind}_{level}_{method}_{args.steps}")
    if not (folder / "config.json").exists():
        print(f"training {folder.name}", flush=True)
        seen = Condition(kind, None) if blind else condition
        clean = grey(args.data / "images" / "train_bsd400_gray")
        noisy = noisy_versions(clean, seen)
        stds = [std_alone(y, seen) if blind else seen.scale for y in noisy]
        pictures = [2 * y[0] - 1 for y in noisy]
        if method == "supervised":
            pictures = [torch.cat([y, 2 * x[0] - 1]) for y, x in zip(pictures, clean, strict=True)]
        train(objective(seen, method), pictures, stds, folder, args)
    prior = load_prior(folder)
    if method in ("supervised", "one_shot", "gr2r"):
        estimates = {method: lambda y: prior(y, prior.sigma_min)}
    else:
        estimates = score_estimates(prior, condition.noise(), blind)
    found = score(estimates, condition.noise(), args.data)
    print(f"{text} {found}", flush=True)
    with args.results.open("a") as out:
        row = {"noise": text, "method": method, "steps": args.steps, "batch": args.batch, "psnr": found}
        out.write(json.dumps(row) + "\n")


def key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["noise"], row["method"], row["steps"]


def table(results: Path, steps: int) -> str:
    """Markdown, of what has been run."""
    found = {}
    for row in recorded(results):
        if row["steps"] == steps:
            for name, psnr in row["psnr"].items():
                found[name, CONDITIONS.index(row["noise"])] = tuple(psnr[test] for test in SETS)

    used = sorted({i for _, i in found})

    def line(label: str, cells: list[tuple[float | None, ...] | None]) -> str:
        shown = (" / ".join("" if v is None else f"{v:.2f}" for v in cell) if cell else "" for cell in cells)
        return f"| {label} | {' | '.join(shown)} |"

    heads = " | ".join(CONDITIONS[i].replace(":", " ") for i in used)
    lines = [f"| {' / '.join(SETS)}, dB, {steps} steps | {heads} |", "|---|" + "--:|" * len(used)]
    own = {name: [found.get((name, i)) for i in used] for name in ROWS}
    lines += [line(ROWS[name], cells) for name, cells in own.items() if any(cells)]
    lines += [line(f"{label}, published", [cells[i] for i in used]) for label, cells in PUBLISHED.items()]
    return "\n".join(lines)


def levels(data: Path, folder: Path | None) -> str:
    """Markdown: how often the type of the noise is right, and its level, over the pictures of Set12."""
    tolerance = {"gaussian": 0.1, "poisson": 0.2, "gamma": 0.2}
    network = ScoreNetwork(load_prior(folder)) if folder else None
    lines = [
        "| noise | method | type right | level within | level / truth, median (extremes) |",
        "|---|---|--:|--:|--:|",
    ]
    clean = grey(data / "images" / "test" / "Set12")
    for kind, level in SETTINGS:
        noise = NOISES[kind](level)
        truth = as_tweedie(noise)
        power = {"gaussian": 0.5, "poisson": 1.0, "gamma": -1.0}[kind]  # sigma, gain and k
        found: dict[str, list[tuple[Tweedie | None, Tweedie | None]]] = {}
        for i, x in enumerate(clean):
            y = noise.sample(x, Draws(0, file=i))
            plane = [y[0].numpy()]
            found.setdefault("picture alone", []).append((estimate_law(plane), estimate_law(plane, truth.rho)))
            if network is not None:
                with torch.no_grad():
                    pair = (law_from_score(network, y), law_from_score(network, y, truth.rho))
                found.setdefault("score, published", []).append(pair)
        for method, pairs in found.items():
            right = sum(law is not None and law.rho == truth.rho for law, _ in pairs)
            ratios = [(law.phi / truth.phi) ** power for _, law in pairs if law is not None]
            near = sum(abs(r - 1) <= tolerance[kind] for r in ratios)
            spread = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            count = f"{near} / {len(pairs)} ({tolerance[kind]:.0%})"
            lines.append(f"| {kind} {level:g} | {method} | {right} / {len(pairs)} | {count} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = Path(os.environ.get("RESTORE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="folder with images/... (or RESTORE_DATA)")
    parser.add_argument("--output", type=Path, help="where trainings are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="done is not done again")
    parser.add_argument("--conditions", default=",".join(CONDITIONS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--widths", type=int, nargs="+", default=(32, 64, 96))
    parser.add_argument("--blocks", type=int, nargs="+", default=(2, 2, 2))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    parser.add_argument("--levels", action="store_true", help="estimate the noise of Set12, train nothing")
    parser.add_argument("--score", type=Path, help="with --levels: a folder with a trained score")
    parser.add_argument("--write", type=Path, help="put the table between the markers of this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.levels:
        text, name = levels(args.data, args.score), "noise_levels"
    else:
        if args.output is None and not args.table:
            parser.error("--output names the folder where trainings are kept")
        for condition in args.conditions.split(",") if not args.table else ():
            args.output.mkdir(parents=True, exist_ok=True)
            for method in args.methods.split(","):
                run(condition, method, args)
        text, name = table(args.results, args.steps), "noise2score"
    print(text)
    if args.write:
        write_between(args.write, name, text + "\n")


if __name__ == "__main__":
    main()

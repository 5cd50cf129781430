"""MR images from a quarter of k-space, one table: our samplers, classical methods (SigPy), deepinv with our prior.

    python tests/bench/mri.py --data ../shared/data --write README.md

Real raw data, fully sampled: a brain (8 coils), a sagittal head and a knee (one coil each), of which a quarter is kept:
random lines with 8 % in the centre, and every second point along both axes. The truth is the coil-combined image of all
data, with its own noise. Problem, coil maps, noise and brightness are those of `restore mri`. PSNR and NRMSE are of
magnitudes; the peak is the largest value of the truth. "As a full scan would show it" is `restore.scan_full`: measured
lines are kept as they are, and the mean magnitude that noise on the others gives is known. Each of the other methods is
taken as it is or after that same step, whichever is better in hindsight, with the regularisation that is best in
hindsight. Coverage is that of 90 % intervals over the pixels of the body: raw, mean -/+ 1.645 std of the magnitudes of
the draws; calibrated, by what ships with the prior. r is the correlation of half-width and |error| there.

    python tests/bench/mri.py --data ../shared/data --set-aside inflation=1,3 temperature=0.3,1

What recipes are chosen on: slices of the two volumes that `brain-mri` was not trained on, seen by coils made up here.

Needs SigPy, which the package does not.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from photos import sampler_for
from report import write_between
from rivals import model_of, physics_of
from skimage.metrics import structural_similarity
from torch import Tensor

from operators.masks import equispaced, random_lines
from operators.mri import sense, to_complex
from operators.noise import Gaussian
from operators.random import Draws, generator
from restore.cli.settings import settings
from restore.core import restore
from restore.intervals import Interval
from restore.jobs import Job
from restore.learn.mri import read_slices, with_phase
from restore.memory import keep_freed_memory
from restore.priors.base import Denoiser, Rescaled
from restore.priors.store import load_prior
from restore.problem import Problem
from restore.scan_full import body_of, scanned
from restore.scan_interval import half_width, predicted, scan_interval
from restore.scan_pose import Slice, pose
from restore.scan_prepare import ScanRequest, prepare_scan

SCANS = {
    "brain, 8 coils": "espirit_examples/full.cfl",
    "sagittal head, 1 coil": "larsonlab/se_t1_sag_data.mat",
    "knee, 1 coil": "larsonlab/coronal_fatsat_2D_knee.mat",
}
PATTERNS = {"4": "R = 4, random lines", "2x2": "R = 2 x 2"}
VOLUMES = ("T1_head_ext2", "torchio_fernando_t2")  # those that the card names as set aside
SAMPLERS = ("moment_matching",)
BARS = {"brain, 8 coils": 1.5, "sagittal head, 1 coil": 1.5, "knee, 1 coil": 0.0}  # dB over the best classical
LAMBDAS = [10 ** (-k / 2) for k in range(0, 11)]
RAW = Interval(None, None, "raw")
AS_SHOWN = "as a full scan would show it"


@dataclass(frozen=True)
class Case:
    """A slice, and its truth.

    Attributes:
        truth: magnitude, `(H, W)`, in units of the prior; `body` is where it is more than background.
        interval: the calibrated one of this many draws, if there is one.
    """

    name: str
    posed: Slice
    truth: np.ndarray
    body: np.ndarray
    interval: Interval

    @property
    def maps(self) -> np.ndarray:
        s = self.posed
        return np.ones((1, *self.truth.shape), np.complex64) if s.maps is None else s.maps

    @property
    def y(self) -> np.ndarray:
        """What SigPy takes: k-space `(coil, H, W)` in units of the prior, zero where nothing was kept."""
        return self.posed.measured * self.posed.used / self.posed.scale


def measured(data: Path, prior: Denoiser, name_of_prior: str, draws: int) -> Iterator[Case]:
    """The scans under each pattern."""
    composed = settings([f"prior.name={name_of_prior}", "recipe=mri_${sampler}", f"sampler={SAMPLERS[0]}"])
    for name, file in SCANS.items():
        job = Job(data / "mri/raw" / file, Path("unused.nii.gz"), "unused", Path(file))
        for accel, pattern in PATTERNS.items():
            request = ScanRequest(settings={**composed, "seed": 0}, accel=accel, draws=draws)
            prepared = prepare_scan(job, request, SimpleNamespace(prior=prior))  # type: ignore[arg-type]
            s = pose(prepared, request, prepared.scan.slices // 2)
            assert s is not None and s.truth is not None
            truth = np.abs(s.truth) / s.scale
            body, interval = body_of(truth, s.noise / s.scale), scan_interval(prepared, request, s)
            yield Case(f"{name}, {pattern}", s, truth, body, interval)


def made_up_maps(coils: int, H: int, W: int) -> Tensor:
    """Coils in a ring around the head, root of their sum of squares 1."""
    if coils == 1:
        return torch.ones(1, H, W, dtype=torch.complex64)
    v, u = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    maps = []
    for angle in (2 * math.pi * k / coils for k in range(coils)):
        dv, du = v - 1.2 * math.sin(angle), u - 1.2 * math.cos(angle)
        maps.append(torch.polar((-(dv**2 + du**2) / 1.2).exp(), du + 0.7 * dv + angle))
    S = torch.stack(maps)
    return S / S.abs().square().sum(0).sqrt()


def set_aside(data: Path, per_volume: int) -> Iterator[Case]:
    """Slices that nothing was learnt from, under each pattern, by eight coils and by one."""
    for v, volume in enumerate(VOLUMES):
        slices = read_slices(data / "mri/volumes" / f"{volume}.nii.gz").main
        for k in range(per_volume):
            m = slices[int(len(slices) * (0.25 + 0.5 * k / max(per_volume - 1, 1)))]
            H, W = m.shape[1:]
            x = with_phase(m[None], torch.Generator().manual_seed(10 * v + k))
            for coils, accel in product((8, 1), PATTERNS):
                rng = generator(5, v, k)
                mask = (
                    random_lines((H, W), 4, axis="y", rng=rng)
                    if accel == "4"
                    else equispaced((H, W), (2, 2), centre=24)
                )
                maps = made_up_maps(coils, H, W)
                A, noise = sense(mask, None if coils == 1 else maps), Gaussian(0.02 if coils > 1 else 0.04)
                y = noise.sample(A(x), Draws(7, file=10 * v + k))
                full = torch.zeros(2 * coils, H, W)
                full[:, mask] = y[0]
                measured, used = to_complex(full).numpy(), mask.numpy()
                posed = Slice(Problem(y, A, noise), 1.0, measured, used, ~used, maps.numpy(), measured[0], None)
                truth = to_complex(x)[0, 0].abs().numpy()
                name = f"{coils} coil{'s' * (coils > 1)}, {PATTERNS[accel]}"
                yield Case(name, posed, truth, body_of(truth), Interval(None, None, "none"))


def scores(x: np.ndarray, case: Case) -> dict[str, float]:
    """PSNR, SSIM and NRMSE of a magnitude, `(H, W)`, zero where no coil sees, as in what `restore mri` writes."""
    x = x * case.maps.any(0)
    error, peak = float(np.square(x - case.truth, dtype=np.float64).mean()), float(case.truth.max())
    return {
        "psnr": 10 * math.log10(peak**2 / error),
        "ssim": float(structural_similarity(x, case.truth, data_range=peak)),
        "nrmse": math.sqrt(error / float(np.square(case.truth, dtype=np.float64).mean())),
    }


def best(images: Iterable[np.ndarray], case: Case) -> dict[str, float]:
    """The best score by PSNR of complex images, each as it is and as a full scan would show it."""
    found = []
    for x in images:
        found += [scores(np.abs(x), case), scores(shown(x[None], case)[0][0], case)]
    return max(found, key=lambda row: row["psnr"])


def shown(draws: np.ndarray, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """`restore.scan_full.scanned`, in units of the prior."""
    s = case.posed
    mean, variance = scanned(s, draws * s.scale)
    return mean / s.scale, variance / s.scale**2


def classical(case: Case) -> Iterator[tuple[str, dict[str, float]]]:
    from sigpy.mri import app

    zero_filled = (case.maps.conj() * _centred_ifft(case.y)).sum(0)
    yield "zero-filled", best([zero_filled], case)
    for name, method in (
        ("CG-SENSE", app.SenseRecon),
        ("TV", app.TotalVariationRecon),
        ("L1-wavelet", app.L1WaveletRecon),
    ):
        start = time.monotonic()
        images = [_run(method, case, lambda_) for lambda_ in LAMBDAS]
        seconds = (time.monotonic() - start) / len(LAMBDAS)
        yield name, {**best(images, case), "seconds": seconds}


def _run(method: Any, case: Case, lambda_: float) -> np.ndarray:
    weights = (case.y != 0).any(0).astype(np.float32)
    return method(case.y, case.maps, lamda=lambda_, weights=weights, show_pbar=False).run()


def _centred_ifft(k: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k, axes), axes=axes, norm="ortho"), axes)


def deepinv_rows(case: Case, prior: Denoiser) -> Iterator[tuple[str, dict[str, float]]]:
    """deepinv's samplers, which take pictures in [0, 1]: here `(x + 1) / 2`, with everything else to match."""
    import deepinv

    problem = case.posed.problem
    A, sigma = problem.linear_gaussian
    shifted = Problem((problem.y + A(torch.ones(1, *A.ishape))) / 2, A, Gaussian(sigma / 2))
    model, physics, L2 = (
        model_of(Rescaled(prior, 2, -1)),
        physics_of(A, shifted.noise),
        deepinv.optim.data_fidelity.L2(),
    )
    for name, sampler in (
        ("deepinv DiffPIR", deepinv.sampling.DiffPIR(model=model, data_fidelity=L2, sigma=sigma / 2)),
        ("deepinv DPS, 100 steps", deepinv.sampling.DPS(model, num_steps=100, dtype=torch.float32)),
    ):
        torch.manual_seed(0)
        start = time.monotonic()
        x = 2 * sampler(shifted.y, physics) - 1
        seconds = time.monotonic() - start
        yield name, {**best([to_complex(x)[0, 0].numpy()], case), "seconds": seconds}


def ours(
    case: Case, prior: Denoiser, name: str, words: list[str], draws: int
) -> Iterator[tuple[str, dict[str, float]]]:
    result = restore(
        case.posed.problem,
        prior,
        sampler_for("identity", name, ["recipe=mri_${sampler}", *words]),
        num_samples=draws,
        chunk=2,
    )
    x = to_complex(result.samples)[:, 0].numpy()
    fit = float(result.residual().double().square().mean().sqrt())
    single = [scores(np.abs(one), case) for one in x]
    yield f"**{name}**, one draw", {**{k: fmean(row[k] for row in single) for k in single[0]}, "fit": fit}
    std = np.abs(x).std(0, ddof=1)
    raw, half = (half_width(found, std, 1.0, case.posed.noise / case.posed.scale) for found in (RAW, case.interval))
    yield (
        f"**{name}**, mean of {draws}",
        {**against(np.abs(x).mean(0), raw, half, case), "calls": result.nfe, "seconds": result.seconds},
    )
    if case.posed.truth is not None:
        images = case.posed.images(result.samples)
        (mean, raw), (_, half) = (predicted(case.posed, images, found) for found in (RAW, case.interval))
        scale = case.posed.scale
        yield f"**{name}**, {AS_SHOWN}", against(mean / scale, raw / scale, half / scale, case)


def against(mean: np.ndarray, raw: np.ndarray, half: np.ndarray, case: Case) -> dict[str, float]:
    """A mean and the half-widths of its intervals, held against the truth."""
    body = case.body & case.maps.any(0)
    wrong = np.abs(mean - case.truth)[body]
    found = {
        **scores(mean, case),
        "coverage": float((wrong <= raw[body]).mean()),
        "correlation": float(np.corrcoef(half[body], wrong)[0, 1]),
    }
    if case.interval.entry is not None:
        found |= {"calibrated": float((wrong <= half[body]).mean()), "width": 2 * float(half[body].mean())}
    return found


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """One Markdown table per case, and the bars."""
    columns = {
        "psnr": ".2f",
        "ssim": ".3f",
        "nrmse": ".3f",
        "fit": ".2f",
        "coverage": ".2f",
        "calibrated": ".2f",
        "width": ".2f",
        "correlation": ".2f",
        "calls": ".0f",
        "seconds": ".0f",
    }
    parts, bars = [], []
    for case, methods in rows.items():
        head = "| method | PSNR (dB) | SSIM | NRMSE | data fit | raw 90 % covers | calibrated | width | r | calls | s |"
        lines = [f"**{case}**", "", head]
        lines.append("|---|" + "--:|" * len(columns))
        for name, row in methods.items():
            lines.append(
                f"| {name} | " + " | ".join(format(row[k], f) if k in row else "" for k, f in columns.items()) + " |"
            )
        parts.append("\n".join(lines))
        best = {
            kind: max(
                (row["psnr"], name)
                for name, row in methods.items()
                if name.startswith("**") == kind and not name.startswith("deepinv")
            )
            for kind in (True, False)
        }
        bar = next(bar for scan, bar in BARS.items() if case.startswith(scan))
        gain = best[True][0] - best[False][0]
        verdict = "met" if gain >= bar else "MISSED"
        bars.append(f"- {case}: {best[True][1]} {gain:+.2f} dB over {best[False][1]}, bar {bar:+.1f}: {verdict}")
    return "\n\n".join([*parts, "\n".join(bars)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("settings", nargs="*", help="with --set-aside: NAME=VALUE,VALUE... of the sampler")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with mri/...")
    parser.add_argument("--prior", default="brain-mri")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--set-aside", action="store_true")
    parser.add_argument("--per-volume", type=int, default=2, help="slices of each volume set aside")
    parser.add_argument("--sampler", default="moment_matching", help="with --set-aside")
    parser.add_argument("--results", type=Path, default=Path("outputs/bench/mri.jsonl"), help="done is not done again")
    parser.add_argument("--write", type=Path, help="put the tables between the markers of this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    prior = load_prior(args.prior)
    if args.set_aside:
        choices = [
            [f"sampler.{n}={v}" for v in values.split(",")] for n, values in (s.split("=") for s in args.settings)
        ]
        for words in product(*choices):
            found: dict[str, list[tuple[dict[str, float], ...]]] = {}
            for case in set_aside(args.data, args.per_volume):
                pair = tuple(row for _, row in ours(case, prior, args.sampler, list(words), args.draws))
                found.setdefault(case.name, []).append(pair)
            for name, pairs in found.items():
                one, mean = ({k: fmean(p[i][k] for p in pairs) for k in pairs[0][i]} for i in (0, 1))
                print(
                    f"{name}, {args.sampler} {' '.join(words)}: one draw {one['psnr']:.2f} dB, "
                    f"mean {mean['psnr']:.2f} dB, fit {one['fit']:.2f}, "
                    f"covers {mean['coverage']:.2f}, correlation {mean['correlation']:.2f}",
                    flush=True,
                )
        return
    rows: dict[str, dict[str, dict[str, float]]] = {}
    if args.results.exists():
        rows = {case: row for line in args.results.read_text().splitlines() for case, row in json.loads(line).items()}
    names = []
    for case in measured(args.data, prior, args.prior, args.draws):
        names.append(case.name)
        if case.name in rows:
            continue
        rows[case.name] = {**dict(classical(case)), **dict(deepinv_rows(case, prior))}
        for sampler in SAMPLERS:
            rows[case.name] |= dict(ours(case, prior, sampler, [], args.draws))
        args.results.parent.mkdir(parents=True, exist_ok=True)
        with args.results.open("a") as file:
            print(json.dumps({case.name: rows[case.name]}), file=file, flush=True)
    text = table({name: rows[name] for name in names})
    print(text)
    if args.write:
        write_between(args.write, "mri", text)


if __name__ == "__main__":
    main()

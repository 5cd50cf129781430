"""MR images from a quarter of k-space, one table: our samplers, classical methods (SigPy), deepinv with our prior.

    python tests/bench/mri.py --data ../shared/data --write README.md

Real raw data, fully sampled: a brain (8 coils), a sagittal head and a knee (one coil each), of which a quarter is kept:
random lines with 8 % in the centre, and every second point along both axes. The truth is the coil-combined image of all
data, with its own noise. Problem, coil maps, noise and brightness are those of `restore mri`. Classical methods get the
regularisation that is best in hindsight. PSNR and NRMSE are of magnitudes; the peak is the largest value of the truth.
Coverage is that of the 90 % interval, mean -/+ 1.645 std of the magnitudes of the draws, over the pixels of the body.

    python tests/bench/mri.py --data ../shared/data --set-aside inflation=1,3 temperature=0.3,1

What recipes are chosen on: slices of the two volumes that `brain-mri` was not trained on, seen by coils made up here.

Needs SigPy, which the package does not.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import Tensor

from operators.masks import equispaced, random_lines
from operators.mri import sense, to_complex
from operators.noise import Gaussian
from operators.random import Draws, generator
from restore.core import restore
from restore.jobs import Job
from restore.learn.mri import read_slices, with_phase
from restore.memory import keep_freed_memory
from restore.priors.base import Denoiser, Rescaled
from restore.priors.store import load_prior
from restore.problem import Problem
from restore.scan_pose import pose
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


@dataclass(frozen=True)
class Case:
    """A problem in the units of the prior, and its truth.

    Attributes:
        y: what SigPy takes: k-space `(coil, H, W)`, zero where nothing was kept; `maps` likewise.
        truth: magnitude, `(H, W)`; `body` is where it is more than background.
    """

    name: str
    problem: Problem
    y: np.ndarray
    maps: np.ndarray
    truth: np.ndarray
    body: np.ndarray


def body_of(magnitude: np.ndarray) -> np.ndarray:
    smooth = ndimage.gaussian_filter(magnitude, 2)
    return ndimage.binary_fill_holes(smooth > 0.1 * np.quantile(smooth, 0.99))


def measured(data: Path, prior: Denoiser) -> Iterator[Case]:
    """The scans under each pattern."""
    for name, file in SCANS.items():
        job = Job(data / "mri/raw" / file, Path("unused.nii.gz"), "unused", Path(file))
        for accel, pattern in PATTERNS.items():
            request = ScanRequest(settings={"seed": 0}, accel=accel)
            prepared = prepare_scan(job, request, SimpleNamespace(prior=prior))  # type: ignore[arg-type]
            s = pose(prepared, request, prepared.scan.slices // 2)
            assert s is not None and s.truth is not None and s.used is not None
            maps = np.ones((1, *s.used.shape), np.complex64) if s.maps is None else s.maps
            truth = np.abs(s.truth) / s.scale
            yield Case(f"{name}, {pattern}", s.problem, s.measured * s.used / s.scale, maps, truth, body_of(truth))


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
                magnitude = to_complex(x)[0, 0].abs().numpy()
                name = f"{coils} coil{'s' * (coils > 1)}, {PATTERNS[accel]}"
                yield Case(
                    name, Problem(y, A, noise), to_complex(full).numpy(), maps.numpy(), magnitude, body_of(magnitude)
                )


def scores(x: np.ndarray, case: Case) -> dict[str, float]:
    """PSNR, SSIM and NRMSE of a magnitude, `(H, W)`, zero where no coil sees, as in what `restore mri` writes."""
    x = x * case.maps.any(0)
    error, peak = float(np.square(x - case.truth, dtype=np.float64).mean()), float(case.truth.max())
    return {
        "psnr": 10 * math.log10(peak**2 / error),
        "ssim": float(structural_similarity(x, case.truth, data_range=peak)),
        "nrmse": math.sqrt(error / float(np.square(case.truth, dtype=np.float64).mean())),
    }


def hindsight(reconstruct: Callable[[float], np.ndarray], case: Case) -> dict[str, float]:
    """The best over the regularisation, by PSNR."""
    found = [scores(np.abs(reconstruct(lambda_)).astype(np.float32), case) for lambda_ in LAMBDAS]
    return max(found, key=lambda row: row["psnr"])


def classical(case: Case) -> Iterator[tuple[str, dict[str, float]]]:
    from sigpy.mri import app

    zero_filled = (case.maps.conj() * _centred_ifft(case.y)).sum(0)
    yield "zero-filled", scores(np.abs(zero_filled), case)
    for name, method in (
        ("CG-SENSE", app.SenseRecon),
        ("TV", app.TotalVariationRecon),
        ("L1-wavelet", app.L1WaveletRecon),
    ):
        run = partial(_run, method, case)
        start = time.monotonic()
        yield name, {**hindsight(run, case), "seconds": (time.monotonic() - start) / len(LAMBDAS)}


def _run(method: Any, case: Case, lambda_: float) -> np.ndarray:
    weights = (case.y != 0).any(0).astype(np.float32)
    return method(case.y, case.maps, lamda=lambda_, weights=weights, show_pbar=False).run()


def _centred_ifft(k: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k, axes), axes=axes, norm="ortho"), axes)


def deepinv_rows(case: Case, prior: Denoiser) -> Iterator[tuple[str, dict[str, float]]]:
    """deepinv's samplers, which take pictures in [0, 1]: here `(x + 1) / 2`, with everything else to match."""
    import deepinv

    A, sigma = case.problem.linear_gaussian
    shifted = Problem((case.problem.y + A(torch.ones(1, *A.ishape))) / 2, A, Gaussian(sigma / 2))
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
        row = scores(to_complex(x)[0, 0].abs().numpy(), case)
        yield name, {**row, "seconds": time.monotonic() - start}


def ours(
    case: Case, prior: Denoiser, name: str, settings: list[str], draws: int
) -> Iterator[tuple[str, dict[str, float]]]:
    result = restore(
        case.problem,
        prior,
        sampler_for("identity", name, ["recipe=mri_${sampler}", *settings]),
        num_samples=draws,
        chunk=2,
    )
    each = to_complex(result.samples)[:, 0].abs().numpy()
    mean, std = each.mean(0), each.std(0, ddof=1)
    wrong = np.abs(mean - case.truth)[case.body]
    fit = float(result.residual().double().square().mean().sqrt())
    single = [scores(x, case) for x in each]
    yield f"**{name}**, one draw", {**{k: fmean(row[k] for row in single) for k in single[0]}, "fit": fit}
    yield (
        f"**{name}**, mean of {draws}",
        {
            **scores(mean, case),
            "coverage": float((wrong <= 1.645 * std[case.body]).mean()),
            "correlation": float(np.corrcoef(std[case.body], wrong)[0, 1]),
            "calls": result.nfe,
            "seconds": result.seconds,
        },
    )


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """One Markdown table per case, and the bars."""
    columns = {
        "psnr": ".2f",
        "ssim": ".3f",
        "nrmse": ".3f",
        "fit": ".2f",
        "coverage": ".2f",
        "calls": ".0f",
        "seconds": ".0f",
    }
    parts, bars = [], []
    for case, methods in rows.items():
        lines = [f"**{case}**", "", "| method | PSNR (dB) | SSIM | NRMSE | data fit | 90 % covers | calls | s |"]
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
        for settings in product(*choices):
            found: dict[str, list[tuple[dict[str, float], ...]]] = {}
            for case in set_aside(args.data, args.per_volume):
                pair = tuple(row for _, row in ours(case, prior, args.sampler, list(settings), args.draws))
                found.setdefault(case.name, []).append(pair)
            for name, pairs in found.items():
                one, mean = ({k: fmean(p[i][k] for p in pairs) for k in pairs[0][i]} for i in (0, 1))
                print(
                    f"{name}, {args.sampler} {' '.join(settings)}: one draw {one['psnr']:.2f} dB, "
                    f"mean {mean['psnr']:.2f} dB, fit {one['fit']:.2f}, "
                    f"covers {mean['coverage']:.2f}, correlation {mean['correlation']:.2f}",
                    flush=True,
                )
        return
    rows: dict[str, dict[str, dict[str, float]]] = {}
    if args.results.exists():
        rows = {case: row for line in args.results.read_text().splitlines() for case, row in json.loads(line).items()}
    names = []
    for case in measured(args.data, prior):
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

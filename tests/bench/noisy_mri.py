"""Priors of MR images learnt from noisy ones against one learnt from clean ones: how much of the gap is closed.

    python tests/bench/noisy_mri.py --data ../shared/data --output out/ --steps 1500

Complex images are made of the volumes to train on, each slice with one made-up phase and white noise of one draw, and
stored as `restore learn --mri --noise` takes them. One network is learnt at the same number of steps (i) from the same
images without the noise, (ii) from noisy ones by SURE-Score and by Ambient-Tweedie, (iii) from noisy ones as if they
were clean. Then the default sampler reconstructs slices of the two volumes set aside, as in `tests/bench/mri.py
--set-aside`; what is said is the PSNR of the mean of the draws. The share of the gap closed is
`(psnr - psnr_iii) / (psnr_i - psnr_iii)`.

A training that was stopped goes on where it was, one that is done is not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from mri import VOLUMES, ours, set_aside
from noisy_priors import NETWORK, done
from report import write_between

from operators.mri import to_complex
from restore.learn.mri import read_slices, with_phase
from restore.learn.train import learn
from restore.priors.store import load_prior

EVERY = 4  # neighbouring slices are alike
CLEAN, NAIVE, BAR = "clean", "as if clean", 80
LEARNT = {CLEAN: "dsm", NAIVE: "dsm", "sure_score": "sure_score", "ambient": "ambient"}


def prepare(data: Path, out: Path, sigma: float) -> None:
    """Write the images of each volume, without noise and with it; 1 is the 99th percentile of a slice's magnitude."""
    paths = sorted(p for p in (data / "mri/volumes").glob("*.nii.gz") if not p.name.startswith(VOLUMES))
    if not paths:
        raise SystemExit(f"no volumes in {data / 'mri/volumes'}: name the folder of the data with --data")
    for v, path in enumerate(paths):
        slices = read_slices(path).main[::EVERY]
        phased = [with_phase(m[None], torch.Generator().manual_seed(1000 * v + k)) for k, m in enumerate(slices)]
        x = np.stack([to_complex(z)[0, 0].numpy() for z in phased])
        noise = np.random.default_rng(v).standard_normal((2, *x.shape), np.float32)
        for folder, values in (("clean", x), (f"noisy-{sigma:g}", x + sigma * (noise[0] + 1j * noise[1]))):
            (out / folder).mkdir(parents=True, exist_ok=True)
            np.save(out / folder / path.name.replace(".nii.gz", ".npy"), values.astype(np.complex64))


def score(prior: Path, data: Path, per_volume: int, draws: int) -> dict[str, float]:
    """Mean PSNR of the mean of the draws, for each number of coils and pattern."""
    found: dict[str, list[float]] = {}
    learnt = load_prior(prior)
    for case in set_aside(data, per_volume):
        (_, _), (_, mean), *_ = ours(case, learnt, "moment_matching", [], draws)
        found.setdefault(case.name, []).append(mean["psnr"])
    return {name: fmean(values) for name, values in found.items()}


def table(scores: dict[str, dict[str, float]], sigma: float) -> str:
    """PSNR of each prior and case, the share of the gap closed, and the bar."""
    cases = list(scores[CLEAN])
    lines = [f"| learnt, noise {sigma:g} | " + " | ".join(cases) + " |", "|---|" + "--:|" * len(cases)]
    bars = []
    for how, row in scores.items():
        cells = []
        for case in cases:
            best, worst = scores[CLEAN][case], scores[NAIVE][case]
            share = 100 * (row[case] - worst) / (best - worst)
            cells.append(f"{row[case]:.2f} dB, {share:.0f} %")
            if how not in (CLEAN, NAIVE):
                verdict = "met" if best > worst and share >= BAR else "MISSED"
                bars.append(f"- {how}, {case}: {share:.0f} %, bar {BAR} %: {verdict}")
        lines.append(f"| {how} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *bars])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with mri/volumes")
    parser.add_argument("--output", type=Path, required=True, help="folder for images and priors")
    parser.add_argument("--steps", type=int, default=1500, help="of each training")
    parser.add_argument("--noise", type=float, default=0.1, help="std of the noise of real and imaginary part")
    parser.add_argument("--per-volume", type=int, default=2, help="slices of each volume set aside")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--write", type=Path, help="put the table between the markers of this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    prepare(args.data, args.output / "images", args.noise)
    scores = {}
    for how, objective in LEARNT.items():
        noisy = how != CLEAN
        images = args.output / "images" / (f"noisy-{args.noise:g}" if noisy else "clean")
        prior = args.output / (how.replace(" ", "-") + (f"-{args.noise:g}" if noisy else ""))
        if not done(prior, args.steps):
            learn(
                [images], prior, objective=objective, steps=args.steps, mri=True, device="cpu",
                data_noise=args.noise if noisy else 1e-3, **NETWORK,
            )  # fmt: skip
        scores[how] = score(prior, args.data, args.per_volume, args.draws)
        print(how, scores[how], flush=True)
    text = table(scores, args.noise)
    print(text)
    if args.write:
        write_between(args.write, "noisy_mri", text + "\n")


if __name__ == "__main__":
    main()

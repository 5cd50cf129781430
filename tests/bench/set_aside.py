"""What recipes are chosen on: middles of pictures that the `photos` prior was not trained on, in colour and in grey.

    python tests/bench/set_aside.py --data ../shared/data --tasks upscale --sampler diffpir lambda_=0.8,1,1.2

One line per task and combination of settings. No test picture is read.
"""

from __future__ import annotations

import argparse
import re
from itertools import product
from pathlib import Path
from statistics import fmean

import torch
from photos import sampler_for
from tasks import FOUR, load, psnr
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from restore.core import Restoration, restore
from restore.memory import keep_freed_memory
from restore.priors.store import load_prior

CARD = Path(__file__).resolve().parents[2] / "restore/priors/weights/photos/README.md"


def pictures(data: Path, crop: int) -> list[Tensor]:
    """The pictures that the card names as set aside, `(1, 3, crop, crop)` and `(1, 1, crop, crop)`."""
    names = re.search(r"^Set aside.*: (.*)\.$", CARD.read_text(), re.MULTILINE)
    assert names is not None, f"{CARD} does not say what was set aside"
    paths = {path.name: path for path in (data / "images" / "train").rglob("*")}
    colour = [load(paths[name], crop) for name in names[1].split(", ")]
    return colour + [rgb_to_grayscale(x) for x in colour]


def judged(R: Restoration, truth: Tensor) -> tuple[float, ...]:
    """PSNR of a draw and of the mean, data fit, share of the pixels within 1.645 standard deviations of the mean, rms
    spread and rms error."""
    wrong, spread = R.mean - truth[0], R.std
    return (
        fmean(psnr(x[None], truth) for x in R.samples),
        psnr(R.mean[None], truth),
        float(R.residual().mean()),
        float((wrong.abs() <= 1.645 * spread).float().mean()),
        float(spread.square().mean().sqrt()),
        float(wrong.square().mean().sqrt()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("settings", nargs="*", help="NAME=VALUE,VALUE... of the sampler")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with images/train/...")
    parser.add_argument("--prior", default="photos")
    parser.add_argument("--sampler", default="diffpir")
    parser.add_argument("--tasks", default=",".join(FOUR))
    parser.add_argument("--draws", type=int, default=8, help="draws in a posterior mean, two at least")
    parser.add_argument("--crop", type=int, default=128)
    args = parser.parse_args()

    torch.set_num_threads(1)
    keep_freed_memory()
    prior = load_prior(args.prior)
    truths = pictures(args.data, args.crop)
    choices = [
        [f"sampler.{name}={v}" for v in values.split(",")] for name, values in (s.split("=") for s in args.settings)
    ]
    for task in (FOUR[name] for name in args.tasks.split(",")):
        for settings in product(*choices):
            sampler = sampler_for(task.operator_name, args.sampler, settings)
            rows = [
                judged(restore(task.problem(x, i), prior, sampler, num_samples=args.draws, file=i), x)
                for i, x in enumerate(truths)
            ]
            one, mean, fit, covered, spread, error = map(fmean, zip(*rows, strict=True))
            print(
                f"{task.name} {args.sampler} {' '.join(settings)}: one draw {one:.2f} dB, mean of {args.draws} "
                f"{mean:.2f} dB, fit {fit:.2f}; 90 % interval covers {covered:.2f}, spread {spread:.3f}, "
                f"error {error:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

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
from photos import sampled, sampler_for
from tasks import TASKS, load
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from restore.priors.store import load_prior

CARD = Path(__file__).resolve().parents[2] / "restore/priors/weights/photos/README.md"


def pictures(data: Path, crop: int) -> list[Tensor]:
    """The pictures that the card names as set aside, `(1, 3, crop, crop)` and `(1, 1, crop, crop)`."""
    names = re.search(r"^Set aside.*: (.*)\.$", CARD.read_text(), re.MULTILINE)
    assert names is not None, f"{CARD} does not say what was set aside"
    paths = {path.name: path for path in (data / "images" / "train").rglob("*")}
    colour = [load(paths[name], crop) for name in names[1].split(", ")]
    return colour + [rgb_to_grayscale(x) for x in colour]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("settings", nargs="*", help="NAME=VALUE,VALUE... of the sampler")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with images/train/...")
    parser.add_argument("--prior", default="photos")
    parser.add_argument("--sampler", default="diffpir")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--draws", type=int, default=8, help="draws in a posterior mean")
    parser.add_argument("--crop", type=int, default=128)
    args = parser.parse_args()

    torch.set_num_threads(1)
    prior = load_prior(args.prior)
    truths = pictures(args.data, args.crop)
    choices = [
        [f"sampler.{name}={v}" for v in values.split(",")] for name, values in (s.split("=") for s in args.settings)
    ]
    for task in (TASKS[name] for name in args.tasks.split(",")):
        for settings in product(*choices):
            sampler = sampler_for(task.operator_name, args.sampler, settings)
            runs = [list(sampled(task.problem(x, i), x, prior, sampler, args.draws, i)) for i, x in enumerate(truths)]
            one, mean = ([run[k] for run in runs] for k in (0, -1))
            print(
                f"{task.name} {args.sampler} {' '.join(settings)}: one draw {fmean(r['psnr'] for r in one):.2f} dB, "
                f"mean of {args.draws} {fmean(r['psnr'] for r in mean):.2f} dB, fit {fmean(r['fit'] for r in one):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

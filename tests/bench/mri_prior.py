"""Denoising of complex MR images with a prior alone: PSNR on slices of the volumes that the card names as set aside.

    python tests/bench/mri_prior.py --data ../shared/data --write restore/priors/weights/brain-mri/README.md

One call of the denoiser per slice with the true sigma, beside the `photos` prior on each part by itself. The phase of
slice `i` is drawn anew; the error is that of the complex image, and the peak is the 99th percentile of its magnitude.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from statistics import fmean

import torch
from report import write_between
from torch import Tensor

from restore.learn.mri import INSIDE, load_shown
from restore.memory import keep_freed_memory
from restore.priors.base import Denoiser, Rescaled
from restore.priors.store import find_prior, load_prior

SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def set_aside(card: str, data: Path) -> dict[str, list[Tensor]]:
    """For each volume that the card names, complex slices `(1, 2, H, W)`. Raises SystemExit where one is missing."""
    names = re.search(r"^Set aside.*: (.*)\.$", card, re.MULTILINE)
    assert names is not None, "the card does not say what was set aside"
    paths = [data / "mri" / "volumes" / name for name in names[1].split(", ")]
    for path in paths:
        if not path.exists():
            raise SystemExit(f"no file {path}: name the data folder with --data")
    return {path.name.split(".")[0]: [x / INSIDE for x in load_shown([path])] for path in paths}


def psnr(denoise: Denoiser, images: list[Tensor], sigma: float) -> float:
    """In dB, of the mean squared error of a part; mean over the images."""
    found = []
    for i, x in enumerate(images):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
        with torch.no_grad():
            found.append(-10 * float((denoise(x + sigma * noise, sigma) - x).double().square().mean().log10()))
    return fmean(found)


class PartByPart(Denoiser):
    """A prior on grey pictures in `[-1, 1]`, given real and imaginary part as two of them."""

    shape = (2, None, None)

    def __init__(self, prior: Denoiser):
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self.prior(x.transpose(0, 1), sigma).transpose(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = Path(os.environ.get("RESTORE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="folder with mri/volumes (or RESTORE_DATA)")
    parser.add_argument("--prior", default="brain-mri")
    parser.add_argument("--write", type=Path, help="put the table between the markers of this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    volumes = set_aside((find_prior(args.prior) / "README.md").read_text(), args.data)
    priors = {f"**{Path(args.prior).name}**": load_prior(args.prior)}
    priors["photos, part by part"] = PartByPart(Rescaled(load_prior("photos"), 0.5, 0.5))
    lines = ["| | | " + " | ".join(f"sigma {s:g}" for s in SIGMAS) + " |", "|---|---|" + "--:|" * len(SIGMAS)]
    for volume, images in volumes.items():
        for name, prior in priors.items():
            cells = " | ".join(f"{psnr(prior, images, sigma):.2f}" for sigma in SIGMAS)
            lines.append(f"| {volume} | {name} | {cells} |")
    text = "\n".join(lines)
    print(text)
    if args.write:
        write_between(args.write, "denoise", text)


if __name__ == "__main__":
    main()

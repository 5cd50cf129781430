"""Denoising with a prior alone: PSNR on Set12 (grey) and CBSD68 (colour) at sigma 15, 25, 50 of 255, beside others'.

    python tests/bench/denoise.py --data ../shared/data --write restore/priors/weights/photos/README.md

One call of the denoiser per picture with the true sigma. Pictures in `[0, 1]`; noise is added and never clipped, the
estimate is clipped before it is scored (not rounded); the noise of picture `i` is seeded by `i` and is the same at each
sigma up to scale. The test sets are not part of the repository: Set12 from the DnCNN authors, CBSD68 from BSDS500.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from report import write_between
from torch import Tensor

from restore.memory import keep_freed_memory
from restore.priors.base import Denoiser
from restore.priors.store import load_prior

SETS = {"Set12": ("L", 12), "CBSD68": ("RGB", 68)}  # Pillow's mode, number of pictures
SIGMAS = (15, 25, 50)
# As printed in the papers, in dB: BM3D and CBM3D as in Zhang et al. 2017, DnCNN-S and CDnCNN-S ibid. (arXiv:1608.03981)
# and DRUNet in Zhang et al. 2021 (arXiv:2008.13751, Tables 2 and 3). DnCNN-S has one network per sigma.
PUBLISHED = {
    "BM3D": {"Set12": (32.37, 29.97, 26.72), "CBSD68": (33.52, 30.71, 27.38)},
    "DnCNN": {"Set12": (32.86, 30.44, 27.18), "CBSD68": (33.90, 31.24, 27.95)},
    "DRUNet": {"Set12": (33.25, 30.94, 27.90), "CBSD68": (34.30, 31.69, 28.51)},
}


def pictures(data: Path, name: str) -> list[Tensor]:
    """The test set as float32 `(1, C, H, W)` in `[0, 1]`. Raises SystemExit in words where it is not whole."""
    mode, count = SETS[name]
    folder = data / "images" / "test" / name
    paths = sorted(p for p in folder.glob("*") if p.suffix in (".png", ".webp", ".jpg"))
    if len(paths) != count:
        raise SystemExit(f"{folder} holds {len(paths)} pictures, {name} has {count}: name the data folder with --data")
    arrays = (np.array(Image.open(path).convert(mode)) for path in paths)
    return [torch.from_numpy(a.reshape(*a.shape[:2], -1)).permute(2, 0, 1)[None].float() / 255 for a in arrays]


def scores(prior: Denoiser, clean: list[Tensor], sigma: float) -> tuple[list[float], float]:
    """PSNR of each picture in dB, and seconds per picture; `sigma` in `[0, 1]`."""
    psnr, seconds = [], 0.0
    for i, x in enumerate(clean):
        noisy = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
        start = time.perf_counter()
        with torch.no_grad():
            estimate = prior(noisy, sigma).clamp(0, 1)
        seconds += time.perf_counter() - start
        psnr.append(-10 * float((estimate - x).double().square().mean().log10()))
    return psnr, seconds / len(clean)


def table(prior: Denoiser, name: str, data: Path) -> str:
    """A Markdown table; `±` is the standard deviation over the pictures."""
    kinds = " | ".join(f"{name}, sigma {s}" for s in SIGMAS)
    lines = [f"| | {kinds} | s / picture |", "|---|" + "--:|" * (len(SIGMAS) + 1)]
    clean = pictures(data, name)
    cells, times = [], []
    for s in SIGMAS:
        psnr, seconds = scores(prior, clean, s / 255)
        cells.append(f"{statistics.fmean(psnr):.2f} ± {statistics.pstdev(psnr):.2f}")
        times.append(seconds)
    lines.append(f"| **this prior** | {' | '.join(cells)} | {statistics.fmean(times):.2f} |")
    for method, published in PUBLISHED.items():
        lines.append(f"| {method} | {' | '.join(f'{v:.2f}' for v in published[name])} | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = Path(os.environ.get("RESTORE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="folder with images/test/... (or RESTORE_DATA)")
    parser.add_argument("--prior", default="photos")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="put the tables between the markers of this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    prior = load_prior(args.prior)
    text = "\n\n".join(table(prior, name, args.data) for name in SETS)
    print(text)
    if args.write:
        write_between(args.write, "denoise", text + "\n")


if __name__ == "__main__":
    main()

"""Speed of a prior: one call on 3 x 512 x 512, as shipped, in single precision, compiled, and deepinv's DRUNet.

    python tests/bench/speed.py --data ../shared/data --write restore/priors/weights/photos/README.md

All in one process, in turns, the median of each; DRUNet's weights do not matter to its speed and are random. What
bfloat16 costs is the PSNR of Set12 and of the first pictures of CBSD68, as in `denoise.py`, less that of single
precision.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from denoise import SIGMAS, pictures, scores
from report import write_between
from torch import Tensor

from restore.memory import keep_freed_memory
from restore.priors import network
from restore.priors.store import load_prior

SIDE, BAR, FILES = 512, 4.0, 12


@contextmanager
def single_precision() -> Iterator[None]:
    """Without bfloat16, whatever the hardware has."""
    asked = network.has_fast_bf16
    network.has_fast_bf16 = lambda device: False  # type: ignore[assignment]
    try:
        yield
    finally:
        network.has_fast_bf16 = asked


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each, run in turns after one that does not count."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    data = Path(os.environ.get("RESTORE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="folder with images/test/... (or RESTORE_DATA)")
    parser.add_argument("--prior", default="photos")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="the compiled prior too; compiling takes a minute")
    parser.add_argument("--write", type=Path, help="put the table between the markers of this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    keep_freed_memory()
    from deepinv.models import DRUNet

    prior, rival = load_prior(args.prior), DRUNet(in_channels=3, out_channels=3, pretrained=None)
    x = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def single(x: Tensor, sigma: float) -> Tensor:
        with single_precision():
            return prior(x, sigma)

    runs: dict[str, Callable[[], object]] = {
        "as shipped": lambda: prior(x, 0.1),
        "single precision": lambda: single(x, 0.1),
        "DRUNet (deepinv), single precision": lambda: rival(x, 0.1),
    }
    if args.compile:
        compiled = load_prior(args.prior)
        network.compile_networks(compiled)
        runs["compiled"] = lambda: compiled(x, 0.1)
    found = medians(runs, args.repeats)
    lines = [f"| 3 x {SIDE} x {SIDE}, {args.threads} thread(s) | s | times as long |", "|---|--:|--:|"]
    lines += [f"| {name} | {s:.2f} | {s / found['as shipped']:.2f} |" for name, s in found.items()]
    lost = []
    for name in ("Set12", "CBSD68"):
        clean = pictures(args.data, name)[:FILES]
        for sigma in SIGMAS:
            each = zip(scores(prior, clean, sigma / 255)[0], scores(single, clean, sigma / 255)[0], strict=True)
            lost.append(statistics.fmean(exact - fast for fast, exact in each))
    slower = min(found[name] / found["as shipped"] for name in list(runs)[1:3])
    verdict = "met" if slower >= BAR else "MISSED"
    lines += [
        "",
        f"bfloat16 costs {max(lost):.3f} dB at most (mean over {FILES} pictures of a set, sigma {SIGMAS}).",
        f"At least {slower:.1f} times as fast as the others in single precision, bar {BAR:g}: {verdict}.",
    ]
    text = "\n".join(lines)
    print(text)
    if args.write:
        write_between(args.write, "speed", text + "\n")


if __name__ == "__main__":
    main()

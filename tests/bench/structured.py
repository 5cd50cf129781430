"""Structured noise on photographs: joint diffusion against the same sampler told that the noise is white, and filters.

    python tests/bench/structured.py --output out/                      # learns the two noise priors first: 20 minutes
    python tests/bench/structured.py --output out/ --write README.md    # put the table between the marks of the README
    python tests/bench/structured.py --output out/ --set-aside ../shared/data    # what the recipes were chosen on
    python tests/bench/structured.py --gaussian                         # two Gaussian sources instead: seconds

Three noises (`noises.py`) and a white part on crops of scikit-image's photographs, grey. The priors of stripes and
digits are learnt from recordings of noise alone, the coloured noise has its exact Gaussian prior. Samplers are those of
the command line with `--noise-prior`, the same when they are told that the noise is white. The filters' weights are
chosen with the truth at hand, picture by picture. Recordings, priors, rows and panels are left in the folder; a run
that was stopped goes on where it was.

Of two Gaussian sources, a picture and rows, the joint posterior is known: `--gaussian` holds the default sampler
against it, by the numbers of `restore.uncertainty.exact`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, median_filter
from skimage import color, restoration
from skimage import data as photographs

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from known_posteriors import NOISE, operator, samplers, two_sources  # noqa: E402
from noises import WHITE, digits, record, spectrum, stripes  # noqa: E402
from photos import sampler_for  # noqa: E402
from report import write_between  # noqa: E402
from set_aside import pictures as set_aside  # noqa: E402

from operators.base import Identity  # noqa: E402
from operators.noise import Gaussian  # noqa: E402
from operators.random import Draws  # noqa: E402
from restore.core import restore  # noqa: E402
from restore.learn.dsm import DSM  # noqa: E402
from restore.learn.train import learn  # noqa: E402
from restore.memory import keep_freed_memory  # noqa: E402
from restore.priors.analytic import side_by_side  # noqa: E402
from restore.priors.base import Denoiser  # noqa: E402
from restore.priors.stationary import StationaryGaussian  # noqa: E402
from restore.priors.store import load_prior  # noqa: E402
from restore.problem import Problem  # noqa: E402
from restore.report import panel  # noqa: E402
from restore.samplers.base import Sampler  # noqa: E402
from restore.structured import apart, joint  # noqa: E402
from restore.uncertainty.exact import Statistic, exactness  # noqa: E402

SIZE = 128
SMALL, DRAWS = 8, 400  # of two Gaussian sources
PICTURES = {"camera": (60, 160), "astronaut": (20, 160), "chelsea": (60, 130), "coffee": (100, 220)}
MAKERS = {"stripes": stripes, "digits": digits}
RECORDINGS = {"stripes": 100, "digits": 400}
LEARNT: dict[str, dict[str, Any]] = {
    "stripes": {"steps": 3500, "widths": (16, 32, 48, 64), "blocks": (1, 1, 1, 1)},
    # Which digit it is, and whether it is one, shows at higher noise levels than those that matter for photographs.
    "digits": {"steps": 9000, "widths": (32, 64, 96, 128), "blocks": (1, 1, 2, 2), "objective": DSM(p_mean=-0.8)},
}
# Sparse noise has a sampler of its own; turns cost ten times the calls.
SAMPLERS = {"stripes": "moment_matching", "digits": "moment_matching,pnpdm", "coloured": "moment_matching"}
HEADER = "| noise | method | PSNR (dB) | of the noise | data fit | calls | s / picture |\n|---|---|--:|--:|--:|--:|--:|"


@dataclass(frozen=True)
class Row:
    """A method on a picture: PSNR of the picture and of the separated noise, data fit, calls in all, seconds."""

    case: str
    method: str
    psnr: float
    noise: float | None = None
    fit: float | None = None
    calls: float | None = None
    seconds: float | None = None


def photograph(name: str) -> np.ndarray:
    """A grey crop, `(1, SIZE, SIZE)` in [0, 1]."""
    picture = getattr(photographs, name)()
    grey = color.rgb2gray(picture) if picture.ndim == 3 else picture / 255
    top, left = PICTURES[name]
    return grey[None, top : top + SIZE, left : left + SIZE].astype(np.float32)


def noise_prior(case: str, folder: Path) -> Denoiser:
    """The prior of a noise: learnt in `folder`, or where it is Gaussian, its own."""
    if case == "coloured":
        return StationaryGaussian(spectrum(SIZE), SIZE)
    recordings = folder / f"{case}-recordings"
    if not recordings.exists():
        record(recordings, MAKERS[case], RECORDINGS[case])
    settings = {"batch": 8, "patch": 64, "every": 500, **LEARNT[case]}
    return load_prior(learn([recordings], folder / case, **settings, noise=True), noise=True)


def noise_of(case: str, i: int) -> np.ndarray:
    """What lies on picture `i`, `(1, SIZE, SIZE)`; no recording holds it."""
    if case == "coloured":
        return StationaryGaussian(spectrum(SIZE), SIZE).sample(Draws(100 + i))[0].numpy()
    return MAKERS[case](SIZE, np.random.default_rng(1000 + i))


def psnr(x: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(x - truth).mean()))


def medians(y: np.ndarray) -> Iterator[np.ndarray]:
    return (median_filter(y, size) for size in ((3, 3), (5, 5), (3, 1), (5, 1), (7, 1), (1, 3), (1, 5)))


def variations(y: np.ndarray) -> Iterator[np.ndarray]:
    return (restoration.denoise_tv_chambolle(y, w) for w in np.geomspace(0.01, 0.5, 14))


def means(y: np.ndarray) -> Iterator[np.ndarray]:
    """Non-local means."""
    return (
        restoration.denoise_nl_means(y, side, 11, h=h, sigma=s, fast_mode=True)
        for side in (3, 5, 7)
        for s in (0, WHITE)
        for h in np.geomspace(0.01, 0.25, 9)
    )


def rows_levelled(y: np.ndarray) -> Iterator[np.ndarray]:
    """What a person who knows of rows would do: each row's median brought to that of the rows around it, then
    non-local means for the rest."""
    level = np.median(y, axis=1)
    for width in (1, 2, 4, 8, 16):
        yield from means(y - (level - gaussian_filter1d(level, width))[:, None])


FILTERS: dict[str, Callable[[np.ndarray], Iterator[np.ndarray]]] = {
    "median": medians, "TV": variations, "non-local means": means,
}  # fmt: skip


def filtered(case: str, y: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """The best of each filter."""
    methods = FILTERS | ({"rows levelled, then non-local means": rows_levelled} if case == "stripes" else {})
    return {name: max((x[None] for x in f(y[0])), key=lambda x: psnr(x, truth)) for name, f in methods.items()}


def bench(
    case: str, pictures: dict[str, np.ndarray], first: int, chosen: dict[str, Sampler], draws: int, folder: Path
) -> Iterator[tuple[Row, ...]]:
    """All methods on all pictures, with noise from number `first` on; writes their panels. What the folder has rows of
    is not done again."""
    photos, prior, done = load_prior("photos"), noise_prior(case, folder), folder / "rows.jsonl"
    known = dict(map(json.loads, done.read_text().splitlines())) if done.exists() else {}
    for i, (name, truth) in enumerate(pictures.items(), first):
        asked = json.dumps([case, name, i, draws, repr(chosen)])
        if asked in known:
            yield tuple(Row(**row) for row in known[asked])
            continue
        n = noise_of(case, i)
        clean = torch.from_numpy(truth + n)[None]
        A = Identity((1, SIZE, SIZE))
        P = Problem(Gaussian(WHITE).sample(clean, Draws(200 + i)), A, Gaussian(WHITE))
        told = float(np.sqrt(np.square(n).mean() + WHITE**2))
        rows, shown = [], [("truth", truth), ("the noise", n + 0.5), ("what was measured", P.y[0].numpy())]
        for key, sampler in chosen.items():
            R = restore(*joint(P, photos, prior), sampler, num_samples=draws)
            x, m = (part.mean.numpy() for part in apart(R))
            fit = float(R.residual().mean())
            rows.append(Row(case, f"**{key}**, joint", psnr(x, truth), psnr(m, n), fit, R.nfe * draws, R.seconds))
            shown += [(f"{key}, joint, {psnr(x, truth):.1f} dB", x), ("its noise", m + 0.5)]
            R = restore(replace(P, noise=Gaussian(told)), photos, sampler, num_samples=draws)
            x, fit = R.mean.numpy(), float(R.residual().mean())
            shown.append((f"{key}, told white (std {told:.2f}), {psnr(x, truth):.1f} dB", x))
            rows.append(Row(case, f"{key}, told white", psnr(x, truth), None, fit, R.nfe * draws, R.seconds))
        best = filtered(case, P.y[0].numpy(), truth)
        rows += [Row(case, f"{method} (best in hindsight)", psnr(x, truth)) for method, x in best.items()]
        top = max(best, key=lambda method: psnr(best[method], truth))
        shown.append((f"{top}, {psnr(best[top], truth):.1f} dB", best[top]))
        panel(folder / f"{case}-{name}.png", shown)
        with done.open("a") as out:
            out.write(json.dumps([asked, [asdict(row) for row in rows]]) + "\n")
        yield tuple(rows)


def table(found: list[Row]) -> str:
    """Means over the pictures, and the bars."""
    lines, bars = [HEADER], []
    for case in dict.fromkeys(row.case for row in found):
        mean: dict[str, float] = {}
        for method in dict.fromkeys(row.method for row in found if row.case == case):
            rows = [row for row in found if (row.case, row.method) == (case, method)]
            mean[method] = fmean(row.psnr for row in rows)
            cells = [
                "" if getattr(rows[0], key) is None else format(fmean(getattr(row, key) for row in rows), form)
                for key, form in (("noise", ".2f"), ("fit", ".2f"), ("calls", ".0f"), ("seconds", ".0f"))
            ]
            lines.append(f"| {case} | {method} | {mean[method]:.2f} | {' | '.join(cells)} |")
        ours, filters = ([m for m in mean if word in m] for word in (", joint", "hindsight"))
        first, best = (max(group, key=lambda m: mean[m]) for group in (ours, filters))
        name = first.split("**")[1]
        for other, bar in ((f"{name}, told white", 3), (best, 0)):
            gain = mean[first] - mean[other]
            verdict = "met" if gain >= bar else "MISSED"
            bars.append(f"- {case}: {first} {gain:+.2f} dB over {other}, bar +{bar}: {verdict}")
    return "\n".join([*lines, "", *bars])


def gaussian() -> str:
    """The default sampler on the joint posterior of two Gaussian sources, beside as many exact draws."""

    def cell(s: Statistic) -> str:
        return f"{s.value:.3f} ({s.expected:.3f} ± {s.se:.3f})"

    lines = [
        "| operator | mean error (sd) | variance ratio | coverage of 90 % | calls |",
        "|---|--:|--:|--:|--:|",
    ]
    for A in (Identity((1, SMALL, SMALL)), operator("blur", SMALL)):
        P, X, N = two_sources(A)
        P, prior = joint(P, X, N)
        R = restore(P, prior, samplers()["moment_matching"], num_samples=DRAWS, chunk=50)
        E = exactness(R.samples, side_by_side(X, N).posterior(P))
        cells = " | ".join(map(cell, (E.mean_error, E.variance_ratio, E.coverage)))
        lines.append(f"| {type(A).__name__} | {cells} | {R.nfe:.0f} |")
    note = f"{SMALL} x {SMALL} pixels, rows of std 0.1, white noise {NOISE}; {DRAWS} draws of moment_matching"
    return "\n".join([*lines, "", f"{note} (as many exact draws, with their standard deviation)."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", type=Path, help="folder for recordings, priors and panels")
    where.add_argument("--gaussian", action="store_true", help="two Gaussian sources, against their joint posterior")
    parser.add_argument("--cases", default="stripes,digits,coloured")
    parser.add_argument("--samplers", help="comma-separated names, for all noises (default: those that are for each)")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--set-aside", type=Path, metavar="DATA", help="other pictures, under other noise")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table between the marks of this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if args.gaussian:
        return print(gaussian())
    pictures, first, found = {name: photograph(name) for name in PICTURES}, 0, []
    if args.set_aside:
        grey = [x[0].numpy() for x in set_aside(args.set_aside, SIZE) if x.shape[1] == 1]
        pictures, first = {f"aside-{i}": x for i, x in enumerate(grey)}, 100
    for case in args.cases.split(","):
        chosen = {
            name: sampler_for("identity", name, ["recipe=structured_${sampler}"])
            for name in (args.samplers or SAMPLERS[case]).split(",")
        }
        for rows in bench(case, pictures, first, chosen, args.draws, args.output):
            print(*rows, sep="\n", file=sys.stderr, flush=True)
            found += rows
    text = table(found)
    print(text)
    if args.write:
        write_between(args.write, "structured", text)


if __name__ == "__main__":
    main()

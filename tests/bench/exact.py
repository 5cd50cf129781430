"""The exactness table: every sampler against posteriors known in closed form.

python tests/bench/exact.py                      # print the table
python tests/bench/exact.py --write README.md    # put it between the marks of the README
python tests/bench/exact.py --pin                # rewrite tests/pinned_bias.yaml after a change that is meant
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

import torch
import yaml

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from known_posteriors import NOISE, compare, problems, samplers  # noqa: E402

from operators.random import Draws  # noqa: E402
from restore.uncertainty.exact import Exactness, Statistic, exactness  # noqa: E402

SIZE, DRAWS = 16, 200
HEADER = (
    "| sampler | prior, operator | mean error (sd) | variance ratio | coverage of 90 % | mode weights (TV) | data fit "
    "| denoiser calls per draw | seconds |\n|---|---|---|---|---|---|---|---|---|"
)


def cell(s: Statistic) -> str:
    return f"{s.value:.2f} ± {s.se:.2f}" if s.se >= 0.005 else f"{s.value:.3f} ± {s.se:.3f}"


def row(sampler: str, label: str, E: Exactness, fit: torch.Tensor, calls: str, seconds: str) -> str:
    weights = cell(E.mode_weights) if label.startswith("mixture") else ""
    return (
        f"| {sampler} | {label.replace('-', ', ')} | {cell(E.mean_error)} | {cell(E.variance_ratio)} "
        f"| {cell(E.coverage)} | {weights} | {fit.mean():.2f} | {calls} | {seconds} |"
    )


def table() -> str:
    rows = [HEADER]
    for label, problem, prior in problems(SIZE):
        posterior = prior.posterior(problem)
        exact = posterior.sample(Draws(0, range(DRAWS)))
        rows.append(row("(exact draws)", label, exactness(exact, posterior), problem.data_fit(exact), "", ""))
    for name, sampler in samplers().items():
        for label, problem, prior in problems(SIZE):
            E, R = compare(sampler, problem, prior, DRAWS)
            calls = f"{R.nfe:.0f}" + (f" + {R.backward:.0f} backward" if R.backward else "")
            rows.append(row(name, label, E, R.residual(), calls, f"{R.seconds:.1f}"))
            print(rows[-1], file=sys.stderr)
    note = (
        f"\n{SIZE} x {SIZE} pixels, noise {NOISE}, {DRAWS} draws; seconds for all of them on one CPU thread. "
        "The rows on top are what exact draws give; ± is one standard error of as many of them."
    )
    return "\n".join(rows) + "\n" + note


def pin() -> None:
    from test_exact import PINNED_DRAWS, PINNED_STEPS, SIZE

    pinned: dict[str, dict[str, dict[str, float]]] = {}
    for name, sampler in samplers().items():
        if sampler.exact:
            continue
        for label, problem, prior in problems(SIZE):
            E, _ = compare(replace(sampler, steps=min(sampler.steps, PINNED_STEPS)), problem, prior, PINNED_DRAWS)
            kept = ("mean_error", "variance_ratio", "coverage", "mode_weights")
            pinned.setdefault(name, {})[label] = {k: round(getattr(E, k).value, 3) for k in kept}
    header = "# Measured bias of the samplers that do not claim to be exact: `python tests/bench/exact.py --pin`.\n"
    (TESTS / "pinned_bias.yaml").write_text(header + yaml.safe_dump(pinned, sort_keys=False, default_flow_style=None))


def main() -> None:
    parser = argparse.ArgumentParser(description="Every sampler against posteriors known in closed form.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table between the marks of this file")
    parser.add_argument("--pin", action="store_true", help="rewrite tests/pinned_bias.yaml instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.pin:
        return pin()
    text = table()
    print(text)
    if args.write:
        begin, end = "<!-- exact:begin -->", "<!-- exact:end -->"
        old = args.write.read_text()
        new, count = re.subn(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", old, flags=re.DOTALL)
        if count != 1:
            parser.error(f"{args.write} needs the marks {begin} and {end}, once each")
        args.write.write_text(new)


if __name__ == "__main__":
    main()

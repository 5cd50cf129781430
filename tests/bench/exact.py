"""The bias table: every sampler, and deepinv's, against posteriors known in closed form.

python tests/bench/exact.py                        # print it: over the problems, and each problem by itself
python tests/bench/exact.py --samplers ddrm,deepinv --problems skewed-mask,gaussian
                                                   # what begins with any of these names
python tests/bench/exact.py --write README.md      # the short table between the marks of the README, the long one
                                                   # into tests/bench/exact_table.md
python tests/bench/exact.py --pin                  # rewrite tests/pinned_bias.yaml after a change that is meant

Rows go to a JSON-lines file as they come; a run that was stopped goes on where it was, and what was measured with other
settings is measured again. After a change of code that settings do not show, delete the file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean

import deepinv
import torch
import yaml

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from exact_rivals import RIVALS, draw  # noqa: E402
from known_posteriors import NOISE, OPERATORS, PRIORS, compare, problem, samplers  # noqa: E402

from operators.random import Draws  # noqa: E402
from restore.core import Restoration, restore  # noqa: E402
from restore.priors.analytic import GaussianMixture  # noqa: E402
from restore.problem import Problem  # noqa: E402
from restore.uncertainty.exact import Exactness, Statistic, exactness  # noqa: E402

SIZE, DRAWS = 16, 200
FEWER = {"tds": 50, "fps": 50}  # populations of particles are dear
PROBLEMS = [f"{p}-{a}" for p in PRIORS for a in OPERATORS]
EXACT = "(exact draws)"
LONG = TESTS / "bench" / "exact_table.md"
MARKS = "<!-- exact:begin -->", "<!-- exact:end -->"

Method = Callable[[Problem, GaussianMixture], Restoration]


@dataclass(frozen=True)
class Row:
    """One method on one problem; `seconds` are those of a draw."""

    method: str
    settings: str
    problem: str
    found: Exactness
    fit: float
    calls: str
    seconds: float


def exact_draws(problem: Problem, prior: GaussianMixture) -> Restoration:
    samples = prior.posterior(problem).sample(Draws(0, range(DRAWS)))
    return Restoration(samples, problem, nfe=0, backward=0, seconds=0, seed=0)


def methods() -> dict[str, tuple[str, Method]]:
    """Exact draws, our samplers and deepinv's, by name: what decides the result in words, and how it is had."""
    found: dict[str, tuple[str, Method]] = {EXACT: (f"{DRAWS}", exact_draws)}
    for name, sampler in samplers().items():
        draws = FEWER.get(name, DRAWS)

        def ours(problem: Problem, prior: GaussianMixture, sampler=sampler, draws=draws) -> Restoration:
            return restore(problem, prior, sampler, num_samples=draws, chunk=50)

        found[name] = (f"{sampler} x{draws}", ours)
    for name in RIVALS:
        settings = f"deepinv {deepinv.__version__} x{DRAWS}"
        found[name] = (settings, lambda problem, prior, name=name: draw(name, problem, prior, DRAWS))
    return found


def measure(method: str, label: str) -> Row:
    settings, run = methods()[method]
    P, prior = problem(*label.split("-"), SIZE)
    R = run(P, prior)
    calls = f"{R.nfe:.0f}" + (f" + {R.backward:.0f}" if R.backward else "") if R.nfe else ""
    found, fit = exactness(R.samples, prior.posterior(P)), float(R.residual().mean())
    return Row(method, settings, label, found, fit, calls, R.seconds / len(R.samples))


def read(results: Path) -> dict[tuple[str, str, str], Row]:
    """The rows of a file of results, by method, settings and problem."""
    rows = {}
    for line in results.read_text().splitlines() if results.exists() else ():
        plain = json.loads(line)
        found = Exactness(**{name: Statistic(**s) for name, s in plain.pop("found").items()})
        row = Row(**plain, found=found)
        rows[row.method, row.settings, row.problem] = row
    return rows


def cell(s: Statistic) -> str:
    return f"{s.value:.2f} ± {s.se:.2f}" if s.se >= 0.005 else f"{s.value:.3f} ± {s.se:.3f}"


def long_table(rows: list[Row]) -> str:
    lines = [
        "| sampler | prior, operator | mean error (sd) | variance ratio | coverage of 90 % | mode weights (TV) "
        "| data fit | denoiser calls + Jacobian products | s / draw |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        E, weights = r.found, "" if r.problem.startswith("gaussian") else cell(r.found.mode_weights)
        lines.append(
            f"| {r.method} | {r.problem.replace('-', ', ')} | {cell(E.mean_error)} | {cell(E.variance_ratio)} "
            f"| {cell(E.coverage)} | {weights} | {r.fit:.2f} | {r.calls} | {r.seconds:.3f} |"
        )
    return "\n".join(lines)


def short_table(rows: list[Row]) -> str:
    """For each method: the mean over problems and the worst, or the range."""

    def over(s: Statistic) -> float:
        return s.value - s.expected

    def mean_and_worst(values: list[float]) -> str:
        return f"{fmean(values):.2f}, {max(values):.2f}".replace("-0.00", "0.00") if values else ""

    def spread(values: list[float]) -> str:
        return f"{fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    def calls(found: list[str]) -> str:
        ends = sorted(set(found), key=lambda s: [float(n) for n in s.split(" + ") if n])
        return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"

    lines = [
        "| sampler | mean error beyond exact draws' (sd): mean, worst | variance ratio | coverage of 90 % "
        "| mode weights beyond exact draws' (TV): mean, worst | denoiser calls + Jacobian products | s / draw |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(r.method for r in rows):
        own = [r for r in rows if r.method == method]
        E = [r.found for r in own]
        mixed = [r.found for r in own if not r.problem.startswith("gaussian")]
        lines.append(
            f"| {method} | {mean_and_worst([over(e.mean_error) for e in E])} "
            f"| {spread([e.variance_ratio.value for e in E])} | {spread([e.coverage.value for e in E])} "
            f"| {mean_and_worst([over(e.mode_weights) for e in mixed])} | {calls([r.calls for r in own])} "
            f"| {fmean(r.seconds for r in own):.3f} |"
        )
    return "\n".join(lines)


def note(rows: list[Row]) -> str:
    se = {f.name: max(getattr(r.found, f.name).se for r in rows) for f in fields(Exactness)}
    few = ", ".join(f"{draws} of {name}" for name, draws in FEWER.items())
    minutes = sum(r.seconds * FEWER.get(r.method, DRAWS) for r in rows) / 60
    return (
        f"{SIZE} x {SIZE} pixels, noise {NOISE}, {DRAWS} draws ({few}) of each of {len({r.problem for r in rows})} "
        f"problems; calls and seconds are per draw, on one CPU thread. Of as many exact draws, the standard errors are "
        f"at most {se['mean_error']:.3f} (mean error), {se['variance_ratio']:.3f} (variance), "
        f"{se['coverage']:.3f} (coverage) and {se['mode_weights']:.2f} (mode weights). "
        f"Drawing took {minutes:.0f} minutes."
    )


def pin() -> None:
    from test_exact import PINNED_DRAWS, PINNED_STEPS
    from test_exact import SIZE as SMALL

    pinned: dict[str, dict[str, dict[str, float]]] = {}
    for name, sampler in samplers().items():
        if sampler.exact:
            continue
        for label in PROBLEMS:
            few = replace(sampler, steps=min(sampler.steps, PINNED_STEPS))
            E, _ = compare(few, *problem(*label.split("-"), SMALL), PINNED_DRAWS)
            kept = ("mean_error", "variance_ratio", "coverage", "mode_weights")
            pinned.setdefault(name, {})[label] = {k: round(getattr(E, k).value, 3) for k in kept}
    header = "# Measured bias of the samplers that do not claim to be exact: `python tests/bench/exact.py --pin`.\n"
    (TESTS / "pinned_bias.yaml").write_text(header + yaml.safe_dump(pinned, sort_keys=False, default_flow_style=None))


def chosen(names: list[str], wanted: str | None, parser: argparse.ArgumentParser) -> list[str]:
    if wanted is None:
        return names
    beginnings = tuple(wanted.split(","))
    unknown = [b for b in beginnings if not any(n.startswith(b) for n in names)]
    if unknown:
        parser.error(f"nothing begins with {', '.join(unknown)}: there are {', '.join(names)}")
    return [n for n in names if n.startswith(beginnings)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Every sampler, and deepinv's, against posteriors in closed form.")
    parser.add_argument("--samplers", metavar="NAME,...", help="only those that begin so")
    parser.add_argument(
        "--problems", metavar="NAME,...", help="only those that begin so, such as skewed or mixture-blur"
    )
    parser.add_argument("--results", type=Path, default=Path("outputs/bench/exact.jsonl"))
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the short table between the marks of this")
    parser.add_argument("--pin", action="store_true", help="rewrite tests/pinned_bias.yaml instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.pin:
        return pin()
    if args.write and (args.samplers or args.problems):
        parser.error("--write wants the whole table: leave --samplers and --problems out")
    if args.write and not re.search(".*".join(map(re.escape, MARKS)), args.write.read_text(), flags=re.DOTALL):
        parser.error(f"{args.write} needs the marks {' and '.join(MARKS)}")
    args.results.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for method in chosen(list(methods()), args.samplers, parser):
        for label in chosen(PROBLEMS, args.problems, parser):
            key = method, methods()[method][0], label
            known = read(args.results).get(key)
            if known is None:
                known = measure(method, label)
                with args.results.open("a") as out:
                    out.write(json.dumps(asdict(known)) + "\n")
            rows.append(known)
            print(long_table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    short, text = short_table(rows), long_table(rows)
    remark = note(rows)
    print(f"{short}\n\n{text}\n\n{remark}")
    if args.write:
        begin, end = MARKS
        old = args.write.read_text()
        new = re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{short}\n\n{remark}\n{end}", old, flags=re.DOTALL)
        args.write.write_text(new)
        LONG.write_text(f"# Every sampler on every problem\n\n{text}\n\n{remark}\n")


if __name__ == "__main__":
    main()

"""Restoration of photographs, one table: our samplers, classical methods, deepinv, on the same data and prior.

    python tests/bench/photos.py --data ../shared/data --write README.md

Set12 (grey) and the first twelve pictures of CBSD68 (colour). Results go to a JSON-lines file as they come; a run that
was stopped goes on where it was, and what was measured with another prior or other parameters is measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import classical
import rivals
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from report import bars, tables, write_between
from tasks import TASKS, Task, find_pictures, load, psnr, ssim
from torch import Tensor

from restore.core import restore
from restore.memory import keep_freed_memory
from restore.priors.base import Denoiser
from restore.priors.store import load_prior
from restore.problem import Problem
from restore.samplers.base import Sampler, SamplerError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SLOW = ("dps", "pigdm", "daps", "pnpdm")  # a thousand calls, or each differentiated through
ONE = ("reddiff",)  # a point estimate: its draws differ by the noise of the optimiser
Row = dict[str, Any]


def sampler_for(operator: str, name: str, settings: Sequence[str] = ()) -> Sampler:
    """A sampler as the command line would set it for an operator, with further `settings`."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return instantiate(compose("config", [f"operator={operator}", f"sampler={name}", *settings])["sampler"])


def scored(problem: Problem, truth: Tensor, estimates: Tensor, nfe: float, seconds: float) -> Row:
    """Mean scores of `(K, C, H, W)` estimates."""
    each = [(psnr(e[None], truth), ssim(e[None], truth)) for e in estimates]
    return {
        "psnr": sum(p for p, _ in each) / len(each),
        "ssim": sum(s for _, s in each) / len(each),
        "fit": problem.data_fit(estimates).mean().item(),
        "nfe": nfe,
        "seconds": seconds,
    }


def sampled(problem: Problem, truth: Tensor, prior: Denoiser, sampler: Sampler, draws: int, file: int) -> Iterator[Row]:
    """One row for a single draw (mean of the draws' scores), one for the mean of the draws."""
    result = restore(problem, prior, sampler, num_samples=draws, chunk=1, file=file)
    yield scored(problem, truth, result.samples, result.nfe, result.seconds / draws) | {"draws": 1}
    if draws > 1:
        mean = result.mean[None]
        yield scored(problem, truth, mean, draws * result.nfe, result.seconds) | {"draws": draws}


def timed(problem: Problem, truth: Tensor, run: Callable[[], Tensor], prior: Denoiser | None = None) -> Iterator[Row]:
    calls = []
    hook = prior.register_forward_hook(lambda *_: calls.append(1)) if prior is not None else None
    start = time.perf_counter()
    try:
        estimate = run()
    finally:
        if hook is not None:
            hook.remove()
    yield scored(problem, truth, estimate, len(calls), time.perf_counter() - start) | {"draws": 1}


def fingerprint(prior: Denoiser) -> str:
    """What tells the weights of a prior from others."""
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in prior.state_dict().values())).hexdigest()[:12]


def recorded(results: Path) -> list[Row]:
    """The rows of earlier runs; makes the folder for those to come."""
    results.parent.mkdir(parents=True, exist_ok=True)
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def plan(task: Task, prior: Denoiser, draws: int, digest: str) -> dict[str, tuple[str, str, Callable]]:
    """Method -> (family, what decides its result, function of problem, truth and file that yields rows)."""
    jobs: dict[str, tuple[str, str, Callable]] = {}
    for name, run in classical.METHODS[task.name].items():
        jobs[name] = ("classical", name, lambda p, t, f, run=run: timed(p, t, lambda: run(p, t)))
    for name, run in rivals.methods(task.name).items():
        jobs[name] = (
            "deepinv",
            f"{name} {digest}",
            lambda p, t, f, run=run: timed(p, t, lambda: run(p, prior, f), prior),
        )
    for name in sorted(path.stem for path in (CONFIGS / "sampler").glob("*.yaml")):
        sampler = sampler_for(task.operator_name, name)
        K = 1 if name in ONE else draws
        jobs[name] = (
            "ours",
            f"{sampler} x{K} {digest}",
            lambda p, t, f, sampler=sampler, K=K: sampled(p, t, prior, sampler, K, f),
        )
    return jobs


def chosen(name: str, family: str, wanted: str | None) -> bool:
    """Whether a method is to be run; the slow ones only when they are named."""
    if wanted is None:
        return name not in SLOW
    return any(w.strip() == name or (w.strip() == family and name not in SLOW) for w in wanted.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with images/test/...")
    parser.add_argument("--prior", default="photos")
    parser.add_argument("--draws", type=int, default=8, help="draws in a posterior mean")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", help="comma-separated names, or families: ours, classical, deepinv")
    parser.add_argument("--files", type=int, help="pictures of each set (default all twelve)")
    parser.add_argument("--crop", type=int, help="side of a crop from the middle, for a quick look")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("outputs/bench/photos.jsonl"))
    parser.add_argument("--write", type=Path, help="put the table between the markers of this file")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    prior = load_prior(args.prior)
    digest = fingerprint(prior)
    done = {(r["task"], r["file"], r["config"], r["draws"] > 1): r for r in recorded(args.results)}
    paths = find_pictures(args.data)
    if args.files:
        paths = paths[: args.files] + paths[12 : 12 + args.files]

    table: list[Row] = []
    for task in (TASKS[name] for name in args.tasks.split(",")):
        for number, path in enumerate(paths):
            truth = load(path, args.crop, task.even)
            file = f"{path.parent.name}/{path.name}" + (f" crop {args.crop}" if args.crop else "")
            problem = task.problem(truth, number)
            for name, (family, config, run) in plan(task, prior, args.draws, digest).items():
                if not chosen(name, family, args.methods):
                    continue
                key = (task.name, file, config)
                known = [done[*key, mean] for mean in (False, True) if (*key, mean) in done]
                if not known:
                    base = {"task": task.name, "file": file, "method": name, "family": family, "config": config}
                    try:
                        known = [base | row for row in run(problem, truth, number)]
                    except SamplerError as error:  # not for this operator: a gap in the table, with the reason said
                        print(f"{file} {task.name} {name}: {error}", flush=True)
                        continue
                    with args.results.open("a") as out:
                        out.writelines(json.dumps(row) + "\n" for row in known)
                    print(file, task.name, name, *(f"{row['psnr']:.2f}" for row in known), flush=True)
                table += known

    text = tables(table) + "\n" + bars(table)
    print(text)
    if args.write:
        write_between(args.write, "photos", text)


if __name__ == "__main__":
    main()

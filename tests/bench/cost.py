"""Where the time of a sampler goes: the share spent outside the denoiser and the products with its Jacobian.

    python tests/bench/cost.py --write README.md

One draw of 3 x 256 x 256 of a photograph, the shipped prior. Two runs of few steps tell what is done once and what at
each step; the table has what a run of the sampler's own steps comes to. Time is that of the processor: of one thread,
so that it is the wall time of a core that nobody shares. The denoiser is run inside an autograd node that takes the
time of the network's forward pass and of its backward pass, each by itself: gradients of the operator and of the
likelihood count as outside, and so do linear solves, random numbers, covariances and resampling.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from photos import CONFIGS, sampler_for
from report import write_between
from skimage import data as photographs
from tasks import TASKS
from torch import Tensor

from restore.core import restore
from restore.memory import keep_freed_memory
from restore.priors.base import Denoiser, Wrapper
from restore.priors.store import load_prior
from restore.samplers.base import Sampler, SamplerError

SIZE, LIMIT = 256, 0.10
FEW_STEPS, MORE_STEPS = 4, 12
ASKED = ("inpaint", "deblur")
SMALL: dict[str, dict[str, int]] = {"fps": {"particles": 2}, "tds": {"particles": 2}, "pnpdm": {"sde_steps": 5}}
NOTE = """Time of one draw of 3 x {size} x {size} that is spent outside the denoiser and the products with its Jacobian,
as a share and in ms per call or product, in a run of as many steps as the sampler takes by itself: extrapolated from
runs of {few} and {more} steps, each the best of {repeats}; one thread. Bold: above {limit:.0%}."""


class Timed(Wrapper):
    """A denoiser that adds up the seconds spent in it and in products with its Jacobian, and counts them."""

    def __init__(self, prior: Denoiser):
        super().__init__(prior)
        self.seconds, self.count = 0.0, 0

    def jvp(self, x: Tensor, sigma: float, v: Tensor) -> Tensor:
        with self.timing():
            return super().jvp(x, sigma, v)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _Node.apply(x, sigma, self)
        with self.timing():
            return super().forward(x, sigma)

    @contextmanager
    def timing(self) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds += time.process_time() - start
            self.count += 1


class _Node(torch.autograd.Function):
    """The network as one node of the graph, so that its own backward pass can be told from the rest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: Tensor | float, timed: Timed) -> Tensor:
        with timed.timing(), torch.enable_grad():
            ctx.x, ctx.timed = x.detach().requires_grad_(), timed
            ctx.D = timed.prior(ctx.x, sigma)
        return ctx.D.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        with ctx.timed.timing():
            return torch.autograd.grad(ctx.D, ctx.x, grads[0], retain_graph=True)[0], None, None


@dataclass(frozen=True)
class Cost:
    """Of one draw: seconds in all, seconds in the denoiser and its products, their number."""

    seconds: float
    inside: float
    count: float

    @property
    def share(self) -> float:
        """Spent outside."""
        return 1 - self.inside / self.seconds

    @property
    def ms(self) -> float:
        """Spent outside, for each call or product."""
        return 1000 * (self.seconds - self.inside) / self.count


def cost(task: str, name: str, prior: Denoiser, steps: int, size: int = SIZE) -> Cost:
    """Of a run of so many steps. Raises SamplerError: the sampler cannot do the task."""
    sampler = replace(own(task, name), steps=steps, **SMALL.get(name, {}))
    truth = torch.from_numpy(photographs.astronaut()[:size, :size]).permute(2, 0, 1)[None].float() / 255
    timed = Timed(prior)
    problem, start = TASKS[task].problem(truth, 0), time.process_time()
    restore(problem, timed, sampler, num_samples=1)
    return Cost(time.process_time() - start, timed.seconds, timed.count)


def own(task: str, name: str) -> Sampler:
    """The sampler as the command line has it for the task."""
    return sampler_for(TASKS[task].operator_name, name)


def extrapolated(few: Cost, more: Cost, steps: int) -> Cost:
    """What a run of `steps` would come to, from runs of `FEW_STEPS` and `MORE_STEPS`."""
    times = (steps - FEW_STEPS) / (MORE_STEPS - FEW_STEPS)
    return Cost(*(a + times * (b - a) for a, b in zip(astuple(few), astuple(more), strict=True)))


def table(costs: dict[tuple[str, str], Cost]) -> str:
    """Markdown, a row for each sampler."""
    tasks = list(dict.fromkeys(task for task, _ in costs))
    lines = [
        "| sampler |" + "".join(f" {task}: outside | ms per call |" for task in tasks),
        "|---|" + "--:|--:|" * len(tasks),
    ]
    for name in dict.fromkeys(name for _, name in costs):
        cells = []
        for task in tasks:
            c = costs.get((task, name))
            share = "" if c is None else f"{c.share:.1%}" if c.share <= LIMIT else f"**{c.share:.1%}**"
            cells += [share, "" if c is None else f"{c.ms:.1f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prior", default="photos")
    parser.add_argument("--methods", help="comma-separated names (default all)")
    parser.add_argument("--tasks", default=",".join(ASKED))
    parser.add_argument("--repeats", type=int, default=2, help="runs, of which the one with the least share is taken")
    parser.add_argument("--write", type=Path, help="put the table between the markers of this file")
    args = parser.parse_args()

    torch.set_num_threads(1)
    keep_freed_memory()
    prior = load_prior(args.prior)
    names = args.methods.split(",") if args.methods else sorted(p.stem for p in (CONFIGS / "sampler").glob("*.yaml"))
    prior(torch.rand(1, 3, SIZE, SIZE), 0.1)  # the first call is slower than any other
    costs: dict[tuple[str, str], Cost] = {}
    for task in args.tasks.split(","):
        for name in names:
            try:
                few, more = (
                    min((cost(task, name, prior, steps) for _ in range(args.repeats)), key=lambda c: c.share)
                    for steps in (FEW_STEPS, MORE_STEPS)
                )
            except SamplerError as error:  # a gap in the table, with the reason said
                print(f"{task} {name}: {error}", flush=True)
                continue
            costs[task, name] = found = extrapolated(few, more, own(task, name).steps)
            print(f"{task} {name}: {found.share:.1%} outside, {found.ms:.1f} ms per call", flush=True)

    text = (
        table(costs)
        + "\n"
        + NOTE.format(size=SIZE, few=FEW_STEPS, more=MORE_STEPS, repeats=args.repeats, limit=LIMIT)
        + "\n"
    )
    print(text)
    if args.write:
        write_between(args.write, "cost", text)


if __name__ == "__main__":
    main()

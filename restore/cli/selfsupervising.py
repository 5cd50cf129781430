"""`restore denoise --self-supervised`: a network learnt from the very files that it then restores."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.errors import InputError

from .options import Law, UsageError

if TYPE_CHECKING:
    from .planning import Plan
    from .printing import Bar

FOLDER = "self-supervised-prior"
NETWORK: dict[str, Any] = {"widths": (32, 64, 96), "blocks": (2, 2, 2)}
# Of it and gr2r the one with the better uPSNR, if by little, for Poisson and Gamma noise too, in short trainings
# (tests/bench/self_supervised.py); and it serves every level of noise.
OBJECTIVE = "noise2score"
STEPS, PATCH, EVERY = 2000, 64, 500


def refuse(options: argparse.Namespace) -> None:
    """Raise UsageError where an option makes no sense here."""
    if options.train_steps and not options.self_supervised:
        raise UsageError("--train-steps is for --self-supervised: add it, or leave both out")
    if not options.self_supervised:
        return
    for name, value in (("--prior", options.prior), ("--noise-prior", options.noise_prior)):
        if value:
            raise UsageError(f"--self-supervised learns from the pictures themselves: leave out {name}")
    for name, value in (("--samples", options.samples), ("--sampler", options.sampler)):
        if value:
            raise UsageError(f"what --self-supervised learns has the mean and no draws: leave out {name}")
    if options.steps:
        raise UsageError("--steps are those of a sampler: say --train-steps for those of the training")


def place(plans: Sequence[Plan], out: str | None) -> Path:
    """The folder of what is learnt: in that of the results, or beside a single result with its name.

    Raises:
        UsageError: the results go to several folders.
    """
    if out is not None and Path(out) != plans[0][1]:
        return Path(out) / FOLDER
    if len(plans) == 1:
        return plans[0][1].with_name(f"{plans[0][1].stem}_{FOLDER}")
    tops = {output.parents[len(relative.parts) - 1] for _, output, _, relative in plans}
    if len(tops) > 1:
        raise UsageError("the results go to several folders: say with -o where, and what is learnt goes there too")
    return tops.pop() / FOLDER


def learnt(plans: Sequence[Plan], options: argparse.Namespace, typed: Law, seed: int, device: str) -> tuple[Path, int]:
    """Learn, go on, or find that all is learnt: the folder, and the type of the noise.

    Raises:
        UsageError: nothing can be learnt, or the folder holds something else.
        KeyboardInterrupt: Ctrl-C, after what was learnt has been saved.
    """
    from restore.jobs import sha256
    from restore.learn.checkpoint import CHECKPOINT
    from restore.learn.train import learn

    from .judging import judge
    from .planning import check_writable
    from .printing import Bar

    out = place(plans, options.output)
    sources = [source for source, *_ in plans]
    try:
        judged = judge(sources, typed, sources[0] if len(sources) == 1 else sources[0].parent)
    except InputError as error:
        raise UsageError(str(error)) from error
    check_writable(out)
    if out.is_dir() and any(out.iterdir()) and not (out / CHECKPOINT).exists():
        raise UsageError(f"{out} holds something else than what was learnt here: choose another place with -o")
    steps = options.train_steps or STEPS
    bar = Bar("learning", quiet=options.quiet)
    handler = _Said(bar, options)
    logger = logging.getLogger("restore.learn")
    level, before = (logging.ERROR if options.quiet else logging.INFO), (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    of = hashlib.sha256("".join(sha256(path) for path in judged.paths).encode()).hexdigest()[:16]
    several = f"{len(judged.paths)} pictures" if len(judged.paths) > 1 else "1 picture"
    logger.info("learning from %s, %.2g megapixels: %s, %d steps", several, judged.pixels / 1e6, OBJECTIVE, steps)
    logger.info("noise: %s", judged.words)
    again = False
    try:
        while True:
            try:
                learn(
                    judged.paths, out, objective=OBJECTIVE, steps=steps, data_noise=judged.told, held_out=0,
                    patch=_patch(judged.sides), every=EVERY, files=of, seed=seed, resume=not again,
                    device=None if device == "auto" else device, progress=bar if bar.shown else None, **NETWORK,
                )  # fmt: skip
                break
            except InputError as error:
                if again or not options.overwrite:
                    words = str(error).removesuffix(f"{error.cure[:1].upper()}{error.cure[1:]}.")
                    cure = f"Say --overwrite to learn again, or --prior {out} to restore with what is there."
                    raise UsageError(f"{words}{cure}") from error
                again = True
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        bar.close()
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
    return out, int(judged.law.rho)


def _patch(sides: Sequence[int]) -> int:
    """The side of the patches: smaller where most pictures are."""
    middle = sorted(sides)[len(sides) // 2]
    return min(PATCH, middle // 8 * 8)


class _Said(logging.Handler):
    """What training says, on stdout where that is for people, above the progress bar."""

    def __init__(self, bar: Bar, options: argparse.Namespace):
        super().__init__()
        self.bar, self.json = bar, options.json

    def emit(self, record: logging.LogRecord) -> None:
        self.bar.close()
        print(f"  {record.getMessage()}", file=sys.stderr if self.json else sys.stdout, flush=True)

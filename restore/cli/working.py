"""Doing the jobs of a command: one after another or side by side, each with its report; nothing stops the others."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np

from restore.errors import InputError

from .options import UsageError
from .planning import counterpart
from .settings import Plain


@dataclass(frozen=True)
class Report:
    """What became of one picture: a record (of an earlier run if `skipped`), or why there is none."""

    lines: tuple[str, ...]
    record: dict[str, Any] | None = None
    error: str | None = None
    skipped: bool = False


One = Callable[[Any, Any, list[str], str | None, bool, bool, bool], Report]


def do_all(
    jobs: Sequence[Any], request: Any, options: argparse.Namespace, argv: list[str], failed: int, one: One | None = None
) -> int:
    """Do the jobs and print what became of them; the exit status.

    Args:
        one: does a single job; by default it restores a picture.
    """
    single, one = len(jobs) == 1, one or picture
    ref = getattr(options, "ref", None)
    reports = (
        _in_turn(one, jobs, request, options, argv, ref)
        if options.__dict__.get("jobs", 1) == 1 or single
        else _side_by_side(one, jobs, request, options, argv, ref)
    )
    done, skipped, unread = 0, 0, failed
    for report in reports:
        if report.error is not None:
            failed += 1
            print(f"restore: {report.error}", file=sys.stderr)
        done, skipped = done + (report.record is not None and not report.skipped), skipped + report.skipped
        if options.json and report.record is not None:
            from .printing import as_json

            print(as_json(report.record), flush=True)
        elif not options.quiet and not options.json:
            print("\n".join(report.lines), flush=True) if report.lines else None
    if not options.quiet and not options.json and len(jobs) + unread > 1:
        print(f"{done} restored, {skipped} already done, {failed} failed")
    return 1 if failed else 0


def _in_turn(
    one: One, jobs: Sequence[Any], request: Any, options: argparse.Namespace, argv: list[str], ref: str | None
) -> Iterator[Report]:
    show = not options.quiet and not options.json
    for job in jobs:
        bar = not options.quiet
        yield do(one, job, request, argv, ref, options.overwrite, announce=show, bar=bar, debug=options.debug)


def _side_by_side(
    one: One, jobs: Sequence[Any], request: Any, options: argparse.Namespace, argv: list[str], ref: str | None
) -> Iterator[Report]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=_one_thread) as pool:
        futures = {
            pool.submit(
                do, one, job, request, argv, ref, options.overwrite, announce=False, bar=False, debug=False
            ): job
            for job in jobs
        }
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    words = "its process was killed (out of memory?): lower --jobs, or give tile=384"
                    yield Report((), error=f"{futures[future].source}: {words}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    # A terminal sends Ctrl-C to every process: the parent has the words, the workers just go.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import torch

    from restore.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()


def do(
    one: One, job: Any, request: Any, argv: list[str], ref: str | None, overwrite: bool, *, announce: bool, bar: bool,
    debug: bool,
) -> Report:  # fmt: skip
    """Do one job. With `announce`, what was read is printed before the work, else it is in the report."""
    try:
        return one(job, request, argv, ref, overwrite, announce, bar)
    except InputError as error:
        return Report((), error=str(error))
    except MemoryError:
        return Report((), error=f"{job.source}: not enough memory: give smaller tiles, such as tile=384")
    except Exception as error:
        if debug:
            raise
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        return Report((), error=f"{job.source}: {first} (--debug shows where)")


def picture(
    job: Any, request: Any, argv: list[str], ref: str | None, overwrite: bool, announce: bool, bar: bool
) -> Report:
    """Restore one picture. Raises InputError where it cannot be."""
    from restore.jobs import execute, own_request, prepare
    from restore.metrics import fitting
    from restore.modalities.image import read_picture
    from restore.records import RECORD, describe_request, finished, read_record, side_files, write

    from .printing import Bar, ending, heading

    request = own_request(request, job)
    if not overwrite and finished(job, describe_request(request), side_files(job, request)):
        words = (f"{job.output}: skipped, already done",)
        return Report(words, read_record(job.beside(RECORD)), skipped=True)
    kit = tools(json.dumps(request.settings))
    prepared = prepare(job, request, kit)
    truth = None
    if ref is not None:
        path = counterpart(Path(ref), job.relative)
        shape = (prepared.copies * prepared.task.shape[0], *prepared.task.shape[1:])
        truth = fitting(read_picture(path).data, shape, job.source)
    lines = heading(prepared, request, kit)
    if announce:
        print("\n".join(lines), flush=True)
        lines = []
    progress = Bar(job.source.name, quiet=not bar)
    try:
        outcome = execute(prepared, request, kit, progress)
    finally:
        progress.close()
    try:
        record = write(prepared, outcome, request, kit.device, argv, truth)
    finally:
        outcome.close()
    return Report((*lines, *ending(record, prepared.notes)), record)


@contextmanager
def restored(job: Any, request: Any, setting: str = "") -> Iterator[tuple[Any, Any]]:
    """A picture, prepared, and what came out of restoring it, without writing it.

    Raises:
        InputError: the picture cannot be restored.
    """
    from restore.jobs import execute, prepare

    from .printing import Bar

    kit = tools(json.dumps(request.settings))
    prepared = prepare(job, request, kit)
    bar = Bar(f"{job.source.name} {setting}", quiet=False)
    try:
        outcome = execute(prepared, request, kit, bar)
    finally:
        bar.close()
    try:
        yield prepared, outcome
    finally:
        outcome.close()


def scored(job: Any, request: Any, truth: np.ndarray, setting: str, picture: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """Restore a picture without writing it: its scores, the data and the mean, both in the units of the file.

    Raises:
        InputError: the picture cannot be restored, or the truth has another size.
    """
    from restore.jobs import pixels
    from restore.scoring import score

    with restored(job, request, setting) as (prepared, outcome):
        row = score(prepared, outcome, request, truth, setting, picture)
        return row, pixels(prepared, prepared.task.data), pixels(prepared, outcome.canvas.mean.read())


@cache
def tools(composed: str) -> Any:
    """Prior, sampler and operator of the settings (as JSON), made once per process.

    Raises:
        UsageError: something in the settings cannot be made; in words.
    """
    import torch

    from restore.jobs import Tools
    from restore.priors.network import compile_networks
    from restore.priors.store import load_prior

    config: Plain = json.loads(composed)
    named = config.get("noise_prior")
    try:
        name = config["device"]
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).split("\n")[0]
        raise UsageError(f"the device {config['device']!r} cannot be used: {first}") from error
    try:
        prior = instantiate(config["prior"]).to(device)
        if config.get("compile"):
            compile_networks(prior)
        return Tools(
            prior=prior,
            sampler=instantiate(config["sampler"]),
            make=partial(instantiate, config["operator"]),
            device=device,
            noise_prior=None if named is None else load_prior(named, noise=True).to(device),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def instantiate(config: Plain, **arguments: Any) -> Any:
    """Hydra's `instantiate`, whose own first line names the class and hides the reason.

    Raises:
        ValueError: the reason.
    """
    try:
        return hydra.utils.instantiate(config, **arguments)
    except hydra.errors.InstantiationException as error:
        raise ValueError(str(error.__cause__ or error).split("\n")[0]) from error

"""The verbs that restore: `denoise`, `inpaint`, `deblur`, `upscale`; and `replay`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra.utils

from restore.errors import InputError

from .options import UsageError, split_overrides
from .planning import check_writable, plan
from .settings import Plain, names, quoted, settings

DEFAULT_DRAWS = 4
OPERATORS = {"denoise": "identity", "inpaint": "mask", "deblur": "blur", "upscale": "downsample"}


@dataclass(frozen=True)
class Report:
    """What became of one picture: a record, or why there is none."""

    lines: tuple[str, ...]
    record: dict[str, Any] | None = None
    error: str | None = None
    skipped: bool = False


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Restore pictures; the exit status."""
    if verb == "replay":
        return _replay(options, argv)
    inputs, overrides = split_overrides(options.inputs)
    composed = settings([*preset(verb, options), *overrides])
    plans, missing = plan(verb, inputs, options.output)
    from restore.jobs import Job, Request  # torch is loaded only now, after all usage errors

    request = Request(
        verb=verb,
        settings=composed,
        noise=composed["noise"].get("sigma"),
        mask=Path(options.mask) if getattr(options, "mask", None) else None,
        invert_mask=getattr(options, "invert_mask", False),
        draws=draws(verb, composed["samples"], sampling=any("sampler" in o for o in [*drawing(options), *overrides])),
        extras=composed["samples"] is not None,
    )
    check_request(request)
    for error in missing:
        print(f"restore: {error}", file=sys.stderr)
    jobs = [Job(*entry) for entry in plans]
    return _all(jobs, request, options, argv, failed=len(missing))


def preset(verb: str, options: argparse.Namespace) -> list[str]:
    """The overrides that a verb and its options stand for; what is typed as `key=value` comes after them."""
    found = [f"operator={OPERATORS[verb]}", *drawing(options)]
    if verb == "deblur":
        found += [f"operator.kernel={quoted(_kernel(options.kernel))}", f"operator.boundary={options.boundary}"]
    if verb == "upscale":
        found += [f"operator.factor={options.factor}", f"operator.kernel={options.kernel}"]
    return found


def drawing(options: argparse.Namespace) -> list[str]:
    """Overrides for the options that say how to draw."""
    found = []
    if options.sampler:
        found.append(f"sampler={options.sampler}")
    if options.steps:
        found.append(f"sampler.steps={options.steps}")
    if options.samples:
        found.append(f"samples={options.samples}")
    if options.prior:
        found.append(f"prior={options.prior}" if options.prior in names("prior") else f"prior.name={quoted(options.prior)}")
    if options.seed is not None:
        found.append(f"seed={options.seed}")
    if options.device:
        found.append(f"device={options.device}")
    if isinstance(options.noise, float):
        found.append(f"noise.sigma={options.noise!r}")
    return found


def draws(verb: str, samples: int | None, sampling: bool) -> int:
    """Draws per picture where `samples` does not say. For a person the mean of a few is the best single answer, and for
    denoising the prior knows that mean without any draw, unless a sampler was asked for."""
    return samples or (0 if verb == "denoise" and not sampling else DEFAULT_DRAWS)


def _kernel(text: str) -> str:
    return str(Path(text).absolute()) if Path(text).is_file() else text


def check_request(request: Any) -> None:
    """Refuse what no picture could be restored with: a missing mask, an unknown kernel, prior or device.

    Raises:
        UsageError: in words.
    """
    from restore.jobs import read_kernel

    try:
        if request.verb == "deblur":
            read_kernel(request.settings["operator"]["kernel"])
        tools(json.dumps(request.settings))
    except (InputError, ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    if request.mask is not None and not request.mask.exists():
        raise UsageError(f"no such mask: {request.mask}")


@cache
def tools(composed: str) -> Any:
    """Prior, sampler and operator of the settings (as JSON), made once per process.

    Raises:
        UsageError: something in the settings cannot be made; in words.
    """
    import torch

    from restore.jobs import Tools

    config: Plain = json.loads(composed)
    try:
        name = config["device"]
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).split("\n")[0]
        raise UsageError(f"the device {config['device']!r} cannot be used: {first}") from error
    try:
        return Tools(
            prior=hydra.utils.instantiate(config["prior"]).to(device),
            sampler=hydra.utils.instantiate(config["sampler"]),
            make=partial(hydra.utils.instantiate, config["operator"]),
            device=device,
        )
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__ or error
        raise UsageError(str(cause).split("\n")[0]) from error


def _all(jobs: Sequence[Any], request: Any, options: argparse.Namespace, argv: list[str], failed: int) -> int:
    """Do the jobs and print what became of them; the exit status."""
    single = len(jobs) == 1
    ref = getattr(options, "ref", None)
    reports = (
        _in_turn(jobs, request, options, argv, ref)
        if options.__dict__.get("jobs", 1) == 1 or single
        else _side_by_side(jobs, request, options, argv, ref)
    )
    done, skipped, unread = 0, 0, failed
    for report in reports:
        if report.error is not None:
            failed += 1
            print(f"restore: {report.error}", file=sys.stderr)
        done, skipped = done + (report.record is not None), skipped + report.skipped
        if options.json and report.record is not None:
            from .printing import as_json

            print(as_json(report.record), flush=True)
        elif not options.quiet and not options.json:
            print("\n".join(report.lines), flush=True) if report.lines else None
    if not options.quiet and not options.json and len(jobs) + unread > 1:
        print(f"{done} restored, {skipped} already done, {failed} failed")
    return 1 if failed else 0


def _in_turn(
    jobs: Sequence[Any], request: Any, options: argparse.Namespace, argv: list[str], ref: str | None
) -> Iterator[Report]:
    show = not options.quiet and not options.json
    for job in jobs:
        yield do(job, request, argv, ref, options.overwrite, announce=show, bar=not options.quiet, debug=options.debug)


def _side_by_side(
    jobs: Sequence[Any], request: Any, options: argparse.Namespace, argv: list[str], ref: str | None
) -> Iterator[Report]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=_one_thread) as pool:
        futures = {
            pool.submit(do, job, request, argv, ref, options.overwrite, announce=False, bar=False, debug=False): job
            for job in jobs
        }
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    source = futures[future].source
                    yield Report((), error=f"{source}: its process was killed (out of memory?): lower --jobs, or tile=384")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def do(
    job: Any, request: Any, argv: list[str], ref: str | None, overwrite: bool, *, announce: bool, bar: bool, debug: bool
) -> Report:
    """Restore one picture. With `announce`, what was read is printed before the work, else it is in the report."""
    from restore.jobs import execute, prepare
    from restore.modalities.image import read_picture
    from restore.records import finished, write

    from .printing import Bar, ending, heading

    try:
        if not overwrite and finished(job, request):
            return Report((f"{job.output}: skipped, already done",), skipped=True)
        kit = tools(json.dumps(request.settings))
        prepared = prepare(job, request, kit)
        truth = None
        if ref is not None:
            path = Path(ref) / job.relative if Path(ref).is_dir() else Path(ref)
            truth = read_picture(path).data
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
            outcome.canvas.close()
        return Report((*lines, *ending(record, prepared.notes)), record)
    except InputError as error:
        return Report((), error=str(error))
    except MemoryError:
        return Report((), error=f"{job.source}: not enough memory: give smaller tiles, such as tile=384")
    except Exception as error:
        if debug:
            raise
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        return Report((), error=f"{job.source}: {first} (--debug shows where)")


def _replay(options: argparse.Namespace, argv: list[str]) -> int:
    from restore.jobs import Job, Request, sha256
    from restore.records import RECORD, read_record

    path = Path(options.record)
    record = read_record(path)
    if record is None:
        raise UsageError(f"{path} is not the run.json of a result")
    plain = dict(record["request"])
    source = Path(record["input"]["path"])
    for name, wanted in ((source, record["input"]["sha256"]), (plain["mask"], plain.get("mask_sha256"))):
        if name is not None and wanted is not None and (not Path(name).is_file() or sha256(Path(name)) != wanted):
            raise UsageError(f"{name} is gone or changed since: a replay needs the file of checksum {wanted[:12]}...")
    output = Path(options.output or record["output"]["path"])
    side = path.name.removesuffix(RECORD) if options.output is None else output.stem
    check_writable(output.parent)
    request = Request(
        verb=plain["verb"],
        settings=plain["settings"],
        noise=plain["noise"],
        mask=Path(plain["mask"]) if plain["mask"] else None,
        invert_mask=plain["invert_mask"],
        draws=plain["draws"],
        extras=plain["extras"],
        sigma=record["noise"]["sigma_in_unit_range"],
    )
    check_request(request)
    import torch

    torch.set_num_threads(record["machine"]["threads"])
    return _all([Job(source, output, side, Path(source.name))], request, options, argv, failed=0)

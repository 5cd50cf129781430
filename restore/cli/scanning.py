"""`restore mri`: raw k-space, restored slice by slice."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from restore.errors import InputError

from .options import UsageError, split_overrides
from .planning import check_outputs
from .restoring import DEFAULT_DRAWS, NARROW, calibration_named, check_unchanged, drawing
from .settings import settings
from .working import Report, do_all, tools

PRIOR = "brain-mri"
# More than this many times the error that a prior expects of what it knows: it does not know this.
SURPRISED = 3.0
# Data that were left out may be so many times farther from their prediction than the draws say.
TOO_SMALL = 1.2
Record = dict[str, Any]


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Restore scans; the exit status."""
    inputs, overrides = split_overrides(options.inputs)
    if not inputs:
        raise UsageError("no scan was named (see `restore mri --help`)")
    composed = settings([*preset(options), *overrides])
    if options.calibration not in (None, "none") and composed["samples"] == 1:
        raise UsageError("--calibration scales the spread of draws, and one has none: say --samples 4, for example")
    from restore.jobs import Job
    from restore.scan_prepare import ScanRequest
    from restore.scan_records import describe, side_files

    request = ScanRequest(
        settings=composed,
        noise=composed["noise"].get("sigma"),
        accel=options.accel,
        coils=options.coils,
        mask=options.mask,
        axes=options.axes,
        key=options.key,
        image=options.image,
        matrix=options.matrix,
        phase=options.phase,
        slices=options.slices,
        draws=composed["samples"] or DEFAULT_DRAWS,
        calibration=calibration_named(options.calibration),
    )
    for name in ("mask", "coils", "phase", "ref"):
        path = getattr(options, name)
        if path is not None and path != "espirit" and not Path(path).is_file():
            raise UsageError(f"no such file for --{name}: {path}")
    try:
        prior = tools(json.dumps(composed)).prior
        describe(request)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if prior.sigma_max < NARROW * prior.sigma_min:
        raise UsageError(f"{composed['prior'].get('name', 'this prior')} knows one noise level only: choose another")
    jobs = [
        Job(source, *_output(source, options.output, len(inputs) > 1), Path(source.name))
        for source in map(Path, inputs)
    ]
    pairs = [(job.source, path) for job in jobs for path in (job.output, *side_files(job, request))]
    read = (request.mask, request.coils, request.phase, options.ref, request.calibration)
    aids = [Path(f) for f in read if f not in (None, "espirit", "none")]
    check_outputs(pairs, aids)
    return do_all(jobs, request, options, argv, failed=0, one=scan)


def preset(options: argparse.Namespace) -> list[str]:
    """The settings that the options of a command for scans stand for."""
    return [*([] if options.prior else [f"prior.name={PRIOR}"]), "recipe=mri_${sampler}", *drawing(options)]


def replay(record: Record, source: Path, output: Path, options: argparse.Namespace, argv: list[str]) -> int:
    """Make a result again from its record; the exit status."""
    from dataclasses import fields

    from restore.jobs import Job
    from restore.scan_prepare import ScanRequest
    from restore.scan_records import describe, side_files

    plain = record["request"]
    told: dict[str, Any] = {f.name: plain[f.name] for f in fields(ScanRequest)}
    for name in ("matrix", "slices"):
        told[name] = told[name] and tuple(told[name])
    request = ScanRequest(**told)
    job = Job(source, *_output(source, str(output), False), Path(source.name))
    check_outputs([(source, path) for path in (job.output, *side_files(job, request))])
    try:
        now = describe(request)
    except OSError as error:
        raise UsageError(f"{error.filename} is gone: a replay needs it") from error
    check_unchanged(plain, now)
    return do_all([job], request, options, argv, failed=0, one=scan)


def _output(source: Path, out: str | None, several: bool) -> tuple[Path, str]:
    """Where a scan goes, and what the names of the files beside it begin with."""
    from restore.modalities.mri import FORMATS
    from restore.modalities.mri_write import OUTPUTS, suffix_of

    stem = next((source.name.removesuffix(s) for s in (*FORMATS[::-1], ".hdr") if source.name.endswith(s)), source.stem)
    if out is None:
        path = source.with_name(f"{stem}_mri.nii.gz")
    elif several or Path(out).is_dir() or out.endswith("/"):
        path = Path(out) / f"{stem}.nii.gz"
    else:
        path = Path(out)
    suffix = suffix_of(path)
    if suffix is None:
        raise UsageError(f"the output {path} is no kind of volume: end it in one of {' '.join(OUTPUTS)}, or in /")
    return path, path.name[: -len(suffix)]


def scan(
    job: Any, request: Any, argv: list[str], ref: str | None, overwrite: bool, announce: bool, bar: bool
) -> Report:
    """Restore one scan. Raises InputError where it cannot be."""
    from restore.modalities.mri import read_images
    from restore.modalities.mri_write import suffix_of
    from restore.records import RECORD, finished, read_record
    from restore.scan_prepare import prepare_scan
    from restore.scan_records import describe, side_files, write_scan
    from restore.scan_workshop import Workshop
    from restore.scans import execute_scan

    from .printing import Bar

    described = describe(request)
    if not overwrite and finished(job, described, side_files(job, request)):
        words = (f"{job.output}: skipped, already done",)
        return Report(words, read_record(job.beside(RECORD)), skipped=True)
    kit = tools(json.dumps(request.settings))
    prepared = prepare_scan(job, request, kit)
    if suffix_of(job.output) == ".png" and len(prepared.chosen) > 1:
        cure = "choose one, as in --slices 7, or write .nii.gz"
        raise InputError(job.output, f"{len(prepared.chosen)} slices", "one for a PNG", cure)
    truth = None if ref is None else read_images(ref, prepared.scan)
    workshop = Workshop(job, {**described, "input_sha256": prepared.sha256})
    lines = heading(prepared, request, kit, sum(workshop.told(i) is not None for i in prepared.chosen))
    if announce:
        print("\n".join(lines), flush=True)
        lines = []
    progress = Bar(job.source.name, quiet=not bar)
    try:
        told, interval = execute_scan(prepared, request, kit, workshop, progress)
    finally:
        progress.close()
    record = write_scan(prepared, request, workshop, told, kit.device, argv, truth, interval)
    return Report((*lines, *ending(record, prepared.notes)), record)


def heading(prepared: Any, request: Any, kit: Any, finished: int) -> list[str]:
    """What was read, and what is going to be done to it."""
    import torch

    from restore.records import what_it_is

    s, threads = prepared.scan, torch.get_num_threads()
    chosen = prepared.chosen
    which = "all" if len(chosen) == s.slices else f"{chosen.start} to {chosen.stop - 1}"
    coils = "one coil" if s.coils == 1 else f"{s.coils}, maps by {request.coils}"
    noise = prepared.sigma
    lines = [
        f"{prepared.job.source}: {s}",
        f"  axes      {s.axes}",
        f"  slices    {len(chosen)} ({which})" + f", {finished} of them already done" * (finished > 0),
        f"  coils     {coils}",
        f"  noise     {noise:.3g} per real number, {prepared.estimated}",
        f"  prior     {request.settings['prior'].get('name', '')}, noise {kit.prior.sigma_min:.2g} to "
        f"{kit.prior.sigma_max:.2g}",
        f"  sampler   {type(kit.sampler).__name__}, {kit.sampler.steps} steps, {what_it_is(request.draws)}",
        f"  device    {kit.device}, {threads} thread{'s' * (threads > 1)}, seed {request.settings['seed']}",
    ]
    return lines + [f"  note      {note}" for note in prepared.notes]


def ending(record: Record, told: Sequence[str]) -> list[str]:
    """What was sampled, how well the result fits, what was written, and the notes that were not `told` before."""
    r, output = record["result"], record["output"]["path"]
    full = [t for t in record["slices"] if not t["empty"]]
    centre = [tuple(t["centre"]) for t in full]
    y, x = centre[len(centre) // 2]
    grid = (
        f"{100 * r['kept']:.3g} % of k-space, acceleration {1 / r['kept']:.3g}; centre without a gap {y} x {x} (y, x)"
    )
    lines = [
        f"  sampled   {grid if y else 'off the grid'}",
        f"  noise     {r['noise']:.2g} of the brightness of the image (99th percentile)",
        f"  data fit  ||y - A x|| / (sigma sqrt(m)) = {r['data_fit']:.2f} {verdict(r['data_fit'])}",
    ]
    worst = max(full, key=lambda t: t["data_fit"])
    if len(full) > 1:
        lines.append(f"            slice {record['slices'].index(worst)} fits worst, {worst['data_fit']:.2f}")
    if r["left_out_fit"] is not None:
        small = r["left_out_fit"] > TOO_SMALL * r["expected_fit"]
        lines.append(
            f"  left out  what was measured and not used is {r['left_out_fit']:.2f} sigma from its prediction; "
            f"the draws say {r['expected_fit']:.2f}" + small * ": their spread is too small"
        )
    if r["psnr"] is not None:
        against = "the picture of all data" if r["shown_psnr"] is not None else "the truth"
        lines.append(f"  psnr      {r['psnr']:.2f} dB against {against}")
    if r["shown_psnr"] is not None:
        lines.append(f"            {r['shown_psnr']:.2f} dB as a full scan would show it, noise and all")
    if r["draws"] > 1:
        covers = "" if r["covered"] is None else f"; here it covers {r['covered']:.2f} of the pixels of the body"
        lines.append(f"  interval  {record['interval']['is']}{covers}")
    lines += [f"  prior     {fits(r)}", *([f"            {tried(r)}"] if r["missed"] is not None else [])]
    lines += [f"  note      {note}" for note in record["notes"] if note not in told]
    lines.append(f"  wrote     {os.path.relpath(output)}: magnitude, {r['is']}, {r['seconds']:.1f} s")
    return [*lines, f"            {', '.join(record['files'])}"]


def verdict(fit: float) -> str:
    """What the data fit of draws means."""
    if fit > 1.1:
        return (
            "high: the coil maps do not explain the data (a field of view smaller than the body, motion, a wrong "
            "mask or trajectory), or their noise is stronger than assumed"
        )
    return "ok" if fit >= 0.9 else "low: weaker noise than assumed, or draws that follow it"


def fits(result: Record) -> str:
    """Whether the prior knows pictures such as the result."""
    s, doubt = result["surprise"], "believe what the data say, and not the map of uncertainty"
    if result["worse"]:
        return f"does NOT seem to fit: it predicts what was measured worse than no prior would; {doubt}"
    if s > SURPRISED:
        error = f"its error in denoising the result is {s:.1f} times that of what it was trained on"
        return f"does NOT seem to fit: {error}; {doubt}"
    # The result is as the prior would have it wherever the data leave a choice: a knee may pass.
    return f"no sign that it does not fit: its error in denoising the result is {s:.1f} times that of its training"


def tried(result: Record) -> str:
    """How the trial on lines that were kept from it went."""
    shares = (f"{100 * min(max(1 - result[name], 0), 1):.0f} %" for name in ("missed", "without"))
    return "in a trial it predicts {} of the signal of lines kept from it, without a prior {}".format(*shares)

"""`restore speech`: recordings, restored segment by segment."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from restore import beside

from .options import UsageError, split_overrides
from .planning import Kind, check_plans, counterpart, plan
from .restoring import DEFAULT_DRAWS, NARROW, check_unchanged, drawing, from_anywhere
from .settings import quoted, settings
from .working import Report, do_all, tools

PRIOR = "speech-16k"
# Chosen on sentences of the validation set; of other tasks: DiffPIR as its recipe has it.
PRESETS = {
    "denoise": ["sampler=ddrm"],
    "gap": ["sampler=moment_matching"],
    "declip": ["sampler=diffpir", "sampler.steps=30"],
}
Record = dict[str, Any]


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Restore recordings; the exit status."""
    inputs, overrides = split_overrides(options.inputs)
    _check_options(options)
    task = options.task
    chosen = [*drawing(options), *overrides]
    sampler = PRESETS.get(task, ["sampler=diffpir"])
    if any(word.startswith(("sampler=", "recipe=")) for word in chosen):  # which the preset's settings are not for
        sampler = sampler[:1]
    preset = [*([] if options.prior else [f"prior.name={PRIOR}"]), *sampler]
    separating = [f"noise_prior={quoted(from_anywhere(options.noise_prior))}"] if options.noise_prior else []
    composed = settings([*preset, "recipe=speech_${sampler}", *separating, *chosen])
    from restore.jobs import Job
    from restore.modalities.speech import FORMATS, list_recordings
    from restore.priors.enhancer import Enhancer
    from restore.speech_damage import SINGLE, SpeechRequest

    if isinstance(_kit(composed).prior, Enhancer):
        composed = settings([*preset, "recipe=enhancer_${sampler}", *separating, *chosen])
    request = SpeechRequest(
        settings=composed,
        task=task,
        noise=composed["noise"].get("sigma"),
        gaps=options.gaps,
        cutoff=options.cutoff,
        clip=options.clip,
        response=None if options.response is None else str(Path(options.response).absolute()),
        draws=composed["samples"] or (1 if task in SINGLE else DEFAULT_DRAWS),
        extras=composed["samples"] is not None,
    )
    if request.noise is not None and (options.noise_prior or composed["em_rounds"]):
        way = "--noise-prior" if options.noise_prior else "em_rounds"
        raise UsageError(f"--noise says that the noise is white and how strong, {way} finds it: leave one of them out")
    aids = [Path(f) for f in (request.response, options.ref) if f is not None]
    ends = partial(beside.speech_endings, draws=request.draws, extras=request.extras)
    kind = Kind("recording", {suffix: FORMATS[suffix] for suffix in FORMATS}, list_recordings)
    plans, missing = plan(
        verb, inputs, options.output, request.draws, request.extras, aids, kind=kind, endings=ends
    )  # fmt: skip
    _check_request(request)
    for error in missing:
        print(f"restore: {error}", file=sys.stderr)
    return do_all([Job(*p) for p in plans], request, options, argv, failed=len(missing), one=recording)


def _kit(composed: Record) -> Any:
    """What the settings name. Raises UsageError."""
    from restore.errors import InputError

    try:
        return tools(json.dumps(composed))
    except (InputError, ValueError) as error:
        raise UsageError(str(error)) from error


def _check_options(options: argparse.Namespace) -> None:
    """Refuse an option of another task. Raises UsageError."""
    for name, task in (
        ("noise_prior", "denoise"),
        ("gaps", "gap"),
        ("clip", "declip"),
        ("cutoff", "bandwidth"),
        ("response", "dereverb"),
    ):
        if getattr(options, name) and options.task != task:
            raise UsageError(
                f"--{name.replace('_', '-')} is for --task {task}, and this is {options.task}: leave it out"
            )
    if options.task == "dereverb":
        if options.response is None:
            raise UsageError("dereverb needs the response of the room: give its recording with --response")
        if not Path(options.response).is_file():
            raise UsageError(f"no such file for --response: {options.response}")


def _check_request(request: Any) -> None:
    """Refuse what no recording could be restored with. Raises UsageError."""
    from restore.errors import InputError
    from restore.priors.enhancer import Enhancer
    from restore.speech_damage import room
    from restore.speech_prepare import FRAMES
    from restore.speech_records import describe

    asked = request.settings["prior"]
    kit = _kit(request.settings)
    try:
        describe(request)
        if request.response is not None:
            room(request.response)
    except (InputError, ValueError) as error:
        raise UsageError(str(error)) from error
    if isinstance(kit.prior, Enhancer) and (
        request.task != "denoise" or request.noise is not None or kit.noise_prior or request.settings["em_rounds"]
    ):
        raise UsageError(
            f"{asked.get('name')} has learnt what speech in noise is like: it is for --task denoise alone, without "
            "--noise, --noise-prior and em_rounds"
        )
    if kit.prior.sigma_max < NARROW * kit.prior.sigma_min:
        name = asked.get("name", "this prior")
        raise UsageError(f"{name} knows one noise level only: choose another")
    if kit.noise_prior is not None and not kit.noise_prior.accepts(FRAMES):
        cure = "take noises-16k, or learn one by `restore learn sounds/ --speech --noise-only`"
        raise UsageError(f"{request.settings['noise_prior']} is no prior on sounds: {cure}")


def replay(record: Record, source: Path, output: Path, options: argparse.Namespace, argv: list[str]) -> int:
    """Make a result again from its record; the exit status."""
    from dataclasses import fields

    from restore.jobs import Job
    from restore.speech_damage import SpeechRequest
    from restore.speech_records import describe

    plain = record["request"]
    told: dict[str, Any] = {f.name: plain[f.name] for f in fields(SpeechRequest)}
    told["gaps"] = tuple((a, b) for a, b in told["gaps"])
    request = SpeechRequest(**told)
    place = source, output, output.stem, Path(source.name)
    ends = partial(beside.speech_endings, draws=request.draws, extras=request.extras)
    check_plans([place], request.draws, request.extras, [], endings=ends)
    try:
        now = describe(request)
    except OSError as error:
        raise UsageError(f"{error.filename} is gone: a replay needs it") from error
    _check_request(request)
    check_unchanged(plain, now)
    return do_all([Job(*place)], request, options, argv, failed=0, one=recording)


def recording(
    job: Any, request: Any, argv: list[str], ref: str | None, overwrite: bool, announce: bool, bar: bool
) -> Report:
    """Restore one recording. Raises InputError where it cannot be."""
    from restore.records import RECORD, finished, read_record
    from restore.speech import Segments, execute_speech
    from restore.speech_prepare import prepare_speech
    from restore.speech_records import describe, side_files, write_speech
    from restore.speech_result import Result

    from .printing import Bar

    described = describe(request)
    if not overwrite and finished(job, described, side_files(job, request)):
        words = (f"{job.output}: skipped, already done",)
        return Report(words, read_record(job.beside(RECORD)), skipped=True)
    kit = tools(json.dumps(request.settings))
    prepared = prepare_speech(job, request, kit)
    truth = None if ref is None else _reference(ref, job, prepared)
    segments = Segments(job, {**described, "input_sha256": prepared.sha256})
    done = sum(segments.told(i) is not None for i in range(len(prepared.spans)))
    lines = heading(prepared, request, kit, done)
    if announce:
        print("\n".join(lines), flush=True)
        lines = []
    progress = Bar(job.source.name, quiet=not bar)
    try:
        told = execute_speech(prepared, request, kit, segments, progress)
    finally:
        progress.close()
    record = write_speech(prepared, request, Result(prepared, segments), told, kit.device, argv, truth)
    segments.close()
    return Report((*lines, *ending(record, prepared.notes)), record)


def _reference(ref: str, job: Any, prepared: Any) -> Any:
    from restore.modalities.speech import FORMATS
    from restore.speech_prepare import true_recording

    return true_recording(counterpart(Path(ref), job.relative, tuple(FORMATS)), prepared.recording)


def heading(prepared: Any, request: Any, kit: Any, finished: int) -> list[str]:
    """What was read, and what is going to be done to it."""
    import torch

    from restore.speech_records import what_it_is

    threads, count = torch.get_num_threads(), len(prepared.spans)
    lines = [
        f"{prepared.job.source}: {prepared.recording}",
        f"  task      {request.task}: {prepared.damage.words}",
        f"  noise     {_noise(request, kit)}",
        f"  segments  {count}" + f", {finished} of them already done" * (finished > 0),
        f"  prior     {request.settings['prior'].get('name', '')}, noise {kit.prior.sigma_min:.2g} to "
        f"{kit.prior.sigma_max:.2g}",
        f"  sampler   {type(kit.sampler).__name__}, {kit.sampler.steps} steps, {what_it_is(request)}",
        f"  device    {kit.device}, {threads} thread{'s' * (threads > 1)}, seed {request.settings['seed']}",
    ]
    return lines + [f"  note      {note}" for note in prepared.notes]


def _noise(request: Any, kit: Any) -> str:
    from restore.priors.enhancer import Enhancer

    if isinstance(kit.prior, Enhancer):
        return "whatever is no speech, as the prior has learnt"
    if request.settings["noise_prior"] is not None:
        return f"as {request.settings['noise_prior']} knows it, found with the speech"
    if request.noise is not None:
        return f"given {request.noise:.3g}, white"
    if request.task == "denoise":
        rounds = request.settings["em_rounds"]
        return "unknown: " + (f"{rounds} round{'s' * (rounds > 1)} of EM" if rounds else "as between words, near by")
    return "next to none: what was measured stays" if request.task != "dereverb" else "that of the quietest moments"


def ending(record: Record, told: Sequence[str]) -> list[str]:
    """How well the result fits the data, what was written, and the notes that were not `told` before."""
    r, output, asked = record["result"], record["output"]["path"], record["request"]
    kept = asked["noise"] is None and asked["task"] in ("gap", "declip", "bandwidth")
    lines = []
    if r["sigma"] is None:
        lines.append("  silence   there is nothing in it: it comes back as it was")
    else:
        if r["data_fit"] is not None:
            fit = r["data_fit"]
            lines.append(f"  data fit  ||y - A x|| / (sigma sqrt(m)) = {fit:.2f} {verdict(fit, kept)}")
        lines.append(f"  noise     {r['sigma']:.2g} of full scale, rms")
    if "scores" in r:
        words = {"si_sdr": "SI-SDR {:.1f} dB", "lsd": "LSD {:.1f} dB", "pesq": "PESQ {:.2f}", "estoi": "ESTOI {:.3f}"}
        for title, each in (("against", r["scores"]), ("before", r["scores_before"])):
            told_of = ", ".join(words[name].format(value) for name, value in each.items()) or "no score exists"
            lines.append(f"  {title:<9} " + told_of + " (the reference, at 16 kHz)" * (title == "against"))
    lines.append(f"  speed     {r['real_time_factor']:.2f} times the length of the recording")
    lines += [f"  note      {note}" for note in record["notes"] if note not in told]
    lines.append(f"  wrote     {os.path.relpath(output)}: {r['is']}, {r['seconds']:.1f} s")
    return [*lines, *([f"            {', '.join(record['files'])}"] if record["files"] else [])]


def verdict(fit: float, kept: bool = False) -> str:
    """What the data fit of draws means; `kept`: of data that are taken as they are."""
    if kept and fit <= 1.1:
        return "ok: what was measured stays"
    if fit > 1.1:
        return "high: stronger noise than assumed, or something else is wrong with the recording"
    return "ok" if fit >= 0.9 else "low: weaker noise than assumed, or draws that follow it"

"""What a person sees: what was read, a progress bar, what came out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from restore.jobs import Prepared, Request, Tools
from restore.records import what_it_is

Record = dict[str, Any]


def heading(prepared: Prepared, request: Request, tools: Tools) -> list[str]:
    """What was read, and what is going to be done to it."""
    task, settings = prepared.task, request.settings
    if request.draws == 0:
        sampler = "none: the posterior mean of denoising is one call of the prior"
    else:
        sampler = f"{type(tools.sampler).__name__}, {tools.sampler.steps} steps, {what_it_is(request.draws)}"
    threads = torch.get_num_threads()
    lines = [
        f"{prepared.job.source}: {prepared.like}",
        f"  task      {request.verb}: {_task(prepared, request)}, result {task.shape[2]} x {task.shape[1]}",
        f"  noise     {_noise(prepared)}",
        f"  prior     {settings['prior'].get('name', '')}: fits, {('grey' if task.shape[0] == 1 else 'colour')}, "
        f"noise {tools.prior.sigma_min:.2g} to {tools.prior.sigma_max:.2g}",
        f"  sampler   {sampler}",
        f"  device    {tools.device}, {threads} thread{'s' * (threads > 1)}, seed {settings['seed']}",
    ]
    return lines + [f"  note      {note}" for note in prepared.notes]


def ending(record: Record, told: Sequence[str]) -> list[str]:
    """How well the result fits the data, what was written, and the notes that were not `told` before."""
    result, output = record["result"], record["output"]["path"]
    lines = [f"  data fit  ||y - A x|| / (sigma sqrt(m)) = {result['data_fit']:.2f} {verdict(result)}"]
    if result["psnr"] is not None:
        lines.append(f"  psnr      {result['psnr']:.2f} dB")
    lines += [f"  note      {note}" for note in record["notes"] if note not in told]
    samples = [name for name in record["files"] if "_sample-" in name]
    others = [name for name in record["files"] if name not in samples]
    if samples:
        others.insert(0, samples[0] if len(samples) == 1 else f"{samples[0]} to {samples[-1]}")
    lines.append(f"  wrote     {os.path.relpath(output)}: {result['is']}, {result['seconds']:.1f} s")
    if others:
        lines.append(f"            {', '.join(others)}")
    return lines


def verdict(result: Record) -> str:
    """What a data fit means."""
    fit, mean = result["data_fit"], result["draws"] == 0
    if fit > 1.1:
        return "high: stronger noise than assumed, another operator, or too few steps"
    if mean:
        return "ok (a mean fits closer than 1)" if fit >= 0.5 else "low: weaker noise than assumed"
    return "ok" if fit >= 0.9 else "low: weaker noise than assumed, or draws that follow it"


def as_json(record: Record) -> str:
    """One line."""
    return json.dumps(record)


class Bar:
    """A progress bar on stderr, if that is a terminal."""

    width = 24

    def __init__(self, name: str, quiet: bool):
        self.name, self.start, self.last = name, time.monotonic(), 0.0
        self.shown = sys.stderr.isatty() and not quiet

    def __call__(self, done: float) -> None:
        """`done` is the share of the work, 0 to 1."""
        now = time.monotonic()
        if not self.shown or (now - self.last < 0.1 and done < 1):
            return
        self.last = now
        full = round(done * self.width)
        left = (now - self.start) * (1 - done) / max(done, 1e-9)
        bar = "#" * full + "." * (self.width - full)
        line = f"\r{self.name} [{bar}] {100 * done:3.0f} % {_clock(left)} left \033[K"
        print(line, end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove it."""
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _task(prepared: Prepared, request: Request) -> str:
    operator = request.settings["operator"]
    if request.verb == "deblur":
        return f"kernel {operator['kernel']}, {operator['boundary']} boundary"
    if request.verb == "upscale":
        return f"{operator['factor']} times, {operator['kernel']} kernel"
    if request.verb == "inpaint":
        kept = prepared.task.kept
        missing = 0.0 if kept is None else 100 * (1 - kept.mean())
        return f"{missing:.3g} % of the pixels are missing, as {request.mask or 'the alpha channel'} says"
    if request.separated:
        return f"y = x + n + white noise, n as {request.settings['noise_prior']} knows it"
    return "y = x + noise"


def _noise(prepared: Prepared) -> str:
    sigma = prepared.noise.sigma * prepared.units.scale
    how = "estimated" if prepared.noise.estimated else "given"
    if prepared.noise.words:
        return f"{how}: {prepared.noise.words}"
    return f"{how} {sigma:.3g}" + (f" ({255 * sigma:.3g}/255)" if prepared.units.scale == 1 else "")

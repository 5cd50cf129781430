"""The model card that training leaves beside the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_card(
    folder: Path, run: Mapping[str, Any], history: Sequence[Mapping[str, float]], held: Sequence[str]
) -> None:
    """Write `README.md`: what was trained, how, how well, what is left to say by the person who publishes it."""
    recipe = "\n".join(f"| {k} | {v} |" for k, v in run.items())
    what = f"""A denoiser for pictures, grey and colour, of any size: `load_prior("{folder.name}")`.
Units: `[0, 1]` at the border, `[-1, 1]` inside (`config.json`)."""
    if run.get("noise"):
        what = f"""A denoiser for recordings of noise alone, of any size: `load_prior("{folder.name}", noise=True)`, or
`restore denoise --noise-prior`. Units: signed noise on pictures in `[0, 1]`, stored around mid-grey, which stands for
zero: `[-0.5, 0.5]` at the border, `[-1, 1]` inside (`config.json`)."""
    if run.get("mri"):
        what = f"""A denoiser for complex MR images of any size, real and imaginary part as two channels:
`load_prior("{folder.name}")`. Units: the 99th percentile of the magnitude of an image is 1 at the border and 2 inside
(`config.json`); sigma is the std of the noise of each part."""
    if run.get("speech"):
        kind, how = ("noise alone", ", noise=True") if run.get("noise") else ("clean speech", "")
        what = f"""A denoiser for {kind} at 16 kHz of any duration, audio or its frames of frequencies (windows of
510 samples every 128): `load_prior("{folder.name}"{how})`. Units: the rms of a recording is 1; sigma is the
std of the noise of a sample. Validation: SI-SDR of recordings out of white noise, by SNR."""
    if run.get("noises"):
        what = f"""A denoiser of speech that is given the noisy recording besides (SGMSE+), for noises like those
that it was trained on: `restore speech noisy.wav --prior {folder.name}`. Frames of 16 kHz, windows of 510 samples
every 128; the rms of a recording is 1. Validation: SI-SDR of the posterior mean of recordings in recorded
noise, by SNR."""
    if "data_noise" in run:
        told = run["data_noise"]
        level = (
            f"white noise of std {told:g}" if isinstance(told, float | int) else f"noise, {told}," if told else "noise"
        )
        units = "in the units of the files" if run.get("mri") else "on values in `[0, 1]`"
        beside = f", and {run['pictures'] - run['noisy pictures']} clean ones" if run.get("clean") else ""
        what += f"""

Learnt from {run["noisy pictures"]} noisy pictures ({level} {units}){beside}. The PSNR below is
that of denoising noisy pictures, {"set aside" if held else "the same"}, estimated from them alone."""
    if run["objective"].startswith("Noise2Score"):
        what = what.replace("A denoiser for pictures", "The score of noisy pictures, which denoises pictures")
        what = what.replace("from them alone.", "from them alone at half\ntheir size (uPSNR).")
    text = f"""# {folder.resolve().name}

{what} Weights: float16, exponential average of training.

Data, licence, attribution: *to be filled in before these weights are passed on.*

## Recipe

| | |
|---|---|
{recipe}

Set aside for validation: {", ".join(held) or "nothing"}.

## Learning curve

{learning_curve(history)}
"""
    (folder / "README.md").write_text(text)


def learning_curve(history: Sequence[Mapping[str, float]], rows: int = 12) -> str:
    """A Markdown table of at most about `rows` checkpoints; PSNR (dB) on the validation pictures, at sigma 25/255 where
    they are clean."""
    shown = [*history[:: max(1, len(history) // rows)], history[-1]] if history else []
    kinds = sorted({k for record in shown for k in record} - {"step", "seconds", "loss"})
    lines = ["| " + " | ".join(["step", "minutes", "loss", *kinds]) + " |", "|---" * (3 + len(kinds)) + "|"]
    for record in {r["step"]: r for r in shown}.values():
        cells = [f"{record['step']:.0f}", f"{record['seconds'] / 60:.0f}", f"{record['loss']:.4f}"]
        lines.append("| " + " | ".join(cells + [f"{record[k]:.2f}" if k in record else "" for k in kinds]) + " |")
    return "\n".join(lines)

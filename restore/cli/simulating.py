"""`restore simulate`: a folder of measurements, masks where there are holes, and what they were made with."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import InputError
from restore.modalities.image import Picture, kind_of, list_pictures, read_picture, write_picture

from .options import UsageError
from .planning import check_outputs, check_writable

RECIPE = "simulate.json"


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Measure pictures; the exit status."""
    from restore.simulate import parse_spec

    try:
        spec = parse_spec(options.operator)
    except (ValueError, InputError) as error:
        raise UsageError(str(error)) from error
    source, out = Path(options.input), Path(options.output)
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise UsageError(f"the output {out} is the input, or inside of it: choose another folder with -o")
    check_writable(out)
    if spec.verb == "mri":
        return _scans(source, out, spec, options, argv)
    try:
        files = list_pictures(source) if source.is_dir() else [source]
    except InputError as error:
        print(f"restore: {error}", file=sys.stderr)
        return 1
    todo, failed = [], 0
    for file in files:
        relative = file.relative_to(source) if source.is_dir() else Path(file.name)
        try:
            # What JPEG and lossy WebP would add is not in the model of the measurement.
            suffix = ".tif" if options.float or kind_of(file) == "TIFF" else ".png"
            todo.append(
                (file, Path("pictures") / relative.with_suffix(suffix), Path("masks") / relative.with_suffix(".png"))
            )
        except InputError as error:
            print(f"restore: {error}", file=sys.stderr)
            failed += 1
    masks = [(file, out / mask) for file, _, mask in todo] if spec.verb == "inpaint" else []
    check_outputs([*((file, out / picture) for file, picture, _ in todo), *masks], read=files)
    entries = _each(todo, lambda file, target, mask: _one(file, out, target, mask, spec, options))
    failed += len(todo) - len(entries)
    if not entries:
        return 1
    _write_recipe(out, spec, options, argv, entries)
    if not options.quiet:
        command = [
            "restore", spec.verb, str(out / "pictures"), *_arguments(spec, out), "--noise", str(options.noise),
            "--ref", str(source), "-o", f"{out}_restored",
        ]  # fmt: skip
        many = "s" * (len(entries) > 1)
        print(f"{len(entries)} picture{many} measured with {spec.text} and noise {options.noise:g}, in {out}")
        print(f"to restore them:  {shlex.join(command)}")
    return 1 if failed else 0


def _each(
    todo: Sequence[tuple[Path, Path, Path]], measure: Callable[[Path, Path, Path], dict[str, Any]]
) -> list[dict[str, Any]]:
    """What is noted of each file and its two targets; those that cannot be measured are named and left out."""
    entries = []
    for file, first, second in todo:
        try:
            entries.append(measure(file, first, second))
        except (InputError, ValueError) as error:
            words = str(error) if isinstance(error, InputError) else f"{file}: {error}"
            print(f"restore: {words}", file=sys.stderr)
    return entries


def _write_recipe(
    out: Path, spec: Any, options: argparse.Namespace, argv: list[str], entries: list[dict[str, Any]]
) -> None:
    from restore import __version__
    from restore.files import atomic_write

    recipe: dict[str, Any] = {
        "operator": spec.text, "verb": spec.verb, "options": spec.options, "noise": options.noise, "seed": options.seed,
        "version": __version__, "argv": ["restore", *argv], "files": entries,
    }  # fmt: skip
    with atomic_write(out / RECIPE) as temporary:
        temporary.write_text(json.dumps(recipe, indent=2) + "\n")


def _scans(source: Path, out: Path, spec: Any, options: argparse.Namespace, argv: list[str]) -> int:
    """Measure pictures as a scanner would, a `.npy` file of k-space and one of the truth for each; the exit status."""
    from restore.modalities.image import FORMATS as PICTURES
    from restore.modalities.mri import FORMATS as SCANS

    known = (*SCANS, *PICTURES)
    files = [f for f in sorted(source.rglob("*")) if f.name.lower().endswith(known)] if source.is_dir() else [source]
    if not files:
        raise UsageError(f"no scans or pictures in {source}: wanted files of the kinds {' '.join(known)}")
    names = [f.name[: -len(next((s for s in known[::-1] if f.name.lower().endswith(s)), ""))] + ".npy" for f in files]
    targets = [(out / "scans" / n, out / "truths" / n) for n in names]
    check_outputs([(f, path) for f, pair in zip(files, targets, strict=True) for path in pair], read=files)
    todo = [(file, *pair) for file, pair in zip(files, targets, strict=True)]
    entries = _each(todo, lambda file, scan, truth: _scan(file, scan, truth, spec, options))
    if not entries:
        return 1
    _write_recipe(out, spec, options, argv, entries)
    if not options.quiet:
        first = entries[0]
        command = ["restore", "mri", first["scan"], "--axes", "slice,coil,y,x", "--ref", first["truth_written"]]
        scans = f"{len(entries)} scan{'s' * (len(entries) > 1)}"
        print(f"{scans} measured with {spec.text} and noise {options.noise:g}, in {out}")
        print(f"to restore {'one' if len(entries) > 1 else 'it'}:  {shlex.join(command)}")
    return 1 if len(entries) < len(todo) else 0


def _scan(file: Path, scan: Path, truth: Path, spec: Any, options: argparse.Namespace) -> dict[str, Any]:
    from restore.files import atomic_write
    from restore.jobs import sha256
    from restore.scan_simulate import measured, read_truth

    checksum = sha256(file)
    number = int(checksum[:8], 16)
    coils = spec.options.get("coils")
    read = read_truth(file, None if coils is None else int(coils), options.seed, number)
    read.slices(0)  # what cannot be measured is refused before anything is written
    with atomic_write(scan) as k_path, atomic_write(truth) as x_path:
        K = np.lib.format.open_memmap(k_path, "w+", np.complex64, read.shape)
        X = np.lib.format.open_memmap(x_path, "w+", np.complex64, (read.shape[0], *read.shape[2:]))
        for i, (k, x) in enumerate(measured(read, spec.options["accel"], options.noise, options.seed, number)):
            K[i], X[i] = k, x
        K.flush()
        X.flush()
    return {
        "scan": str(scan), "truth_written": str(truth), "truth": str(file.absolute()), "sha256": checksum,
        "slices": read.shape[0],
    }  # fmt: skip


def _arguments(spec: Any, out: Path) -> list[str]:
    if spec.verb == "inpaint":
        return ["--mask", str(out / "masks")]
    if spec.verb == "deblur":
        return ["--kernel", spec.options["kernel"]]
    return ["-x", spec.options["factor"]] if spec.verb == "upscale" else []


def _one(file: Path, out: Path, target: Path, mask: Path, spec: Any, options: argparse.Namespace) -> dict[str, Any]:
    from restore.jobs import sha256
    from restore.simulate import measure

    picture, checksum = read_picture(file), sha256(file)
    measured = measure(picture.data, spec, options.noise, options.seed, int(checksum[:8], 16))
    like = replace(picture, alpha=None)
    if options.float:
        like = replace(like, depth="float32", format="TIFF", kept=None)
    write_picture(out / target, measured.data, like)
    entry: dict[str, Any] = {
        "picture": str(target),
        "mask": None,
        "truth": str(file.absolute()),
        "sha256": checksum,
    }
    if measured.missing is not None:
        missing = measured.missing[None].astype(np.float32)
        write_picture(out / mask, missing, Picture(file, missing, None, "PNG", "uint8"))
        entry["mask"] = str(mask)
    return entry

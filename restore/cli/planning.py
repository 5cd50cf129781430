"""Which file becomes which: inputs and -o as a list of jobs, refused in words before any work begins. No torch here."""

from __future__ import annotations

import errno
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from restore.errors import InputError
from restore.modalities.image import FORMATS, list_pictures

from .options import UsageError

BESIDE = re.compile(r"(.+)_(?:std|panel|sample-\d+)")
ENDINGS = {"denoise": "_denoised", "inpaint": "_inpainted", "deblur": "_deblurred", "upscale": "_upscaled"}

Plan = tuple[Path, Path, str, Path]  # source, output, what the side files' names begin with, place in its folder


def plan(verb: str, inputs: Sequence[str], out: str | None) -> tuple[list[Plan], list[InputError]]:
    """One entry for each picture, and the inputs that there are not.

    Raises:
        UsageError: no inputs, an output that is an input, is shared by two pictures, or cannot be written.
    """
    if not inputs:
        raise UsageError(f"no picture was named (see `restore {verb} --help`)")
    pairs: list[tuple[Path, Path, Path]] = []
    missing: list[InputError] = []
    several = len(inputs) > 1
    for source in map(Path, inputs):
        if source.is_dir():
            pairs += _folder(source, out, several, verb, missing)
        else:
            pairs.append((source, _file(source, out, several, verb), Path(source.name)))
    check_outputs([(source, output) for source, output, _ in pairs])
    outputs = [output for _, output, _ in pairs]
    stems = Counter((output.parent, output.stem) for output in outputs)
    # The name of one picture may be what stands beside another: scan.png and scan_std.png.
    taken = {(o.parent, found[1]) for o in outputs if (found := BESIDE.fullmatch(o.stem))}
    plans = []
    for source, output, relative in pairs:
        place = output.parent, output.stem
        plans.append(
            (source, output, output.stem if stems[place] == 1 and place not in taken else output.name, relative)
        )
    return plans, missing


def _folder(
    source: Path, out: str | None, several: bool, verb: str, missing: list[InputError]
) -> list[tuple[Path, Path, Path]]:
    if out is None:
        target = source.resolve().parent / f"{source.resolve().name}{ENDINGS[verb]}"
    else:
        target = Path(out) / source.resolve().name if several else Path(out)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file, but {source} is a folder: give a folder with -o")
    if target.resolve() == source.resolve() or source.resolve() in target.resolve().parents:
        raise UsageError(f"the output {target} lies in the input folder {source}: choose one outside of it with -o")
    try:
        found = list_pictures(source)
    except InputError as error:
        missing.append(error)
        return []
    return [(file, target / file.relative_to(source), file.relative_to(source)) for file in found]


def _file(source: Path, out: str | None, several: bool, verb: str) -> Path:
    if out is None:
        suffix = source.suffix if source.suffix.lower() in FORMATS else ".png"
        return source.with_name(f"{source.stem}{ENDINGS[verb]}{suffix}")
    target = Path(out)
    if several or target.is_dir() or out.endswith("/"):
        if target.exists() and not target.is_dir():
            raise UsageError(f"{target} is a file, but there are several pictures: give a folder with -o")
        return target / source.name
    if target.suffix.lower() not in FORMATS:
        kinds = " ".join(FORMATS)
        raise UsageError(f"the output {target} is no kind of picture: end it in one of {kinds}, or in / for a folder")
    return target


def check_outputs(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Refuse, of pairs of source and output, an output that is a source, is shared, or cannot be written.

    Raises:
        UsageError: with the reason.
    """
    sources = {source.resolve() for source, _ in pairs}
    outputs: dict[Path, Path] = {}
    for source, output in pairs:
        real = output.resolve()
        if real in sources:
            raise UsageError(f"the output {output} is an input: choose another name with -o")
        if real in outputs:
            raise UsageError(f"{outputs[real]} and {source} would both become {output}: restore them one by one")
        outputs[real] = source
    for folder in {output.parent for output in outputs}:
        check_writable(folder)


def check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, or that cannot be made.

    Raises:
        UsageError: with the reason.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        why = "a file stands where a folder is needed" if error.errno == errno.ENOTDIR else error.strerror
        raise UsageError(f"cannot write to {folder}: {why} ({nearest}); choose another place with -o") from error

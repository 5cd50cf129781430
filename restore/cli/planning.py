"""Which file becomes which: inputs and -o as a list of jobs, refused in words before any work begins. No torch here."""

from __future__ import annotations

import errno
import glob
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from restore import beside
from restore.errors import InputError
from restore.modalities.image import FORMATS, list_pictures

from .options import UsageError

BESIDE = re.compile(r"(.+)_(?:std|panel|noise|sample-\d+)")
ENDINGS = {"denoise": "_denoised", "inpaint": "_inpainted", "deblur": "_deblurred", "upscale": "_upscaled",
           "speech": "_restored"}  # fmt: skip

Plan = tuple[Path, Path, str, Path]  # source, output, what the side files' names begin with, place in its folder


class Kind(NamedTuple):
    """A kind of file to restore.

    Attributes:
        name: in the singular.
        formats: by the suffix; the first is that of an output whose input has another.
        listed: all of the kind in a folder.
    """

    name: str
    formats: Mapping[str, str]
    listed: Callable[[Path], list[Path]]


PICTURES = Kind("picture", {".png": "PNG", **FORMATS}, list_pictures)


def plan(
    verb: str,
    inputs: Sequence[str],
    out: str | None,
    draws: int,
    extras: bool,
    aids: Sequence[Path],
    separated: bool = False,
    kind: Kind = PICTURES,
    endings: Callable[[Path], list[str]] | None = None,
) -> tuple[list[Plan], list[InputError]]:
    """One entry for each picture, and the inputs that there are not.

    Args:
        draws, extras, separated: of the request; they decide what stands beside each output.
        aids: what is read besides the pictures (masks, truths, a kernel): files, or folders that mirror the pictures'.
        kind, endings: of files other than pictures, and what stands beside an output.

    Raises:
        UsageError: no inputs; a file to write that is read, is shared by two pictures, or cannot be written.
    """
    if not inputs:
        raise UsageError(f"no {kind.name} was named (see `restore {verb} --help`)")
    pairs: list[tuple[Path, Path, Path]] = []
    missing: list[InputError] = []
    several = len(inputs) > 1
    for source in map(Path, inputs):
        if source.is_dir():
            pairs += _folder(source, out, several, verb, missing, kind)
        else:
            pairs.append((source, _file(source, out, several, verb, kind), Path(source.name)))
    read = {counterpart(aid, relative) for *_, relative in pairs for aid in aids}
    stems = Counter(_place(output) for _, output, _ in pairs)
    # The name of one picture may be what stands beside another: scan.png and scan_std.png.
    names = [*(path for source, output, _ in pairs for path in (source, output)), *read]
    taken = {(folder, found[1]) for folder, stem in map(_place, names) if (found := BESIDE.fullmatch(stem))}
    plans = []
    for source, output, relative in pairs:
        alone = stems[_place(output)] == 1 and _place(output) not in taken
        plans.append((source, output, output.stem if alone else output.name, relative))
    check_plans(plans, draws, extras, read, separated, endings)
    return plans, missing


def _place(path: Path) -> tuple[Path, str]:
    return path.parent.resolve(), path.stem


def counterpart(named: Path, relative: Path, known: Sequence[str] = tuple(FORMATS)) -> Path:
    """The file that belongs to the one at `relative`: `named`, or if that is a folder, the one which lies likewise
    in it; the same name, else the same stem and any known suffix. Where there is none, where it would lie."""
    if not named.is_dir():
        return named
    path = named / relative
    if path.exists():
        return path
    found = [p for p in path.parent.glob(f"{glob.escape(path.stem)}.*") if p.stem == path.stem]
    kinds = {p: known.index(p.suffix.lower()) for p in found if p.suffix.lower() in known}
    return min(kinds, key=lambda p: (kinds[p], p)) if kinds else path


def _folder(
    source: Path, out: str | None, several: bool, verb: str, missing: list[InputError], kind: Kind
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
        found = kind.listed(source)
    except InputError as error:
        missing.append(error)
        return []
    return [(file, target / file.relative_to(source), file.relative_to(source)) for file in found]


def _file(source: Path, out: str | None, several: bool, verb: str, kind: Kind) -> Path:
    if out is None:
        suffix = source.suffix if source.suffix.lower() in kind.formats else next(iter(kind.formats))
        return source.with_name(f"{source.stem}{ENDINGS[verb]}{suffix}")
    target = Path(out)
    if several or target.is_dir() or out.endswith("/"):
        if target.exists() and not target.is_dir():
            raise UsageError(f"{target} is a file, but there are several {kind.name}s: give a folder with -o")
        return target / source.name
    if target.suffix.lower() not in kind.formats:
        kinds = " ".join(kind.formats)
        raise UsageError(
            f"the output {target} is no kind of {kind.name}: end it in one of {kinds}, or in / for a folder"
        )
    return target


def check_plans(
    plans: Sequence[Plan],
    draws: int,
    extras: bool,
    read: Iterable[Path],
    separated: bool = False,
    endings: Callable[[Path], list[str]] | None = None,
) -> None:
    """`check_outputs` for the outputs and for all that will stand beside them.

    Raises:
        UsageError: with the reason.
    """
    pairs = [(source, output) for source, output, _, _ in plans]
    for source, output, side, _ in plans:
        ends = beside.endings(output, draws, extras, separated) if endings is None else endings(output)
        pairs += [(source, output.parent / f"{side}{e}") for e in ends]
    check_outputs(pairs, read)


def check_outputs(pairs: Sequence[tuple[Path, Path]], read: Iterable[Path] = ()) -> None:
    """Refuse, of pairs of source and output, an output that is read, is shared, or cannot be written.

    Args:
        read: files that are read besides the sources.

    Raises:
        UsageError: with the reason.
    """
    sources = {path.resolve() for path in [*(source for source, _ in pairs), *read]}
    outputs: dict[Path, Path] = {}
    for source, output in pairs:
        real = output.resolve()
        if real in sources:
            raise UsageError(f"the output {output} is an input: choose another name with -o")
        if real in outputs:
            raise UsageError(
                f"{outputs[real]} and {source} would both become {output}: rename one of them, or give them one by one"
            )
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

"""`restore learn`: a prior from a folder of pictures, clean or noisy."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import Law, UsageError, split_overrides, suggestion
from .planning import check_writable
from .settings import names
from .settings import objective as settings_of

if TYPE_CHECKING:
    from restore.denoisers.tweedie import Tweedie

GIVEN = ("steps", "batch", "patch", "start", "blocks", "lr")


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Train, or go on training; the exit status."""
    folders, overrides = split_overrides(options.folders)
    if not folders:
        raise UsageError("no folder was named (see `restore learn --help`)")
    if options.mri and options.noise is not None and options.noise.kind not in (None, "gaussian"):
        raise UsageError(f"--noise {options.noise.kind}: that of complex MR images is white: a std, 0.05, or auto")
    if options.speech and options.noise is not None:
        raise UsageError("--speech learns from clean recordings: leave --noise out")
    for file in options.validation:
        if not Path(file).is_file():
            raise UsageError(f"no file {file} to validate on")
    known, out = names("objective"), Path(options.output)
    asked = options.objective or ("sgmse" if options.noises else "dsm")
    if asked not in known:
        raise UsageError(f"unknown objective {asked!r}{suggestion(asked, known)} (known: {', '.join(known)})")
    if options.objective or options.noise is None:
        settings_of(asked, overrides)  # a mistyped setting is answered before anything heavy is imported
    if out.is_file():
        raise UsageError(f"{out} is a file: give a folder for the prior with -o")
    check_writable(out)
    from restore.learn.checkpoint import CHECKPOINT
    from restore.learn.train import learn
    from restore.priors.store import WEIGHTS

    from .working import instantiate

    found = [path.name for path in sorted(out.iterdir()) if not path.name.startswith(".")] if out.is_dir() else []
    if found and not {CHECKPOINT, WEIGHTS}.intersection(found):
        raise UsageError(f"{out} holds {found[0]} and no prior to go on with: give a new folder with -o")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = {name: getattr(options, name) for name in GIVEN if getattr(options, name)}
    try:
        name, told = _told(options, [Path(folder) for folder in folders], asked)
        objective = instantiate(settings_of(name, overrides))
        learn(
            [Path(folder) for folder in folders],
            out,
            objective=objective,
            device=None if options.device in (None, "auto") else options.device,
            seed=options.seed,
            resume=not options.restart,
            noise=options.noise_only,
            clean=[Path(folder) for folder in options.clean],
            mri=options.mri,
            speech=options.speech,
            noises=[Path(folder) for folder in options.noises],
            compile=options.compile,
            validation=[Path(file) for file in options.validation],
            **told,
            **given,
        )
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    of_noise = options.noise_only or options.noises
    uses = {"restore mri --prior": options.mri, "restore speech --noise-prior": options.speech and of_noise}
    uses |= {"restore speech --prior": options.speech, "--noise-prior": options.noise_only, "--prior": True}
    use = next(words for words, chosen in uses.items() if chosen)
    print(f"wrote {out}; use it with {use} {out}")
    if not objective.for_samplers:
        print(
            f"{name} learns to denoise pictures like these, at their noise only: it is for `restore denoise`. "
            "For inpaint, deblur and upscale learn by --objective ambient"
        )
    return 0


def _told(options: argparse.Namespace, folders: list[Path], asked: str) -> tuple[str, dict[str, Any]]:
    """The name of the objective, `asked` where the files are clean, and what `learn` is told of the noise.

    Raises:
        InputError: the noise cannot be told.
    """
    if options.noise is None:
        return asked, {}
    from restore.learn.data import SUFFIXES
    from restore.learn.mri_noisy import FILES as IMAGES

    from .judging import judge

    if options.mri:
        law, words = _of_images(_files(folders, IMAGES), options.noise, folders[0])
        told: float | Tweedie = law.phi**0.5
    else:
        judged = judge(_files(folders, SUFFIXES), options.noise, folders[0])
        law, words, told = judged.law, judged.words, judged.told
    print(f"noise: {words}", flush=True)
    name = options.objective or ("noise2score" if law.rho else "sure_score" if options.mri else "ambient")
    if options.objective is None:
        print(f"objective: {name}")
    if name == "dsm":
        print("note: dsm takes noisy pictures for clean ones: what it learns draws their noise too")
    return name, {"data_noise": told}


def _files(folders: list[Path], suffixes: Collection[str]) -> list[Path]:
    from restore.learn.data import find_pictures

    return [p for f in folders for p in ([f] if f.is_file() else find_pictures([f], suffixes))]


def _of_images(paths: list[Path], typed: Law, where: Path) -> tuple[Tweedie, str]:
    """The white noise of complex MR images, as typed or else by the images, and in words."""
    from restore.denoisers.tweedie import Tweedie
    from restore.learn.mri_noisy import white_noise

    law = white_noise(paths, where) if typed.level is None else Tweedie(0, typed.level**2)
    how = "estimated from the images" if typed.level is None else "as given"
    return law, f"std {law.phi**0.5:.3g} of real and imaginary part, in the units of the files, {how}"

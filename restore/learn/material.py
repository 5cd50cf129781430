"""What is learnt from, of files of every kind: patches, and what is set aside to validate on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from restore.denoisers.tweedie import Tweedie
from restore.priors.speech import longest

from .base import Objective
from .data import SUFFIXES, Patches, find_pictures, load, load_pictures, read_noisy, warn_of_few
from .mixtures import mixtures
from .mri import FILES as MAGNITUDES
from .mri import ComplexPatches, load_shown, load_slices
from .mri_noisy import FILES as IMAGES
from .mri_noisy import noisy_scans
from .speech import FILES as AUDIO
from .speech import SHOWN, Utterances, load_speech
from .told import level, noise_patches, noisy_patches, with_law


@dataclass(frozen=True)
class Material:
    """What `gather` found.

    Attributes:
        objective: as it was given, or told the noise of the patches.
        held: files set aside.
        shown: what of them is validated on, each `(1, C, *spatial)` with the std of its noise.
    """

    patches: Patches
    objective: Objective
    held: list[Path]
    shown: list[tuple[Tensor, float]]


def gather(
    folders: Sequence[Path],
    objective: Objective,
    law: Tweedie | None,
    *,
    patch: int,
    held_out: int,
    validation: Sequence[Path],
    clean: Sequence[Path],
    noise: bool,
    mri: bool,
    speech: bool,
    noises: Sequence[Path],
) -> Material:
    """Read what `restore.learn.train.learn` is told to learn from; the arguments are its own, and `law` the noise of
    the files.

    Raises:
        InputError: a folder is missing or holds nothing usable.
    """
    noisy = law is not None or not objective.supervised
    suffixes: Collection[str] = SUFFIXES
    if mri or speech:
        suffixes = AUDIO if speech else IMAGES if noisy else MAGNITUDES
    kind = "recordings" if speech else "pictures"
    paths = find_files(folders, suffixes, kind)
    held = list(validation) or spread_out(paths, held_out)
    others = [p for p in paths if p.resolve() not in {h.resolve() for h in held}]
    patches: Patches
    if mri and law is not None:
        patches, shown = noisy_scans(others, held, law, patch)
    elif noisy:
        patches, objective, shown = noisy_material(others, held, clean, objective, law, patch)
    elif mri:
        patches = ComplexPatches(load_slices(others, patch), patch)
        shown = [(x, 0.0) for x in (load_shown(held) if held else [])]
    elif noises:
        sounds = find_files(noises, AUDIO, kind)
        aside = spread_out(sounds, held_out) if held else []
        patches, pairs = mixtures(others, held, [p for p in sounds if p not in aside], aside, patch)
        held, shown = [*held, *aside], [(pair, 0.0) for pair in pairs]
    elif speech:
        patches = Utterances(load_speech(others, longest(patch)), patch)
        shown = [(x[None, None, :SHOWN], 0.0) for x in (load_speech(held) if held else [])]
    else:
        pictures = load_pictures(others, smallest=patch)
        patches = noise_patches(pictures, patch, others[0].parent) if noise else Patches(pictures, patch)
        shown = [(p[None, :, :256, :256].float() / 127.5 - 1, 0.0) for p in (load_pictures(held) if held else [])]
    return Material(patches, objective, held, shown)


def noisy_material(
    paths: Sequence[Path],
    held: Sequence[Path],
    clean: Sequence[Path],
    objective: Objective,
    law: Tweedie | None,
    patch: int,
) -> tuple[Patches, Objective, list[tuple[Tensor, float]]]:
    """Patches of noisy pictures and of folders of clean ones, the objective that knows their noise, and pictures to
    validate on, `(1, C, H, W)` with the std of their noise: those held out, or some that are learnt from."""
    from_zero = objective.from_zero if law is None else law.rho > 0
    read = partial(read_noisy, masked=objective.takes_masks, from_zero=from_zero)
    learnt = load(paths, read, patch)
    known = load_pictures(find_pictures(clean), patch) if clean else []
    patches = noisy_patches(learnt, known, patch, law, luminance=objective.for_samplers)
    if not known:
        warn_of_few([p.pixels for p in learnt], patch)
    shown = load(held, read) if held else learnt[:6]
    validation = [(p.pixels[None, :, :256, :256], level(law, p)) for p in shown]
    return patches, with_law(objective, law, learnt, paths[0].parent), validation


def find_files(folders: Sequence[Path], suffixes: Collection[str], kind: str) -> list[Path]:
    """Files that are named, and all in folders that are named."""
    return [p for f in folders for p in ([f] if f.is_file() else find_pictures([f], suffixes, kind))]


def spread_out(paths: Sequence[Path], count: int) -> list[Path]:
    """So many of a sorted list, evenly spread; a quarter at most."""
    count = min(count, len(paths) // 4)
    return [paths[round((i + 0.5) * len(paths) / count) % len(paths)] for i in range(count)]

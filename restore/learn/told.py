"""What an objective and its patches are told of the noise that pictures carry, and what does not fit together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from restore.denoisers.posterior import at_mid_grey, in_units, in_words
from restore.denoisers.tweedie import Tweedie
from restore.errors import InputError

from .base import Objective
from .data import Noisy, Patches, warn_of_clipping

TYPES = {0.0: "white Gaussian", 1.0: "Poisson", 2.0: "Gamma"}
AS_RECORDED: dict[str, Any] = {"shrink": 0.0, "turn": False}  # patches of noise


def level(law: Tweedie | None, picture: Noisy) -> float:
    """The std of the noise of a picture at mid-grey, in `[-1, 1]` units; zero where it is not known."""
    return 0.0 if law is None else 2 * at_mid_grey(in_units(law, picture.scale))


def with_law(objective: Objective, law: Tweedie | None, pictures: Sequence[Noisy], folder: Path) -> Objective:
    """The objective that knows the law of the noise, in the units of the batch.

    Raises:
        InputError: it knows one law only, and that of the pictures depends on their units, which are several.
    """
    if law is None:
        return objective
    scales = {p.scale for p in pictures}
    if objective.one_law and len(scales) > 1 and law.rho != 2:
        seen, wanted = f"pictures in {len(scales)} units, so of as many laws", "integers, or floats up to 1"
        raise InputError(folder, seen, wanted, "choose noise2score, which knows them all")
    return objective.told(in_units(law, min(scales)))


def check_fits(
    objective: Objective,
    law: Tweedie | float | None,
    clean: Sequence[Path],
    noise: bool,
    mri: bool = False,
    speech: bool = False,
    noises: Sequence[Path] = (),
) -> None:
    """Raise ValueError where an objective is not told what it needs, or told what it cannot use."""
    name = type(objective).__module__.rsplit(".", 1)[1]
    for special, words in ((noise, "recordings of noise alone"), (speech, "recordings of speech")):
        if special and (law is not None or not objective.supervised):
            raise ValueError(f"{words} are learnt by dsm, without a noise of their own; got {name}")
    if objective.needs_recorded_noise != bool(noises) or (noises and (noise or not speech)):
        raise ValueError(
            "clean speech and recorded noises are learnt from together, by sgmse: `restore learn speech/ --speech "
            f"--noises noises/`; got {name}, {'no speech' if noise or not speech else 'speech'} and "
            f"{'' if noises else 'no '}noises"
        )
    if mri and (clean or not objective.for_samplers or (isinstance(law, Tweedie) and law.rho)):
        raise ValueError(
            f"MR images with white noise are learnt by ambient or sure_score, without clean ones besides; got {name}"
        )
    if mri and (noise or speech):
        raise ValueError("MR images, or recordings of noise or speech: choose one of them")
    if isinstance(law, float | int):
        raise ValueError(f"the noise of the data is a std, above 0, got {law}")
    if objective.needs_noise and law is None:
        raise ValueError(
            f"{name} learns from noisy pictures and must know how noisy: give the std of their noise for values in "
            "[0, 1], such as 0.1"
        )
    if law is not None and objective.serves is not None and law.rho not in objective.serves:
        served = " or ".join(TYPES[rho] for rho in objective.serves)
        raise ValueError(f"{name} is for {served} noise, and this is {in_words(law)}: choose noise2score")
    if clean and not objective.takes_clean:
        cure = "name all folders together" if objective.supervised else "choose ambient, or leave the clean ones out"
        raise ValueError(f"{name} takes no clean pictures beside noisy ones: {cure}")


def noisy_patches(
    noisy: Sequence[Noisy], clean: Sequence[Tensor], size: int, law: Tweedie | None, *, luminance: bool
) -> Patches:
    """Patches of noisy pictures and of clean ones; the noise of unknown pictures counts as zero.

    Raises:
        ValueError: the noise is as strong as the pictures.
    """
    warn_of_clipping([p.pixels for p in noisy], law is None or law.rho == 0)
    levels = [level(law, p) for p in noisy]
    if max(levels) >= 2:
        raise ValueError(
            f"the noise of the data is a std for pictures in [0, 1], above 0 and below 1, got {max(levels) / 2:g}"
        )
    everything, noise = [*(p.pixels for p in noisy), *clean], levels + [0.0] * len(clean)
    if law is None:
        return Patches(everything, size, noise=noise, luminance=luminance, shrink=0.0)
    return Patches(everything, size, noise=noise, luminance=luminance)


def noise_patches(recordings: Sequence[Tensor], size: int, folder: Path) -> Patches:
    """Patches of recordings of noise, as they are. Raises InputError where some are grey and some are in colour."""
    if len({p.shape[0] for p in recordings}) > 1:
        cure = "learn a prior of each kind: the luminance of coloured noise is weaker than the noise of a channel"
        raise InputError(folder, "grey and coloured recordings of noise", "one of the two", cure)
    return Patches(recordings, size, grey=0.0, **AS_RECORDED)

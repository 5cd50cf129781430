"""The training loop: resumable to the bit, with an averaged copy of the weights and a validation PSNR.

`state.pt` in the output folder holds everything a run needs to go on as if it had never stopped (weights, average,
optimiser, step, random numbers, recipe); a run killed while writing leaves the previous one. Beside it stands the prior
itself, the averaged denoiser: weights, config and card.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import channels_last

import restore.learn
from restore.denoisers.posterior import of_std
from restore.denoisers.tweedie import Tweedie
from restore.errors import InputError
from restore.files import atomic_write
from restore.priors.enhancer import BESIDE, Enhancer
from restore.priors.network import EDMDenoiser, UNet, compile_networks
from restore.priors.speech import SpeechDenoiser
from restore.priors.store import CONFIG, find_prior, read_config, save_prior, save_table, start_from

from .base import Objective
from .card import write_card
from .checkpoint import AGAIN, CHECKPOINT, check_same_run, read_state
from .data import Patches
from .material import gather
from .mixtures import Mixtures, validate_enhancer
from .speech import Utterances, table_of_errors, validate_speech
from .told import check_fits
from .trainer import Recipe, Trainer, ctrl_c_between_steps
from .validation import measure_spectra, validate, validate_noisy

log = logging.getLogger(__name__)

WIDTHS, BLOCKS = (32, 64, 128, 192), (2, 2, 2, 2)


def learn(
    folders: Sequence[Path],
    out: Path,
    *,
    objective: Objective | str = "dsm",
    steps: int = 20_000,
    batch: int = 16,
    patch: int = 64,
    lr: float = 1e-3,
    widths: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    start: str | Path | None = None,
    held_out: int = 6,
    every: int = 1000,
    device: str | None = None,
    seed: int = 0,
    resume: bool = True,
    noise: bool = False,
    data_noise: float | Tweedie | None = None,
    clean: Sequence[Path] = (),
    mri: bool = False,
    speech: bool = False,
    noises: Sequence[Path] = (),
    validation: Sequence[Path] = (),
    files: str | None = None,
    compile: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Train a prior on folders of pictures and write it to `out`; the path of `out`.

    What is learnt from noisy pictures is validated on noisy pictures, set aside where there are enough, without any
    truth. Ctrl-C waits for the step that is being done, and saves.

    Args:
        folders: where the pictures are, searched with their subfolders; or pictures.
        out: the prior's folder. A run found there goes on where it stopped; more `steps` may be asked of it.
        objective: an objective, or the name of its module for its defaults.
        steps, batch, patch, lr: see `Recipe`.
        widths, blocks: the network, see `UNet`; by default those of `start`, if it is given.
        start: a prior, shipped or a folder, to begin with in place of random weights. `blocks` may be more than it has.
        held_out: pictures set aside for the validation PSNR, evenly spread over the sorted list; a quarter at most.
        every: steps between checkpoints, each with a validation PSNR.
        device: torch device; by default a CUDA GPU if there is one.
        resume: False starts again and overwrites what `out` holds.
        noise: the pictures are recordings of noise alone, all grey or all colour, stored around mid-grey (zero is 0.5).
            What is learnt is a prior on signed noise, in the units of pictures in `[0, 1]`.
        data_noise: the pictures of `folders` are noisy: the std of their white noise, or the law of Poisson or Gamma
            noise, in the units of their files, which is `[0, 1]` for integers. `dsm` is free to take them as clean all
            the same.
        clean: folders of clean pictures to learn from besides, for `ambient`.
        mri: the files are magnitudes of MR images, NIfTI volumes or pictures of slices (`restore.learn.mri`), or with
            `data_noise` complex images with white noise (`restore.learn.mri_noisy`); what is learnt is a prior on
            complex images of two channels, real and imaginary.
        speech: the files are recordings of clean speech; what is learnt is a prior on audio and its frames of
            frequencies (`restore.priors.speech`). `patch` is a number of frames.
        noises: folders of recorded noises, or recordings: `sgmse` learns to take such noise off speech.
        validation: files to validate on instead of `held_out` ones; nothing is learnt from them.
        files: what stands for the contents of the pictures; a run on others is not gone on with.
        compile: have the layers fused (`compile_networks`): a fifth to a quarter off the time of a step on a CPU.
        progress: called with the share of the steps that is done; without it, lines are logged.

    Raises:
        InputError: a folder is missing, holds no usable pictures or grey noise beside coloured noise, or `out` holds a
            run of another recipe, or `start` does not fit.
        ValueError: the objective is unknown, must be told the noise, is for another kind of noise or takes no clean
            pictures beside noisy ones.
        FloatingPointError: the loss is not finite.
        KeyboardInterrupt: Ctrl-C, after the run has been saved.
    """
    recipe = Recipe(steps=steps, batch=batch, patch=patch, lr=lr)
    objective = named_objective(objective) if isinstance(objective, str) else objective
    law = Tweedie(0, data_noise**2) if isinstance(data_noise, float | int) and data_noise > 0 else data_noise
    check_fits(objective, law, clean, noise, mri, speech, noises)
    assert law is None or isinstance(law, Tweedie)
    if law is not None and objective.rho and not law.rho:
        law = of_std(objective.rho, law.phi**0.5)  # the std that was told is that of mid-grey
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    noisy = law is not None or not objective.supervised
    material = gather(
        folders, objective, law, patch=patch, held_out=held_out, validation=validation, clean=clean, noise=noise,
        mri=mri, speech=speech, noises=noises,
    )  # fmt: skip
    patches, objective, held = material.patches, material.objective, material.held
    shown = [(p.to(where), sigma) for p, sigma in material.shown]

    torch.manual_seed(seed)
    network = read_config(find_prior(start) / CONFIG)["network"] if start else {"widths": WIDTHS, "blocks": BLOCKS}
    widths, blocks = widths or network["widths"], blocks or network["blocks"]
    make = partial(new_denoiser, patches, widths, blocks)
    denoiser, average = (make().to(where) for _ in range(2))
    if start:
        start_from(denoiser, start)
    denoiser.to(memory_format=channels_last)  # type: ignore[call-overload]
    if compile:
        compile_networks(denoiser)
    levels = average.sigma_min, average.sigma_max
    for d in (denoiser, average):
        d.rho = objective.rho
        d.sigma_min, d.sigma_max = objective.trusted(d, patches.noises())
    trainer = Trainer(denoiser, objective, patches, recipe, seed)
    run = {**asdict(recipe), "objective": repr(objective), "widths": list(widths), "blocks": list(blocks), "seed": seed}
    run["pictures"] = len(patches.all)
    if start:
        run["start"] = str(start)
    if noise:
        run["noise"] = True
    if mri:
        run["mri"] = True
    if speech:
        run["speech"] = True
    if noisy:
        told = str(data_noise) if isinstance(data_noise, Tweedie) else data_noise
        run |= {"noisy pictures": sum(p.is_floating_point() for p in patches.all), "data_noise": told}
    if isinstance(patches, Mixtures):
        run |= {"noises": [str(folder) for folder in noises], "noise recordings": len(patches.sounds)}
    if files is not None:
        run["files"] = files
    if clean:
        run["clean"] = [str(folder) for folder in clean]

    history: list[dict[str, float]] = []
    if resume and (out / CHECKPOINT).exists():
        state = read_state(out / CHECKPOINT, where)
        check_same_run(state["run"], run, out)
        try:
            trainer.load_state_dict(state["trainer"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise InputError(out / CHECKPOINT, "weights of another network", "those of this one", AGAIN) from error
        history = state["history"]
        log.info("resumed %s at step %d", out, trainer.done)
    before, first, began = history[-1]["seconds"] if history else 0.0, trainer.done, time.monotonic()
    warm = began
    losses: list[float] = []

    def save() -> None:
        with atomic_write(out / CHECKPOINT) as temporary:
            torch.save({"trainer": trainer.state_dict(), "history": history, "run": run}, temporary)

    with ctrl_c_between_steps() as pressed:
        while trainer.done < steps:
            losses.append(trainer.step())
            speed = (trainer.done - first) / (time.monotonic() - began)
            if trainer.done - first == 5:
                warm = time.monotonic()  # the first steps are slow
            if trainer.done - first == 20:
                steady = 15 / (time.monotonic() - warm)
                log.info("%d steps at %.1f a second: about %s", steps, steady, in_time((steps - trainer.done) / steady))
            if progress is not None:
                progress(trainer.done / steps)
            elif trainer.done % 100 == 0:
                log.info("step %d/%d  %.2f steps/s  loss %.4f", trainer.done, steps, speed, fmean(losses[-100:]))
            if trainer.done % every == 0 or trainer.done == steps:
                average.load_state_dict(trainer.average)
                known = [picture for picture, _ in shown]
                if noisy:
                    psnr = validate_noisy(average, objective, shown, law)
                elif isinstance(average, Enhancer):
                    psnr = validate_enhancer(average, known)
                else:
                    psnr = (validate_speech if speech else validate)(average, known)
                seconds = before + time.monotonic() - began
                history.append({"step": trainer.done, "seconds": seconds, "loss": fmean(losses), **psnr})
                losses.clear()
                if psnr:
                    of = "estimated from noisy pictures" if noisy else "at 25/255"
                    of += ", at half their size" if objective.learns_score else ""
                    found = ", ".join(f"{k} {v:.2f} dB" for k, v in psnr.items())
                    of = f"SI-SDR in {'recorded' if noises else 'white'} noise" if speech else f"PSNR {of}"
                    log.info("step %d/%d: validation %s: %s", trainer.done, steps, of, found)
                average.sigma_min, average.sigma_max = levels
                taught = objective.at(trainer.done / steps)
                average.sigma_min, average.sigma_max = taught.trusted(average, patches.noises())
                save_prior(average, out, noise=noise, score=objective.of_noise(law))
                write_card(out, run, history, [p.name for p in held])
                save()  # last: a run whose checkpoint says it is done has a prior that is
            elif pressed():
                save()
            if pressed():
                log.info("saved %s at step %d of %d", out, trainer.done, steps)
                raise KeyboardInterrupt
    average.load_state_dict(trainer.average)
    if isinstance(average, Enhancer):
        return out
    if isinstance(patches, Utterances) and isinstance(average, SpeechDenoiser):
        save_table(table_of_errors(average, patches, where, seed), out)
        return out
    sources, sigmas = [p for p in patches.all if (mri and not noisy) or not p.is_floating_point()], None
    if not sources and law is not None and law.rho == 0 and objective.for_samplers and not objective.takes_masks:
        sources, sigmas = patches.all, patches.noise  # without clean pictures, what is wrong shows above the noise
    table = measure_spectra(average, sources, where, seed, noise=noise, sigmas=sigmas) if sources else None
    if table is not None:
        save_table(table, out)
    return out


def new_denoiser(patches: Patches, widths: Sequence[int], blocks: Sequence[int]) -> EDMDenoiser:
    """One for what the patches show, its last layer zero."""
    if isinstance(patches, Mixtures):
        return Enhancer(UNet(patches.channels, widths, blocks, beside=BESIDE), patches.spread())
    if isinstance(patches, Utterances):
        return SpeechDenoiser(UNet(patches.channels, widths, blocks, beside=1), patches.spread())
    return EDMDenoiser(UNet(patches.channels, widths, blocks))


def in_time(seconds: float) -> str:
    """`40 s`, `9 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def named_objective(name: str) -> Objective:
    """The objective in `restore.learn.<name>`, with its defaults. Raises ValueError where there is none."""
    modules = [m.name for m in pkgutil.iter_modules(restore.learn.__path__)]
    classes = {m: kind for m in ([name] if name in modules else modules) if (kind := _objective_in(m)) is not None}
    if name not in classes:
        raise ValueError(f"no objective {name!r}; known: {', '.join(classes)}")
    return classes[name]()


def _objective_in(module: str) -> type[Objective] | None:
    """The objective that a module of `restore.learn` defines."""
    own = importlib.import_module(f"restore.learn.{module}")
    defined = (kind for kind in vars(own).values() if isinstance(kind, type) and kind.__module__ == own.__name__)
    return next((kind for kind in defined if issubclass(kind, Objective) and kind is not Objective), None)

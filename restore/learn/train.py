"""The training loop: resumable to the bit, with an averaged copy of the weights and a validation PSNR.

`state.pt` in the output folder holds everything a run needs to go on as if it had never stopped (weights, average,
optimiser, step, random numbers, recipe); a run killed while writing leaves the previous one. Beside it stands the prior
itself, the averaged denoiser: weights, config and card.
"""

from __future__ import annotations

import importlib
import logging
import math
import pickle
import pkgutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, channels_last
from torchvision.transforms.v2.functional import rgb_to_grayscale

import restore.learn
from restore.errors import InputError
from restore.files import atomic_write
from restore.priors.base import Denoiser
from restore.priors.network import EDMDenoiser, UNet
from restore.priors.spectra import CELLS, SpectralTable, residual_spectra
from restore.priors.store import save_prior, save_table

from .base import Batch, Objective
from .card import write_card
from .data import LUMINANCE, Patches, find_pictures, load_pictures, read_noisy, warn_of_clipping
from .muon import Muon

log = logging.getLogger(__name__)

CHECKPOINT = "state.pt"
CROPS, LEVELS = 48, 18  # behind the table of spectra
AS_RECORDED: dict[str, Any] = {"shrink": 0.0, "turn": False}  # patches of noise


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights, besides the pictures, the objective and the seed."""

    steps: int = 20_000
    batch: int = 16
    patch: int = 64
    lr: float = 1e-3  # of AdamW
    muon: float = 20.0  # rate of Muon, which has the weights of hidden convolutions, in units of `lr`
    warmup: int = 500  # steps
    weight_decay: float = 1e-4
    clip: float = 1.0  # norm of the gradient
    ema: float = 0.999

    def rate(self, step: int) -> float:
        """Learning rate of AdamW at a step: a linear rise, then half a cosine down to a hundredth."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / self.steps))
        return self.lr * min(1.0, (step + 1) / self.warmup) * max(cosine, 0.01)


class Trainer:
    """One run: `state_dict` and `load_state_dict` carry it across processes, `step` takes one optimiser step."""

    def __init__(self, denoiser: Denoiser, objective: Objective, patches: Patches, recipe: Recipe, seed: int):
        self.denoiser, self.objective, self.patches, self.recipe = denoiser, objective, patches, recipe
        self.device = next(denoiser.parameters()).device
        hidden = [p for module in denoiser.modules() if isinstance(module, UNet) for p in module.hidden()]
        others = [p for p in denoiser.parameters() if all(p is not q for q in hidden)]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True)
        ]
        self.rates = [1.0]
        if hidden:
            self.optimizers.append(Muon(hidden, lr=0.0, weight_decay=recipe.weight_decay))
            self.rates.append(recipe.muon)
        self.average = {k: v.detach().clone() for k, v in denoiser.state_dict().items()}
        self.cut = torch.Generator().manual_seed(seed)  # where patches come from: always on the CPU
        self.noise = torch.Generator(self.device).manual_seed(seed + 1)  # noise and its levels
        self.done = 0

    def step(self) -> float:
        """One step; the mean loss of its batch. Raises FloatingPointError when the loss is not finite."""
        recipe = self.recipe
        for optimizer, times in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = times * recipe.rate(self.done)
        batch = self.patches.batch(recipe.batch, self.cut).to(self.device)
        objective = self.objective.at(self.done / recipe.steps)
        loss = objective.loss(self.denoiser, batch, self.noise).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.done}: lower the learning rate")
        self.denoiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.done += 1
        keep = min(recipe.ema, self.done / (self.done + 10))  # early weights are forgotten sooner
        own = self.denoiser.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [own[k] for k in self.average], 1 - keep)
        return loss.item()

    def state_dict(self) -> dict:
        return {
            "weights": self.denoiser.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "cut": self.cut.get_state(),
            "noise": self.noise.get_state(),
            "done": self.done,
        }

    def load_state_dict(self, state: dict) -> None:
        self.denoiser.load_state_dict(state["weights"])
        self.average = {k: v.to(self.device) for k, v in state["average"].items()}
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        self.cut.set_state(state["cut"].cpu())
        self.noise.set_state(state["noise"].cpu())
        self.done = state["done"]


def learn(
    folders: Sequence[Path],
    out: Path,
    *,
    objective: Objective | str = "dsm",
    steps: int = 20_000,
    batch: int = 16,
    patch: int = 64,
    lr: float = 1e-3,
    widths: Sequence[int] = (32, 64, 128, 192),
    blocks: Sequence[int] = (2, 2, 2, 2),
    held_out: int = 6,
    every: int = 1000,
    device: str | None = None,
    seed: int = 0,
    resume: bool = True,
    noise: bool = False,
    data_noise: float | None = None,
    clean: Sequence[Path] = (),
) -> Path:
    """Train a prior on folders of pictures and write it to `out`; the path of `out`.

    What is learnt from noisy pictures is validated on noisy pictures set aside, without any truth.

    Args:
        folders: where the pictures are, searched with their subfolders.
        out: the prior's folder. A run found there goes on where it stopped; more `steps` may be asked of it.
        objective: an objective, or the name of its module for its defaults.
        steps, batch, patch, lr: see `Recipe`.
        widths, blocks: the network, see `UNet`.
        held_out: pictures set aside for the validation PSNR, evenly spread over the sorted list; a quarter at most.
        every: steps between checkpoints, each with a validation PSNR.
        device: torch device; by default a CUDA GPU if there is one.
        resume: False starts again and overwrites what `out` holds.
        noise: the pictures are recordings of noise alone, all grey or all colour, stored around mid-grey (zero is 0.5).
            What is learnt is a prior on signed noise, in the units of pictures in `[0, 1]`.
        data_noise: the pictures of `folders` are noisy: the std of their white noise, for values in `[0, 1]`. `dsm` is
            free to take them as clean all the same.
        clean: folders of clean pictures to learn from besides, for `ambient`.

    Raises:
        InputError: a folder is missing, holds no usable pictures or grey noise beside coloured noise, or `out` holds a
            run of another recipe.
        ValueError: the objective is unknown, must be told the noise or takes no clean pictures beside noisy ones.
        FloatingPointError: the loss is not finite.
    """
    recipe = Recipe(steps=steps, batch=batch, patch=patch, lr=lr)
    objective = named_objective(objective) if isinstance(objective, str) else objective
    check_fits(objective, data_noise, clean, noise)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    noisy = data_noise is not None or not objective.supervised
    paths = find_pictures(folders)
    held_out = min(held_out, len(paths) // 4)
    held = [paths[round((i + 0.5) * len(paths) / held_out) % len(paths)] for i in range(held_out)]
    if noisy:
        read = partial(read_noisy, masked=objective.takes_masks)
        patches = noisy_patches(
            load_pictures([p for p in paths if p not in held], patch, read),
            load_pictures(find_pictures(clean), patch) if clean else [],
            patch,
            2 * (data_noise or 0.0),
            folders[0],
            white=objective.rho == 0,
        )
        validation = [p[None, :, :256, :256].to(where) for p in (load_pictures(held, read=read) if held else [])]
    else:
        pictures = load_pictures([p for p in paths if p not in held], smallest=patch)
        patches = noise_patches(pictures, patch, folders[0]) if noise else Patches(pictures, patch)
        held_pictures = load_pictures(held) if held else []
        validation = [p[None, :, :256, :256].to(where).float() / 127.5 - 1 for p in held_pictures]

    torch.manual_seed(seed)
    channels = (1, 3) if patches.colour else (1,)  # a stem that saw nothing would answer all the same
    if patches.grey == 0:
        channels = (3,)
    denoiser, average = (EDMDenoiser(UNet(channels, widths, blocks)).to(where) for _ in range(2))
    denoiser.to(memory_format=channels_last)  # type: ignore[call-overload]
    for d in (denoiser, average):
        d.rho = objective.rho
        d.sigma_min, d.sigma_max = objective.trusted(d, patches.noises())
    trainer = Trainer(denoiser, objective, patches, recipe, seed)
    run = {**asdict(recipe), "objective": repr(objective), "widths": list(widths), "blocks": list(blocks), "seed": seed}
    run["pictures"] = len(patches.all)
    if noise:
        run["noise"] = True
    if noisy:
        run |= {"noisy pictures": sum(p.is_floating_point() for p in patches.all), "data_noise": data_noise}
    if clean:
        run["clean"] = [str(folder) for folder in clean]

    history: list[dict[str, float]] = []
    if resume and (out / CHECKPOINT).exists():
        state = read_state(out / CHECKPOINT, where)
        check_same_run(state["run"], run, out)
        trainer.load_state_dict(state["trainer"])
        history = state["history"]
        log.info("resumed %s at step %d", out, trainer.done)
    before, first, start = history[-1]["seconds"] if history else 0.0, trainer.done, time.monotonic()
    losses: list[float] = []
    while trainer.done < steps:
        losses.append(trainer.step())
        speed = (trainer.done - first) / (time.monotonic() - start)
        if trainer.done % 100 == 0:
            log.info("step %d/%d  %.2f steps/s  loss %.4f", trainer.done, steps, speed, fmean(losses[-100:]))
        if trainer.done % every and trainer.done != steps:
            continue
        average.load_state_dict(trainer.average)
        psnr = (
            validate_noisy(average, objective, validation, 2 * (data_noise or 0.0))
            if noisy
            else validate(average, validation)
        )
        seconds = before + time.monotonic() - start
        history.append({"step": trainer.done, "seconds": seconds, "loss": fmean(losses), **psnr})
        losses.clear()
        if psnr:
            of = "estimated from noisy pictures" if noisy else "at 25/255"
            log.info("validation PSNR %s: %s", of, ", ".join(f"{k} {v:.2f} dB" for k, v in psnr.items()))
        save_prior(average, out, noise=noise)
        write_card(out, run, history, [p.name for p in held])
        # Last: a run whose checkpoint says it is done has a prior that is.
        with atomic_write(out / CHECKPOINT) as temporary:
            torch.save({"trainer": trainer.state_dict(), "history": history, "run": run}, temporary)
    average.load_state_dict(trainer.average)
    known = [p for p in patches.all if not p.is_floating_point()]  # what is wrong shows on clean pictures only
    table = measure_spectra(average, known, where, seed, noise=noise) if known else None
    if table is not None:
        save_table(table, out)
    return out


def check_fits(objective: Objective, data_noise: float | None, clean: Sequence[Path], noise: bool) -> None:
    """Raise ValueError where an objective is not told what it needs, or told what it cannot use."""
    name = type(objective).__module__.rsplit(".", 1)[1]
    if data_noise is not None and not 0 < data_noise < 1:
        raise ValueError(
            f"the noise of the data is a std for pictures in [0, 1], above 0 and below 1, got {data_noise}"
        )
    if objective.needs_noise and data_noise is None:
        raise ValueError(
            f"{name} learns from noisy pictures and must know how noisy: give the std of their noise for values in "
            "[0, 1], such as 0.1"
        )
    if clean and not objective.takes_clean:
        cure = "name all folders together" if objective.supervised else "choose ambient, or leave the clean ones out"
        raise ValueError(f"{name} takes no clean pictures beside noisy ones: {cure}")
    if noise and (data_noise is not None or not objective.supervised):
        raise ValueError(f"recordings of noise alone are learnt by dsm, without a noise of their own; got {name}")


def noisy_patches(
    noisy: Sequence[Tensor], clean: Sequence[Tensor], size: int, sigma: float, folder: Path, *, white: bool = True
) -> Patches:
    """Patches of noisy pictures and of clean ones; `sigma`, in `[-1, 1]`, is zero where the noise has no one std.

    Args:
        white: the noise is as strong in the dark as in the light.

    Raises:
        InputError: the noise is not white, and some pictures are grey and some are in colour.
    """
    warn_of_clipping(noisy)
    if sigma and white:
        return Patches([*noisy, *clean], size, noise=[sigma] * len(noisy) + [0.0] * len(clean))
    if len({p.shape[0] for p in noisy}) > 1:
        cure = "learn a prior of each kind: the luminance of such noise follows another law"
        raise InputError(folder, "grey and coloured pictures, and noise that is not white", "one of the two", cure)
    return Patches(noisy, size, grey=0.0, shrink=0.0, noise=[sigma] * len(noisy))


def noise_patches(recordings: Sequence[Tensor], size: int, folder: Path) -> Patches:
    """Patches of recordings of noise, as they are. Raises InputError where some are grey and some are in colour."""
    if len({p.shape[0] for p in recordings}) > 1:
        cure = "learn a prior of each kind: the luminance of coloured noise is weaker than the noise of a channel"
        raise InputError(folder, "grey and coloured recordings of noise", "one of the two", cure)
    return Patches(recordings, size, grey=0.0, **AS_RECORDED)


def measure_spectra(
    denoiser: EDMDenoiser, pictures: Sequence[Tensor], device: torch.device, seed: int, *, noise: bool = False
) -> SpectralTable | None:
    """How sure a denoiser is on patches of what it was trained on: `CROPS` of them, at `LEVELS` noise levels.

    `None` where a picture is too small to have every frequency of the table: the default covariance has to do.
    """
    size = min(128, *(n for p in pictures for n in p.shape[1:]))
    if size < 2 * CELLS:
        return None
    sigmas = torch.logspace(math.log10(max(denoiser.sigma_min, 0.005)), math.log10(min(denoiser.sigma_max, 10)), LEVELS)
    spectra = {}
    for channels in denoiser.network.channels:
        patches = Patches(pictures, size, grey=float(channels == 1), **(AS_RECORDED if noise else {}))
        rng = torch.Generator().manual_seed(seed)
        batches = [patches.batch(8, rng).x.to(device) for _ in range(CROPS // 8)]
        spectra[channels] = residual_spectra(denoiser, batches, sigmas.tolist(), seed=seed)
    return SpectralTable(sigmas, spectra)


def named_objective(name: str) -> Objective:
    """The objective in `restore.learn.<name>`, with its defaults. Raises ValueError where there is none."""
    modules = {m.name for m in pkgutil.iter_modules(restore.learn.__path__)} - {"base", "card", "data", "muon", "train"}
    if name not in modules:
        raise ValueError(f"no objective {name!r}; known: {', '.join(sorted(modules))}")
    module = importlib.import_module(f"restore.learn.{name}")
    return next(c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__)()


def read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """What `learn` saved. Raises InputError where the file is damaged."""
    try:
        return torch.load(path, map_location=device, weights_only=True)  # tensors and plain values, no code
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        cure = "start again without resuming, or give another folder"
        raise InputError(path, f"damaged, {path.stat().st_size} bytes", "the checkpoint of a run", cure) from error


def check_same_run(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    """Raise InputError unless the two runs differ in nothing but the number of steps."""
    other = [k for k in {**new, **old} if k != "steps" and old.get(k) != new.get(k)]
    if other:
        seen = "a run with " + ", ".join(f"{k} {old.get(k)}" for k in other)
        wanted = ", ".join(f"{k} {new.get(k)}" for k in other)
        raise InputError(out, seen, wanted, "give another folder, or start again without resuming")


def validate(denoiser: Denoiser, pictures: Sequence[Tensor], sigma: float = 25 / 255) -> dict[str, float]:
    """Mean PSNR (dB) at a noise of `sigma` in `[0, 1]`, of the pictures and of their luminance.

    `pictures`, each `(1, C, H, W)`, and `denoiser` are in `[-1, 1]`. The noise is the same at each call.
    """
    psnr: dict[str, list[float]] = {}
    for i, picture in enumerate(pictures):
        kinds = {"colour": picture, "grey": rgb_to_grayscale(picture)} if picture.shape[1] == 3 else {"grey": picture}
        for kind, clean in kinds.items():
            if not denoiser.accepts(tuple(clean.shape[1:])):
                continue
            rng = torch.Generator().manual_seed(i)
            noisy = clean + 2 * sigma * torch.randn(clean.shape, generator=rng).to(clean)
            with torch.no_grad():
                error = (denoiser(noisy, 2 * sigma).clamp(-1, 1) - clean) / 2
            psnr.setdefault(kind, []).append(-10 * error.square().mean().log10().item())
    return {kind: fmean(values) for kind, values in psnr.items()}


def validate_noisy(
    denoiser: Denoiser, objective: Objective, pictures: Sequence[Tensor], sigma: float
) -> dict[str, float]:
    """PSNR (dB) at the noise of the pictures themselves, estimated without truth by the objective's `risk`.

    Noisy `pictures`, each `(1, C, H, W)` with NaN where nothing was seen, and `denoiser` are in `[-1, 1]`, so is
    `sigma`. The mean is taken over the errors, before the logarithm: those of single pictures may come out negative.
    """
    errors: dict[str, list[float]] = {}
    for i, noisy in enumerate(pictures):
        kinds = {"grey": (noisy, sigma)}
        if noisy.shape[1] == 3:
            kinds = {"colour": (noisy, sigma), "grey": (rgb_to_grayscale(noisy), sigma * LUMINANCE)}
        for kind, (y, own) in kinds.items():
            if not denoiser.accepts(tuple(y.shape[1:])):
                continue
            rng = torch.Generator(y.device).manual_seed(i)
            batch = Batch(y.nan_to_num(nan=0.0), torch.full((1,), own).to(y), ~y.isnan())
            with torch.no_grad():
                errors.setdefault(kind, []).append(objective.risk(denoiser, batch, rng).item() / 4)
    return {kind: -10 * math.log10(max(fmean(values), 1e-10)) for kind, values in errors.items()}

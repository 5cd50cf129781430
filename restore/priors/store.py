"""Priors on disk: a folder with `weights.safetensors` (half precision), `config.json` and a card, `README.md`.

Nothing is ever unpickled: a pickled file can run any code when it is opened.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, channels_last

from restore.errors import InputError
from restore.files import atomic_write

from .base import Denoiser, Rescaled
from .enhancer import BESIDE, Enhancer
from .network import EDMDenoiser, UNet
from .spectra import SpectralTable
from .speech import BANDS, CLASSES, RATE, ErrorTable, SpeechDenoiser

SHIPPED = Path(__file__).parent / "weights"
WEIGHTS, CONFIG, SPECTRA = "weights.safetensors", "config.json", "spectra.safetensors"
WANTED = f"a folder with {CONFIG} and {WEIGHTS}"
PICKLED = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}


def shipped_priors() -> list[str]:
    """The names that `load_prior` knows without a path."""
    return sorted(folder.parent.name for folder in SHIPPED.glob(f"*/{CONFIG}"))


def load_prior(name: str | Path, *, noise: bool = False) -> Denoiser:
    """The prior of that name or folder, in `[0, 1]` units, ready for inference (weights frozen, on the CPU).

    Args:
        noise: whether a prior on signed noise is wanted, learnt on recordings of noise alone, or one on pictures. An
            `Enhancer` is given as either.

    Raises:
        InputError: no such name or folder, it is a prior on the other of the two, or its files are missing, damaged,
            pickled or of another architecture.
    """
    folder = find_prior(name)
    config = read_config(folder / CONFIG)
    try:
        network = UNet(**config["network"])
        speech = Enhancer if network.beside == BESIDE else SpeechDenoiser
        denoiser = (speech if "rate" in config else EDMDenoiser)(network, **config["denoiser"])
        denoiser.rho = float(config.get("rho", 0))
        units = config["units"]
        prior = denoiser if isinstance(denoiser, Enhancer) else Rescaled(denoiser, units["scale"], units["shift"])
    except (KeyError, TypeError, ValueError) as error:
        seen, cure = f"it does not describe a prior ({error})", "train it again, or copy config and weights together"
        raise InputError(folder / CONFIG, seen, "network, denoiser and units", cure) from error
    if config.get("noise", False) != noise and not isinstance(denoiser, Enhancer):  # which is both
        kinds = ("a prior on pictures", "a prior on noise")
        learn = "learn one by `restore learn recordings/ --noise-only` (of sounds with --speech)"
        cure = learn if noise else "give it as --noise-prior"
        raise InputError(folder, kinds[not noise], kinds[noise], cure)
    weights = read_weights(folder / WEIGHTS)
    check_fit(weights, denoiser.state_dict(), folder)
    denoiser.load_state_dict(weights)
    if (folder / SPECTRA).exists():
        if isinstance(denoiser, SpeechDenoiser):
            denoiser.errors = read_errors(folder / SPECTRA)
        else:
            denoiser.table = read_table(folder / SPECTRA, denoiser)
    return prior.to(memory_format=channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


def save_prior(
    denoiser: EDMDenoiser, folder: Path, *, noise: bool = False, score: dict[str, Any] | None = None
) -> None:
    """Write weights and config of a denoiser of `[-1, 1]` pictures to `folder`, or of complex images, whose zero stays
    zero. Raises OutputError.

    Args:
        noise: the pictures are of noise alone, with zero in the middle: [-0.5, 0.5] becomes [-1, 1].
        score: it was learnt for one type of noise: arguments of `restore.denoisers.posterior.PosteriorMean` besides the
            denoiser.
    """
    network = denoiser.network
    config: dict[str, Any] = {
        "network": {
            "channels": network.channels,
            "widths": network.widths,
            "blocks": network.blocks,
            "embedding": network.embedding,
        },
        "denoiser": {
            "sigma_data": denoiser.sigma_data,
            "sigma_min": denoiser.sigma_min,
            "sigma_max": denoiser.sigma_max,
        },
        "units": {"scale": 2, "shift": 0 if noise or 2 in network.channels else -1},  # [0, 1] -> [-1, 1]
    }
    if isinstance(denoiser, SpeechDenoiser):
        del config["denoiser"]["sigma_data"]
        config["network"]["beside"] = network.beside
        config |= {"units": {"scale": 1, "shift": 0}, "rate": RATE}
    if noise:
        config["noise"] = True
    if score is not None:
        config["score"] = score
    if denoiser.rho:
        config["rho"] = denoiser.rho
    weights = {k: v.detach().cpu().half().contiguous() for k, v in denoiser.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(weights))
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n")


def save_table(table: SpectralTable | ErrorTable, folder: Path) -> None:
    """Write how sure a denoiser is, in its own units, beside its weights. Raises OutputError."""
    if isinstance(table, ErrorTable):
        spectra = {"errors": table.powers.contiguous()}
    else:
        spectra = {f"channels_{c}": s.cpu().contiguous() for c, s in table.spectra.items()}
    with atomic_write(folder / SPECTRA) as temporary:
        temporary.write_bytes(save({"sigmas": table.sigmas.float().contiguous(), **spectra}))


def read_table(path: Path, denoiser: EDMDenoiser) -> SpectralTable:
    """What `save_table` wrote. Raises InputError where it is damaged or does not serve the denoiser."""
    tensors = read_weights(path)
    wanted = {"sigmas"} | {f"channels_{c}" for c in denoiser.network.channels}
    if tensors.keys() != wanted:
        seen, cure = ", ".join(sorted(tensors)) or "nothing", "copy it together with the weights, or delete it"
        raise InputError(path, seen, ", ".join(sorted(wanted)), cure)
    sigmas = tensors.pop("sigmas")
    return SpectralTable(sigmas, {int(name.removeprefix("channels_")): t for name, t in tensors.items()})


def read_errors(path: Path) -> ErrorTable:
    """What `save_table` wrote of a denoiser of speech. Raises InputError where it is damaged or of another kind."""
    tensors = read_weights(path)
    if tensors.keys() != {"sigmas", "errors"} or tensors["errors"].shape[1:] != (BANDS, CLASSES):
        seen, cure = ", ".join(sorted(tensors)) or "nothing", "copy it together with the weights, or delete it"
        raise InputError(path, seen, f"sigmas, and errors for {BANDS} bands and {CLASSES} strengths", cure)
    return ErrorTable(tensors["sigmas"], tensors["errors"])


def start_from(denoiser: EDMDenoiser, name: str | Path) -> None:
    """Give a new denoiser the weights of a prior. Blocks that the prior has not stay as they were made, which changes
    nothing that comes out; channels that a prior on speech does not see begin without a say; ends for other numbers of
    channels are left.

    Raises:
        InputError: no such prior, or its layers are not among those of the denoiser.
    """
    folder, own = find_prior(name), denoiser.state_dict()
    weights = {
        k: v
        for k, v in read_weights(folder / WEIGHTS).items()
        if k in own or not k.startswith(("network.stems", "network.heads", "spread"))
    }
    for k, v in weights.items():
        grown = k.startswith("network.stems") and k.endswith("weight") and own[k].shape[1] > v.shape[1]
        if grown and "spread" in weights:  # of speech
            weights[k] = torch.cat([v, v.new_zeros(len(v), own[k].shape[1] - v.shape[1], *v.shape[2:])], 1)
    wrong = [k for k, v in weights.items() if k not in own or own[k].shape != v.shape]
    if wrong:
        seen = f"{len(wrong)} layers that the new network has not, the first is {wrong[0]}"
        raise InputError(folder, seen, "the same widths and no more blocks", "start from another prior, or from none")
    denoiser.load_state_dict(own | weights)


def find_prior(name: str | Path) -> Path:
    """The folder that a name or a path means. Raises InputError with the known names and the nearest one."""
    known = shipped_priors()
    if str(name) in known:
        return SHIPPED / str(name)
    path = Path(name)
    if path.is_dir():
        return path
    if path.suffix in PICKLED:
        raise InputError(path, "a pickled file, which can run any code when opened", WANTED, "convert it first")
    near = difflib.get_close_matches(str(name), known, n=1)
    cure = f"did you mean {near[0]}?" if near else f"known names: {', '.join(known)}"
    raise InputError(name, "no prior of that name and no such folder", f"{', '.join(known)} or {WANTED}", cure)


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a config file. Raises InputError where there is none."""
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(path, "no such file", WANTED, "name the folder that training wrote") from error
    except ValueError as error:
        raise InputError(path, f"not JSON ({error})", WANTED, "copy it again") from error
    if not isinstance(config, dict):
        raise InputError(path, "no JSON object", WANTED, "copy it again")
    return config


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file. Raises InputError where it is missing, pickled, truncated or another kind."""
    try:
        with path.open("rb") as file:
            head = file.read(2)
        if head == b"PK" or head[:1] == b"\x80":  # torch.save's zip, and bare pickles
            seen = "a pickled file under another name, which can run any code when opened: not read"
            raise InputError(path, seen, "safetensors", "convert it first")
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(path, "no such file", WANTED, "name the folder that training wrote") from error
    except SafetensorError as error:
        seen = f"damaged or truncated, {path.stat().st_size} bytes ({error})"
        raise InputError(path, seen, "safetensors", "copy it again") from error


def check_fit(weights: dict[str, Tensor], wanted: dict[str, Tensor], folder: Path) -> None:
    """Raise InputError unless names and shapes are those of the network that the config describes."""
    wrong = sorted(weights.keys() ^ wanted.keys())
    wrong += [k for k in sorted(weights.keys() & wanted.keys()) if weights[k].shape != wanted[k].shape]
    if wrong:
        seen = f"weights of another network: {len(wrong)} tensors do not match {CONFIG}, the first is {wrong[0]}"
        raise InputError(folder, seen, "a config and weights that belong together", "copy both from one place")

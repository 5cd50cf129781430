"""Priors on disk: a folder with `weights.safetensors` (half precision), `config.json` and a card, `README.md`.

Nothing is ever unpickled: a pickled file can run any code when it is opened.
"""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, channels_last

from .base import Denoiser, Rescaled
from .network import EDMDenoiser, UNet

SHIPPED = Path(__file__).parent / "weights"
WEIGHTS, CONFIG = "weights.safetensors", "config.json"
PICKLED = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}


def shipped_priors() -> list[str]:
    """The names that `load_prior` knows without a path."""
    return sorted(folder.parent.name for folder in SHIPPED.glob(f"*/{CONFIG}"))


def load_prior(name: str | Path) -> Denoiser:
    """The prior of that name or folder, in `[0, 1]` units, ready for inference (weights frozen, on the CPU).

    Raises:
        FileNotFoundError: no such name or folder; a file is missing in it.
        ValueError: the files are there but damaged, pickled, or of another architecture.
    """
    folder = find_prior(name)
    config = read_config(folder / CONFIG)
    try:
        denoiser = EDMDenoiser(UNet(**config["network"]), **config["denoiser"])
        units = config["units"]
        prior = Rescaled(denoiser, units["scale"], units["shift"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} does not describe a prior of this version: {error}") from error
    weights = read_weights(folder / WEIGHTS)
    check_fit(weights, denoiser.state_dict(), folder)
    denoiser.load_state_dict(weights)
    return prior.to(memory_format=channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


def save_prior(denoiser: EDMDenoiser, folder: Path) -> None:
    """Write weights and config of a denoiser of `[-1, 1]` pictures to `folder`, each to a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    network = denoiser.network
    config = {
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
        "units": {"scale": 2, "shift": -1},  # [0, 1] -> [-1, 1]
    }
    weights = {k: v.detach().cpu().half().contiguous() for k, v in denoiser.state_dict().items()}
    save_file(weights, folder / "weights.part")
    os.replace(folder / "weights.part", folder / WEIGHTS)
    (folder / "config.part").write_text(json.dumps(config, indent=2) + "\n")
    os.replace(folder / "config.part", folder / CONFIG)


def find_prior(name: str | Path) -> Path:
    """The folder that a name or a path means. Raises FileNotFoundError with the known names and the nearest one."""
    known = shipped_priors()
    if str(name) in known:
        return SHIPPED / str(name)
    path = Path(name)
    if path.is_dir():
        for needed in (CONFIG, WEIGHTS):
            if not (path / needed).is_file():
                raise FileNotFoundError(f"{path} is not a prior: it has no {needed}")
        return path
    if path.name in (WEIGHTS, CONFIG) and path.is_file():
        return find_prior(path.parent)
    if path.suffix in PICKLED:
        raise ValueError(f"{path} is a pickled file, which can run any code when opened; give a folder with {WEIGHTS}")
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise FileNotFoundError(f"no prior {str(name)!r}: known are {', '.join(known) or 'none'}, or give its folder{hint}")


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a config file. Raises ValueError where it is none."""
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no JSON object")
    return config


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file. Raises ValueError where it is pickled, truncated or something else."""
    with path.open("rb") as file:
        head = file.read(2)
    if head in (b"PK", b"\x80\x02", b"\x80\x04"):  # torch.save's zip, and bare pickles
        raise ValueError(f"{path} is a pickled file under another name, which can run any code when opened: not read")
    try:
        return load_file(path)
    except SafetensorError as error:
        size = path.stat().st_size
        raise ValueError(f"{path} is damaged or truncated ({size} bytes): {error}; copy it again") from error


def check_fit(weights: dict[str, Tensor], wanted: dict[str, Tensor], folder: Path) -> None:
    """Raise ValueError unless names and shapes are those of the network that the config describes."""
    wrong = sorted(weights.keys() ^ wanted.keys())
    wrong += [k for k in sorted(weights.keys() & wanted.keys()) if weights[k].shape != wanted[k].shape]
    if wrong:
        raise ValueError(
            f"the weights in {folder} belong to another network than its {CONFIG} describes: "
            f"{len(wrong)} tensors do not match, the first is {wrong[0]}"
        )

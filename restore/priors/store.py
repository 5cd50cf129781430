"""Priors on disk: `weights.safetensors` (half precision) and `config.json` (how to build the denoiser)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from .network import EDMDenoiser


def save_prior(denoiser: EDMDenoiser, folder: Path) -> None:
    """Write a denoiser to `folder`, each file under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().half().contiguous() for k, v in denoiser.state_dict().items()}
    save_file(weights, folder / "weights.part")
    os.replace(folder / "weights.part", folder / "weights.safetensors")

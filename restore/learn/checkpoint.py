"""What a run of training leaves to go on from. Nothing in it is ever executed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from restore.errors import InputError

CHECKPOINT = "state.pt"
AGAIN = "give another folder, or start again without resuming"


def read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """What `learn` saved. Raises InputError where the file is damaged, or holds anything else."""
    seen = f"damaged, {path.stat().st_size} bytes"
    try:
        state = torch.load(path, map_location=device, weights_only=True)  # tensors and plain values, no code
        if {"trainer", "history", "run"} <= state.keys():
            return state
        seen = "no checkpoint of a run"
    except (RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise InputError(path, seen, "the checkpoint of a run", AGAIN) from error
    raise InputError(path, seen, "the checkpoint of a run", AGAIN)


def check_same_run(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    """Raise InputError unless the two runs differ in nothing but the number of steps."""
    other = [k for k in {**new, **old} if k != "steps" and old.get(k) != new.get(k)]
    if "files" in other:
        raise InputError(out, "a run on other pictures, or with another noise", "one on these", AGAIN)
    if other:
        seen = "a run with " + ", ".join(f"{k} {old.get(k)}" for k in other)
        wanted = ", ".join(f"{k} {new.get(k)}" for k in other)
        raise InputError(out, seen, wanted, AGAIN)

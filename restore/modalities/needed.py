"""Libraries that only some formats need."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import InputError


def needed(name: str, path: Path, extra: str = "mri") -> Any:
    """Import a library that the extra `extra` brings. Raises InputError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        seen, cure = f"{name} is not installed, which reads and writes it", f"pip install 'restore-posterior[{extra}]'"
        raise InputError(path, seen, name, f"install it: {cure}") from error

"""Draws from `p(x | y)`: problems, priors, samplers, and the command that restores a person's pictures.

Names are imported when first used, so that `restore --help` does not load torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Problem": "restore.problem",
    "Denoiser": "restore.priors.base",
    "Rescaled": "restore.priors.base",
    "load_prior": "restore.priors.store",
    "Sampler": "restore.samplers.base",
    "Restoration": "restore.core",
    "restore": "restore.core",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'restore' has no attribute {name!r}")

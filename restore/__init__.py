"""Draws from `p(x | y)`: a problem, a prior and a sampler, and `restore()` that runs them.

Names are imported when first used, so that the command line can answer `--help` without loading torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "restore": "restore.core",
    "Restoration": "restore.core",
    "Problem": "restore.problem",
    "load_prior": "restore.priors.store",
    "Denoiser": "restore.priors.base",
    "Rescaled": "restore.priors.base",
    "Sampler": "restore.samplers.base",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'restore' has no attribute {name!r}")

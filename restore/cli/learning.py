"""`restore learn`: a prior from a folder of pictures."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from .options import UsageError, suggestion
from .planning import check_writable
from .settings import names


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Train, or go on training; the exit status."""
    known, out = names("objective"), Path(options.output)
    if options.objective not in known:
        near = suggestion(options.objective, known)
        raise UsageError(f"unknown objective {options.objective!r}{near} (known: {', '.join(known)})")
    if out.is_file():
        raise UsageError(f"{out} is a file: give a folder for the prior with -o")
    check_writable(out)
    from restore.learn.train import CHECKPOINT, learn
    from restore.priors.store import WEIGHTS

    found = [path.name for path in sorted(out.iterdir()) if not path.name.startswith(".")] if out.is_dir() else []
    if found and not {CHECKPOINT, WEIGHTS}.intersection(found):
        raise UsageError(f"{out} holds {found[0]} and no prior to go on with: give a new folder with -o")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = {name: getattr(options, name) for name in ("steps", "batch", "patch") if getattr(options, name)}
    try:
        learn(
            [Path(folder) for folder in options.folders],
            out,
            objective=options.objective,
            device=None if options.device in (None, "auto") else options.device,
            seed=options.seed,
            resume=not options.restart,
            noise=options.noise_only,
            **given,
        )
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    print(f"wrote {out}; use it with {'--noise-prior' if options.noise_only else '--prior'} {out}")
    return 0

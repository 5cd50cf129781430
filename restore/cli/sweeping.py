"""`restore sweep`: settings against each other on one picture, by Hydra's multirun."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
from hydra.core.hydra_config import HydraConfig

from restore.modalities.image import Picture, read_picture, write_picture

from .options import UsageError, split_overrides
from .planning import check_writable
from .restoring import DEFAULT_DRAWS, undoing
from .settings import check, config_dir, plain, quoted
from .working import scored

ROW = "row.json"


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Run every combination and tabulate; the exit status."""
    others, overrides = split_overrides(options.overrides)
    if others:
        raise UsageError(f"{others[0]!r} is no setting: write key=a,b,c; the picture goes with --input")
    out = Path(options.output).absolute()
    check_writable(out)
    from restore.simulate import parse_spec

    try:
        spec = parse_spec(options.operator)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    preset = undoing(spec.verb, spec.options)
    # Hydra's own words for a mistake are long, and come after half the work: look first.
    swept = {o.key_or_group for o in check([*preset, *overrides]) if o.is_sweep_override()} or {"sampler"}
    source = _source(options, out)
    read_picture(source)

    from restore.scoring import Row, write_tables

    for stale in out.glob(f"*/{ROW}"):
        stale.unlink()
    failed = []

    def one(config: Any) -> None:
        try:
            _one(plain(config), source, spec, options.noise, swept)
        except (UsageError, ValueError, RuntimeError) as error:  # Hydra would print a traceback and stop the others
            if options.debug:
                raise
            failed.append(setting := " ".join(HydraConfig.get().overrides.task))
            print(f"restore: {setting}: {str(error).splitlines()[0]}", file=sys.stderr)

    job = hydra.main(str(config_dir()), "config", version_base="1.3")(one)
    hydra_options = [f"hydra.sweep.dir={quoted(out)}", "hydra.sweep.subdir=${hydra.job.num}", "hydra/job_logging=none",
                     "hydra/hydra_logging=none"]  # fmt: skip
    with mock.patch.object(sys, "argv", ["restore sweep", "--multirun", *hydra_options, *preset, *overrides]):
        job()
    rows = [Row(**json.loads(path.read_text())) for path in out.glob(f"*/{ROW}")]
    if not rows:
        return 1  # each failure was named
    rows.sort(key=lambda row: -row.psnr)
    print("\n" + write_tables(out, f"{options.operator}, noise {options.noise:g}, {source.name}", rows), end="")
    print(f"\nwrote {out}/table.md, table.csv, table.json; the pictures are in its folders")
    return 1 if failed else 0


def _source(options: argparse.Namespace, out: Path) -> Path:
    """The clean picture: the one that was named, or a bundled one."""
    return Path(options.input) if options.input else bundled_picture(out / "chelsea.png")


def bundled_picture(path: Path) -> Path:
    """Write the photograph of a cat that comes with scikit-image (Stefan van der Walt, CC0); the path."""
    import numpy as np
    from skimage.data import chelsea

    data = np.moveaxis(chelsea(), -1, 0).astype(np.float32) / 255
    write_picture(path, data, Picture(path, data, None, "PNG", "uint8"))
    return path


def _one(composed: dict[str, Any], source: Path, spec: Any, sigma: float, swept: set[str]) -> None:
    """One combination: measure, restore, score; writes the pictures and the row into Hydra's folder for it."""
    from restore.jobs import Job, Request, sha256
    from restore.simulate import measure

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    setting = " ".join(o.replace("\\", "") for o in hydra_config.overrides.task if o.split("=")[0] in swept)
    picture = read_picture(source)
    told = {name: str(composed["operator"][name]) for name in spec.options if name in composed["operator"]}
    spec = replace(spec, options={**spec.options, **told})
    measured = measure(picture.data, spec, sigma, composed["seed"], int(sha256(source)[:8], 16))
    y = folder / "measured.tif"
    write_picture(y, measured.data, Picture(y, measured.data, None, "TIFF", "float32"))
    mask = None
    if measured.missing is not None:
        data, mask = measured.missing[None].astype("float32"), folder / "mask.png"
        write_picture(mask, data, Picture(mask, data, None, "PNG", "uint8"))
    request = Request(spec.verb, composed, noise=sigma, mask=mask, draws=composed["samples"] or DEFAULT_DRAWS)
    job = Job(y, folder / "restored.png", "restored", Path(y.name))
    row, _, mean = scored(job, request, measured.truth, setting, source.name)
    write_picture(folder / "restored.png", mean, picture)
    print(f"{setting}: {row}", flush=True)
    (folder / ROW).write_text(json.dumps(asdict(row)) + "\n")

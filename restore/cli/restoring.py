"""The verbs that restore: `denoise`, `inpaint`, `deblur`, `upscale`; `replay` and `demo`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from restore.errors import InputError

from .options import Law, UsageError, split_overrides
from .settings import names, quoted, settings

DEFAULT_DRAWS = 4
NARROW = 4.0  # sigma_max / sigma_min of a prior that samplers have nothing to climb down
KINDS: dict[float, str] = {
    0: "gaussian",
    1: "poisson",
    2: "gamma",
}  # of noise, by the power of the brightness in its variance
PARAMETERS = {"gaussian": "sigma", "poisson": "gain", "gamma": "k"}
OPERATORS = {"denoise": "identity", "inpaint": "mask", "deblur": "blur", "upscale": "downsample"}


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Restore pictures; the exit status."""
    if verb == "replay":
        return _replay(options, argv)
    if verb == "demo":
        return _demo(options, argv)
    inputs, overrides = split_overrides(options.inputs)
    typed = _noise_typed(options) if verb == "denoise" else None
    if any(o.startswith("operator=") for o in overrides):
        raise UsageError(f"{verb} has the operator {OPERATORS[verb]!r}: choose another verb, or set operator.KEY=...")
    composed = settings([*preset(verb, options), *overrides])
    # Only now what takes time to import: a mistyped setting is answered at once.
    from .planning import plan
    from .working import do_all

    separated = composed["noise_prior"] is not None
    if separated and verb != "denoise":
        raise UsageError(f"a noise_prior is for denoise, and this is {verb}: leave it out")
    sampling = separated or any("sampler" in o for o in [*drawing(options), *overrides])
    count = draws(verb, composed["samples"], sampling)
    extras = composed["samples"] is not None
    if options.calibration not in (None, "none") and (composed["samples"] or 1) < 2:
        raise UsageError("--calibration scales the map that --samples K writes: say --samples 8, for example")
    aids = _aids(getattr(options, "mask", None), getattr(options, "ref", None), composed, options.calibration)
    plans, missing = plan(verb, inputs, options.output, count, extras, aids, separated)
    if typed is not None and options.self_supervised and plans:
        from .selfsupervising import learnt

        folder, rho = learnt(plans, options, typed, composed["seed"], composed["device"])
        composed = settings([*preset(verb, options), *overrides, *of_score(folder, rho, typed.level)])
    from restore.jobs import Job, Request

    request = Request(
        verb=verb,
        settings=composed,
        noise=next((value for key, value in composed["noise"].items() if key != "_target_"), None),
        calibration=calibration_named(options.calibration),
        mask=Path(options.mask) if getattr(options, "mask", None) else None,
        invert_mask=getattr(options, "invert_mask", False),
        draws=count,
        extras=extras,
    )
    check_request(request)
    for error in missing:
        print(f"restore: {error}", file=sys.stderr)
    jobs = [Job(*entry) for entry in plans]
    return do_all(jobs, request, options, argv, failed=len(missing))


def _noise_typed(options: argparse.Namespace) -> Law:
    """What `--noise` says; `options.noise` becomes what it is for Gaussian noise.

    Raises:
        UsageError: other noise than the prior knows.
    """
    from .selfsupervising import refuse

    refuse(options)
    typed = options.noise or Law(None, None)
    options.noise = None if typed.level is None else typed.level
    if options.self_supervised:
        options.noise = None
        return typed
    score = learnt_score(options.prior)
    kind = KINDS[score["rho"]] if score else "gaussian"
    if typed.kind not in (None, kind):
        cure = f"give its level as {kind}:NUMBER, or auto" if score else "learn from the pictures by --self-supervised"
        raise UsageError(f"{options.prior or 'the prior'} is for {kind} noise, and not for {typed.kind} noise: {cure}")
    return typed


def learnt_score(prior: str | None) -> dict[str, Any] | None:
    """What a folder that was learnt for one type of noise says of it, `None` for other priors."""
    try:
        config = json.loads((Path(prior or "") / "config.json").read_text())
        return config.get("score") if prior else None
    except (OSError, ValueError, AttributeError):
        return None


def of_score(folder: Path | str, rho: float, level: float | None) -> list[str]:
    """Overrides for a score as the prior, and for its noise."""
    kind = KINDS[rho]
    given = [] if level is None else [f"noise.{PARAMETERS[kind]}={level!r}"]
    return [
        "prior=score",
        f"prior.name={quoted(from_anywhere(str(folder)))}",
        f"prior.rho={rho:g}",
        f"noise={kind}",
        *given,
    ]


def preset(verb: str, options: argparse.Namespace) -> list[str]:
    """The overrides that a verb and its options stand for; what is typed as `key=value` comes after them."""
    told = {name: getattr(options, name) for name in ("kernel", "boundary", "factor") if hasattr(options, name)}
    return [*undoing(verb, told), *_separating(options), *drawing(options)]


def _separating(options: argparse.Namespace) -> list[str]:
    """Overrides for noise with a prior of its own: the recipes of denoising are for white noise."""
    named = getattr(options, "noise_prior", None)
    if named is None:
        return []
    return [f"noise_prior={quoted(from_anywhere(named))}", "recipe=structured_${sampler}"]


def undoing(verb: str, told: dict[str, Any]) -> list[str]:
    """Overrides for the operator of a verb; `told`: kernel and boundary of a blur, factor and kernel of upscaling."""
    found = [f"operator={OPERATORS[verb]}"]
    if verb == "deblur":
        found += [f"operator.kernel={quoted(from_anywhere(told['kernel']))}"]
        found += [f"operator.boundary={told.get('boundary', 'valid')}"]
    if verb == "upscale":
        found += [f"operator.factor={told['factor']}", f"operator.kernel={told.get('kernel', 'bicubic')}"]
    return found


def drawing(options: argparse.Namespace) -> list[str]:
    """Overrides for the options that say how to draw."""
    found = []
    if options.sampler:
        found.append(f"sampler={options.sampler}")
    if options.steps:
        found.append(f"sampler.steps={options.steps}")
    if options.samples:
        found.append(f"samples={options.samples}")
    score = learnt_score(options.prior)
    if score:
        found += of_score(options.prior, score["rho"], options.noise if isinstance(options.noise, float) else None)
    elif options.prior:
        known = options.prior in names("prior")
        found.append(f"prior={options.prior}" if known else f"prior.name={quoted(from_anywhere(options.prior))}")
    if options.seed is not None:
        found.append(f"seed={options.seed}")
    if options.device:
        found.append(f"device={options.device}")
    if isinstance(options.noise, float) and not score:
        found.append(f"noise.sigma={options.noise!r}")
    return found


def draws(verb: str, samples: int | None, sampling: bool) -> int:
    """Draws per picture where `samples` does not say. For a person the mean of a few is the best single answer, and for
    denoising the prior knows that mean without any draw, unless a sampler was asked for."""
    return samples or (0 if verb == "denoise" and not sampling else DEFAULT_DRAWS)


def calibration_named(text: str | None) -> str | None:
    """What `--calibration` says, as a request has it: a path, `none`, or nothing.

    Raises:
        UsageError: it is not a calibration.
    """
    if text in (None, "none"):
        return text
    from restore.uncertainty.calibration import Calibration

    try:
        Calibration.load(Path(text))
    except InputError as error:
        raise UsageError(str(error)) from error
    return from_anywhere(text)


def from_anywhere(text: str) -> str:
    """A name as it is, a path so that a replay finds it from another folder."""
    return str(Path(text).absolute()) if Path(text).exists() else text


def _aids(mask: str | None, ref: str | None, composed: dict[str, Any], calibration: str | None = None) -> list[Path]:
    """What is read besides the pictures."""
    kernel = composed["operator"].get("kernel")  # a file, or words such as gaussian:2
    kernel = kernel if isinstance(kernel, str) and Path(kernel).is_file() else None
    calibration = None if calibration == "none" else calibration
    return [Path(name) for name in (mask, ref, kernel, calibration) if name is not None]


def check_request(request: Any) -> None:
    """Refuse what no picture could be restored with: a missing mask, an unknown kernel, prior, device or
    calibration.

    Raises:
        UsageError: in words.
    """
    from restore.denoisers.posterior import PosteriorMean
    from restore.intervals import chosen
    from restore.jobs import read_kernel
    from restore.uncertainty.calibration import Calibration

    from .working import tools

    if request.mask is not None and not request.mask.exists():
        raise UsageError(f"no such mask: {request.mask}")
    try:
        if request.verb == "deblur":
            read_kernel(request.settings["operator"]["kernel"])
        prior = tools(json.dumps(request.settings)).prior
        if request.draws and (isinstance(prior, PosteriorMean) or prior.sigma_max < NARROW * prior.sigma_min):
            raise UsageError(
                f"{request.settings['prior'].get('name', 'this prior')} denoises pictures at the noise of those it was "
                f"learnt from (std {prior.sigma_min:.2g} to {prior.sigma_max:.2g}) and knows no other level, as a "
                "sampler needs: use it with `restore denoise`, and learn one for samplers by --objective ambient"
            )
        if (path := chosen(request)) is not None:
            Calibration.load(path)
    except (InputError, ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error


def _replay(options: argparse.Namespace, argv: list[str]) -> int:
    from restore.jobs import Job, Request, sha256
    from restore.records import RECORD, describe_request, read_record

    from .planning import check_plans
    from .working import do_all

    path = Path(options.record)
    record = read_record(path)
    if record is None:
        raise UsageError(f"{path} is not the run.json of a result")
    plain = dict(record["request"])
    source = Path(record["input"]["path"])
    output = Path(options.output or record["output"]["path"])
    if plain["verb"] in ("mri", "speech"):
        from . import scanning, speaking

        if not source.is_file() or sha256(source) != record["input"]["sha256"]:
            raise UsageError(f"the input {source} is gone or has changed since: a replay needs the one of then")
        again = scanning.replay if plain["verb"] == "mri" else speaking.replay
        return again(record, source, output, options, argv)
    side = path.name.removesuffix(RECORD) if options.output is None else output.stem
    request = Request(
        verb=plain["verb"],
        settings=plain["settings"],
        noise=plain["noise"],
        mask=Path(plain["mask"]) if plain["mask"] else None,
        invert_mask=plain["invert_mask"],
        draws=plain["draws"],
        extras=plain["extras"],
        sigma=record["noise"]["sigma_in_unit_range"],
        calibration=plain.get("calibration"),
    )
    place = source, output, side, Path(source.name)
    aids = _aids(plain["mask"], None, request.settings, request.calibration)
    check_plans([place], request.draws, request.extras, aids, request.separated)
    check_request(request)
    now = {**describe_request(request), "input_sha256": sha256(source) if source.is_file() else None}
    check_unchanged({**plain, "input_sha256": record["input"]["sha256"], "input": source}, now)
    import torch

    torch.set_num_threads(record["machine"]["threads"])
    return do_all([Job(*place)], request, options, argv, failed=0)


def check_unchanged(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a replay where a file is not what it was: those that the keys `NAME_sha256` tell of. Raises UsageError."""
    for key, wanted in then.items():
        if key.endswith("_sha256") and now.get(key) != wanted:
            what = key.removesuffix("_sha256")
            named = f"{what.replace('_', ' ')} {then.get(what) or ''}".strip()
            raise UsageError(f"the {named} is gone or has changed since: a replay needs the one of then")


def _demo(options: argparse.Namespace, argv: list[str]) -> int:
    """The commands of a first day, on a photograph that comes with scikit-image."""
    from . import main
    from .planning import check_writable
    from .sweeping import bundled_picture

    out = Path(options.output)
    check_writable(out)
    truth, result = bundled_picture(out / "chelsea.png"), out / "chelsea_restored.png"
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-o", "--output")
    told = parser.parse_known_args(argv[1:])[1]
    commands = (
        ["simulate", "--operator", "mask:0.7", "--noise", "0.05", "--input", str(truth), "-o", str(out / "measured")],
        ["inpaint", str(out / "measured/pictures/chelsea.png"), "--mask", str(out / "measured/masks/chelsea.png"),
         "--noise", "0.05", "--samples", "4", "--ref", str(truth), "-o", str(result), *told],
    )  # fmt: skip
    for command in commands:
        print(f"$ restore {shlex.join(command)}", flush=True)
        status = main(command)
        if status:
            return status
    print(f"look at {result.with_name('chelsea_restored_panel.png')}")
    return 0

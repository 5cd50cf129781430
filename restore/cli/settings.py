"""Settings: the YAML files of `configs/`, composed by Hydra, with a suggestion for what was mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .options import UsageError, suggestion

Plain = dict[str, Any]
TYPES = {0: "Gaussian", 1: "Poisson", 2: "Gamma"}  # of noise, by the power of the brightness in its variance


def config_dir() -> Path:
    """The folder of `config.yaml`: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no configs/config.yaml in {package} or beside it: install the package again")


def names(group: str) -> list[str]:
    """What there is to choose from in a group, such as `sampler`."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def settings(overrides: Sequence[str]) -> Plain:
    """The settings with `overrides` applied, resolved; what has to be given and was not is left out.

    Raises:
        UsageError: an unknown group, choice or key (with a suggestion), or a value of the wrong form.
    """
    for override in check(overrides):
        if override.is_sweep_override():
            raise UsageError(
                f"{override.input_line} is several values, and one is wanted: `restore sweep` tries several; "
                "a text with a comma in it needs quotes of its own"
            )
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            composed = compose("config", overrides=list(overrides))
            _check_numbers(plain(composed), overrides)
            return plain(composed)
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(_first_line(error)) from error


def objective(name: str, overrides: Sequence[str]) -> Plain:
    """The settings of an objective, with overrides such as `objective.clip=10`.

    Raises:
        UsageError: an unknown key (with a suggestion), or a value of the wrong form.
    """
    chosen = f"objective/{name}"
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            before = plain(compose(chosen))
            known = dict(_leaves(before))
            for override in parsed:
                key, value = override.key_or_group, override.value()
                if key not in known:
                    near = suggestion(key, known)
                    raise UsageError(f"unknown setting {key!r} of {name}{near or '; see `restore list settings`'}")
                default = known[key]
                number = isinstance(value, int | float) and not isinstance(value, bool)
                if not (number if isinstance(default, float) else type(value) is type(default)):
                    wanted = {bool: "true or false", str: "a word"}.get(type(default), "a number")
                    raise UsageError(f"{override.input_line}: {wanted} is wanted, such as {default}")
            return plain(compose(chosen, overrides=list(overrides)))["objective"]
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_first_line(error)) from error


def check(overrides: Sequence[str]) -> list[Override]:
    """The overrides as Hydra reads them, once all of them name what exists; lists of choices (a sweep) are looked into.

    Raises:
        UsageError: with a suggestion.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UsageError(_first_line(error)) from error
    groups = sorted(p.name for p in config_dir().iterdir() if p.is_dir() and any(p.glob("*.yaml")))
    chosen = [o for o in parsed if o.key_or_group in groups]
    for override in chosen:
        known = names(override.key_or_group)
        for value in _values(override):
            if value not in known and "${" not in value:  # what depends on other choices is Hydra's to resolve
                raise UsageError(
                    f"unknown {override.key_or_group} {value!r}{suggestion(value, known)} (known: {', '.join(known)})"
                )
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        # One choice per group is enough to know the keys, unless choices are swept: then every one's keys are known.
        keys = set()
        for which in _combinations(chosen):
            keys |= set(_keys(compose("config", overrides=which)))
    for override in parsed:
        key = override.key_or_group
        if key in groups or key in keys or key.startswith("hydra."):
            continue
        near = difflib.get_close_matches(key, [*keys, *groups], 1, 0.5)
        raise UsageError(
            f"unknown setting {key!r}; " + (f"did you mean {near[0]}?" if near else "see `restore list settings`")
        )
    return parsed


def _check_numbers(composed: Plain, overrides: Sequence[str]) -> None:
    """Refuse words where the defaults have numbers. Hydra, without a schema, takes anything."""
    groups = [o for o in overrides if "." not in o.split("=")[0] and o.split("=")[0] in composed]
    chosen = [o for o in groups if isinstance(composed[o.split("=")[0]], dict)]
    before = plain(compose("config", overrides=chosen))
    for name, value in _leaves(composed):
        default = dict(_leaves(before)).get(name)
        number = isinstance(default, int | float) and not isinstance(default, bool)
        if (number or name in ("samples", "noise.sigma")) and not isinstance(value, int | float | None):
            raise UsageError(f"{name}={value}: a number is wanted" + (f", such as {default}" if number else ""))
    for name, least in (("samples", 1), ("seed", 0), ("tile", 1), ("em_rounds", 0)):
        value = composed[name]
        if not ((value is None and name == "samples") or (isinstance(value, int) and value >= least)):
            raise UsageError(f"{name}={value}: a whole number of at least {least} is wanted")
    for name, sigma in composed["noise"].items():
        if name != "_target_" and not (isinstance(sigma, int | float) and 0 < sigma < float("inf")):
            why = "negative" if isinstance(sigma, int | float) and sigma < 0 else "not positive"
            raise UsageError(f"noise.{name}={sigma} is {why}: give 0.05, for example")
    steps = composed["sampler"].get("steps", 1)
    if not isinstance(steps, int) or steps < 1:
        raise UsageError(f"sampler.steps={steps}: a whole number of at least 1 is wanted")
    if not isinstance(composed["device"], str):
        raise UsageError(f"device={composed['device']}: auto, cpu or cuda is wanted")
    if not isinstance(composed["compile"], bool):
        raise UsageError(f"compile={composed['compile']}: true or false is wanted")
    rho = composed["prior"].get("rho", 0.0)  # of a score
    if composed["noise"]["_target_"] != f"operators.noise.{TYPES.get(rho, 'Gaussian')}":
        raise UsageError("the commands know Gaussian noise only: leave out noise=..., or use the library for others")
    for name, known in (("factor", (2, 3, 4)), ("boundary", ("valid", "circular"))):
        value = composed["operator"].get(name, known[0])
        if value not in known:
            raise UsageError(f"operator.{name}={value}: one of {', '.join(map(str, known))} is wanted")


def _leaves(composed: Plain, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in composed.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def quoted(value: object) -> str:
    """A value for the right side of an override, whatever characters it has."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(v) for v in override.sweep_string_iterator()]
    return [str(override.value())]


def _combinations(chosen: Sequence[Override]) -> Iterator[list[str]]:
    """Each choice of each group once, the others at their first."""
    first = [f"{o.key_or_group}={_values(o)[0]}" for o in chosen]
    yield first
    for i, override in enumerate(chosen):
        for value in _values(override)[1:]:
            yield [*first[:i], f"{override.key_or_group}={value}", *first[i + 1 :]]


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in config:
        yield prefix + str(name)
        child = None if OmegaConf.is_missing(config, name) else config[name]
        if isinstance(child, DictConfig):
            yield from _keys(child, f"{prefix}{name!s}.")


def plain(config: DictConfig) -> Plain:
    """Settings as plain data, without the entries that have to be given and were not."""
    found: Plain = {}
    for name in config:
        if not OmegaConf.is_missing(config, name):
            value = config[name]
            found[str(name)] = plain(value) if isinstance(value, DictConfig) else _value(value)
    return found


def _value(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]

"""Every YAML of `configs/` is one class: its keys are the constructor's arguments, its values their defaults."""

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import yaml

import operators
import restore.learn
import restore.samplers
from operators.base import LinearOperator, Operator
from operators.noise import NoiseModel
from restore.learn.base import Objective
from restore.samplers.base import Sampler

CONFIGS = Path(__file__).parents[1] / "configs"
GROUPS = {"sampler": Sampler, "operator": Operator, "noise": NoiseModel, "objective": Objective}
# Made of other operators, of foreign objects, or by `Blur` and `Downsample`: nothing to write in a YAML.
COMPOSED = {"Chain", "Compose", "Adjoint", "VStack", "HStack", "DeepinvOperator", "DeepinvLinearOperator"}
COMPOSED |= {"CircularFilter", "Separable", "ValidFilter", "FullFilter", "BlockMean"}
COMPOSED |= {"Sense", "SenseLines"}  # made by `sense`
FILES = sorted(path for group in GROUPS for path in (CONFIGS / group).glob("*.yaml"))


def target(path: Path) -> type:
    module, name = yaml.safe_load(path.read_text())["_target_"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def public_classes(base: type) -> set[type]:
    for package in (operators, restore.samplers, restore.learn):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(info.name)
    found, todo = set(), [base]
    while todo:
        todo += (subs := todo.pop().__subclasses__())
        found |= set(subs)
    return {c for c in found if c.__module__.startswith(("operators.", "restore.")) and not c.__name__.startswith("_")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_keys_and_values_are_the_constructor(path):
    config, cls = yaml.safe_load(path.read_text()), target(path)
    assert issubclass(cls, GROUPS[path.parent.name])
    config.pop("_target_")
    parameters = inspect.signature(cls).parameters
    assert set(config) == set(parameters)
    for key, value in config.items():
        default = parameters[key].default
        if default is inspect.Parameter.empty:
            assert value == "???", f"{key} has no default: write ???"
        else:
            assert (tuple(value) if isinstance(value, list) else value) == default, key


@pytest.mark.parametrize("group", GROUPS)
def test_every_public_class_has_its_yaml(group):
    wanted = {
        c
        for c in public_classes(GROUPS[group])
        if not inspect.isabstract(c) and c is not LinearOperator and c.__name__ not in COMPOSED
    }
    assert {target(p) for p in (CONFIGS / group).glob("*.yaml")} == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_sampler_is_named_once(path):
    if path.parent.name == "sampler":
        cls = target(path)
        assert cls.__name__.lower() == path.stem.replace("_", "")
        assert path.stem == cls.__module__.rsplit(".", 1)[1]
        assert dataclasses.fields(cls)


@pytest.mark.parametrize("path", sorted((CONFIGS / "sampler").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_readme_and_the_list_say_the_same_on_when_to_use_a_sampler(path):
    _, *others = inspect.getdoc(importlib.import_module(target(path).__module__)).split("\n\n")
    (use,) = [p.replace("\n", " ").removeprefix("Use: ") for p in others if p.startswith("Use: ")]
    assert f"| `{path.stem}` | {use} |" in (CONFIGS.parent / "README.md").read_text()

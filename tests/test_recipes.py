"""Every recipe belongs to an operator and a sampler, and is what the settings give for the two."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from restore.samplers.base import Sampler

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = sorted((CONFIGS / "recipe").glob("*_*.yaml"))
OPERATORS = {path.stem for path in (CONFIGS / "operator").glob("*.yaml")}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_taken_for_its_operator_and_sampler(path):
    kind, name = path.stem.split("_", 1)
    named = kind in ("structured", "mri", "speech", "enhancer")  # by the command, not by the operator
    asked = [f"recipe={kind}_${{sampler}}"] if named else [f"operator={kind}"]
    assert kind in OPERATORS or named
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        settings = compose("config", [*asked, f"sampler={name}"])
        changed = compose("config", [*asked, f"sampler={name}", "sampler.steps=9"])
    sampler = instantiate(settings["sampler"])
    assert isinstance(sampler, Sampler)
    for key, value in yaml.safe_load(path.read_text())["sampler"].items():
        assert getattr(sampler, key) == value
    assert changed["sampler"]["steps"] == 9  # what a person says wins over the recipe


def test_there_are_recipes():
    assert len(RECIPES) >= 9

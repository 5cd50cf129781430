"""The demos run, and make their figures; with a prior that costs nothing."""

import runpy
import sys
from pathlib import Path

import pytest
from standin import Local

from restore.cli.working import tools

pytest.importorskip("matplotlib").use("Agg")

DEMOS = sorted((Path(__file__).parents[1] / "demos").glob("0*.py"))


@pytest.fixture(autouse=True)
def nothing_kept():
    """The command keeps what its settings name: none of it must be left to others."""
    tools.cache_clear()
    yield
    tools.cache_clear()


@pytest.mark.parametrize("demo", DEMOS, ids=lambda path: path.stem)
def test_a_demo_makes_its_figure(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("restore.priors.store.load_prior", lambda *name, **how: Local())
    figure = tmp_path / "made" / "figure.png"
    monkeypatch.setattr(sys, "argv", [str(demo), "--draws", "2", "--output", str(figure)])
    runpy.run_path(str(demo), run_name="__main__")
    assert figure.stat().st_size > 10_000 and f"wrote {figure}" in capsys.readouterr().out

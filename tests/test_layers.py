"""The import direction of the design, read from the source: a lower layer never imports a higher one."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each layer may import from this project, besides itself.
LAYERS = {
    "operators": set(),
    "restore.errors": set(),
    "restore.files": {"restore.errors"},
    "restore.problem": {"operators"},
    "restore.priors": {"operators", "restore.problem", "restore.errors", "restore.files"},
    "restore.samplers": {"operators", "restore.problem", "restore.priors"},
    "restore.denoisers": {"operators", "restore.priors"},
    "restore.learn": {
        "operators",
        "restore.problem",
        "restore.priors",
        "restore.denoisers",
        "restore.errors",
        "restore.files",
        "restore.metrics",
        "restore.audio_metrics",
        "restore.modalities",
    },
    "restore.modalities": {"operators", "restore.problem", "restore.errors", "restore.files"},
    "restore.uncertainty": {"operators", "restore.problem", "restore.priors", "restore.errors", "restore.files"},
    "restore.core": {"operators", "restore.problem", "restore.priors", "restore.samplers"},
    "restore.em": {"operators", "restore.problem", "restore.priors", "restore.samplers", "restore.core"},
    "restore.structured": {"operators", "restore.problem", "restore.priors", "restore.core"},
    "restore.tiles": set(),
    "restore.estimate": set(),
    "restore.metrics": {"restore.errors"},
    "restore.audio_metrics": set(),
    "restore.report": {"restore.errors", "restore.files", "restore.modalities"},
    "restore.tasks": {"operators", "restore.tiles"},
    "restore.engine": {
        "operators",
        "restore.problem",
        "restore.priors",
        "restore.samplers",
        "restore.core",
        "restore.em",
        "restore.estimate",
        "restore.structured",
        "restore.tasks",
        "restore.tiles",
    },
    "restore.jobs": {
        "operators",
        "restore.errors",
        "restore.modalities",
        "restore.priors",
        "restore.denoisers",
        "restore.samplers",
        "restore.engine",
        "restore.tasks",
    },
    "restore.simulate": {"operators", "restore.jobs"},
}
BELOW_CLI = ("restore.cli",)
HEAVY = {"deepinv", "diffusers", "gradio", "nibabel", "h5py", "matplotlib", "kornia", "skimage", "hydra"}
HEAVY |= {"soundfile", "pesq", "pystoi", "finufft"}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("operators", "restore"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def layer(name: str) -> str | None:
    return next((key for key in LAYERS if name == key or name.startswith(key + ".")), None)


def imports(path: Path, *, top_level: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    out: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            out |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out |= {f"{node.module}.{a.name}" for a in node.names}
    return out


@pytest.mark.parametrize("name", [n for n in modules() if layer(n)])
def test_a_layer_imports_only_lower_layers(name):
    own = layer(name)
    for imported in imports(modules()[name], top_level=False):
        if imported.split(".")[0] not in ("operators", "restore"):
            continue
        target = layer(imported)
        assert target == own or target in LAYERS[own], f"{name} imports {imported}: {own} may use {sorted(LAYERS[own])}"


@pytest.mark.parametrize("name", [n for n in modules() if not n.startswith(BELOW_CLI)])
def test_nothing_but_the_command_line_imports_it_or_hydra(name):
    found = imports(modules()[name], top_level=False)
    assert not any(i.startswith("restore.cli") or i.split(".")[0] == "hydra" for i in found), f"{name} imports {found}"


@pytest.mark.parametrize("name", list(modules()))
def test_heavy_libraries_are_imported_where_they_are_used(name):
    # The modules of the command are themselves imported when their verb's work begins; that is tested below.
    forbidden = HEAVY - {"hydra"} if name.startswith("restore.cli.") else HEAVY
    heavy = {i for i in imports(modules()[name], top_level=True) if i.split(".")[0] in forbidden}
    assert not heavy, f"{name} imports {heavy} at its top: move it into the function that needs it"


def test_help_does_not_import_torch():
    code = "import sys; from restore.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)

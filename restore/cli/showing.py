"""`restore list` and `restore doctor`."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .settings import config_dir, names


def run(verb: str, options: argparse.Namespace, argv: list[str]) -> int:
    """Print; the exit status."""
    return doctor() if verb == "doctor" else _list(options.what)


def _list(what: str) -> int:
    if what == "settings":
        print(_settings())
        return 0
    if what == "priors":
        found = _priors()
    else:
        group = what.removesuffix("s")
        found = {name: _first_lines(group, name) for name in names(group)}
    width = max(map(len, found), default=0)
    for name, words in found.items():
        print(f"{name:<{width}}  {words.replace(chr(10), chr(10) + ' ' * (width + 2))}")
    return 0


def _first_lines(group: str, name: str) -> str:
    """The first line of the docstring of what a YAML file makes, and of a sampler the words on when to use it: read
    from its source, nothing is imported."""
    import yaml

    target = yaml.safe_load((config_dir() / group / f"{name}.yaml").read_text())["_target_"]
    module, _, wanted = target.rpartition(".")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return f"(cannot be found: {target})"
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    nodes = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == wanted]
    # One sampler, one file: its module says which paper it is.
    said = ast.get_docstring(tree) if group == "sampler" else ast.get_docstring(nodes[0]) if nodes else None
    first, *others = (said or "").split("\n\n")
    use = [p.replace("\n", " ") for p in others if p.startswith("Use: ")]
    return "\n".join([first.split("\n")[0], *use])


def _priors() -> dict[str, str]:
    found = {}
    spec = importlib.util.find_spec("restore.priors")
    for folder in sorted(Path(spec.origin).parent.glob("weights/*/")) if spec and spec.origin else []:
        card = folder / "README.md"
        if (folder / "config.json").is_file():
            lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
            said = [line for line in lines if line.strip() and not line.startswith(("#", "---"))]
            found[folder.name] = said[0] if said else ""
    found["FOLDER"] = "a prior that `restore learn` made: --prior FOLDER"
    return found


def _settings() -> str:
    lines = [(config_dir() / "config.yaml").read_text().split("\n\n", 1)[1].rstrip(), ""]
    for group in sorted(p.name for p in config_dir().iterdir() if p.is_dir()):
        for path in sorted((config_dir() / group).glob("*.yaml")):
            lines.append(f"{group}={path.stem}")
            said = [s for s in path.read_text().splitlines() if ":" in s and not s.startswith(("_target_", "#"))]
            lines += [f"  {group}.{s}" for s in said]
    return "\n".join(lines)


def doctor() -> int:
    """Try everything a restoration needs, a line for each; 1 if something is not right."""
    failed = False
    for name, check in CHECKS.items():
        try:
            print(f"ok    {name:<10} {check()}", flush=True)
        except Exception as error:
            failed = True
            first = (str(error) or type(error).__name__).split("\n")[0]
            print(f"FAIL  {name:<10} {first}", flush=True)
    return 1 if failed else 0


def _versions() -> str:
    from importlib.metadata import version

    from restore import __version__

    others = ", ".join(f"{p} {version(p)}" for p in ("torch", "numpy", "hydra-core", "pillow", "scikit-image"))
    return f"restore {__version__}, Python {platform.python_version()}, {others}"


def _device() -> str:
    import torch

    from restore.priors.network import has_fast_bf16

    cpu = torch.device("cpu")
    words = f"cpu, {torch.get_num_threads()} of {os.cpu_count()} threads, {torch.backends.cpu.get_cpu_capability()}, "
    words += "bfloat16 in hardware" if has_fast_bf16(cpu) else "no bfloat16 in hardware (slower)"
    if torch.cuda.is_available():
        words += f"; cuda: {torch.cuda.get_device_name()}"
    return words


def _configs() -> str:
    from .settings import settings

    for sampler in names("sampler"):
        settings([f"sampler={sampler}"])
    return f"{config_dir()}, samplers {', '.join(names('sampler'))}"


def _prior() -> str:
    import json

    import torch

    from operators.random import generator

    from .settings import settings
    from .working import tools

    composed = settings([])
    kit = tools(json.dumps(composed))
    gains = []
    for channels in (1, 3):
        # Smooth blobs with sharp edges: no file is needed, and any denoiser of pictures gains on them.
        blobs = torch.randn(1, channels, 8, 8, generator=generator(channels))
        truth = (torch.nn.functional.interpolate(blobs, size=(128, 128), mode="bicubic") > 0).float() * 0.6 + 0.2
        noisy = truth + 0.1 * torch.randn(truth.shape, generator=generator(7, channels))
        start = time.perf_counter()
        with torch.no_grad():
            mean = kit.prior(noisy.to(kit.device), 0.1).cpu()
        seconds = time.perf_counter() - start
        gains.append(float(10 * torch.log10((noisy - truth).square().mean() / (mean - truth).square().mean())))
    if min(gains) < 3:
        raise RuntimeError(f"the prior gains only {min(gains):.1f} dB on a test picture: its weights may be damaged")
    said = f"denoises a grey and a colour test picture by {gains[0]:.1f} and {gains[1]:.1f} dB"
    return f"{composed['prior'].get('name')} {said}, {seconds:.2f} s for 128 x 128"


def _disk() -> str:
    with tempfile.TemporaryFile(dir=Path.cwd()):
        pass
    return f"{Path.cwd()} can be written, {shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB free"


def _terminal() -> str:
    return f"{'a terminal' if sys.stderr.isatty() else 'no terminal: no progress bar'}, {sys.stdout.encoding}"


CHECKS: dict[str, Callable[[], str]] = {
    "versions": _versions,
    "device": _device,
    "settings": _configs,
    "prior": _prior,
    "disk": _disk,
    "terminal": _terminal,
}

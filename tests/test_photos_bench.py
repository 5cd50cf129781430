"""The photograph benchmark judges the samplers, so its own parts are held to account: verdicts and the TV baseline."""

import sys
from pathlib import Path

import pytest
import torch
from skimage import data, restoration

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import classical
from report import bars, tables, write_between
from tasks import TASKS

from operators.base import Identity
from operators.noise import Gaussian
from restore.problem import Problem


def row(method: str, family: str, psnr: float, fit: float = 1.0, draws: int = 1, file: str = "Set12/01.png"):
    named = {"task": "deblur", "file": file, "method": method, "family": family, "draws": draws}
    return named | {"psnr": psnr, "ssim": 0.8, "fit": fit, "nfe": 10, "seconds": 1.0}


def test_bars_are_met_and_missed():
    rows = [row("ddnm", "ours", 30.0), row("ddnm", "ours", 31.0, draws=8)]
    met = bars([*rows, row("Wiener", "classical", 29.9), row("DPIR", "deepinv", 31.0)])
    assert "MISSED" not in met and "+1.10 dB over Wiener" in met and "mean of 8" in met
    assert "over Wiener, bar +1: MISSED" in bars([*rows, row("Wiener", "classical", 30.1)])
    assert "over DPIR, bar +0: MISSED" in bars([*rows, row("DPIR", "deepinv", 31.1)])
    assert "bar 0.9 to 1.1: MISSED" in bars([row("ddnm", "ours", 30.0, fit=1.2)])


def test_tables_give_mean_and_spread_of_each_set():
    rows = [row("ddnm", "ours", p, file=f) for p, f in ((30.0, "Set12/1"), (32.0, "Set12/2"), (28.0, "CBSD68/1"))]
    assert "| **ddnm**, one draw | 31.00 ± 1.0 | 28.00 ± 0.0 | 0.800 | 1.00 | 10 | 1.0 |" in tables(rows)


def test_write_between_replaces_what_stands_there(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- photos:begin -->\nold\n<!-- photos:end -->\nb\n")
    write_between(page, "photos", "new")
    assert page.read_text() == "a\n<!-- photos:begin -->\n\nnew\n<!-- photos:end -->\nb\n"
    with pytest.raises(ValueError, match="no markers"):
        write_between(page, "other", "new")


def test_the_tv_baseline_minimises_what_it_says():
    """On plain denoising it reaches the minimum of the objective at least as well as scikit-image's long run."""
    truth = torch.from_numpy(data.camera()[100:164, 200:264].copy())[None, None].double() / 255
    y = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = Problem(y, Identity((1, 64, 64)), Gaussian(0.1))

    def objective(x, weight):
        return 0.5 * (x - y).square().sum() + weight * classical._gradient(x).square().sum(0).sqrt().sum()

    for weight, ours in zip(classical.INVERSE_WEIGHTS[:4], classical._tv_path(problem), strict=False):
        theirs = restoration.denoise_tv_chambolle(y[0, 0].numpy(), weight, eps=1e-8, max_num_iter=2000)
        assert objective(ours, weight) <= 1.003 * objective(torch.from_numpy(theirs)[None, None], weight)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_data_are_the_same_for_every_method_and_different_for_every_file(task):
    truth = torch.full((1, 3, 24, 24), 0.5)
    assert torch.equal(task.problem(truth, 3).y, task.problem(truth, 3).y)
    assert task.problem(truth, 3).y.shape != task.problem(truth, 4).y.shape or not torch.equal(
        task.problem(truth, 3).y, task.problem(truth, 4).y
    )
    assert task.problem(truth, 3).data_fit(truth).item() == pytest.approx(1, abs=0.15)

"""What judges the samplers on photographs is held to account: coverage, tables, the clock around the prior."""

import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import cost
import photo_samplers
from photo_samplers import FOUR, covered, covered_by_exact, judged, lessened, names, note, tables

from operators.base import Identity
from operators.noise import Gaussian
from restore.core import Restoration
from restore.priors.base import Denoiser
from restore.problem import Problem
from restore.samplers.dps import DPS


def row(method: str, psnr: float, draws: int = 2, task: str = "denoise", file: str = "a"):
    known = {"psnr_mean": psnr + 1, "coverage": 0.5} if draws > 1 else {"psnr_mean": None, "coverage": None}
    scores = {"psnr": psnr, "ssim": 0.8, "haarpsi": 0.7, "fit": 1.0, "nfe": 10.0, "backward": 0.0, "seconds": 2.0}
    return {"method": method, "task": task, "file": file, "draws": draws, **known, **scores}


@pytest.mark.parametrize("draws", [2, 4])
def test_exact_draws_cover_what_the_brackets_say(draws):
    normal = torch.randn(draws + 1, 1, 300, 300, generator=torch.Generator().manual_seed(0))
    truth, samples = normal[:1], normal[1:]
    R = Restoration(samples, Problem(truth, Identity((1, 300, 300)), Gaussian(1.0)), 1, 0, 1.0, 0)
    assert covered(R, truth) == pytest.approx(covered_by_exact(draws), abs=0.005)
    assert covered_by_exact(draws) < 0.8 < covered_by_exact(100) < 0.9


def test_a_restoration_is_judged_draw_by_draw_and_as_a_mean():
    truth = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    off = 0.1 * torch.tensor([1.0, -1.0])[:, None, None, None]
    R = Restoration(truth + off, Problem(truth, Identity((3, 64, 64)), Gaussian(0.1)), 7, 3, 4.0, 0)
    scores = judged(R, truth)
    assert scores["fit"] == pytest.approx(1, abs=1e-4)
    assert scores["psnr_mean"] > 100 > 22 > scores["psnr"] > 19
    assert (scores["seconds"], scores["draws"], scores["coverage"]) == (2.0, 2, 1.0)
    assert 0 < scores["haarpsi"] < 1
    one = judged(Restoration(truth, R.problem, 7, 3, 4.0, 0), truth)
    assert one["psnr_mean"] is one["coverage"] is None


def test_tables_say_how_many_draws_and_leave_gaps():
    text = tables([row("ddnm", 30.0), row("ddnm", 32.0, file="b"), row("reddiff", 29.0, draws=1)])
    assert "| ddnm | 31.00 ± 1.0 | 32.00 ± 1.0 (of 2) | 0.800 | 0.700 | 1.00 | 0.50 (0.59) | 10 | 0 | 2.0 |" in text
    assert "| reddiff | 29.00 ± 0.0 |  | 0.800 | 0.700 | 1.00 |  | 10 | 0 | 2.0 |" in text
    assert FOUR["deblur"].title not in text
    assert "`dps` steps=" in note([row("dps", 30.0)]) and "dps" not in note([row("ddnm", 30.0)])


def test_every_sampler_can_be_set_as_the_benchmark_wants_it():
    assert set(photo_samplers.LESS) | set(photo_samplers.CHEAP_FIRST) == set(names())
    for name, less in photo_samplers.LESS.items():
        sampler = lessened("mask", name)
        assert all(getattr(sampler, key) == value for key, value in less.items())


class Slow(Denoiser):
    """Spends a known time in its forward pass and in its backward pass."""

    shape, sigma_min, sigma_max = (1, 8, 8), 0.01, 1.0

    def forward(self, x, sigma):
        _spend(0.01)
        out = x / (1 + sigma**2)
        if out.requires_grad:
            out.register_hook(lambda g: _spend(0.02))
        return out


def _spend(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_clock_takes_both_passes_of_the_denoiser_and_changes_nothing():
    P = Problem(torch.zeros(1, 1, 8, 8), Identity((1, 8, 8)), Gaussian(0.1))
    timed = cost.Timed(Slow())
    sampler = DPS(steps=4)
    result = cost.restore(P, timed, sampler, num_samples=1)
    assert torch.equal(result.samples, cost.restore(P, Slow(), sampler, num_samples=1).samples)
    assert timed.count == result.nfe + result.backward == 8
    assert 4 * 0.03 <= timed.seconds < 4 * 0.03 + 0.04
    timed.jvp(torch.zeros(1, 1, 8, 8), 0.1, torch.ones(1, 1, 8, 8))
    assert timed.count == 9


def test_what_is_dear_outside_is_marked():
    text = cost.table({("inpaint", "a"): cost.Cost(2.0, 1.9, 10), ("inpaint", "b"): cost.Cost(2.0, 1.0, 10)})
    assert "| a | 5.0% | 10.0 |" in text and "| b | **50.0%** | 100.0 |" in text

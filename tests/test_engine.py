"""Tiles, their noise, the tasks they pose, and the noise level of a picture."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as photographs
from skimage.util import img_as_float32
from standin import Local

from operators import kernels
from operators.base import Identity
from operators.image import Blur, Downsample, Mask
from operators.random import Draws, TileDraws
from restore.core import restore
from restore.engine import run
from restore.estimate import estimate_noise
from restore.problem import Problem
from restore.samplers.ddnm import DDNM
from restore.simulate import measure, parse_spec
from restore.tasks import Deblur, Denoise, Inpaint, Unrestorable, Upscale
from restore.tiles import Box, Canvas, cut

LIKE = torch.zeros(1)


def photograph(name="astronaut", rows=slice(0, 230), columns=slice(90, 360)):
    x = img_as_float32(getattr(photographs, name)())
    x = x[None] if x.ndim == 2 else np.moveaxis(x, -1, 0)
    return np.ascontiguousarray(x[:, rows, columns])


# noise of tiles


def test_overlapping_tiles_see_the_same_noise():
    one = TileDraws(3, (0, 1), 5, origin=(-3, 10), window=(100, 150))
    two = TileDraws(3, (1,), 5, origin=(40, 70), window=(120, 60))
    for _ in range(3):
        a, b = one.normal((3, 100, 150), LIKE), two.normal((3, 120, 60), LIKE)
        assert torch.equal(a[1:, :, 43:, 60:120], b[:, :, :57])


def test_the_noise_of_a_tile_is_white_and_new_at_each_call_draw_and_seed():
    made = [TileDraws(s, (0, 1), 5, origin=(0, 0), window=(128, 128)) for s in (0, 1)]
    fields = torch.cat([rng.normal((1, 128, 128), LIKE) for rng in made for _ in range(2)]).flatten(1)
    correlation = torch.corrcoef(fields)
    assert torch.allclose(correlation, torch.eye(len(fields)), atol=0.04)
    assert abs(float(fields.std()) - 1) < 0.01
    assert abs(float(fields.mean())) < 0.01
    shifted = fields[0].reshape(128, 128)
    for lag in (1, 63, 64, 65):  # nothing repeats from block to block
        assert abs(float((shifted[lag:] * shifted[:-lag]).mean())) < 0.05


def test_noise_of_another_size_comes_from_a_stream_of_the_tiles_own():
    def numbers(origin):
        return TileDraws(0, (0,), 0, origin=origin, window=(8, 8)).normal((17,), LIKE)

    assert torch.equal(numbers((0, 0)), numbers((0, 0)))
    assert not torch.equal(numbers((0, 0)), numbers((0, 8)))


# cutting and blending


@pytest.mark.parametrize("align", [1, 3, 8])
@pytest.mark.parametrize("tile", [300, 512])
def test_windows_add_up_to_one_and_neighbours_overlap(tile, align):
    for length in {align * n for n in (1, 37, 99, 100, 128, 171, 400, 999)}:
        spans, total = cut(length, tile, 90, align), np.zeros(length)
        for span in spans:
            total[span.start : span.stop] += span.window
            assert span.start % align == 0 and span.stop % align == 0 and len(span.window) <= tile
        assert np.allclose(total, 1, atol=1e-6)
        for a, b in pairwise(spans):
            shared = a.stop - b.start
            assert shared > 90 - align
            # what a tile makes of its own border is never used
            assert not b.window[: shared // 3].any() and not a.window[-(shared // 3) :].any()


def test_a_tile_too_small_for_its_overlaps_is_refused():
    with pytest.raises(ValueError, match="give at least"):
        cut(1000, 150, 90)


def test_the_canvas_gives_back_what_was_cut(tmp_path):
    rng = np.random.default_rng(0)
    whole = rng.random((3, 2, 310, 205), np.float32)
    canvas = Canvas((2, 310, 205), 3, tmp_path)
    rows, columns = cut(310, 120, 30), cut(205, 120, 30)
    for i, row in enumerate(rows):
        for column in columns:
            canvas.add(whole[:, :, row.start : row.stop, column.start : column.stop], row, column)
        canvas.finish_above(rows[i + 1].start if i + 1 < len(rows) else 310)
        assert canvas.strip.shape[2] <= 120
    assert np.allclose(canvas.mean.read(), whole.mean(0), atol=1e-6)
    assert np.allclose(canvas.std.read()[0], np.sqrt(whole.var(0, ddof=1).mean(0)), atol=1e-6)
    for spool, sample in zip(canvas.samples, whole, strict=True):
        assert np.allclose(spool.read(), sample, atol=1e-6)
    canvas.close()
    assert not list(tmp_path.iterdir())


# tasks


def tasks(x, sigma=0.02):
    """One of each, each with data of its own kind."""
    kernel = kernels.gaussian(1.5)
    lopsided = kernel[:-1, 3:] / kernel[:-1, 3:].sum()  # an even number of rows
    scene = torch.from_numpy(np.pad(x, ((0, 0), (6, 5), (5, 4)), "symmetric"))[None]
    noise = sigma * Draws(0).normal(x.shape, LIKE)
    missing = np.random.default_rng(1).random(x.shape[1:]) < 0.5

    def made(spec):
        return measure(x, parse_spec(spec), sigma, seed=1, file=2).data

    return {
        "denoise": Denoise(made("identity"), Identity),
        "inpaint": Inpaint(made("identity"), Mask, missing),
        "deblur": Deblur(made("blur:gaussian:1.5"), Blur, kernel, "valid"),
        "deblur_lopsided": Deblur(
            (Blur(lopsided, scene.shape[1:], "valid")(scene) + noise)[0].numpy(), Blur, lopsided, "valid"
        ),
        "deblur_circular": Deblur(
            (Blur(kernel, x.shape, "circular")(torch.from_numpy(x)[None]) + noise)[0].numpy(), Blur, kernel, "circular"
        ),
        "upscale": Upscale(made("downsample:2"), partial(Downsample, factor=2), 2),
    }


@pytest.mark.parametrize("name", ["denoise", "inpaint", "deblur", "deblur_lopsided", "upscale"])
def test_the_problem_of_a_tile_is_a_restriction_of_the_pictures(name):
    task = tasks(photograph())[name]
    whole = task.piece(Box(0, 0, *task.shape[1:]))
    scene = torch.rand(1, *whole.operator.ishape)
    measured = whole.operator(scene)
    box = Box(60, 84, 120, 100)
    piece = task.piece(box)
    top, left = piece.origin[0] - whole.origin[0], piece.origin[1] - whole.origin[1]
    _, h, w = piece.operator.ishape
    explained = piece.operator(scene[..., top : top + h, left : left + w])
    if name == "inpaint":
        assert torch.equal(explained, piece.operator(scene[..., 60:180, 84:184]))
        assert piece.operator.oshape[-1] == int((~task.missing)[60:180, 84:184].sum())
        return
    f = task.factor
    skip = 3 if name == "upscale" else 0  # its tile is circular: the border of the margin is not the picture's
    rows, columns = (slice(s // f, (s + n) // f) for s, n in ((box.top, box.height), (box.left, box.width)))
    if name == "upscale":
        p = task.pad
        rows, columns = (slice(s.start, s.stop + 2 * p) for s in (rows, columns))
    wanted = measured[..., rows, columns]
    assert explained.shape == wanted.shape == piece.y.shape
    inner = (..., slice(skip, explained.shape[-2] - skip), slice(skip, explained.shape[-1] - skip))
    assert torch.allclose(explained[inner], wanted[inner], atol=1e-5)
    assert torch.equal(piece.y, whole.y[..., rows, columns])


def test_a_kernel_larger_than_the_picture_and_a_tile_without_data_are_refused():
    x = photograph(rows=slice(0, 20), columns=slice(0, 40))
    with pytest.raises(Unrestorable, match="larger than the picture"):
        Deblur(x, Blur, kernels.gaussian(6.0), "valid")
    missing = np.zeros((20, 40), bool)
    missing[:, :30] = True
    with pytest.raises(Unrestorable, match="covers all"):
        Inpaint(x, Mask, missing).piece(Box(0, 0, 20, 25))


# the whole path


def restored(task, folder, tile, sampler=None, draws=2):
    return run(
        task, 0.02, Local(), sampler or DDNM(steps=5), draws=draws, seed=0, file=7, device=torch.device("cpu"),
        tile=tile, spool=Path(folder),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["denoise", "inpaint", "deblur", "deblur_lopsided", "deblur_circular", "upscale"])
def test_tiles_make_the_picture_that_one_tile_makes(name, tmp_path):
    scale = 2 if name == "upscale" else 1
    x = photograph(rows=slice(0, 300 * scale), columns=slice(0, 280 * scale))
    task = tasks(x)[name]
    whole, tiled = restored(task, tmp_path, 10_000), restored(task, tmp_path, 256)
    assert whole.tiles == 1 and tiled.tiles > 3
    assert tiled.data_fit == pytest.approx(whole.data_fit, rel=0.05)
    border = 40 if name == "deblur_circular" else 0  # in tiles, nothing wraps around
    inner = (..., slice(border, x.shape[1] - border), slice(border, x.shape[2] - border))
    for a, b in zip(whole.canvas.samples, tiled.canvas.samples, strict=True):
        error = np.abs(a.read() - b.read())[inner]
        # noise that disagreed would differ by 2e-2 and more
        assert np.sqrt(np.mean(error**2)) < (4e-3 if name == "deblur_circular" else 2e-3)
        assert np.quantile(error, 0.999) < 0.02
    spread = whole.canvas.std.read()
    assert float(spread.mean()) > 5 * np.abs(spread - tiled.canvas.std.read())[inner].mean()


def test_seams_are_not_seen_in_the_noise(tmp_path):
    task = Denoise(np.full((1, 400, 400), 0.5, np.float32), Identity)
    outcome = restored(task, tmp_path, 220)
    rows, columns = (cut(400, 220, 96) for _ in range(2))
    seam = np.ones((400, 400), bool)
    for span, axis in ((rows[1], 0), (columns[1], 1)):
        assert len(rows) > 1
        faded = np.zeros(400, bool)
        faded[span.start : span.stop] = (span.window > 0) & (span.window < 1)
        seam &= ~(faded[:, None] if axis == 0 else faded[None])
    spread = outcome.canvas.samples[0].read()[0] - outcome.canvas.samples[1].read()[0]
    assert spread[~seam].std() == pytest.approx(spread[seam].std(), rel=0.05)


def test_one_tile_is_what_the_library_gives(tmp_path):
    task = Denoise(photograph(rows=slice(0, 64), columns=slice(0, 80)), Identity)
    outcome = restored(task, tmp_path, 512, draws=3)
    problem = Problem(torch.from_numpy(task.data)[None], Identity(task.shape), outcome_noise())
    draws = partial(TileDraws, origin=(0, 0), window=(64, 80))
    direct = restore(problem, Local(), DDNM(steps=5), num_samples=3, chunk=1, seed=0, file=7, draws=draws)
    assert np.allclose(outcome.canvas.mean.read(), direct.mean.numpy(), atol=1e-5)
    assert outcome.nfe == direct.nfe == 5
    assert outcome.data_fit == pytest.approx(float(direct.residual().square().mean().sqrt()), rel=1e-4)


def outcome_noise():
    from operators.noise import Gaussian

    return Gaussian(0.02)


def test_the_mean_of_denoising_takes_one_call(tmp_path):
    task = Denoise(photograph(rows=slice(0, 64), columns=slice(0, 80)), Identity)
    outcome = run(
        task, 0.1, Local(), None, draws=1, seed=0, file=0, device=torch.device("cpu"), tile=512, spool=tmp_path
    )
    assert (outcome.nfe, outcome.draws) == (1, 0)
    assert np.allclose(
        outcome.canvas.mean.read(), Local()(torch.from_numpy(task.data)[None], 0.1)[0].numpy(), atol=1e-6
    )


# measurements


@pytest.mark.parametrize("spec", ["identity", "mask:0.7", "blur:gaussian:1.0", "blur:motion:7,30", "downsample:3"])
def test_a_measurement_is_explained_by_its_truth(spec):
    x, sigma = photograph(), 0.05
    measured = measure(x, parse_spec(spec), sigma, seed=0, file=0)
    known = parse_spec(spec)
    if known.verb == "inpaint":
        assert measured.missing.mean() == pytest.approx(0.7, abs=0.01)
        assert not measured.data[:, measured.missing].any()
        residual = (measured.data - x)[:, ~measured.missing]
    elif known.verb == "upscale":
        truth = torch.from_numpy(measured.truth)[None]
        residual = (torch.from_numpy(measured.data)[None] - Downsample(truth.shape[1:], 3)(truth))[..., 4:-4, 4:-4]
    elif known.verb == "deblur":
        kernel = kernels.parse(known.options["kernel"])
        operator = Blur(kernel, x.shape, "valid")
        (kh, kw), (top, left) = kernel.shape, ((n - 1 - n // 2) for n in kernel.shape)
        y = measured.data[:, top : top + x.shape[1] - kh + 1, left : left + x.shape[2] - kw + 1]
        residual = torch.from_numpy(y)[None] - operator(torch.from_numpy(x)[None])
    else:
        residual = measured.data - x
    assert float(residual.std()) == pytest.approx(sigma, rel=0.05)
    again = measure(x, parse_spec(spec), sigma, seed=0, file=0)
    assert np.array_equal(measured.data, again.data)
    assert not np.array_equal(measured.data, measure(x, parse_spec(spec), sigma, seed=1, file=0).data)


@pytest.mark.parametrize("spec", ["", "blurr:gaussian:2", "mask:1.5", "mask:x", "downsample:5", "blur:gaussian:x"])
def test_operators_that_cannot_be_read_are_refused(spec):
    with pytest.raises(ValueError):
        parse_spec(spec)


# noise level


@pytest.mark.parametrize("name", ["astronaut", "camera", "chelsea", "brick"])
@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
def test_the_noise_level_is_found(name, sigma):
    x = photograph(name, slice(None), slice(None))
    rng = np.random.default_rng(0)
    noisy = (x + sigma * rng.standard_normal(x.shape)).astype(np.float32)
    assert estimate_noise(noisy) == pytest.approx(sigma, rel=0.08)
    stored = np.round(np.clip(noisy, 0, 1) * 255) / 255
    assert estimate_noise(stored, limits=(0, 1)) == pytest.approx(sigma, rel=0.1)
    holes = np.ones(x.shape[1:], bool)
    holes[::40] = holes[60:120, 50:200] = False
    ruined = np.where(holes, noisy, 0)
    assert estimate_noise(ruined, holes) == pytest.approx(sigma, rel=0.1)
    dots = rng.random(x.shape[1:]) > 0.7
    assert estimate_noise(np.where(dots, noisy, 0), dots) == pytest.approx(sigma, rel=0.25)


def test_a_blurred_picture_hides_no_noise_and_a_clean_one_has_little():
    x = photograph("camera", slice(None), slice(None))
    blurred = measure(x, parse_spec("blur:gaussian:2.0"), 0.01, 0, 0).data
    assert estimate_noise(blurred) == pytest.approx(0.01, rel=0.05)
    assert estimate_noise(x) < 0.005


def test_too_few_pixels_give_no_estimate():
    assert estimate_noise(np.zeros((1, 3, 3), np.float32)) is None
    assert estimate_noise(photograph(), np.zeros((230, 270), bool)) is None


def test_draws_of_the_library_are_untouched():
    assert torch.equal(Draws(0, (3,), 1).normal((4,), LIKE), Draws(0, (2, 3), 1).normal((4,), LIKE)[1:])

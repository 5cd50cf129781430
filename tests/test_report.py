"""The panel shows the pixels it was given, its colours can be read back as numbers; the std map states its scale."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data as pictures

from restore.report import nice_ceiling, panel, std_map


def shown(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def patches(canvas: np.ndarray, wanted: np.ndarray) -> list[tuple[int, int]]:
    """Where the `(H, W, 3)` picture stands on the canvas, pixel for pixel: (row, column) of its corner."""
    height, width = wanted.shape[:2]
    corners = np.argwhere((canvas[: 1 - height or None, : 1 - width or None] == wanted[0, 0]).all(-1))
    return [(int(r), int(c)) for r, c in corners if np.array_equal(canvas[r : r + height, c : c + width], wanted)]


def test_pictures_stand_on_the_panel_pixel_for_pixel(tmp_path: Path) -> None:
    colour = pictures.astronaut()[100:500, 50:510]
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    panel(
        tmp_path / "panel.png",
        [("input\n70 % missing", np.moveaxis(colour, -1, 0) / 255), ("mean of the samples", grey[None] / 255)],
    )
    canvas = shown(tmp_path / "panel.png")
    (top, left), (top2, left2) = patches(canvas, colour)[0], patches(canvas, np.stack([grey] * 3, -1))[0]
    assert top == top2 and left2 >= left + 460
    titles = canvas[: top - 1]
    assert (titles[:, :left2].min() < 100) and (titles[:, left2:].min() < 100)  # ink above each of them


def test_maps_share_one_scale_that_can_be_read_back(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 0.2, 400), (300, 1))
    panel(tmp_path / "panel.png", [("std", ramp), ("error", ramp / 2), ("picture", np.zeros((1, 300, 400)))])
    canvas = shown(tmp_path / "panel.png").astype(int)
    rows = np.flatnonzero((canvas.reshape(len(canvas), -1).std(1) > 20) & (canvas.min((1, 2)) < 8))
    first, second = canvas[rows[150], 24:424], canvas[rows[150], 24 + 424 : 424 + 424]
    assert np.abs(np.interp(np.arange(400) / 2, np.arange(400), first[:, 0]) - second[:, 0]).max() <= 3
    lightness = first @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -1.5).all() and lightness[0] < 5 and lightness[-1] > 235


@pytest.mark.parametrize(("shape", "largest"), [((3, 1, 1), 700), ((3, 3000, 4000), 800), ((1, 40, 6000), 1700)])
def test_any_size_gives_a_panel_of_readable_size(tmp_path: Path, shape: tuple[int, int, int], largest: int) -> None:
    panel(tmp_path / "panel.png", [("a title of many words " * 9, np.full(shape, 0.5, np.float32))])
    height, width = shown(tmp_path / "panel.png").shape[:2]
    assert 240 <= width <= largest and height <= largest


def test_many_pictures_are_broken_into_rows(tmp_path: Path) -> None:
    panel(tmp_path / "panel.png", [(f"sample {i}", np.full((1, 256, 256), i / 10)) for i in range(9)])
    height, width = shown(tmp_path / "panel.png").shape[:2]
    assert width <= 2400 and height > 2 * 512


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    for pictures_, words in (
        ([], "at least one"),
        ([("std", np.zeros((2, 8, 8)))], r"'std' has shape \(2, 8, 8\)"),
        ([("std", np.full((8, 8), np.nan))], "'std' has values that are NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            panel(tmp_path / "panel.png", pictures_)
    with pytest.raises(ValueError, match=r"\.png or \.tif, got 'std.jpg'"):
        std_map(tmp_path / "std.jpg", np.ones((8, 8)))
    assert not list(tmp_path.iterdir())


def test_std_map_keeps_the_numbers(tmp_path: Path) -> None:
    std = np.random.default_rng(0).uniform(0, 0.037, (3, 20, 30))
    combined = np.sqrt((std**2).mean(0))
    words = std_map(tmp_path / "std.png", std)
    scale = re.search(r"white \(65535\) is ([0-9.]+)", words)
    assert scale and "standard deviation" in words
    with Image.open(tmp_path / "std.png") as image:
        assert image.mode.startswith("I;16")
        np.testing.assert_allclose(np.asarray(image) / 65535 * float(scale[1]), combined, atol=1e-6)
    std_map(tmp_path / "std.tif", std)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "std.tif"), combined.astype(np.float32))


def test_nice_ceiling() -> None:
    for value, wanted in ((0, 1), (1, 1), (0.1, 0.1), (0.031, 0.04), (9.5, 10), (0.0123, 0.015), (0.3, 0.3)):
        assert nice_ceiling(value) == wanted

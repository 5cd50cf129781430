"""What a person looks at after a run: a labelled panel of pictures and maps, and the standard deviations as a file.

Drawn with Pillow alone. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .files import atomic_write
from .modalities.image import FORMATS, Picture, write_picture

# Nine points of matplotlib's "inferno" (Smith and van der Walt 2015, CC0): lightness grows evenly from black to yellow.
_INFERNO = np.array([
    (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
    (249, 201, 50), (252, 255, 164),
])  # fmt: skip
_PAPER, _INK, _PALE_INK = (255, 255, 255), (30, 30, 30), (110, 110, 110)
# In pixels: side of a square tile of the same area, bounds on the width of a tile, width of the panel; smaller things.
_TILE, _NARROWEST, _BROADEST, _WIDEST = 540, 240, 1600, 2400
_GAP, _FONT, _LINE, _BAR = 24, 18, 24, 14

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def panel(path: str | Path, pictures: Sequence[tuple[str, np.ndarray]]) -> None:
    """Write pictures and maps side by side, each under its title, as one PNG.

    Large pictures are averaged down, small ones are enlarged by repeating pixels. All pictures share the range [0, 1],
    or that of the first where it goes far outside. All maps share one colour scale from 0, so that a standard deviation
    and an error can be compared by eye; its numbers stand under each map.

    Args:
        path: where to write.
        pictures: titles (lines after the first are printed pale) with arrays: `(1 or 3, H, W)` is a picture, `(H, W)` a
            map of values >= 0.

    Raises:
        ValueError: no picture, an array of another shape, or values that are not finite.
        OutputError: the place cannot be written to.
    """
    if not pictures:
        raise ValueError("a panel needs at least one picture")
    for title, array in pictures:
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] not in (1, 3)) or array.size == 0:
            raise ValueError(f"{title!r} has shape {array.shape}; wanted (1 or 3, H, W), or (H, W) for a map")
        if not np.isfinite(array).all():
            raise ValueError(f"{title!r} has values that are NaN or infinite")
    low, high = _window([a for _, a in pictures if a.ndim == 3])
    top = nice_ceiling(max((float(np.quantile(a, 0.995)) for _, a in pictures if a.ndim == 2), default=1.0))
    height, width = max((a.shape[-2:] for _, a in pictures), key=max)
    scale = min(_TILE / math.sqrt(height * width), _BROADEST / width)
    scale = math.floor(scale) if scale > 1 else scale  # whole factors repeat every pixel equally often
    box = width * scale, height * scale
    tile_width, tile_height = max(_NARROWEST, round(box[0])), max(1, round(box[1]))
    font = ImageFont.load_default(_FONT)
    titles = [_wrapped(title, font, tile_width) for title, _ in pictures]
    # As few rows as fit the width, equally full; each only as high as its titles and scales need.
    rows = math.ceil(len(pictures) / max(1, (_WIDEST - _GAP) // (tile_width + _GAP)))
    columns = math.ceil(len(pictures) / rows)
    groups = [range(i, min(i + columns, len(pictures))) for i in range(0, len(pictures), columns)]
    heads = [_LINE * max(len(titles[i]) for i in group) + 4 for group in groups]
    feet = [_BAR + _LINE + 8 if any(pictures[i][1].ndim == 2 for i in group) else 0 for group in groups]
    size = _GAP + columns * (tile_width + _GAP), sum(heads) + sum(feet) + len(groups) * (tile_height + _GAP) + _GAP
    canvas = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(canvas)
    y = _GAP
    for group, head, foot in zip(groups, heads, feet, strict=True):
        for column, i in enumerate(group):
            x, array = _GAP + column * (tile_width + _GAP), pictures[i][1]
            for n, (text, pale) in enumerate(titles[i]):
                draw.text((x, y + n * _LINE), text, _PALE_INK if pale else _INK, font)
            shown = _fitted(_colours(array / top) if array.ndim == 2 else _levels(array, low, high), *box)
            canvas.paste(shown, (x + (tile_width - shown.width) // 2, y + head + (tile_height - shown.height) // 2))
            if array.ndim == 2:
                _bar(canvas, x, y + head + tile_height + 8, tile_width, top, bool(array.max() > top), font)
        y += head + tile_height + foot + _GAP
    with atomic_write(path) as temporary:
        canvas.save(temporary, format="PNG")


def std_map(path: str | Path, std: np.ndarray, what: str = "standard deviation") -> str:
    """Write `what` there is of each pixel as one grey picture; returns in words how to read it.

    Args:
        path: `.tif` keeps the numbers themselves as 32-bit float; `.png` holds them in 16 bits, scaled.
        std: `(C, H, W)` or `(H, W)`, >= 0, in the units of the picture; channels are combined as root mean square.
        what: posterior standard deviations, or a multiple of them.

    Raises:
        ValueError: another suffix. OutputError: the place cannot be written to.
    """
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind not in ("PNG", "TIFF"):
        raise ValueError(f"a map of standard deviations is written as .png or .tif, got {Path(path).name!r}")
    grey = np.sqrt(np.mean(np.square(std, dtype=np.float64), axis=0)) if std.ndim == 3 else std
    scale = 1.0 if kind == "TIFF" else nice_ceiling(float(grey.max()))
    data = (grey / scale)[None].astype(np.float32)
    write_picture(path, data, Picture(Path(path), data, None, kind, "float32" if kind == "TIFF" else "uint16"))
    units = "in the units of the picture (its values run from 0 to 1)"
    if kind == "TIFF":
        return f"{Path(path).name}: {what} of each pixel, {units}"
    return f"{Path(path).name}: {what} of each pixel, {units}; black is 0, white (65535) is {scale:g}"


def nice_ceiling(value: float) -> float:
    """The least of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten that is >= `value`; 1 for a `value` of 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(f"{power * next((m for m in (1, 1.5, 2, 3, 4, 5, 6, 8) if m * power >= value * (1 - 1e-9)), 10):.6g}")


def _window(pictures: list[np.ndarray]) -> tuple[float, float]:
    """The values shown as black and white: 0 and 1, unless the first picture is plainly in other units."""
    if not pictures:
        return 0.0, 1.0
    low, high = (float(q) for q in np.quantile(pictures[0], (0.005, 0.995)))
    return (0.0, 1.0) if low > -0.5 and 0.05 < high < 1.5 else (low, max(high, low + 1e-12))


def _levels(picture: np.ndarray, low: float, high: float) -> Image.Image:
    levels = np.rint(255 * np.clip((picture - low) / (high - low), 0, 1)).astype(np.uint8)
    return Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, -1))).convert(
        "RGB"
    )


def _colours(values: np.ndarray) -> Image.Image:
    """Values in [0, 1], `(H, W)`, as colours; anything above 1 has the last colour."""
    place = np.linspace(0, 1, len(_INFERNO))
    table = np.stack([np.interp(np.linspace(0, 1, 256), place, _INFERNO[:, c]) for c in range(3)], -1)
    return Image.fromarray(np.rint(table).astype(np.uint8)[np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)])


def _fitted(image: Image.Image, width: float, height: float) -> Image.Image:
    """`image` as large as fits: enlarged by repeating pixels (they stay visible), reduced by averaging."""
    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _wrapped(title: str, font: _Font, width: int) -> list[tuple[str, bool]]:
    """Lines of a title that are at most `width` pixels wide where words allow, each with whether it is printed pale."""
    lines: list[tuple[str, bool]] = []
    for n, part in enumerate(title.split("\n")):
        text = ""
        for word in part.split():
            longer = f"{text} {word}".strip()
            if text and font.getlength(longer) > width:
                lines.append((text, n > 0))
                longer = word
            text = longer
        lines.append((text, n > 0))
    return lines


def _bar(
    canvas: Image.Image,
    x: int,
    y: int,
    width: int,
    top: float,
    over: bool,
    font: _Font,
) -> None:
    """The colour scale with its numbers; a `+` where some values lie above it."""
    canvas.paste(_colours(np.tile(np.linspace(0, 1, width), (_BAR, 1))), (x, y))
    draw = ImageDraw.Draw(canvas)
    for part, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        text = f"{part * top:.3g}" + ("+" if over and part == 1 else "")
        draw.text((x + part * width, y + _BAR + 4), text, _PALE_INK, font, anchor)

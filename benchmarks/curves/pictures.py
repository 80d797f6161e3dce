"""Curves and samples as small PNG files, drawn without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from curves.curve import Curve

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 40, 48  # margins
INK, PALE = (40, 40, 40), (222, 222, 222)
COLOURS = [(31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14)]


def draw_curves(curves: Sequence[Curve], floor: float | None, title: str, path: Path) -> None:
    """Draw distance over images seen, the distance on a logarithmic axis; ``floor`` a dashed line."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    values = [point.distance for curve in curves for point in curve.points]
    plot = _Axes(
        longest=max(point.images_seen for curve in curves for point in curve.points) / 1000,
        low=min([*values, *([] if floor is None else [floor])]) / 1.3,
        high=max(values) * 1.3,
    )
    _frame(pen, plot, title)
    taken: list[float] = []
    if floor is not None:
        taken.append(_dashed(pen, plot.y(floor), "real test images"))
    for curve, colour in zip(curves, COLOURS, strict=False):
        line = [(plot.x(point.images_seen / 1000), plot.y(point.distance)) for point in curve.points]
        pen.line(line, fill=colour, width=2)
        for x, y in line:
            pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
        at = line[-1][1]
        while any(abs(at - other) < 15 for other in taken):  # names do not lie over each other
            at -= 1
        taken.append(at)
        pen.text((WIDTH - RIGHT + 8, at - 7), curve.title, fill=colour, font=_font(13))
    image.save(path)


class _Axes:
    """Where a value lies in the picture: images seen in thousands to the right, log of the distance upwards."""

    def __init__(self, longest: float, low: float, high: float) -> None:
        self.longest, self.low, self.high = longest, low, high

    def x(self, kimg: float) -> float:
        return LEFT + kimg / self.longest * (WIDTH - LEFT - RIGHT)

    def y(self, distance: float) -> float:
        share = (math.log(max(distance, self.low)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def levels(self) -> list[float]:
        """Return 1, 2, 5, 10, ... as far as they lie within."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [m * 10.0**k for k in powers for m in (1, 2, 5) if self.low <= m * 10.0**k <= self.high]

    def steps(self) -> list[float]:
        """Return five or so round numbers of images."""
        rough = self.longest / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough)
        return [k * step for k in range(int(self.longest / step) + 1)]


def _frame(pen: ImageDraw.ImageDraw, plot: _Axes, title: str) -> None:
    for level in plot.levels():
        y = plot.y(level)
        pen.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=PALE)
        pen.text((LEFT - 8, y), f"{level:g}", fill=INK, font=_font(12), anchor="rm")
    for step in plot.steps():
        x = plot.x(step)
        pen.line([(x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 4)], fill=INK)
        pen.text((x, HEIGHT - BOTTOM + 8), f"{step:g}", fill=INK, font=_font(12), anchor="ma")
    pen.line([(LEFT, TOP), (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], fill=INK)
    pen.text((LEFT, 12), title, fill=INK, font=_font(14))
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8), "thousand images seen", fill=INK, font=_font(12), anchor="ms")


def _dashed(pen: ImageDraw.ImageDraw, y: float, name: str) -> float:
    for x in range(LEFT, WIDTH - RIGHT, 8):
        pen.line([(x, y), (x + 4, y)], fill=INK)
    pen.text((WIDTH - RIGHT + 8, y - 7), name, fill=INK, font=_font(12))
    return y


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def draw_samples(rows: Mapping[str, Tensor], columns: int, path: Path, enlarge: int = 2) -> None:
    """Draw bytes (images, channels, height, width) of each title as a block under its name."""
    size = next(iter(rows.values())).shape[-1] * enlarge
    blocks = {title: math.ceil(len(x) / columns) for title, x in rows.items()}
    image = Image.new("RGB", (columns * size, sum(24 + n * size for n in blocks.values())), "white")
    pen = ImageDraw.Draw(image)
    top = 0
    for title, x in rows.items():
        pen.text((2, top + 4), title, fill=INK, font=_font(14))
        top += 24
        for n, one in enumerate(x):
            pixels = one.permute(1, 2, 0).cpu().numpy()
            tile = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
            place = (n % columns * size, top + n // columns * size)
            image.paste(tile.resize((size, size), Image.Resampling.NEAREST).convert("RGB"), place)
        top += blocks[title] * size
    image.save(path, optimize=True)

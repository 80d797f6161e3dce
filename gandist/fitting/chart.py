"""A chart with two panels of logarithmic axes, drawn with Pillow: loss over steps, and loss at the end over rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from gandist.fitting.sweep import Curve
from gandist.runtime.files import publish

SCALE = 3  # everything is drawn so much larger, then shrunk: smooth lines
WIDTH, HEIGHT = 1180, 460
TOP, BOTTOM = 46, 400
STEPS_PANEL = (70, 560)
RATES_PANEL = (790, 1150)
LEGEND, MOST_NAMED = 580, 15
INK, GRID, BEST = "#222222", "#dddddd", "#000000"

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One logarithmic axis: ``low`` to ``high`` on the page's ``start`` to ``stop``."""

    low: float
    high: float
    start: float
    stop: float

    def place(self, value: float) -> float:
        """Return where a value is; what lies outside is put on the edge."""
        value = min(max(value, self.low), self.high)
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Return powers of ten on the axis; where there are fewer than two, also their doubles and halves."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1,), (1, 2, 5)):
            found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            found = [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]
            if len(found) >= 2:
                break
        return found


def draw_chart(curves: Sequence[Curve], best: Curve | None, variance: float, title: str, path: Path) -> None:
    """Write the chart as a PNG.

    Args:
        curves: one for each learning rate; what is not finite is left out.
        best: the one that is drawn in bold.
        variance: loss of the mean image, drawn as a level.
        title: of the page.
        path: of the PNG.

    """
    page = _Page()
    finite = [loss for curve in curves for loss in curve.losses if math.isfinite(loss) and loss > 0] or [variance]
    low, high = min(finite), min(max(finite), 30 * max(variance, curves[0].losses[0]))
    losses = Axis(low / 1.3, high * 1.3, BOTTOM, TOP)
    steps = Axis(1, max(2, *(len(curve.losses) for curve in curves)), *STEPS_PANEL)
    rates = [curve.lr for curve in curves]
    lrs = Axis(min(rates) / 1.5, max(rates) * 1.5, *RATES_PANEL)
    page.text((STEPS_PANEL[0], 8), title, size=16)
    page.panel(steps, losses, "step", "mean squared error")
    page.panel(lrs, losses, "learning rate", "its mean over the last tenth of the steps")
    for panel in (steps, lrs):
        page.line([(panel.start, losses.place(variance)), (panel.stop, losses.place(variance))], "#888888", 1)
    page.text((lrs.stop, losses.place(variance) - 3), "the mean image", "#666666", anchor="rb")
    every = math.ceil(len(curves) / MOST_NAMED)
    named = [curve for number, curve in enumerate(curves) if number % every == 0 or curve is best]
    for number, curve in enumerate(curves):
        colour, bold = (BEST, 3.0) if curve is best else (_colour(number / max(1, len(curves) - 1)), 1.3)
        points = [(steps.place(step), losses.place(loss)) for step, loss in enumerate(curve.losses, 1) if loss > 0]
        page.line(points, colour, bold)
        if curve in named:
            y = 62 + 22 * named.index(curve)
            page.line([(LEGEND, y), (LEGEND + 22, y)], colour, bold)
            page.text((LEGEND + 30, y), _legend(curve, best), anchor="lm")
    ends = [(lrs.place(c.lr), losses.place(c.end)) for c in curves if c.state != "diverged"]
    page.line(ends, "#888888", 1.3)
    for number, curve in enumerate(curves):
        x = lrs.place(curve.lr)
        if curve.state == "diverged":
            page.text((x, losses.stop + 4), "x", _colour(1.0), anchor="mt")
        else:
            colour = BEST if curve is best else _colour(number / max(1, len(curves) - 1))
            page.dot((x, losses.place(curve.end)), 6 if curve is best else 4, colour)
    page.save(path)


def _legend(curve: Curve, best: Curve | None) -> str:
    if curve is best:
        return f"{curve.lr:.3g}  best"
    return f"{curve.lr:.3g}" if curve.state == "learns" else f"{curve.lr:.3g}  {curve.state}"


def _colour(share: float) -> str:
    """Return a colour from blue over violet and orange to red."""
    stops = [(38, 98, 180), (120, 80, 190), (226, 120, 30), (190, 20, 40)]
    place = share * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    mixed = [round(a + (b - a) * (place - first)) for a, b in zip(stops[first], stops[first + 1], strict=True)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


class _Page:
    """The page that is drawn on, in coordinates of the finished picture."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
        self._pen = ImageDraw.Draw(self._image)

    def panel(self, across: Axis, up: Axis, across_name: str, up_name: str) -> None:
        for value in across.ticks():
            x = across.place(value)
            self.line([(x, up.start), (x, up.stop)], GRID, 1)
            self.text((x, up.start + 6), f"{value:g}", anchor="mt")
        for value in up.ticks():
            y = up.place(value)
            self.line([(across.start, y), (across.stop, y)], GRID, 1)
            self.text((across.start - 6, y), f"{value:g}", anchor="rm")
        corners = [(across.start, up.stop), (across.start, up.start), (across.stop, up.start)]
        self.line(corners, INK, 1)
        self.text(((across.start + across.stop) / 2, up.start + 30), across_name, anchor="mt")
        self.text((across.start, up.stop - 6), up_name, anchor="lb", size=12)

    def line(self, points: Sequence[Point], colour: str, width: float) -> None:
        if len(points) > 1:
            scaled = [(x * SCALE, y * SCALE) for x, y in points]
            self._pen.line(scaled, fill=colour, width=round(width * SCALE), joint="curve")

    def dot(self, point: Point, radius: float, colour: str) -> None:
        (x, y), r = (point[0] * SCALE, point[1] * SCALE), radius * SCALE
        self._pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def text(self, point: Point, words: str, colour: str = INK, anchor: str = "lt", size: int = 13) -> None:
        font = ImageFont.load_default(size * SCALE)
        self._pen.text((point[0] * SCALE, point[1] * SCALE), words, fill=colour, font=font, anchor=anchor)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with publish(path) as partial:
            self._image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(partial, format="PNG", optimize=True)

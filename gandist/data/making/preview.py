"""A picture of a prepared set: some images of each class, a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLUMNS = 10
ROWS = 12

_SIDE_LIMIT_PX = 96
_SMALLEST_PX = 48
_MARGIN_PX = 120


class Preview:
    """Collects the first images of each class as they pass, and draws them."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = list(class_names[:ROWS])
        self._rows: list[list[NDArray[np.uint8]]] = [[] for _ in (self._names or range(ROWS))]

    def wants(self, label: int) -> bool:
        """Return whether an image of this class still has a place."""
        return any(len(row) < COLUMNS for row in self._rows_for(label))

    def add(self, label: int, pixels: NDArray[np.uint8]) -> None:
        """Take an image, uint8 of shape (height, width, channels)."""
        next(row for row in self._rows_for(label) if len(row) < COLUMNS).append(pixels)

    def _rows_for(self, label: int) -> list[list[NDArray[np.uint8]]]:
        return self._rows[label : label + 1] if self._names else self._rows

    def save(self, path: Path, resolution: int) -> None:
        """Write the picture as a PNG: class names at the left, small images enlarged without smoothing."""
        cell = min(_SIDE_LIMIT_PX, max(resolution, _SMALLEST_PX // resolution * resolution))
        margin = _MARGIN_PX if self._names else 0
        rows = [row for row in self._rows if row or self._names]
        sheet = Image.new("RGB", (margin + COLUMNS * cell, len(rows) * cell), (255, 255, 255))
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
        for number, row in enumerate(rows):
            if self._names:
                self._write_name(pen, font, self._names[number], number * cell + cell // 2)
            for column, pixels in enumerate(row):
                image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).convert("RGB")
                how = Image.Resampling.NEAREST if cell >= resolution else Image.Resampling.BOX
                sheet.paste(image.resize((cell, cell), how), (margin + column * cell, number * cell))
        sheet.save(path, "PNG")

    def _write_name(
        self, pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, name: str, middle: int
    ) -> None:
        text = "".join(letter if letter.isprintable() else "?" for letter in name)
        text = text.encode("utf-8", "replace").decode() if len(text) <= 16 else text[:15] + "\N{HORIZONTAL ELLIPSIS}"
        pen.text((6, middle), text, fill=(40, 40, 40), font=font, anchor="lm")

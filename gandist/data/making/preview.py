"""A picture of a prepared set: the first images of each class, a row for each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gandist.data.decode import Decoder
from gandist.data.shards.index import Index

PREVIEW_NAME = "preview.png"
COLUMNS = 10
ROWS = 12

_SIDE_LIMIT_PX = 96
_SMALLEST_PX = 48
_MARGIN_PX = 120


def draw_preview(index: Index, folder: Path) -> None:
    """Write the picture of a set beside its index: class names at the left, small images enlarged without smoothing."""
    resolution, names = index.resolution, index.class_names[:ROWS]
    cell = min(_SIDE_LIMIT_PX, max(resolution, _SMALLEST_PX // resolution * resolution))
    margin = _MARGIN_PX if names else 0
    rows = _rows(index)
    sheet = Image.new("RGB", (margin + COLUMNS * cell, len(rows) * cell), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, samples in enumerate(rows):
        if names:
            _write_name(pen, font, names[number], number * cell + cell // 2)
        for column, sample in enumerate(samples):
            pixels = _pixels(index, folder, sample)
            image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).convert("RGB")
            how = Image.Resampling.NEAREST if cell >= resolution else Image.Resampling.BOX
            sheet.paste(image.resize((cell, cell), how), (margin + column * cell, number * cell))
    sheet.save(folder / PREVIEW_NAME, "PNG")


def _rows(index: Index) -> list[list[int]]:
    """Return the samples to show: the first of each class, or simply the first where there are no classes."""
    if index.class_names:
        classes = range(min(ROWS, len(index.class_names)))
        return [np.flatnonzero(index.label == number)[:COLUMNS].tolist() for number in classes]
    first = list(range(min(index.samples, ROWS * COLUMNS)))
    return [first[at : at + COLUMNS] for at in range(0, len(first), COLUMNS)]


def _pixels(index: Index, folder: Path, sample: int) -> NDArray[np.uint8]:
    shard = int(np.searchsorted(np.cumsum(index.counts), sample, side="right"))
    with (folder / index.shards[shard].url).open("rb", buffering=0) as file:
        raw = os.pread(file.fileno(), int(index.size[sample]), int(index.offset[sample]))
    pixels = np.empty((index.resolution, index.resolution, index.channels), dtype=np.uint8)
    Decoder(index.resolution, index.channels).into(raw, pixels)
    return pixels


def _write_name(
    pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, name: str, middle: int
) -> None:
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    text = text.encode("utf-8", "replace").decode() if len(text) <= 16 else text[:15] + "\N{HORIZONTAL ELLIPSIS}"
    pen.text((6, middle), text, fill=(40, 40, 40), font=font, anchor="lm")

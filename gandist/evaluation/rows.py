"""One picture of several rows of images, each with a word at its left: the same latents, seen by different networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from gandist.runtime.files import publish

_GAP = 4
_FONT = 16


def save_rows(rows: Sequence[tuple[str, UInt8[Tensor, "images channels height width"]]], path: Path) -> None:
    """Write the rows as one PNG, small images enlarged by whole factors."""
    from PIL import Image, ImageDraw, ImageFont

    resolution = rows[0][1].shape[-1]
    factor = max(1, 64 // resolution)
    cell = resolution * factor + _GAP
    font = ImageFont.load_default(_FONT)
    left = round(max(font.getlength(label) for label, _ in rows)) + 3 * _GAP
    columns = max(len(images) for _, images in rows)
    picture = Image.new("RGB", (left + columns * cell, len(rows) * cell + _GAP), "white")
    pen = ImageDraw.Draw(picture)
    for line, (label, images) in enumerate(rows):
        top = _GAP + line * cell
        pen.text((left - 2 * _GAP, top + (cell - _GAP) // 2), label, fill="black", font=font, anchor="rm")
        for column, image in enumerate(images):
            pixels = image.permute(1, 2, 0).numpy()
            tile = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
            tile = tile.resize((resolution * factor, resolution * factor), Image.Resampling.NEAREST)
            picture.paste(tile, (left + column * cell, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as partial:
        picture.save(partial, format="PNG")

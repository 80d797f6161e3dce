"""Draw docs/augmentation.png: what each transform of gandist/adversarial/augment does to six digits.

.venv/bin/python docs/augmentation.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gandist.adversarial.augment import PRESETS, Ada, Augment, DiffAugment, InstanceNoise, Scheduled
from gandist.data.glyphs import draw
from gandist.models.noise import RowNoise

CPU = torch.device("cpu")
COUNT, SIZE, GAP, LABEL = 6, 64, 3, 165
OUT = Path(__file__).with_suffix(".png")


def ada(rates: dict[str, float], p: float = 1.0) -> Ada:
    """Return an ADA whose p stays."""
    return Ada(rates, Scheduled(lambda _: p, CPU), SIZE, 3, CPU)


def rows() -> dict[str, Augment | None]:
    """Return what is drawn, by the label of its row."""
    diff: dict[str, Augment | None] = {
        f"diff: {name}": DiffAugment([name]) for name in ("colour", "translation", "cutout")
    }
    single: dict[str, Augment | None] = {f"ada: {name}": ada({name: 1.0}) for name in PRESETS["bgcfnc"]}
    pipes: dict[str, Augment | None] = {f"ada: bgc, p {p}": ada(PRESETS["bgc"], p) for p in (0.2, 0.5, 0.8)}
    pipes |= {"ada: r3gan, p 0.55": ada(PRESETS["r3gan"], 0.55)}
    noise = {f"instance noise {sigma}": InstanceNoise(lambda _, s=sigma: s) for sigma in (0.1, 0.3)}
    return {"as they are": None, **diff, **pipes, **noise, **single}


def bytes_of(images: Tensor) -> np.ndarray:
    """Return images of [-1, 1] as arrays of height, width and channels."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def main() -> None:
    """Draw the rows in two columns, each with its label."""
    pixels, _ = draw(np.arange(10, 10 + COUNT), seed=0, resolution=SIZE, channels=3, classes=range(10))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    todo = rows()
    half = -(-len(todo) // 2)
    width = LABEL + COUNT * (SIZE + GAP)
    sheet = Image.new("RGB", (2 * width + 12, half * (SIZE + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for number, (label, augment) in enumerate(todo.items()):
        column, row = divmod(number, half)
        x, y = column * (width + 12), row * (SIZE + GAP)
        pen.text((x + 4, y + SIZE / 2 - 8), label.replace("_", " "), fill="black", font=font)
        noise = RowNoise(torch.Generator().manual_seed(5), COUNT, 0, COUNT)
        seen = images if augment is None else augment(images, noise, 0)
        for k, picture in enumerate(bytes_of(seen)):
            sheet.paste(Image.fromarray(picture), (x + LABEL + k * (SIZE + GAP), y))
    sheet.quantize(256).save(OUT, optimize=True)


if __name__ == "__main__":
    main()

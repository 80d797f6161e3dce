"""Small pictures, folders of them, and sets opened for reading."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from gandist.config import DataConfig
from gandist.data.image_set import ImageSet
from gandist.data.images import open_images


def picture(size: tuple[int, int] = (8, 8), channels: int = 3, seed: int = 0) -> Image.Image:
    """A random image; no two seeds give the same."""
    width, height = size
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values[..., 0] if channels == 1 else values)


def fill(folder: Path, counts: dict[str, int], size: tuple[int, int] = (8, 8)) -> Path:
    """Write class folders with so many PNG files each; no two images are equal."""
    seed = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(size, seed=seed).save(folder / name / f"{number:04d}.png")
            seed += 1
    return folder


def png(seed: int = 0, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    picture(size, seed=seed).save(buffer, "PNG")
    return buffer.getvalue()


def tar_of(path: Path, members: dict[str, bytes], **options: object) -> Path:
    """Write a tar file with Python's own module."""
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def opened(shards: Path | str, seed: int = 0, **knobs: object) -> ImageSet:
    """Open a set with knobs that suit small ones."""
    return open_images(
        DataConfig.model_validate({"shards": str(shards), "resolution": 8, "chunk": 4, "block": 16, **knobs}), seed
    )


def everything_under(folder: Path) -> dict[str, bytes]:
    """The files under a folder, by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

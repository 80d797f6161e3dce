"""Made images of realistic size, stored in every form that the pipelines read."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gandist.data.decode import Images, npy_header
from gandist.data.shards.index import Index, Shard
from gandist.data.shards.index_files import write_index

CLASSES = 10
SHARDS = 4


@dataclass(frozen=True)
class Kind:
    """Images of one size in one format; ``images`` of them make a set."""

    resolution: int
    ending: str
    images: int

    def __str__(self) -> str:
        """Return the words by which tables call it."""
        return f"{self.resolution} px {'JPEG' if self.ending == 'jpg' else self.ending}"


@dataclass(frozen=True)
class Stored:
    """A set of images: their bytes, and where they lie as shards, in folders of classes, and in a zip file."""

    kind: Kind
    raws: Sequence[bytes]
    shards: Path
    folder: Path
    zipped: Path


def scene(resolution: int, seed: int) -> Images:
    """Return shapes on a smooth ground, with the noise of a camera."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[0:resolution, 0:resolution].astype(np.float32) / resolution
    value = np.stack(
        [100 + 70 * np.sin(chance.uniform(2, 9) * x + chance.uniform(2, 9) * y) for _ in range(3)], axis=-1
    )
    for _ in range(6):
        left, top, radius = chance.uniform(0, 1, 3)
        inside = (x - left) ** 2 + (y - top) ** 2 < (0.05 + 0.2 * radius) ** 2
        value[inside] = chance.uniform(0, 255, 3)
    value += chance.normal(0, 15, (resolution, resolution, 1))
    pixels: Images = value.clip(0, 255).astype(np.uint8)
    return pixels


def encode(pixels: Images, ending: str) -> bytes:
    """Return an image file: JPEG of quality 92, or raw."""
    if ending == "npy":
        return npy_header(len(pixels), 3) + pixels.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def store(kind: Kind, folder: Path) -> Stored:
    """Make a set and write it in every form."""
    raws = [encode(scene(kind.resolution, number), kind.ending) for number in range(kind.images)]
    found = Stored(kind, raws, folder / "shards", folder / "folder", folder / "images.zip")
    _write_shards(found)
    with zipfile.ZipFile(found.zipped, "w", zipfile.ZIP_STORED) as archive:
        for number, raw in enumerate(raws):
            archive.writestr(f"{number:06d}.{kind.ending}", raw)
    for number, raw in enumerate(raws):
        path = found.folder / str(number % CLASSES) / f"{number:06d}.{kind.ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    return found


def _write_shards(stored: Stored) -> None:
    stored.shards.mkdir(parents=True)
    places, shards = list[tuple[int, int, int]](), list[Shard]()
    for part in np.array_split(np.arange(len(stored.raws)), SHARDS):
        path = stored.shards / f"shard-{len(shards):06d}.tar"
        with tarfile.open(path, "w") as archive:
            for number in part.tolist():
                for ending, raw in ((stored.kind.ending, stored.raws[number]), ("cls", b"%d" % (number % CLASSES))):
                    info = tarfile.TarInfo(f"{number:06d}.{ending}")
                    info.size = len(raw)
                    archive.addfile(info, io.BytesIO(raw))
        with tarfile.open(path) as archive:
            members = [m for m in archive.getmembers() if not m.name.endswith(".cls")]
        places += [(member.offset_data, member.size, int(member.name[:6]) % CLASSES) for member in members]
        shards.append(Shard(path.name, path.stat().st_size, len(part), None))
    offset, size, label = np.array(places).T
    index = Index(
        shards=tuple(shards),
        resolution=stored.kind.resolution,
        channels=3,
        image_ext=(stored.kind.ending,),
        class_names=tuple(map(str, range(CLASSES))),
        source="made",
        label_source="cls",
        transform={},
        rejected=(),
        offset=offset.astype(np.int64),
        size=size.astype(np.int32),
        label=label.astype(np.int32),
    )
    write_index(index, stored.shards)

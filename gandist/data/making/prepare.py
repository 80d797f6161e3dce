"""Turns a source of images into indexed WebDataset shards of square images, the same bytes on every run."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gandist.data.decode import npy_header
from gandist.data.making.pixels import EXTENSIONS, Format, Recipe, Resample
from gandist.data.making.publish import check_free, published
from gandist.data.making.sources import Source, open_source
from gandist.data.making.write import SHOWN, Limits, Written, printable, write_shards
from gandist.data.order import Ints, perm
from gandist.data.shards.index import Index
from gandist.data.shards.index_files import write_index
from gandist.data.shards.scan import scan
from gandist.errors import ConfigError, DataError, MachineError, did_you_mean

PREVIEW_NAME = "preview.png"
NPY_UP_TO_PX = 64
"""Up to here raw pixels take hardly more room than compressed ones inside a tar, and need no decoding."""

_TAR_BLOCK = 512


@dataclass(frozen=True)
class Summary:
    """What :func:`prepare` did; ``str()`` of it is for people."""

    destination: Path
    source: str
    images: int
    shards: int
    resolution: int
    channels: int
    class_counts: Mapping[str, int]
    rejected: tuple[tuple[str, str], ...]
    skipped: Mapping[str, int]
    bytes: int
    seconds: float

    @property
    def next_command(self) -> str:
        """The command that trains on the new shards."""
        knobs = f"--data.shards {shlex.quote(str(self.destination))} --data.resolution {self.resolution}"
        return f"gandist train {knobs} --data.channels {self.channels}"

    def __str__(self) -> str:
        """Describe the result in a few lines."""
        size = f"{self.bytes / 2**20:.1f} MiB"
        lines = [
            f"{self.destination}: {self.images} images of {self.resolution}x{self.resolution}x{self.channels} "
            f"in {self.shards} shard(s), {size}, from {self.source}, in {self.seconds:.1f} s"
        ]
        if self.class_counts:
            shown = [f"{printable(name)} {count}" for name, count in list(self.class_counts.items())[:20]]
            more = [f"and {len(self.class_counts) - 20} more"] if len(self.class_counts) > 20 else []
            lines.append(f"  {len(self.class_counts)} classes: {', '.join(shown + more)}")
        else:
            lines.append("  no classes (loose images)")
        if self.rejected:
            lines.append(f"  {len(self.rejected)} rejected:")
            lines += [f"    {name}: {reason}" for name, reason in self.rejected[:SHOWN]]
        if self.skipped:
            lines.append(
                "  skipped: " + ", ".join(f"{count} {printable(what)}" for what, count in self.skipped.items())
            )
        lines += [f"  have a look: {self.destination / PREVIEW_NAME}", f"  next: {self.next_command}"]
        return "\n".join(lines)


def prepare(
    source: str,
    destination: Path,
    *,
    resolution: int = 32,
    channels: Literal[1, 3] = 3,
    fit: Literal["auto", "crop", "pad"] = "auto",
    resample: Resample = "lanczos",
    format: Literal["auto", "npy", "png", "webp", "jpeg"] = "auto",
    quality: int = 95,
    allow_upscale: bool = False,
    classes: Sequence[str] | None = None,
    max_images: int | None = None,
    max_rejected: int = 0,
    shard_images: int = 8192,
    shard_mib: int = 256,
    seed: int = 0,
    workers: int | None = None,
    download: bool = False,
) -> Summary:
    """Make a folder of indexed shards from a source of images; it appears whole, or not at all.

    Args:
        source: a folder of class folders or of images, a zip or tar of one (several with commas), mnist:DIR,
            fashion-mnist:DIR, torchvision:NAME:DIR, or glyphs.
        destination: the folder of shards to make.
        resolution: height and width of every image, in pixels.
        channels: 3 for RGB, 1 for greyscale.
        fit: crop the largest square in the middle, pad with black, or what suits the source.
        resample: lanczos, or box, which averages areas.
        format: of the images in the shards; auto is raw npy up to 64 px and png above.
        quality: of jpeg, 1 to 100.
        allow_upscale: accept and enlarge images that are smaller than the resolution.
        classes: take these classes only, by name.
        max_images: take at most so many, chosen by the shuffle.
        max_rejected: go on without unusable images, up to so many.
        shard_images: images in a shard.
        shard_mib: size at which a shard ends, in MiB.
        seed: of the shuffle.
        workers: processes that decode; all cores when None, 0 for none.
        download: let torchvision fetch its files.

    Raises:
        ConfigError: an option is out of its range.
        DataError: the source or some of its images cannot be used; the destination exists.
        MachineError: there is no space left, or a worker died.

    """
    begin = time.monotonic()
    destination = destination.expanduser()
    _check_options(resolution, quality, max_images, max_rejected, shard_images, shard_mib, workers)
    check_free(destination)
    _check_apart(source, destination)
    with published(destination) as scratch:
        unpacked = scratch / ".source"
        unpacked.mkdir()
        found = open_source(source, unpacked, resolution=resolution, channels=channels, seed=seed, download=download)
        recipe = Recipe(
            resolution, channels, found.fit if fit == "auto" else fit, resample,
            _default_format(resolution) if format == "auto" else format, quality, allow_upscale,
        )  # fmt: skip
        chosen, labels, class_names = _choose(found, classes, max_images, seed)
        _check_space(scratch, len(chosen), recipe)
        written = write_shards(
            found, chosen, labels, class_names, recipe, scratch,
            limits=Limits(max_rejected, shard_images, shard_mib << 20),
            workers=len(os.sched_getaffinity(0)) if workers is None else workers,
        )  # fmt: skip
        shutil.rmtree(unpacked)
        index = _index(found, recipe, class_names, written, scratch)
        write_index(index, scratch)
        written.preview.save(scratch / PREVIEW_NAME, resolution)
        size = sum(file.stat().st_size for file in scratch.iterdir())
    return Summary(
        destination, found.title, index.samples, len(index.shards), resolution, channels,
        dict(zip(index.class_names, index.class_counts, strict=True)),
        tuple((name, why.reason) for name, why in written.rejected), found.skipped, size, time.monotonic() - begin,
    )  # fmt: skip


def _default_format(resolution: int) -> Format:
    return "npy" if resolution <= NPY_UP_TO_PX else "png"


def _check_options(
    resolution: int, quality: int, max_images: int | None, max_rejected: int, shard_images: int, shard_mib: int,
    workers: int | None,
) -> None:  # fmt: skip
    ranges = (
        ("resolution", resolution, 1, 4096), ("quality", quality, 1, 100), ("max-images", max_images, 1, None),
        ("max-rejected", max_rejected, 0, None), ("shard-images", shard_images, 1, None),
        ("shard-mib", shard_mib, 1, 1 << 20), ("workers", workers, 0, 1024),
    )  # fmt: skip
    for name, value, low, high in ranges:
        if value is not None and (value < low or (high is not None and value > high)):
            raise ConfigError(f"--{name} {value}: must be at least {low}" + (f" and at most {high}." if high else "."))


def _check_apart(source: str, destination: Path) -> None:
    folder = Path(source).expanduser()
    if folder.is_dir() and destination.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{destination}: lies inside the source {folder}, which must not change. Write elsewhere.")


def _choose(
    source: Source, classes: Sequence[str] | None, max_images: int | None, seed: int
) -> tuple[Ints, Ints, tuple[str, ...]]:
    """Return the images to take, in the order to write them, their labels, and the names of the classes."""
    names, labels = source.class_names, source.labels
    if classes is not None:
        if not names:
            raise DataError(f"{source.title}: its images have no classes, so --classes cannot choose among them.")
        for name in classes:
            if name not in names:
                known = ", ".join(printable(name) for name in names[:20])
                raise DataError(f"{source.title}: has no class {name!r}; it has {known}.{did_you_mean(name, names)}")
        taken = [number for number, name in enumerate(names) if name in classes]
        renumbered = np.full(len(names) + 1, -1, dtype=np.int64)  # the last entry is for label -1
        renumbered[taken] = np.arange(len(taken))
        labels, names = renumbered[labels], tuple(names[number] for number in taken)
    candidates = np.arange(len(labels)) if classes is None else np.flatnonzero(labels >= 0)
    if not len(candidates):
        raise DataError(f"{source.title}: holds no image of the classes {', '.join(classes or ())}.")
    chosen = candidates[perm(len(candidates), seed)][:max_images]
    return chosen, labels[chosen], names


def _check_space(folder: Path, images: int, recipe: Recipe) -> None:
    """Refuse to start what cannot fit, where the size is known beforehand."""
    if recipe.format != "npy":
        return
    image = len(npy_header(recipe.resolution, recipe.channels)) + recipe.resolution**2 * recipe.channels
    needed = images * (-(-image // _TAR_BLOCK) + 3) * _TAR_BLOCK  # two headers and a label beside the image
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MachineError(
            f"{folder.parent}: has {free / 2**30:.2f} GiB free, the shards need about {needed / 2**30:.2f} GiB. "
            "Free some space, write to another disk, or take fewer images with --max-images."
        )


def _index(source: Source, recipe: Recipe, class_names: tuple[str, ...], written: Written, folder: Path) -> Index:
    """Walk through the written shards, which verifies them, and return their index."""
    extension = EXTENSIONS[recipe.format]
    scans = [scan(folder, name, image_ext=extension, classes=len(class_names)) for name in written.shards]
    transform = {key: value for key, value in asdict(recipe).items() if key not in ("resolution", "channels")}
    if recipe.format != "jpeg":
        del transform["quality"]
    return Index(
        shards=tuple(each.shard for each in scans),
        resolution=recipe.resolution,
        channels=recipe.channels,
        image_ext=(extension,),
        class_names=class_names,
        source=source.title,
        label_source="cls" if class_names else None,
        transform={**transform, "transparency": "white"},
        rejected=tuple({"name": printable(name), "why": why.reason} for name, why in written.rejected),
        offset=np.concatenate([each.offset for each in scans]),
        size=np.concatenate([each.size for each in scans]).astype(np.int32),
        label=np.concatenate([each.label for each in scans]).astype(np.int32),
    )

"""Turns a source of images into indexed WebDataset shards of square images, the same bytes on every run."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
from PIL import features

import gandist
from gandist.data.decode import npy_header
from gandist.data.making import plan
from gandist.data.making.ledger import Ledger, OtherWorkError, load
from gandist.data.making.pixels import EXTENSIONS, Format, Recipe, Resample
from gandist.data.making.preview import draw_preview
from gandist.data.making.publish import Scratch, check_free, published
from gandist.data.making.source import Source, identity_of
from gandist.data.making.sources import open_source
from gandist.data.making.summary import Summary
from gandist.data.making.write import Limits, Part, printable, write_shards
from gandist.data.shards.index import Index
from gandist.data.shards.index_files import write_index
from gandist.data.shards.scan import LABEL_FIELD
from gandist.errors import ConfigError, DataError, MachineError

NPY_UP_TO_PX = 64
"""Up to here raw pixels take hardly more room than compressed ones inside a tar, and need no decoding."""

_TAR_BLOCK = 512


def prepare(
    source: str,
    destination: Path,
    *,
    resolution: int = 32,
    channels: Literal[1, 3] = 3,
    fit: Literal["auto", "crop", "pad", "reject"] = "auto",
    resample: Resample = "lanczos",
    format: Literal["auto", "npy", "png", "webp", "jpeg"] = "auto",
    quality: int = 95,
    allow_upscale: bool = False,
    label: str = "auto",
    image: str | None = None,
    classes: Sequence[str] | None = None,
    max_images: int | None = None,
    validation: float | None = None,
    max_rejected: int = 0,
    shard_images: int = 8192,
    shard_mib: int = 256,
    seed: int = 0,
    workers: int | None = None,
    download: bool = False,
) -> Summary:
    """Make a folder of indexed shards from a source of images; it appears whole, or not at all.

    Interrupted, killed or out of space, it goes on from the last finished shard when the same command is given again.

    Args:
        source: a folder of class folders or of images, a zip or tar of one (several with commas), WebDataset shards
            like DIR/{000..099}.tar, mnist:DIR, fashion-mnist:DIR, torchvision:NAME:DIR, or glyphs.
        destination: the folder of shards to make.
        resolution: height and width of every image, in pixels.
        channels: 3 for RGB, 1 for greyscale.
        fit: crop the largest square in the middle, pad with black, reject what is not square, or what suits the source.
        resample: lanczos, or box, which averages areas.
        format: of the images in the shards; auto is raw npy up to 64 px and png above; webp is lossless.
        quality: of jpeg, 1 to 100.
        allow_upscale: accept and enlarge images that are smaller than the resolution.
        label: where the classes are: folder, none, or in the samples of shards cls or json:KEY; auto takes cls where
            shards have it, and class folders elsewhere.
        image: the field that holds the image, for shards whose samples have several.
        classes: take these classes only, by name.
        max_images: take at most so many, chosen by the shuffle.
        validation: hold out so many images, or this share of them, in DESTINATION/validation; the others are in
            DESTINATION/train.
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
    plan.check_validation(validation)
    check_free(destination)
    _check_apart(source, destination)
    limits = Limits(max_rejected, shard_images, shard_mib << 20)
    with published(destination) as scratch:
        shutil.rmtree(scratch.unpacked, ignore_errors=True)
        scratch.unpacked.mkdir()
        found = open_source(
            source, scratch.unpacked, resolution=resolution, channels=channels, seed=seed, download=download,
            label=label, image=image,
        )  # fmt: skip
        recipe = Recipe(
            resolution, channels, found.fit if fit == "auto" else fit, resample,
            default_format(resolution) if format == "auto" else format, quality, allow_upscale,
        )  # fmt: skip
        chosen, labels, class_names = plan.choose(found, classes, max_images, seed)
        parts = plan.divide(chosen, labels, validation)
        ledger = _begun(scratch, _fingerprint(found, recipe, parts, class_names, limits), parts)
        _check_space(scratch.folder, len(chosen) - ledger.consumed, recipe)
        written = write_shards(
            found, parts, recipe, scratch.set, ledger, scratch.ledger,
            limits=limits, workers=len(os.sched_getaffinity(0)) if workers is None else workers,
        )  # fmt: skip
        _describe(found, recipe, class_names, parts, written, scratch.set)
        size = sum(file.stat().st_size for file in scratch.set.rglob("*") if file.is_file())
    return _summary(destination, found, recipe, class_names, parts, written, ledger, size, time.monotonic() - begin)


def default_format(resolution: int) -> Format:
    """Return the format that suits a resolution."""
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


# --- going on from where an earlier run ended ----------------------------------------------------------------


def _fingerprint(
    source: Source, recipe: Recipe, parts: Sequence[Part], class_names: Sequence[str], limits: Limits
) -> str:
    """Return a digest of all that decides about the bytes, the encoders included."""
    encoders = [features.version(name) for name in ("jpg", "zlib", "webp")]
    plans = [
        (part.name, *(sha256(each.tobytes()).hexdigest() for each in (part.numbers, part.labels))) for part in parts
    ]
    return identity_of(
        gandist.__version__, PIL.__version__, encoders, source.title, source.identity, asdict(recipe),
        list(class_names), plans, limits.shard_images, limits.shard_bytes,
    )  # fmt: skip


def _begun(scratch: Scratch, fingerprint: str, parts: Sequence[Part]) -> Ledger:
    """Return what an earlier run of the same work has finished; what cannot be gone on with is removed."""
    scratch.set.mkdir(exist_ok=True)
    labels = np.concatenate([part.labels for part in parts])
    try:
        ledger = load(scratch.ledger, fingerprint, scratch.set, labels)
    except OtherWorkError as why:
        print(f"gandist: begins anew; what an earlier prepare left cannot be gone on with: {why}.", file=sys.stderr)
        scratch.ledger.unlink()
        ledger = Ledger(fingerprint)
    scratch.begun = True
    if not ledger.shards:
        shutil.rmtree(scratch.set)
        scratch.set.mkdir()
    finished = {scratch.set / done.part / done.shard.url for done in ledger.shards}
    for path in scratch.set.rglob("*"):
        if path.is_file() and path not in finished:
            path.unlink()  # it is half written
    if ledger.shards:
        print(f"gandist: goes on from {ledger.images} images that are there already.", file=sys.stderr)
    return ledger


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


# --- what was made -------------------------------------------------------------------------------------------


def _describe(
    source: Source, recipe: Recipe, class_names: tuple[str, ...], parts: Sequence[Part], written: Ledger, folder: Path
) -> None:
    """Write the index of each part, and a picture beside it."""
    first = 0
    for part in parts:
        last = first + len(part.numbers)
        rejected = [
            {"name": printable(source.name(int(part.numbers[position - first]))), "why": why.reason}
            for position, why in written.rejected
            if first <= position < last
        ]
        title = f"{source.title}, {part.name} part" if part.name else source.title
        index = _index(title, recipe, class_names, written, part.name, rejected)
        write_index(index, folder / part.name)
        draw_preview(index, folder / part.name)
        first = last


def _index(
    title: str, recipe: Recipe, class_names: tuple[str, ...], written: Ledger, part: str,
    rejected: Sequence[dict[str, str]],
) -> Index:  # fmt: skip
    shards = [done for done in written.shards if done.part == part]
    transform: dict[str, Any] = asdict(recipe)
    for name in ("resolution", "channels") + (() if recipe.format == "jpeg" else ("quality",)):
        del transform[name]
    return Index(
        shards=tuple(done.shard for done in shards),
        resolution=recipe.resolution,
        channels=recipe.channels,
        image_ext=(EXTENSIONS[recipe.format],),
        class_names=class_names,
        source=title,
        label_source=LABEL_FIELD if class_names else None,
        transform={**transform, "transparency": "white"},
        rejected=tuple(rejected),
        offset=np.concatenate([done.offset for done in shards]),
        size=np.concatenate([done.size for done in shards]).astype(np.int32),
        label=np.concatenate([done.label for done in shards]).astype(np.int32),
    )


def _summary(
    destination: Path, source: Source, recipe: Recipe, class_names: tuple[str, ...], parts: Sequence[Part],
    written: Ledger, before: Ledger, size: int, seconds: float,
) -> Summary:  # fmt: skip
    numbers = np.concatenate([part.numbers for part in parts])
    labels = np.concatenate([done.label for done in written.shards])
    counts = np.bincount(labels[labels >= 0], minlength=len(class_names)).tolist()
    in_part = Counter({part.name: 0 for part in parts if part.name})
    for done in written.shards:
        in_part[done.part] += done.shard.samples
    return Summary(
        destination=destination,
        source=source.title,
        images=written.images,
        shards=len(written.shards),
        resolution=recipe.resolution,
        channels=recipe.channels,
        class_counts=dict(zip(class_names, counts, strict=True)),
        rejected=tuple((printable(source.name(int(numbers[at]))), why.reason) for at, why in written.rejected),
        reasons=Counter(why.kind for _, why in written.rejected),
        skipped=source.skipped,
        widths=written.widths,
        heights=written.heights,
        bytes=size,
        seconds=seconds,
        parts=dict(in_part) if parts[0].name else {},
        continued=before.images,
    )

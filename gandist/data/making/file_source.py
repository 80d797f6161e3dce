"""Folders, archives and shards as a source: what lies there, and the class of each image."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gandist.data.making.files import ARCHIVE_ENDINGS, IMAGE_ENDINGS, Found, archive_members, folder_files, is_archive
from gandist.data.making.samples import find_samples, holds_labels, names_beside, numbered
from gandist.data.making.source import Source
from gandist.data.order import Ints
from gandist.data.remote.address import expand, is_remote
from gandist.data.shards.index_files import INDEX_NAME
from gandist.data.shards.labels import LabelError, class_names_of, folder_of
from gandist.errors import DataError, did_you_mean

PREFIXES = ("mnist", "fashion-mnist", "torchvision", "glyphs")
"""What a source begins with, before a colon, that is neither a folder nor a file."""

_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation", "eval"}


def file_source(text: str, scratch: Path, label: str, image: str | None) -> Source:
    """Return the images in a folder, in archives, or in WebDataset shards.

    Args:
        text: a folder or archives, with commas, braces or stars between and in them.
        scratch: an existing folder for compressed archives to be unpacked to, one file each.
        label: ``auto``, or where the class of an image is, as :mod:`gandist.data.shards.labels` has it.
        image: the field of a sample that holds the image; whichever is one when None.

    Raises:
        DataError: there is no such source, it is damaged, or it holds no images.

    """
    paths = _paths(text)
    if len(paths) == 1 and paths[0].is_dir():
        archives, others = _archives_in(paths[0])
        if not archives:
            return _classified(f"folder {paths[0].resolve().name}", paths[0], folder_files(paths[0]), label)
        paths = archives
    else:
        others = Counter[str]()
    if wrong := [path for path in paths if path.is_dir() or not is_archive(path)]:
        what = "a folder among several sources" if wrong[0].is_dir() else "a file of a kind that is not understood"
        raise DataError(
            f"{wrong[0]}: is {what}. Give one folder, or one or more archives ({', '.join(ARCHIVE_ENDINGS)})."
        )
    title = _title(paths)
    in_samples = _sample_label(paths, label, image)
    if in_samples is not None:
        return _sampled(title, paths, in_samples, image, others)
    found = Found(skipped=others)
    for number, path in enumerate(paths):
        found.extend(_without_wrapper(archive_members(path, scratch / f"{number}.tar"), folders_below=True))
    return _classified(title, paths[0], found, label)


def _paths(text: str) -> list[Path]:
    """Return what ``text`` names; it is taken literally where it exists."""
    if Path(text).expanduser().exists():
        return [Path(text).expanduser()]
    if is_remote(text):
        raise DataError(
            f"{text}: images are prepared from folders and files of this machine. Copy it here; or, if these are "
            "shards of images of one size, index them where they lie: gandist index"
        )
    paths: list[Path] = []
    for part in filter(None, (part.strip() for part in re.split(r",(?![^{}]*\})", text))):
        path = Path(part).expanduser()
        if not path.exists() and (glob.has_magic(part) or "{" in part):
            paths += map(Path, expand([part]))
        elif path.exists():
            paths.append(path)
        else:
            raise DataError(_no_such_source(path))
    if not paths:
        raise DataError(_no_such_source(Path(text)))
    return paths


def _archives_in(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Return the archives of a folder that holds no images itself, and what lies beside them, counted by kind."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if (folder / INDEX_NAME).is_file() and (shards := [path for path in inside if path.suffix == ".tar"]):
        return shards, Counter()
    archives = [path for path in inside if is_archive(path)]
    others = [path for path in inside if path not in set(archives)]
    if any(path.is_dir() or path.suffix.lower() in IMAGE_ENDINGS for path in others):
        return [], Counter()
    return archives, Counter(f"{path.suffix} files" if path.suffix else "files without an ending" for path in others)


def _title(paths: Sequence[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} to {names[-1]} ({len(names)} archives)"


def _sample_label(paths: Sequence[Path], label: str, image: str | None) -> str | None:
    """Return where the labels in the samples of shards are; None for archives that are read file by file."""
    if not all(path.suffix.lower() == ".tar" for path in paths):
        if label not in ("auto", "folder", "none"):
            raise DataError(f"{paths[0]}: --label {label} is for the samples in .tar shards, which this is not.")
        return None
    indexed = (paths[0].parent / INDEX_NAME).is_file()
    if label == "auto":
        return "cls" if holds_labels(paths[0]) else "none" if indexed or image is not None else None
    if label in ("folder", "none"):
        return label if indexed or image is not None else None
    return label


def _sampled(title: str, paths: Sequence[Path], label: str, image: str | None, others: Counter[str]) -> Source:
    found, labels = find_samples(paths, label, image)
    found.skipped += others
    if not found.paths:
        raise DataError(_nothing_found(paths[0], found.skipped))
    names, numbers = numbered(labels, str(paths[0]))
    return _source(title, names_beside(paths, names) if label == "cls" else names, numbers, found)


def _source(title: str, names: tuple[str, ...], labels: Ints, found: Found) -> Source:
    payloads, shown = found.payloads, found.shown
    return Source(
        title, found.identity(), names, labels, lambda i: shown[i], lambda i: payloads[i], skipped=dict(found.skipped)
    )


def _no_such_source(path: Path) -> str:
    prefix, colon, _ = str(path).partition(":")
    hint = did_you_mean(prefix, PREFIXES) if colon else ""
    if not hint and path.parent.is_dir():
        hint = did_you_mean(path.name, (sibling.name for sibling in path.parent.iterdir()))
    return f"{path}: there is no such file or folder.{hint}"


def _without_wrapper(found: Found, *, folders_below: bool) -> Found:
    """Drop leading folders that all images share, while there are folders below them if that is asked for."""
    paths = found.paths
    depth = 0
    while paths and len({path[depth] for path in paths if len(path) > depth + 1 + folders_below}) == 1:
        if any(len(path) <= depth + 1 + folders_below for path in paths):
            break
        depth += 1
    found.paths = [path[depth:] for path in paths]
    return found


def _classified(title: str, where: Path, found: Found, label: str) -> Source:
    """Make the first folder of each image its class; images without folders are unlabelled."""
    if not found.paths:
        raise DataError(_nothing_found(where, found.skipped))
    if label == "none":
        return _source(title, (), np.full(len(found.paths), -1, dtype=np.int64), found)
    if label == "folder":
        return _by_last_folder(title, where, found)
    if label != "auto":
        raise DataError(f"{where}: --label {label} is for the samples in .tar shards, which this is not.")
    found = _without_wrapper(found, folders_below=False)
    loose = [path for path in found.paths if len(path) == 1]
    if loose and len(loose) < len(found.paths):
        inside = next("/".join(path) for path in found.paths if len(path) > 1)
        raise DataError(
            f"{where}: {len(loose)} images lie loose beside class folders ({', '.join(path[0] for path in loose[:3])}; "
            f"but {inside}). Move them into a folder of their class, or away; or move all images into one folder."
        )
    names = [] if loose else class_names_of(path[0] for path in found.paths)
    if names and {name.lower() for name in names} <= _SPLIT_NAMES:
        raise DataError(
            f"{where}: its folders {', '.join(names)} are parts of a data set, not classes. "
            f"Give the part that you want, such as {where / names[-1]}."
        )
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([number[path[0]] if names else -1 for path in found.paths], dtype=np.int64)
    return _source(title, tuple(names), labels, found)


def _by_last_folder(title: str, where: Path, found: Found) -> Source:
    try:
        folders = [folder_of("/".join(path)) for path in found.paths]
    except LabelError as error:
        loose = next("/".join(path) for path in found.paths if len(path) == 1)
        raise DataError(f"{where}: --label folder: {loose} {error}.") from None
    names = class_names_of(folders)
    number = {name: label for label, name in enumerate(names)}
    return _source(title, tuple(names), np.array([number[name] for name in folders], dtype=np.int64), found)


def _nothing_found(where: Path, skipped: Counter[str]) -> str:
    if any("idx" in reason for reason in skipped) or (where.is_dir() and any(where.glob("*idx3-ubyte*"))):
        return f"{where}: holds idx files. Say what they are: mnist:{where} or fashion-mnist:{where}"
    inside = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common(5)) or "nothing at all"
    return f"{where}: holds no image (.jpg .png .webp .bmp .gif .tif .pgm .ppm). It holds {inside}."

"""The two files of an index, beside its shards.

``index.json`` lists the shards and describes the images; ``index.safetensors`` holds, for each sample in the order of
the shards, ``offset`` (int64, of the image's bytes in its shard), ``size`` (int32, in bytes) and ``label`` (int32, -1
for none). Nothing in either is code, and no path in them may leave their folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast, get_args

import numpy as np

from gandist.data.image_set import Numbers
from gandist.data.shards.columns import ARRAYS, Arrays, Columns, parse, pieces
from gandist.data.shards.index import Index, Shard
from gandist.data.shards.store import check_size
from gandist.errors import DataError
from gandist.latents.space import LatentSpace

INDEX_NAME = "index.json"
TENSORS_NAME = "index.safetensors"
FORMAT, VERSION = "gandist-index", 1
IMAGE_EXTENSIONS = ("npy", "png", "webp", "jpg", "jpeg")
_SHARDS_LOOKED_AT = 1000

_REMEDY = "Prepare the set again, or copy both index files again from where they came."

T = TypeVar("T")


# --- writing -----------------------------------------------------------------------------------------------


def write_index(index: Index, folder: Path) -> None:
    """Write both files into ``folder``; each appears whole or not at all, the description last."""
    description, tensors = _serialised(index)
    _write_whole(folder / TENSORS_NAME, tensors)
    _write_whole(folder / INDEX_NAME, description)


def _serialised(index: Index) -> tuple[bytes, bytes]:
    """Return the bytes of ``index.json`` and ``index.safetensors``."""
    from safetensors.numpy import save

    tensors = save({name: getattr(index, name).astype(kind) for name, kind in ARRAYS.items()})
    content = {
        "format": FORMAT,
        "version": VERSION,
        "source": index.source,
        "resolution": index.resolution,
        "channels": index.channels,
        "transform": dict(index.transform),
        "image_ext": list(index.image_ext),
        "label": index.label_source,
        "class_names": list(index.class_names),
        "classes": {str(number): count for number, count in enumerate(index.class_counts)},
        "samples": index.samples,
        "shards": [asdict(shard) for shard in index.shards],
        "rejected": [dict(entry) for entry in index.rejected],
        **({"numbers": index.numbers} if index.numbers != "uint8" else {}),
        **({"latents": index.latents.as_json()} if index.latents is not None else {}),
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
    }
    return json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", errors="backslashreplace"), tensors


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


# --- reading -----------------------------------------------------------------------------------------------


def read_index(folder: Path, *, shards_elsewhere: bool = False) -> Index:
    """Read and check the index in ``folder``, and that its shards are there too, if they should (:func:`check_shards`).

    Raises:
        DataError: the folder, the index or a shard is missing or damaged; the message says what to do.

    """
    path = folder / INDEX_NAME
    try:
        description = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(_missing(folder)) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    index = load_index(description, folder / TENSORS_NAME, str(path))
    if not shards_elsewhere:
        check_shards(folder, index)
    return index


def load_index(description: bytes, tensors: bytes | Path, where: str) -> Index:
    """Return the index in the contents of ``index.json`` and ``index.safetensors``, all of it checked.

    Args:
        description: the bytes of ``index.json``.
        tensors: those of ``index.safetensors``; a file is mapped, not copied, and must stay as it is.
        where: the first file's name in messages.

    Raises:
        DataError: either is damaged, or they do not fit each other.

    """
    content = _parse_description(description, where)
    columns, arrays = _load_arrays(tensors, _get(content, "tensors_sha256", str, where))
    index = Index(
        shards=tuple(_shard(entry, where) for entry in _get(content, "shards", list, where)),
        resolution=_get(content, "resolution", int, where),
        channels=_get(content, "channels", int, where),
        image_ext=_strings(content, "image_ext", where),
        class_names=_strings(content, "class_names", where),
        source=_get(content, "source", str, where),
        label_source=_get(content, "label", str, where) if content.get("label") is not None else None,
        transform=_get(content, "transform", dict, where),
        rejected=tuple(_get(content, "rejected", list, where)),
        **arrays._asdict(),
        mapped=columns,
        numbers=_numbers(content, where),
        latents=_latents(content, where),
    )
    _check(index, _get(content, "samples", int, where), where)
    return index


def announced_tensors(description: bytes, where: str) -> tuple[int, str]:
    """Return the size of the arrays that the contents of ``index.json`` announce, in bytes, and their SHA-256."""
    content = _parse_description(description, where)
    sample_bytes = sum(np.dtype(kind).itemsize for kind in ARRAYS.values())
    return _get(content, "samples", int, where) * sample_bytes, _get(content, "tensors_sha256", str, where)


def check_shards(folder: Path, index: Index) -> None:
    """Raise :class:`DataError` unless the shards lie below ``folder`` with their recorded sizes.

    At most a thousand of them, spread evenly, are looked at: on a file system shared by many nodes a hundred thousand
    looks take minutes. Every shard is looked at again when it is opened.
    """
    for shard in index.shards[:: -(-len(index.shards) // _SHARDS_LOOKED_AT)]:
        _check_shard(folder / shard.url, shard)


def _parse_description(description: bytes, where: str) -> Mapping[str, Any]:
    try:
        content = json.loads(description)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is damaged, not JSON ({error}). {_REMEDY}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{where}: is not an index of gandist. {_REMEDY}")
    if content.get("version") != VERSION:
        raise DataError(
            f"{where}: has version {content.get('version')!r}, this gandist reads version {VERSION}. "
            "Update gandist, or prepare the set again."
        )
    return content


def _missing(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: there is no such folder. Make it with: gandist prepare SOURCE {folder}"
    if not folder.is_dir():
        return f"{folder}: is a file. Give the folder that 'gandist prepare' wrote."
    if any(folder.glob("*.tar")):
        return (
            f"{folder}: holds tar files but no {INDEX_NAME}. Copy the index too, or make it, for exact order and "
            f"exact resume: gandist index {folder}; or stream the files as they are: --data.shards '{folder}/*.tar'"
        )
    return f"{folder}: holds no {INDEX_NAME}, so it is no prepared set. Make one with: gandist prepare {folder} SHARDS"


def _load_arrays(tensors: bytes | Path, sha256: str) -> tuple[Columns | None, Arrays]:
    where = str(tensors) if isinstance(tensors, Path) else TENSORS_NAME
    columns, raw = Columns.mapped(tensors) if isinstance(tensors, Path) else (None, tensors)
    if (found := hashlib.sha256(raw).hexdigest()) != sha256:
        raise DataError(
            f"{where}: is damaged or belongs to another index: its SHA-256 is {found[:16]}..., "
            f"{INDEX_NAME} says {sha256[:16]}.... {_REMEDY}"
        )
    return columns, columns.arrays() if columns else parse(raw, where)


def _get(content: Mapping[str, Any], name: str, kind: type[T], where: str) -> T:
    value = content.get(name)
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or cast("int", value) < 0)):
        raise DataError(f"{where}: {name!r} is {str(value)[:60]!r} where a {kind.__name__} belongs. {_REMEDY}")
    return value


def _strings(content: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = _get(content, name, list, where)
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise DataError(f"{where}: {name!r} contains {wrong[0]!r}, which is no text. {_REMEDY}")
    return tuple(values)


def _numbers(content: Mapping[str, Any], where: str) -> Numbers:
    found = content.get("numbers", "uint8")
    if found not in get_args(Numbers):
        raise DataError(
            f"{where}: 'numbers' is {str(found)[:60]!r}, not one of {', '.join(get_args(Numbers))}. {_REMEDY}"
        )
    return cast("Numbers", found)


def _latents(content: Mapping[str, Any], where: str) -> LatentSpace | None:
    if "latents" not in content:
        return None
    try:
        return LatentSpace.read(content["latents"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: 'latents' is damaged ({error}). {_REMEDY}") from None


def _shard(entry: object, where: str) -> Shard:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: 'shards' contains {entry!r}. {_REMEDY}")
    url = _get(entry, "url", str, where)
    parts = PurePosixPath(url).parts
    if not parts or url.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in url:
        raise DataError(f"{where}: shard {url!r} is not a path inside the index's folder; an index may name no other.")
    digest = entry.get("sha256")
    if digest is not None:
        digest = _get(entry, "sha256", str, where)
    return Shard(url, _get(entry, "bytes", int, where), _get(entry, "samples", int, where), digest)


def _check(index: Index, samples: int, where: str) -> None:
    """Check that the parts of an index fit each other."""

    def check(good: bool, what: str) -> None:
        if not good:
            raise DataError(f"{where}: {what}. {_REMEDY}")

    lengths = {name: len(getattr(index, name)) for name in ARRAYS}
    if index.numbers == "uint8":
        check(index.channels in (1, 3), f"'channels' is {index.channels}, not 1 or 3")
    check(index.image_ext == ("npy",) or index.numbers == "uint8", f"{index.numbers} images are npy, not others")
    channels = index.channels if index.latents is None else 2 * index.latents.channels
    check(index.channels == channels >= 1, f"'channels' is {index.channels}, which are no moments of its latents")
    check(index.resolution >= 1, f"'resolution' is {index.resolution}")
    check(bool(index.image_ext) and set(index.image_ext) <= set(IMAGE_EXTENSIONS), f"'image_ext' is {index.image_ext}")
    check(samples >= 1, "it lists no samples")
    check(int(index.counts.sum()) == samples, f"its shards hold {int(index.counts.sum())} samples, it says {samples}")
    check(set(lengths.values()) == {samples}, f"it says {samples} samples, its arrays have {lengths}")
    labels = len(index.class_names)
    low, high = int(index.label.min()), int(index.label.max())
    check(low >= -1 and high < labels, f"labels run from {low} to {high}, with {labels} classes")
    lengths_of, ends = np.array([shard.bytes for shard in index.shards]), np.cumsum(index.counts)
    for piece in pieces(samples):
        held = np.clip(ends, piece.start, piece.stop)  # of the piece's samples, up to the end of each shard
        length = np.repeat(lengths_of, held - np.concatenate([[piece.start], held[:-1]]))
        offset, size = index.offset[piece], index.size[piece]
        inside = (offset >= 0) & (size > 0) & (offset <= length - size)
        check(bool(inside.all()), f"sample {piece.start + int(np.argmin(inside))} lies outside its shard")


def _check_shard(path: Path, shard: Shard) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{path}: the index lists this shard, but it cannot be read ({error.strerror}). "
            "Copy the whole folder again, or prepare the set again."
        ) from None
    check_size(path, size, shard.bytes)

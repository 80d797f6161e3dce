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
from typing import Any, Literal, TypeVar, cast

import numpy as np

from gandist.data.shards.index import ARRAYS, Index, Shard
from gandist.data.shards.store import check_size
from gandist.errors import DataError

INDEX_NAME = "index.json"
TENSORS_NAME = "index.safetensors"
FORMAT, VERSION = "gandist-index", 1
IMAGE_EXTENSIONS = ("npy", "png", "webp", "jpg", "jpeg")

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


def read_index(folder: Path) -> Index:
    """Read and check the index in ``folder``, and that every shard is there with its recorded size.

    Raises:
        DataError: the folder, the index or a shard is missing or damaged; the message says what to do.

    """
    path = folder / INDEX_NAME
    content = _read_description(folder, path)
    tensors = _read_tensors(folder / TENSORS_NAME, _get(content, "tensors_sha256", str, path))
    index = Index(
        shards=tuple(_shard(entry, path) for entry in _get(content, "shards", list, path)),
        resolution=_get(content, "resolution", int, path),
        channels=cast("Literal[1, 3]", _get(content, "channels", int, path)),
        image_ext=_strings(content, "image_ext", path),
        class_names=_strings(content, "class_names", path),
        source=_get(content, "source", str, path),
        label_source=_get(content, "label", str, path) if content.get("label") is not None else None,
        transform=_get(content, "transform", dict, path),
        rejected=tuple(_get(content, "rejected", list, path)),
        **tensors,
    )
    _check(index, _get(content, "samples", int, path), path)
    for shard in index.shards:
        _check_shard(folder / shard.url, shard)
    return index


def _read_description(folder: Path, path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(_missing(folder)) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged, not JSON ({error}). {_REMEDY}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: is not an index of gandist. {_REMEDY}")
    if content.get("version") != VERSION:
        raise DataError(
            f"{path}: has version {content.get('version')!r}, this gandist reads version {VERSION}. "
            "Update gandist, or prepare the set again."
        )
    return content


def _missing(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: there is no such folder. Make it with: gandist prepare SOURCE {folder}"
    if not folder.is_dir():
        return f"{folder}: is a file. Give the folder that 'gandist prepare' wrote."
    if any(folder.glob("*.tar")):
        return f"{folder}: holds tar files but no {INDEX_NAME}. Copy the index too, or make it with 'gandist index'."
    return f"{folder}: holds no {INDEX_NAME}, so it is no prepared set. Make one with: gandist prepare {folder} SHARDS"


def _read_tensors(path: Path, sha256: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). {_REMEDY}") from error
    if (found := hashlib.sha256(raw).hexdigest()) != sha256:
        raise DataError(
            f"{path}: is damaged or belongs to another index: its SHA-256 is {found[:16]}..., "
            f"{INDEX_NAME} says {sha256[:16]}.... {_REMEDY}"
        )
    try:
        tensors = load(raw)
    except SafetensorError as error:
        raise DataError(f"{path}: is not a safetensors file ({error}). {_REMEDY}") from None
    for name, kind in ARRAYS.items():
        if name not in tensors:
            raise DataError(f"{path}: lacks the array {name!r}. {_REMEDY}")
        if tensors[name].dtype != kind or tensors[name].ndim != 1:
            raise DataError(f"{path}: {name!r} is {tensors[name].dtype} of shape {tensors[name].shape}. {_REMEDY}")
    return {name: tensors[name] for name in ARRAYS}


def _get(content: Mapping[str, Any], name: str, kind: type[T], path: Path) -> T:
    value = content.get(name)
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or cast("int", value) < 0)):
        raise DataError(f"{path}: {name!r} is {str(value)[:60]!r} where a {kind.__name__} belongs. {_REMEDY}")
    return value


def _strings(content: Mapping[str, Any], name: str, path: Path) -> tuple[str, ...]:
    values = _get(content, name, list, path)
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise DataError(f"{path}: {name!r} contains {wrong[0]!r}, which is no text. {_REMEDY}")
    return tuple(values)


def _shard(entry: object, path: Path) -> Shard:
    if not isinstance(entry, dict):
        raise DataError(f"{path}: 'shards' contains {entry!r}. {_REMEDY}")
    url = _get(entry, "url", str, path)
    parts = PurePosixPath(url).parts
    if not parts or url.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in url:
        raise DataError(f"{path}: shard {url!r} is not a path inside the index's folder; an index may name no other.")
    digest = entry.get("sha256")
    if digest is not None:
        digest = _get(entry, "sha256", str, path)
    return Shard(url, _get(entry, "bytes", int, path), _get(entry, "samples", int, path), digest)


def _check(index: Index, samples: int, path: Path) -> None:
    """Check that the parts of an index fit each other."""

    def check(good: bool, what: str) -> None:
        if not good:
            raise DataError(f"{path}: {what}. {_REMEDY}")

    lengths = {name: len(getattr(index, name)) for name in ARRAYS}
    check(index.channels in (1, 3), f"'channels' is {index.channels}, not 1 or 3")
    check(index.resolution >= 1, f"'resolution' is {index.resolution}")
    check(bool(index.image_ext) and set(index.image_ext) <= set(IMAGE_EXTENSIONS), f"'image_ext' is {index.image_ext}")
    check(samples >= 1, "it lists no samples")
    check(int(index.counts.sum()) == samples, f"its shards hold {int(index.counts.sum())} samples, it says {samples}")
    check(set(lengths.values()) == {samples}, f"it says {samples} samples, its arrays have {lengths}")
    labels = len(index.class_names)
    low, high = int(index.label.min()), int(index.label.max())
    check(low >= -1 and high < labels, f"labels run from {low} to {high}, with {labels} classes")
    ends = np.repeat([shard.bytes for shard in index.shards], index.counts)
    inside = (index.offset >= 0) & (index.size > 0) & (index.offset <= ends - index.size)
    check(bool(inside.all()), f"sample {int(np.argmin(inside))} lies outside its shard")


def _check_shard(path: Path, shard: Shard) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{path}: the index lists this shard, but it cannot be read ({error.strerror}). "
            "Copy the whole folder again, or prepare the set again."
        ) from None
    check_size(path, size, shard.bytes)

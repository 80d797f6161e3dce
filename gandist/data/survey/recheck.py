"""Checks shards against the index that lies beside them: is every one still what was indexed?"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from gandist.data.shards.index import Index, Shard
from gandist.data.shards.index_files import INDEX_NAME, TENSORS_NAME, load_index
from gandist.errors import DataError

_SHOWN = 20


def is_indexed(folder: Path) -> bool:
    """Return whether an index lies in ``folder``."""
    return (folder / INDEX_NAME).is_file()


def recheck(folder: Path, workers: int | None = None) -> str:
    """Compare sizes and digests of all shards with the index in ``folder``; return what to tell a person.

    Args:
        folder: it holds the index and the shards.
        workers: threads that read, one for each core when None; hashing leaves the interpreter to others.

    Raises:
        DataError: the index is damaged, or shards are missing or changed; the message names them.

    """
    index = _index(folder)
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        verdicts = pool.map(partial(_changed, folder), index.shards)
        progress = tqdm(verdicts, desc="shards", total=len(index.shards), unit="", disable=None, leave=False)
        changed = [verdict for verdict in progress if verdict is not None]
    if changed:
        more = [f"  and {len(changed) - _SHOWN} more"] if len(changed) > _SHOWN else []
        lines = [f"{folder}: {len(changed)} of {len(index.shards)} shard(s) are not what was indexed:"]
        lines += [f"  {line}" for line in changed[:_SHOWN]] + more
        raise DataError(
            "\n".join([*lines, f"Restore them, or remove {INDEX_NAME} and {TENSORS_NAME} and index again."])
        )
    undigested = sum(shard.sha256 is None for shard in index.shards)
    checked = f"all {len(index.shards)} shard(s) are what was indexed: sizes and SHA-256 agree"
    if undigested:
        checked = (
            f"all {len(index.shards)} shard(s) have their sizes; {undigested} have no digest in the index to check"
        )
    return f"{folder}: {checked}; {index.samples} images"


def _index(folder: Path) -> Index:
    path = folder / INDEX_NAME
    try:
        description = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return load_index(description, folder / TENSORS_NAME, str(path))


def _changed(folder: Path, shard: Shard) -> str | None:
    """Return how a shard differs from what was indexed, or None."""
    path = folder / shard.url
    try:
        with path.open("rb", buffering=0) as file:
            size = path.stat().st_size
            if size != shard.bytes:
                return f"{path}: has {size} bytes, the index recorded {shard.bytes}"
            if shard.sha256 is None:
                return None
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror or error})"
    if found != shard.sha256:
        return f"{path}: its SHA-256 is {found[:16]}..., the index recorded {shard.sha256[:16]}..."
    return None

"""Writes the index of shards that are there already: whole, once, and never over another one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gandist.data.shards.index import Index
from gandist.data.shards.index_files import INDEX_NAME, TENSORS_NAME, write_index
from gandist.errors import DataError


def publish(index: Index, out: Path) -> bool:
    """Write an index into ``out``; return False if the same one is there already.

    Raises:
        DataError: another index is there, or the folder cannot be written.

    """
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".index-") as scratch:
            write_index(index, Path(scratch))
            if any((out / name).exists() for name in (INDEX_NAME, TENSORS_NAME)):
                if all(_same(Path(scratch, name), out / name) for name in (INDEX_NAME, TENSORS_NAME)):
                    return False
                raise DataError(
                    f"{out}: holds another index, and nothing is ever overwritten. Write elsewhere with --out FOLDER, "
                    f"check the shards against it with 'gandist index {out} --verify', or remove {INDEX_NAME} and "
                    f"{TENSORS_NAME} there first."
                )
            for name in (TENSORS_NAME, INDEX_NAME):  # the description last: without it there is no index
                Path(scratch, name).rename(out / name)
    except OSError as error:
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise DataError(f"{out}: the index cannot be written ({error.strerror or error}).") from error
    return True


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()

"""Small shards of somebody else, and what is said of them."""

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pictures import everything_under, png, tar_of

from gandist.data.survey.report import Summary
from gandist.data.survey.survey import survey
from gandist.errors import DataError


def shards_of(folder: Path, *shards: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for number, members in enumerate(shards):
        tar_of(folder / f"{number:03d}.tar", members, format=tarfile.USTAR_FORMAT)
    return folder


def labelled(count: int, first: int = 0) -> dict[str, bytes]:
    return {
        name: body
        for n in range(first, first + count)
        for name, body in ((f"{n:04d}.png", png(n)), (f"{n:04d}.cls", b"%d" % (n % 3)))
    }


def surveyed(folder: Path, **options: Any) -> Summary:
    return survey([str(folder)], **{"workers": 0, **options})


def refused(folder: Path, kind: type[Exception] = DataError, **options: Any) -> str:
    """Return the words of the refusal; nothing may be written."""
    before = everything_under(folder.parent)
    with pytest.raises(kind) as caught:
        surveyed(folder, **options)
    assert everything_under(folder.parent) == before
    return str(caught.value)


def damage(folder: Path) -> None:
    """One shard is cut, one has a changed header, one is sound."""
    os.truncate(folder / "000.tar", 4700)
    raw = bytearray((folder / "002.tar").read_bytes())
    raw[4096 + 100] ^= 1
    (folder / "002.tar").write_bytes(raw)

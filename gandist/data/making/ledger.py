"""What a prepare has finished, written down after every shard, so that the same command can go on from there."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gandist.data.making.pixels import Rejected
from gandist.data.making.shard_file import ShardFile, digest_on_disk
from gandist.data.order import Ints
from gandist.data.shards.index import Shard
from gandist.data.shards.scan import LABEL_FIELD, samples
from gandist.errors import DataError


@dataclass(frozen=True, eq=False)
class Finished:
    """A shard that is whole and on the disk; the path in ``shard`` is relative to the folder of its part."""

    part: str
    shard: Shard
    offset: Ints
    size: Ints
    label: Ints


@dataclass
class Ledger:
    """How far the work is.

    Attributes:
        fingerprint: of the options and the source; another one is other work.
        shards: what is finished, in the order of writing.
        consumed: images of the plan that the finished shards have used up, the rejected included.
        rejected: position in the plan of every image among them that cannot be used, and why.
        widths: images among them by their width in the source.
        heights: likewise.

    """

    fingerprint: str
    shards: list[Finished] = field(default_factory=list)
    consumed: int = 0
    rejected: list[tuple[int, Rejected]] = field(default_factory=list)
    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        """Images in the finished shards."""
        return sum(done.shard.samples for done in self.shards)

    def as_json(self) -> dict[str, Any]:
        """Return what to write down; places and labels of samples are not in it, since the shards hold them."""
        return {
            "fingerprint": self.fingerprint,
            "shards": [{"part": done.part, **asdict(done.shard)} for done in self.shards],
            "consumed": self.consumed,
            "rejected": [[position, asdict(why)] for position, why in self.rejected],
            "widths": sorted(self.widths.items()),
            "heights": sorted(self.heights.items()),
        }


def finished(part: str, file: ShardFile, digest: str) -> Finished:
    """Return the entry of a shard that has just been closed.

    Raises:
        DataError: the disk did not keep what was written to it.

    """
    if digest_on_disk(file.path) != digest:
        raise DataError(f"{file.path}: does not hold what was written to it: the disk or its driver is at fault.")
    shard = Shard(file.path.name, file.bytes, len(file.sizes), digest)
    return Finished(part, shard, *(np.array(each, dtype=np.int64) for each in (file.offsets, file.sizes, file.labels)))


class OtherWorkError(Exception):
    """What lies there cannot be continued; the message says why."""


def load(path: Path, fingerprint: str, folder: Path, labels: Ints) -> Ledger:
    """Return the ledger at ``path``, or a fresh one if there is none; its shards are read again and verified.

    Args:
        path: of the ledger.
        fingerprint: of the work to be done.
        folder: holds the folder of each part.
        labels: of every image of the plan.

    Raises:
        OtherWorkError: it is the ledger of other options or of another source, or not all is as it was written.

    """
    try:
        content = json.loads(path.read_bytes())
        if content["fingerprint"] != fingerprint:
            raise OtherWorkError("it was begun with other options, or the source has changed since")
        return _verified(content, folder, labels)
    except FileNotFoundError:
        return Ledger(fingerprint)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise OtherWorkError("its record is damaged") from error


def _verified(content: dict[str, Any], folder: Path, labels: Ints) -> Ledger:
    rejected = [(position, _rejected(why)) for position, why in content["rejected"]]
    used = np.ones(content["consumed"], dtype=bool)
    used[[position for position, _ in rejected]] = False
    written = labels[: content["consumed"]][used]
    ledger = Ledger(
        content["fingerprint"], [], content["consumed"], rejected,
        Counter(dict(content["widths"])), Counter(dict(content["heights"])),
    )  # fmt: skip
    for entry in content["shards"]:
        part = entry.pop("part")
        shard = Shard(**entry)
        first = ledger.images
        of_shard = written[first : first + shard.samples]
        ledger.shards.append(_read_again(folder / part / shard.url, part, shard, of_shard))
    return ledger


def _read_again(path: Path, part: str, shard: Shard, labels: Ints) -> Finished:
    try:
        if path.stat().st_size != shard.bytes or digest_on_disk(path) != shard.sha256:
            raise OtherWorkError(f"{path.name} is not as it was written")
        members = [member for _, fields in samples(path) for name, member in fields.items() if name != LABEL_FIELD]
    except (OSError, DataError) as error:
        raise OtherWorkError(f"{path.name} cannot be read again") from error
    if not len(members) == len(labels) == shard.samples:
        raise OtherWorkError("its record does not fit its shards")
    places = np.array([(member.offset, member.size) for member in members], dtype=np.int64).reshape(-1, 2)
    return Finished(part, shard, places[:, 0], places[:, 1], labels)


def _rejected(why: dict[str, Any]) -> Rejected:
    return Rejected(why["reason"], None if why["size"] is None else tuple(why["size"]), why["kind"])

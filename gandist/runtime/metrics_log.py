"""``metrics.jsonl``: the record of a run, one JSON object for every logged round.

A row begins with ``images_seen`` and ``round`` (integers) and ``time`` (seconds since 1970), followed by flat metric
names such as ``loss/d``. JSON knows no infinities: a value that is not finite is written as the string ``"NaN"``,
``"Infinity"`` or ``"-Infinity"``, which ``float()`` reads back.

A checkpoint stores the log's :attr:`~MetricsLog.position`. Opening the log at that position cuts off what was written
after the checkpoint, so that a continued run logs every round exactly once.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from gandist.errors import RunError

HEAD = ("images_seen", "round", "time")


class MetricsLog:
    """The open log of a run; every row is on its way to the disk when :meth:`append` returns.

    Args:
        path: The file, made if it is missing.
        position: Bytes that the checkpoint knows; 0 starts the record anew.
        clock: Seconds since 1970.

    """

    def __init__(self, path: Path, position: int = 0, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self.notice = _cut(path, position)
        """What opening had to cut off or could not find, for a person; None if all was in place."""
        self._file = path.open("ab")

    @property
    def position(self) -> int:
        """Length of the log in bytes: what a checkpoint stores."""
        return self._file.tell()

    def append(self, images_seen: int, round_index: int, metrics: Mapping[str, float]) -> None:
        """Write one row.

        Raises:
            RunError: the disk did not take it.

        """
        assert not set(HEAD) & set(metrics), f"{HEAD} are no metrics"
        head = {"images_seen": int(images_seen), "round": int(round_index), "time": round(self._clock(), 3)}
        row = head | {name: _finite(value) for name, value in metrics.items()}
        try:
            self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}); free some space. The same command continues from "
                "the last checkpoint."
            ) from None

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # what the disk did not take has been an error before
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a log with every metric as a float; a torn last line is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield {name: value if name in HEAD else float(value) for name, value in json.loads(line).items()}


def _finite(value: float) -> float | str:
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _cut(path: Path, position: int) -> str | None:
    if not path.exists():
        return f"{path} is missing: the metrics before this point are lost." if position else None
    content = path.read_bytes()
    known = content[:position]
    end = known.rfind(b"\n") + 1
    if end < len(content):
        with path.open("r+b") as file:
            file.truncate(end)
    if len(content) < position:
        return (
            f"{path} has {len(content)} bytes, the checkpoint knew {position}: some metrics before this point are lost."
        )
    if end < position:
        return f"{path} was changed after the checkpoint: byte {position} is no longer the end of a row."
    later = content[end:].count(b"\n")
    return f"{path}: {later} row(s) from after the checkpoint were removed; they are made again." if later else None

"""Averages of a run as they were at some moments, one safetensors file for each moment and width.

::

    averages/000051200-0.05.safetensors      named by images seen and the average's relative width
    averages/000051200-0.1.safetensors

Each file is whole or absent, and a generator of its own: ``gandist sample FILE`` draws from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gandist.runtime.checkpoint import write_weights

_NAME = re.compile(r"(\d{9,15})-(0\.\d{1,9})\.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """One kept average: where it lies, when it was taken, how wide it is."""

    path: Path
    images_seen: int
    std: float


class SnapshotStore:
    """The snapshots of one run. Only rank 0 writes.

    Args:
        run: its folder; the snapshots lie in ``averages`` there.
        keep: newest moments that are kept; all if None.

    """

    def __init__(self, run: Path, keep: int | None = None) -> None:
        self.folder = run / "averages"
        self.keep = keep

    def found(self) -> list[Snapshot]:
        """Return all snapshots, oldest first, narrowest first."""
        if not self.folder.is_dir():
            return []
        named = [(path, _NAME.fullmatch(path.name)) for path in self.folder.iterdir()]
        snapshots = [Snapshot(path, int(name[1]), float(name[2])) for path, name in named if name]
        return sorted(snapshots, key=lambda snapshot: (snapshot.images_seen, snapshot.std))

    def write(
        self, images_seen: int, averages: Mapping[float, Mapping[str, Tensor]], header: Mapping[str, str]
    ) -> None:
        """Write the averages of one moment, by width, then drop moments that are no longer kept.

        Raises:
            OSError: a file could not be written; those before it are whole.

        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for std, tensors in averages.items():
            write_weights(self.folder / file_name(images_seen, std), tensors, header)
        if self.keep is not None:
            snapshots = self.found()
            kept = sorted({snapshot.images_seen for snapshot in snapshots})[-self.keep :]
            for snapshot in snapshots:
                if snapshot.images_seen not in kept:
                    snapshot.path.unlink(missing_ok=True)

    def forget_after(self, images_seen: int) -> None:
        """Remove what lies ahead of a run that continues here, and what interrupted writes left behind.

        What was ahead belongs to another course of the run, or will be written again.
        """
        for snapshot in self.found():
            if snapshot.images_seen > images_seen:
                snapshot.path.unlink(missing_ok=True)
        if self.folder.is_dir():
            for leftover in self.folder.glob(".*.part"):
                leftover.unlink(missing_ok=True)


def file_name(images_seen: int, std: float) -> str:
    """Return the name of the file of one moment and width."""
    return f"{images_seen:09d}-{std:g}.safetensors"

"""What lies in a run's folder of checkpoints: a list, a check of every byte, and a clearing up."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from gandist.errors import CheckpointError, ConfigError
from gandist.runtime.checkpoint import BEST, CheckpointStore, open_checkpoint
from gandist.runtime.files import write_text


@dataclass(frozen=True)
class Entry:
    """One published checkpoint; ``problem`` is None where it is whole, or was not looked at."""

    name: str
    bytes: int
    latest: bool
    best: bool = False
    problem: str | None = None

    @property
    def images_seen(self) -> int:
        """Return the position in the run."""
        return int(self.name)


def checkpoint_folder(run: Path) -> Path:
    """Return the folder of checkpoints of a run.

    Raises:
        ConfigError: ``run`` is no run folder with checkpoints.

    """
    folder = run if run.name == "checkpoints" else run / "checkpoints"
    if not folder.is_dir():
        what = "has no checkpoints yet" if (run / "config.yaml").is_file() else "is no run folder"
        raise ConfigError(f"{run}: {what}. Give the folder of a run, such as runs/demo.")
    return folder


def entries(folder: Path, *, verify: bool) -> list[Entry]:
    """Return the checkpoints in ``folder``, oldest first; with ``verify`` every byte of them is read and checked."""
    latest = folder / "latest"
    named = latest.read_text(encoding="utf-8").strip() if latest.is_file() else ""
    best = best_name(folder)
    found = []
    for name in CheckpointStore(folder, keep=1).names():
        size = sum(path.stat().st_size for path in (folder / name).iterdir())
        found.append(Entry(name, size, name == named, name == best, _problem(folder / name) if verify else None))
    return found


def best_name(folder: Path) -> str | None:
    """Return the name of the best checkpoint in ``folder``, if the run keeps one."""
    link = folder.parent / BEST
    return link.readlink().name if link.is_symlink() else None


def _problem(folder: Path) -> str | None:
    try:
        open_checkpoint(folder)
    except CheckpointError as error:
        return str(error)
    return None


def prune(folder: Path, keep: int) -> list[Entry]:
    """Remove all but the best and the newest ``keep`` whole checkpoints, damaged ones too; return those removed.

    Raises:
        CheckpointError: none is whole, so nothing was removed.

    """
    checked = entries(folder, verify=True)
    whole = [entry for entry in checked if entry.problem is None]
    if checked and not whole:
        raise CheckpointError(f"{folder}: none of the {len(checked)} checkpoint(s) is whole; nothing was removed.")
    kept = {entry.name for entry in whole[-keep:]} | {entry.name for entry in whole if entry.best}
    removed = [entry for entry in checked if entry.name not in kept]
    for entry in removed:
        hidden = folder / f".{entry.name}.dropped.part"  # gone at once for readers, swept later if this is interrupted
        (folder / entry.name).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    if removed:
        write_text(folder / "latest", whole[-1].name + "\n")
    return removed


def table(found: list[Entry], *, verified: bool) -> str:
    """Return the list as text, a line for each checkpoint."""
    lines = []
    for entry in found:
        verdict = "" if not verified else "  whole" if entry.problem is None else f"  DAMAGED: {entry.problem}"
        mark = ("  latest" if entry.latest else "") + ("  best" if entry.best else "")
        size = f"{entry.bytes / 2**20:.1f} MiB"
        lines.append(f"{entry.name}  {entry.images_seen / 1000:>10g} kimg  {size:>12}{verdict}{mark}")
    return "\n".join(lines) if lines else "no checkpoints"

"""A training run as a user starts it: a process of ``gandist train`` that leaves a folder with checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A row of the table: a recipe of ``configs/``, and what this benchmark changes in it."""

    name: str
    title: str
    recipe: Path
    flags: tuple[str, ...]

    def with_flags(self, *flags: str) -> Entry:
        """Return this entry with more changes, which win over those before."""
        return Entry(self.name, self.title, self.recipe, (*self.flags, *flags))


@dataclass(frozen=True)
class Played:
    """A run that ended: its folder, how long it took, and its processor time (of all its threads)."""

    folder: Path
    seconds: float
    processor_seconds: float

    def checkpoints(self) -> list[Path]:
        """Return the run's checkpoints from the first to the last."""
        return sorted(self.folder.glob("checkpoints/[0-9]*"), key=images_seen)

    def images_per_second(self) -> float:
        """Return the speed that the run's last row of metrics tells.

        Raises:
            RuntimeError: it was too short to have one.

        """
        metrics = self.folder / "metrics.jsonl"
        rows = metrics.read_text().splitlines() if metrics.is_file() else []
        if not rows:
            raise RuntimeError(f"{self.folder}: not a single row of metrics was written")
        return float(json.loads(rows[-1])["speed/images_per_second"])


def images_seen(checkpoint: Path) -> int:
    """Return the images that D had seen when a checkpoint was made: the folder's name."""
    return int(checkpoint.name)


def play(entry: Entry, root: Path, threads: int | None, limit_seconds: float | None = None) -> Played:
    """Train an entry in a folder below ``root``; asked to stop after ``limit_seconds``, it saves and ends.

    A run that is there already is continued, as the trainer does it, and its costs are added up.

    Raises:
        RuntimeError: the run failed; its last words are in the message.

    """
    command = [sys.executable, "-m", "gandist", "train", str(entry.recipe), *entry.flags]
    command += ["--run.root", str(root), "--run.name", entry.name]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    log = root / f"{entry.name}.log"
    root.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with log.open("w") as words:
        process = subprocess.Popen(command, stdout=words, stderr=words, env=environment)
        code, processor_seconds = _await(process, limit_seconds)
    if code not in (0, 75):  # 75: stopped as it was asked, and saved
        raise RuntimeError(f"{entry.name}: exit code {code}\n" + "\n".join(log.read_text().splitlines()[-30:]))
    ledger = root / f"{entry.name}.cost.json"
    spent = json.loads(ledger.read_text()) if ledger.is_file() else {"seconds": 0.0, "processor_seconds": 0.0}
    spent["seconds"] += time.perf_counter() - began
    spent["processor_seconds"] += processor_seconds
    ledger.write_text(json.dumps(spent))
    return Played(root / entry.name, **spent)


def _await(process: subprocess.Popen[bytes], limit_seconds: float | None) -> tuple[int, float]:
    """Return the exit code of a process and its processor time; asked to stop after ``limit_seconds``."""
    timer = threading.Timer(limit_seconds or 0, process.terminate)
    if limit_seconds is not None:
        timer.start()
    try:
        _, status, used = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime

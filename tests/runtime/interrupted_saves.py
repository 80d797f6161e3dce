"""A program that saves checkpoints and is interrupted before every single operation on files, in all ways.

It prints one JSON object: for each scenario and each way, what every interruption left behind. Killed saves happen in
forked processes, so this is a program of its own, and not a test.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gandist.errors import CheckpointError
from gandist.runtime import checkpoint
from gandist.runtime.checkpoint import CheckpointStore, Part

KILLED = 9
MOMENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink"}


class Fault:
    """Counts operations on files and strikes before one of them.

    A kill also tears every file that was not flushed to the disk by then, as a power cut may.
    """

    def __init__(self) -> None:
        self.countdown: int | None = None
        self.kill = False
        self.flushed: set[int] = set()
        self.folder = Path()
        sys.addaudithook(self._audit)
        self._fsync, self._save_file = os.fsync, checkpoint.save_file
        os.fsync = self._flush  # type: ignore[assignment]
        checkpoint.save_file = self._save  # type: ignore[assignment]

    def arm(self, operation: int, *, kill: bool, folder: Path) -> None:
        self.countdown, self.kill, self.folder = operation, kill, folder

    def disarm(self) -> bool:
        """Return whether it has struck."""
        struck, self.countdown = self.countdown is None, None
        return struck

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
        if event in MOMENTS or writes:
            self._moment()

    def _moment(self) -> None:
        if self.countdown is None:
            return
        self.countdown -= 1
        if self.countdown >= 0:
            return
        self.countdown = None
        if not self.kill:
            raise OSError(28, "No space left on device")
        for path in self.folder.rglob("*"):
            if path.is_file() and path.stat().st_ino not in self.flushed:
                os.truncate(path, path.stat().st_size // 2)
        os._exit(KILLED)

    def _flush(self, descriptor: int) -> None:
        self._moment()
        self._fsync(descriptor)
        self.flushed.add(os.fstat(descriptor).st_ino)

    def _save(self, tensors: Any, path: Path, metadata: Any) -> None:
        self._moment()
        self._save_file(tensors, path, metadata=metadata)
        self.flushed.discard(path.stat().st_ino)
        self._moment()


def parts(number: int) -> dict[str, Part]:
    draw = torch.Generator().manual_seed(number)
    return {name: Part({"weight": torch.randn(30, 5, generator=draw)}) for name in ("generator", "optimizer_g")}


def number_in(found: checkpoint.Checkpoint | None) -> int | None:
    """Return which parts a checkpoint holds, after comparing every tensor."""
    if found is None:
        return None
    number = int(found.state["number"])
    for name, part in parts(number).items():
        assert torch.equal(found.tensors(name)["weight"], part.tensors["weight"])
    return number


def save(folder: Path, position: int, number: int, best: int | None = None) -> None:
    chosen = None if best is None else {"images_seen": best}
    CheckpointStore(folder, keep=1).save(position, parts(number), {"number": number, "best": chosen})


def best_in(folder: Path) -> int | None:
    """Return which checkpoint ``best`` beside the folder leads to, after checking it; None if there is no link."""
    link = folder.parent / checkpoint.BEST
    return checkpoint.open_checkpoint(link).images_seen if link.is_symlink() else None


def interrupted(fault: Fault, base: Path, position: int, *, kill: bool, best: bool) -> Iterator[dict[str, Any]]:
    """Save number 2 at a position, interrupted at every operation in turn, until a save gets through."""
    operation, through = 0, False
    while not through:
        folder = base.with_name("work")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        if best:
            save(folder, 100, 1, best=100)
        fault.flushed |= {path.stat().st_ino for path in folder.rglob("*")}
        fault.arm(operation, kill=kill, folder=folder)
        said = ""
        if kill:
            child = os.fork()
            if child == 0:
                save(folder, position, 2, best=position if best else None)
                os._exit(0)
            fault.disarm()
            through = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != KILLED
        else:
            try:
                save(folder, position, 2, best=position if best else None)
            except CheckpointError as error:
                said = str(error)
            through = not fault.disarm()
        drafts = sorted(path.name for path in folder.glob(".*.part"))
        warnings: list[str] = []
        found = number_in(CheckpointStore(folder, keep=1).newest(warnings.append))
        best_found = best_in(folder)
        save(folder, 300, 3, best=300 if best else None)
        after = number_in(CheckpointStore(folder, keep=1).newest(warnings.append))
        yield {
            "operation": operation,
            "said": said,
            "found": found,
            "drafts": drafts,
            "warnings": warnings,
            "after": after,
            "best": best_found,
            "best_after": best_in(folder),
            "files": sorted(path.name for path in folder.iterdir()),
        }
        operation += 1


def main(root: Path) -> None:
    fault = Fault()
    report = {}
    scenarios = (("first", None, 200), ("next", 100, 200), ("again", 200, 200), ("best", 100, 200))
    for scenario, before, position in scenarios:
        base = root / scenario / "base"
        base.mkdir(parents=True)
        if before is not None:
            save(base, before, 1)
        for way in ("killed", "no space"):
            report[f"{scenario}, {way}"] = list(
                interrupted(fault, base, position, kill=way == "killed", best=scenario == "best")
            )
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

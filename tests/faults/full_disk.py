"""A program that plays small runs on a disk that has no room for one kind of file, then once more with room.

``full_disk.py FOLDER``. Torch is imported once and each run is a fork, with the command line's own handling of errors.
It prints one JSON object for each case.
"""

import errno
import fnmatch
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

from trainer_runs import make_config, metrics

from gandist import cli
from gandist.config import Config, dump
from gandist.runtime.checkpoint import CheckpointStore

# What has no room, and from which write of it on.
CASES = {
    "lease": ("lease.json", 1),
    "config": (".config.yaml.*", 1),
    "first status": (".status.json.*", 1),
    "last status": (".status.json.*", 2),
    "first picture": ("*.png.*", 1),
    "last picture": ("*.png.*", 3),
    "first checkpoint": ("*.safetensors", 1),
    "second checkpoint": ("optimizer_g.safetensors", 2),
    "state": (".state.json.*", 2),
    "manifest": (".manifest.json.*", 2),
    "latest": (".latest.*", 2),
    "metrics": ("metrics.jsonl", 4),
    "events": ("events.log", 1),
}


def no_room_for(pattern: str, number: int) -> None:
    """Let every write to files of this name fail from the one of this number on, as on a full disk.

    Where a file is flushed to the disk, that fails; where it is only written, the write.
    """
    seen = 0
    fsync, file_open = os.fsync, Path.open

    def strike(path: str) -> None:
        nonlocal seen
        if fnmatch.fnmatch(Path(path).name, pattern):
            seen += 1
            if seen >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def flush(descriptor: int) -> None:
        strike(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def opened(path: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        file = file_open(path, mode, *arguments, **more)
        if "a" in mode:
            file = Strikes(file, lambda: strike(str(path)))
        return file

    os.fsync = flush  # type: ignore[assignment]
    Path.open = opened  # type: ignore[method-assign, assignment]


class Strikes:
    """A file whose writes are looked at first."""

    def __init__(self, file: Any, strike: Callable[[], None]) -> None:
        self._file, self._strike = file, strike

    def write(self, content: Any) -> int:
        self._strike()
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def play(config: Config, recipe: Path, before: Callable[[], None]) -> tuple[int, str]:
    """Play a run in a fork; return its exit code and what it said."""
    recipe.write_text(json.dumps(dump(config)))
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            code = 70
            try:
                before()
                code = cli.main(["train", str(recipe)])
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return code, said.read().decode()


def weights(folder: Path) -> dict[str, Any]:
    """Return what the newest checkpoint's manifest says of its tensors, whatever ``latest`` says."""
    newest = max(
        (path for path in folder.glob("checkpoints/*") if path.name.isdigit()), key=lambda path: int(path.name)
    )
    files = json.loads((newest / "manifest.json").read_text())["files"]
    return {name: entry for name, entry in files.items() if name.endswith(".safetensors")}


def case(root: Path, name: str) -> dict[str, Any]:
    config = make_config(root / name)
    code, said = play(config, root / "recipe.yaml", lambda: no_room_for(*CASES[name]))
    warnings: list[str] = []
    newest = CheckpointStore(config.folder / "checkpoints", keep=3).newest(warnings.append)
    status = config.folder / "status.json"
    found = {
        "code": code,
        "said": said,
        "state": json.loads(status.read_text())["state"] if status.exists() else None,
        "newest": newest and newest.images_seen,
        "warnings": warnings,
        "drafts": [path.name for path in config.folder.rglob(".*.part")],
    }
    again, said_again = play(config, root / "recipe.yaml", lambda: None)
    return {
        **found,
        "again": again,
        "said_again": said_again,
        "latest": (config.folder / "checkpoints" / "latest").read_text().strip(),
        "digests": weights(config.folder),
        "rows": metrics(config.folder),
    }


def main(root: Path) -> None:
    straight = make_config(root / "straight")
    play(straight, root / "recipe.yaml", lambda: None)
    print(json.dumps({"digests": weights(straight.folder), "rows": metrics(straight.folder)}), flush=True)
    for name in CASES:
        print(json.dumps({"case": name, **case(root, name)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""``status.json``: what scripts decide from, since launchers swallow exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Literal

from gandist.runtime.files import NO_ROOM, flush_file, write_json

Outcome = Literal["done", "preempted", "failed"]
State = Literal["running"] | Outcome

STATUS_COPY = "GANDIST_STATUS_COPY"
"""Environment variable with the path of a copy, for who supervises a run and does not know its folder."""


def write_status(folder: Path, state: State, images_seen: int, **more: Any) -> None:
    """Say what the run is doing, where it stands, where it runs, and since when."""
    content = {
        "state": state,
        "images_seen": images_seen,
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        **more,
    }
    _write(folder / "status.json", content)
    if copy := os.environ.get(STATUS_COPY):
        with contextlib.suppress(OSError):  # whoever wanted to read it may be gone
            write_json(Path(copy), {**content, "folder": str(folder.absolute())})


def _write(path: Path, content: dict[str, Any]) -> None:
    """Publish the status; where there is no room for a second file, write over the one that is there."""
    try:
        write_json(path, content)
    except OSError as error:
        if error.errno not in NO_ROOM or not path.is_file():
            raise
        text = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        with path.open("r+b") as file:
            file.write(text)
            file.truncate()
        flush_file(path)

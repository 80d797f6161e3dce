"""``status.json``: what scripts decide from, since launchers swallow exit codes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any, Literal

from gandist.runtime.files import write_json

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
    write_json(folder / "status.json", content)
    if copy := os.environ.get(STATUS_COPY):
        with contextlib.suppress(OSError):  # whoever wanted to read it may be gone
            write_json(Path(copy), {**content, "folder": str(folder.absolute())})

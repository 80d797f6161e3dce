"""``status.json``: what scripts decide from, since launchers swallow exit codes."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any, Literal

from gandist.runtime.files import write_json

Outcome = Literal["done", "preempted", "failed"]
State = Literal["running"] | Outcome


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

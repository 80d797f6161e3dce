"""``status.json``: all that a script needs in order to decide."""

import json
import os
import socket
from datetime import datetime
from pathlib import Path

import pytest

from gandist.runtime.status import write_status


def test_it_says_what_where_and_since_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    write_status(tmp_path, "preempted", 12_800, reason="signal SIGTERM")
    status = json.loads((tmp_path / "status.json").read_text())
    since = datetime.strptime(status.pop("since"), "%Y-%m-%dT%H:%M:%S%z")
    assert abs((datetime.now().astimezone() - since).total_seconds()) < 10
    assert status == {
        "state": "preempted",
        "images_seen": 12_800,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job": "4711",
        "reason": "signal SIGTERM",
    }


def test_outside_slurm_there_is_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    write_status(tmp_path, "running", 0)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["slurm_job"] is None
    assert status["state"] == "running"
    write_status(tmp_path, "done", 5)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "done"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]

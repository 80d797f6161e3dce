"""``status.json``: all that a script needs in order to decide."""

import json
import os
import socket
from datetime import datetime
from pathlib import Path

import pytest

from gandist.runtime.status import STATUS_COPY, write_status


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


def test_a_copy_goes_to_who_supervises_the_run_and_says_where_the_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, copy = tmp_path / "runs" / "demo", tmp_path / "copy.json"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STATUS_COPY, str(copy))
    write_status(Path("runs/demo"), "failed", 7, reason="RunError: it broke")
    status = json.loads((folder / "status.json").read_text())
    assert json.loads(copy.read_text()) == {**status, "folder": str(folder)}
    monkeypatch.setenv(STATUS_COPY, str(tmp_path / "gone" / "copy.json"))
    write_status(folder, "done", 8)  # whoever wanted the copy is no more: the run does not end over it
    assert json.loads((folder / "status.json").read_text())["state"] == "done"

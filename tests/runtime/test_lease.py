"""One process trains in a run folder; an attempt that was given up publishes nothing more."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gandist.errors import MachineError, RunError
from gandist.runtime.lease import LEASE_NAME, Lease

HOLDER = """
import sys, time
from pathlib import Path
from gandist.runtime.lease import Lease
lease = Lease.take(Path(sys.argv[1]))
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def end(process: subprocess.Popen[str], how: signal.Signals) -> None:
    process.send_signal(how)
    process.communicate()


def test_a_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first = holder(tmp_path / "run")
    with pytest.raises(MachineError, match=rf"another job is training in this folder \(process {first.pid} on .*STOP"):
        Lease.take(tmp_path / "run")
    assert json.loads((tmp_path / "run" / LEASE_NAME).read_text())["pid"] == first.pid
    end(first, signal.SIGKILL)
    with_us = Lease.take(tmp_path / "run")
    with_us.check()
    with_us.close()


def test_a_stopped_process_still_holds_its_folder(tmp_path: Path) -> None:
    first = holder(tmp_path)
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(MachineError, match="another job"):
        Lease.take(tmp_path)
    end(first, signal.SIGKILL)


def test_whoever_lost_the_folder_is_told(tmp_path: Path) -> None:
    """As with a node whose locks are not seen elsewhere: the name in the file is all that tells."""
    ours = Lease.take(tmp_path)
    assert ours.held
    (tmp_path / LEASE_NAME).write_text(json.dumps({"owner": "x", "pid": 7, "host": "n2", "since": "noon"}))
    assert not ours.held
    with pytest.raises(RunError, match=r"process 7 on n2 has taken it over since noon\. This attempt writes nothing"):
        ours.check()
    (tmp_path / LEASE_NAME).unlink()
    with pytest.raises(RunError, match=r"lease\.json, which says whose it is, was removed"):
        ours.check()
    ours.close()


def test_a_requeued_job_takes_over_from_its_earlier_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    earlier = holder(tmp_path)  # its node is cut off, its lock lingers
    for job, count in (("12", "0"), ("13", "1")):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        with pytest.raises(MachineError, match="another job"):
            Lease.take(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    later = Lease.take(tmp_path)
    later.check()
    later.close()
    end(earlier, signal.SIGKILL)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"owner": 3}', "\x00" * 50])
def test_a_damaged_file_of_nobody_is_no_obstacle(tmp_path: Path, content: str) -> None:
    (tmp_path / LEASE_NAME).write_text(content)
    lease = Lease.take(tmp_path)
    lease.check()
    lease.close()


def test_a_forgotten_lease_holds_nothing(tmp_path: Path) -> None:
    Lease.take(tmp_path)
    Lease.take(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"file/run: cannot be written.*--run\.root"):
        Lease.take(tmp_path / "file" / "run")

"""Stands in for a trainer under a launcher: each attempt does what the next word of its plan says.

``stand_in.py FOLDER WORD...``. It writes down its pid in FOLDER/pids, one line for each attempt, and for each process
that it leaves behind.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gandist.runtime.status import write_status


def main(folder: Path, plan: list[str]) -> int:
    attempt = note_pid(folder)
    word = plan[attempt]
    if word == "refuse":
        return 2
    if word == "quiet":  # a refusal under a launcher
        return 1
    if word == "silent":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        forever()
    write_status(folder, "running", 0)
    if word.startswith("save"):
        (folder / "checkpoints" / f"{attempt + 1:09d}").mkdir(parents=True)
    if word in ("orphan", "deaf"):
        leave_somebody_behind(folder, deaf=word == "deaf")
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "stuck":
        forever()
    if word == "train":
        (folder / "training").touch()
        while not (folder / "STOP").exists():
            time.sleep(0.01)
        (folder / "STOP").unlink()
        write_status(folder, "preempted", 5)
        return 1
    if word == "done":
        write_status(folder, "done", 9)
        return 0
    write_status(folder, "failed", 3, reason="RunError: it broke")
    return 1


def note_pid(folder: Path) -> int:
    """Add our pid; return how many were there before."""
    file = folder / "pids"
    before = file.read_text().count("\n") if file.exists() else 0
    with file.open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    return before


def leave_somebody_behind(folder: Path, deaf: bool) -> None:
    """Start a process in a session of its own, as a launcher's ranks are; one that is ``deaf`` heeds no TERM."""
    code = f"import signal, time; signal.signal(15, {int(deaf)}); print(1, flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    child.stdout.readline()
    (folder / "orphan").write_text(str(child.pid))


def forever() -> None:
    while True:
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

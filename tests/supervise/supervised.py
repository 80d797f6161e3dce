"""Runs ``gandist supervise`` as a real process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest


class Supervised:
    """A supervisor at work, and what it has said."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = 120) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still at it after {seconds} s:\n{self.said()}") from None

    def wait_until(
        self, condition: Callable[[], object], what: str, seconds: float = 120, supervised: bool = True
    ) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s for {what}:\n{self.said()}"
            ended = supervised and self.process.poll() is not None
            assert not ended or condition(), f"it ended before {what}:\n{self.said()}"
            time.sleep(0.01)


Supervise = Callable[..., Supervised]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Start ``gandist supervise FLAGS -- COMMAND``; whatever is left of it is killed at the end."""
    started: list[Supervised] = []

    def start(command: Sequence[str], *flags: str, environment: dict[str, str] | None = None) -> Supervised:
        log = tmp_path / f"supervise.{len(started)}.log"
        words = [sys.executable, "-m", "gandist.cli", "supervise", "--backoff", "0.05", *flags, "--", *command]
        with log.open("wb") as out:
            process = subprocess.Popen(words, stdout=out, stderr=out, env=os.environ | (environment or {}))
        started.append(Supervised(process, log))
        return started[-1]

    yield start
    for each in started:
        for _ in range(2):  # the second one kills what it supervises
            if each.process.poll() is None:
                each.process.send_signal(signal.SIGINT)
                time.sleep(0.3)
        try:
            each.process.wait(20)
        except subprocess.TimeoutExpired:
            each.process.kill()
            each.process.wait()


def alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"

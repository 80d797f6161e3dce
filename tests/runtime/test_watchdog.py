"""A rank that gets no further is gone, and has said where it stood."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gandist.errors import EXIT_FAILED
from gandist.runtime.files import digest
from gandist.runtime.watchdog import Watchdog, standing

RANK = """
import ctypes, sys, threading, time
from pathlib import Path
from gandist.runtime.watchdog import Watchdog

def stuck_in_python():
    threading.Event().wait()

def stuck_in_c():
    ctypes.PyDLL(None).pause()  # keeps the interpreter's lock

import gandist.runtime.watchdog as module
module._LAST_WORDS_SECONDS = 1.0
dog = Watchdog(Path(sys.argv[1]), 3, 0.5, lambda message: print("told:", message, flush=True))
globals()[sys.argv[2]]()
"""


def run(folder: Path, where: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RANK, str(folder), where], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_rank_that_waits_for_ever_tells_where_and_ends(tmp_path: Path) -> None:
    done = run(tmp_path, "stuck_in_python")
    assert done.returncode == EXIT_FAILED
    assert "told: got no further for 0.5 s (execution.timeout_seconds), in wait (" in done.stdout
    stacks = (tmp_path / "stacks" / "rank00003.txt").read_text()
    assert "in stuck_in_python" in stacks
    assert "_write_stacks" in stacks, "all threads are shown"


def test_a_rank_that_holds_the_interpreter_ends_too(tmp_path: Path) -> None:
    done = run(tmp_path, "stuck_in_c")
    assert done.returncode == EXIT_FAILED
    assert "Timeout (0:00:01" in done.stderr
    assert "in stuck_in_c" in done.stderr


def test_a_disk_that_takes_no_stacks_does_not_keep_it(tmp_path: Path) -> None:
    (tmp_path / "stacks").write_text("in the way")
    done = run(tmp_path, "stuck_in_python")
    assert done.returncode == EXIT_FAILED
    assert "could not be written" in done.stdout


def test_signs_of_life_keep_it_and_closing_ends_the_watch(tmp_path: Path) -> None:
    stacks = tmp_path / "stacks" / "rank00000.txt"
    stacks.parent.mkdir()
    stacks.write_text("of an earlier attempt")
    told: list[str] = []
    dog = Watchdog(tmp_path, 0, 1.0, told.append)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        dog.alive()
    dog.close()
    assert told == []
    assert not stacks.exists()
    assert not dog._thread.is_alive()


def test_a_place_is_named_with_our_own_function() -> None:
    assert standing(None) == "at a place that is not known"
    assert "in test_a_place_is_named_with_our_own_function (" in standing(sys._getframe())


def test_the_innermost_function_of_gandist_is_named() -> None:
    seen: list[str] = []

    class Unreadable(type(Path())):  # type: ignore[misc]
        def open(self, *_: object, **__: object) -> object:  # type: ignore[override]
            seen.append(standing(sys._getframe()))
            raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        digest(Unreadable("x"))
    assert "called from digest (" in seen[0]

"""``gandist supervise``: keep a training command going on a machine without a scheduler.

The command is started again after a crash, later each time, and at most so often in a row without a newer checkpoint.
What happened is read from the status that the trainer writes, since launchers turn every exit code but 0 into 1. A
request to stop becomes the file ``STOP`` in the run folder: a launcher that gets a signal kills its ranks.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from gandist.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED, EXIT_USER_ERROR
from gandist.runtime.child import Child
from gandist.runtime.preemption import STOP_FILE, StopSignals
from gandist.runtime.status import STATUS_COPY

POLL_SECONDS = 0.1
GRACE_SECONDS = 10.0  # for ranks that a launcher left behind, or that had not begun
LONGEST_BACKOFF_SECONDS = 300.0

Ending = Literal["done", "stopped", "refused", "crashed"]


def ending(code: int, status: dict[str, Any]) -> Ending:
    """Return what became of one attempt, from its exit code and the last status that it wrote, empty if none."""
    state = status.get("state")
    if state == "done" or code == EXIT_DONE:
        return "done"
    if state == "preempted" or code == EXIT_PREEMPTED:
        return "stopped"
    if code == EXIT_USER_ERROR and not state:
        return "refused"
    return "crashed"


def newest_position(folder: Path) -> int:
    """Return the images seen at the newest checkpoint of a run, -1 if it has none."""
    checkpoints = folder / "checkpoints"
    names = [entry.name for entry in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=-1)


def backoff_seconds(first: float, restarts: int) -> float:
    """Return how long to wait before a restart, twice as long for each one in a row without progress."""
    return min(first * 2.0 ** min(restarts - 1, 60), max(first, LONGEST_BACKOFF_SECONDS))


class Supervisor:
    """Runs a command until its run is done, was stopped, or gets no further.

    Args:
        command: what to run, such as ``accelerate launch ... train.py CONFIG``.
        restarts: most restarts in a row without a newer checkpoint.
        first_backoff_seconds: the wait before the first of them.
        say: tells a person what happens.

    """

    def __init__(
        self, command: Sequence[str], restarts: int, first_backoff_seconds: float, say: Callable[[str], None]
    ) -> None:
        self.command = command
        self.restarts = restarts
        self.first_backoff_seconds = first_backoff_seconds
        self.say = say
        self.signals = StopSignals()
        self.folder: Path | None = None  # of the run, once an attempt has said it
        self.furthest = -1  # the newest checkpoint that counted as progress
        self.in_a_row = 0  # restarts since then

    def run(self) -> int:
        """Return the exit code: 0 done, 75 stopped and saved, 2 the trainer refused to begin, 1 given up."""
        with tempfile.TemporaryDirectory(prefix="gandist-supervise-") as scratch:
            try:
                while True:
                    code, status = self._attempt(Path(scratch) / "status.json")
                    final = self._judge(code, status)
                    if final is not None:
                        return final
                    if not self._wait():
                        return self._stopped_between()
            finally:
                self.signals.close()

    # --- one attempt -------------------------------------------------------------------------------------------

    def _attempt(self, copy: Path) -> tuple[int, dict[str, Any]]:
        """Run the command to its end; return its exit code and the last status it wrote."""
        copy.unlink(missing_ok=True)
        child = Child(self.command, {STATUS_COPY: str(copy)})
        try:
            passed_on = False
            while (code := child.poll()) is None:
                status = self._learn(copy)
                if self.signals.urgent:
                    self.say("interrupted twice: killing the run. Its last checkpoint is whole.")
                    child.kill()
                elif self.signals.first and not passed_on:
                    passed_on = True
                    self._pass_on(child, status)
                time.sleep(POLL_SECONDS)
            status = self._learn(copy)  # before those left behind, which are ended now, add to it
        finally:
            left = child.end(GRACE_SECONDS, hurry=lambda: self.signals.urgent)
        if left:
            self.say(f"ended {left} process(es) that the command left behind.")
        return code, status

    def _learn(self, copy: Path) -> dict[str, Any]:
        """Return the status that this attempt has written, if any, and learn the run folder from it."""
        status = _read(copy)
        if status and self.folder is None:
            self.folder = Path(status["folder"])
            self.furthest = newest_position(self.folder)
            self.say(f"the run is in {self.folder}")
        return status

    def _pass_on(self, child: Child, status: dict[str, Any]) -> None:
        """Ask the run to stop; end a command that has not begun one."""
        if not status or self.folder is None:
            self.say(f"{self.signals.first}: the run has not begun; ending the command.")
            child.end(GRACE_SECONDS, hurry=lambda: self.signals.urgent)
            return
        try:
            (self.folder / STOP_FILE).touch()
        except OSError as error:
            self.say(f"{self.folder / STOP_FILE}: cannot be made ({error.strerror}); ending the command.")
            child.end(GRACE_SECONDS, hurry=lambda: self.signals.urgent)
        else:
            self.say(f"{self.signals.first}: asked the run to save and stop. A second Ctrl-C kills it.")

    # --- between attempts --------------------------------------------------------------------------------------

    def _judge(self, code: int, status: dict[str, Any]) -> int | None:
        """Return the supervisor's exit code; None if the command is to be started again."""
        outcome = ending(code, status)
        if outcome == "done":
            self.say("the run is done." if status else "the command ended with 0, and began no run.")
            return EXIT_DONE
        if outcome == "stopped":
            self.say("the run was asked to stop and has saved; the same command continues.")
            return EXIT_PREEMPTED
        if self.signals.first:
            if self.signals.urgent or status:
                self.say(f"the run ended {_how(code)} before it had saved; its last checkpoint stands.")
                return EXIT_FAILED
            return self._stopped_between()
        if outcome == "refused" or self.folder is None:
            self.say(f"the command ended {_how(code)} before the run had begun: see above. It is not started again.")
            return EXIT_USER_ERROR
        return self._judge_crash(code, status)

    def _judge_crash(self, code: int, status: dict[str, Any]) -> int | None:
        assert self.folder is not None
        newest = newest_position(self.folder)
        if newest > self.furthest:
            self.furthest, self.in_a_row = newest, 0
        where = f"The newest checkpoint is at {newest / 1000:g} kimg." if newest >= 0 else "There is no checkpoint."
        why = f": {status['reason']}" if status.get("reason") else ""
        self.say(f"the run ended {_how(code)}{why}. {where}")
        if self.in_a_row >= self.restarts:
            self.say(f"giving up: {self.in_a_row} restart(s) in a row made no newer checkpoint.")
            return EXIT_FAILED
        self.in_a_row += 1
        return None

    def _wait(self) -> bool:
        """Wait before the next start; return False if asked to stop meanwhile."""
        seconds = backoff_seconds(self.first_backoff_seconds, self.in_a_row)
        self.say(f"starting again in {seconds:g} s (restart {self.in_a_row} of {self.restarts} without progress).")
        limit = time.monotonic() + seconds
        while not self.signals.first and (left := limit - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))
        return self.signals.first is None

    def _stopped_between(self) -> int:
        """Return the exit code for a request to stop while no run was there to save anything."""
        saved = self.folder is not None and newest_position(self.folder) >= 0
        self.say(
            "stopped; the same command continues from the last checkpoint." if saved else "stopped; nothing begun."
        )
        return EXIT_PREEMPTED if saved else EXIT_FAILED


def supervise(command: Sequence[str], restarts: int, first_backoff_seconds: float) -> int:
    """Run ``command`` under supervision; return the exit code."""

    def say(message: str) -> None:
        print(f"gandist supervise: {message}", file=sys.stderr, flush=True)

    return Supervisor(command, restarts, first_backoff_seconds, say).run()


def _how(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def _read(copy: Path) -> dict[str, Any]:
    """Return the status that a trainer wrote; empty if it wrote none."""
    try:
        content = json.loads(copy.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("folder"), str) else {}

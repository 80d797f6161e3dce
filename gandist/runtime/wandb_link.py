"""The trainer's end of Weights & Biases: hand rows to a process of its own, and never wait for it.

Every call only appends to a bounded list and moves as many bytes through a pipe as the pipe takes at once; there is no
thread and no lock. A server that is slow, unreachable or gone therefore costs nothing: rows wait, and past
:data:`CAPACITY` they are dropped and counted. A session that cannot reach its server is written offline instead.
``metrics.jsonl`` has every row either way.

Continued runs: the id in ``wandb_run_id`` makes every session part of one W&B run. A session that starts at an older
checkpoint logs the rounds since then a second time. W&B only ever appends, so a chart over ``images_seen`` then has
two points at the same place, equal up to rounding, since a resume is exact; ``metrics.jsonl`` has each round once.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gandist.config import WandbConfig
from gandist.errors import MachineError
from gandist.runtime.files import write_text
from gandist.runtime.status import Outcome

CAPACITY = 20_000  # rows and pictures that wait, some ten MB
CONNECT_SECONDS = 60.0  # before an online session is written offline
CONNECT_GRACE_SECONDS = 5.0  # the same once the trainer wants to end
CLOSE_SECONDS = 25.0  # for handing in the rest at the end
_IN_TRANSIT_BYTES = 1 << 16


def wandb_run_id(folder: Path) -> str:
    """Return the id of the run in ``folder``, drawn and stored in ``wandb_run_id`` the first time.

    A sweep's agent chooses the id itself, in ``WANDB_RUN_ID``.
    """
    path = folder / "wandb_run_id"
    stored = path.read_text(encoding="utf-8").strip() if path.exists() else None
    run_id = stored if stored is not None else os.environ.get("WANDB_RUN_ID") or secrets.token_hex(5)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run_id):
        where, remedy = (path, "Remove it") if stored is not None else ("WANDB_RUN_ID", "Unset it")
        raise MachineError(f"{where}: holds no W&B run id but {run_id[:40]!r}. {remedy} to start a new W&B run.")
    if stored is None:
        write_text(path, f"{run_id}\n")
    return run_id


class WandbLink:
    """One session of a W&B run.

    Args:
        folder: The run's folder; W&B's files go to ``wandb`` in it.
        settings: Mode, project, entity, group, tags.
        name: The run's name.
        config: What W&B shows as the run's configuration.
        say: Takes a sentence for a person.
        connect_seconds: Patience with the server.

    """

    def __init__(
        self,
        folder: Path,
        settings: WandbConfig,
        *,
        name: str,
        config: Mapping[str, Any],
        say: Callable[[str], None],
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        (folder / "wandb").mkdir(parents=True, exist_ok=True)
        identity = settings.model_dump(mode="json", include={"project", "entity", "group", "tags"})
        self._start = {
            "identity": {**identity, "id": wandb_run_id(folder), "name": name},
            "config": dict(config),
            "folder": str(folder.absolute()),
            "argv": sys.argv,
            "trainer_pid": os.getpid(),
            "connect_seconds": connect_seconds,
        }
        self._folder = folder
        self._say = say
        self._waiting: deque[bytes] = deque()
        self._files: str | None = None  # where this session's W&B files are, once it has started
        self.dropped = 0
        """Rows and pictures that found the list full."""
        self._process: _Process | None = None
        self._launch(settings.mode)

    def row(self, row: Mapping[str, Any]) -> None:
        """Hand over one row; ``images_seen`` is its axis."""
        self._put("row", dict(row))

    def picture(self, images_seen: int, name: str, path: Path) -> None:
        """Hand over an image file, which must stay where it is."""
        self._put("picture", {"images_seen": images_seen, "name": name, "path": str(path.absolute())})

    def close(self, outcome: Outcome, seconds: float = CLOSE_SECONDS) -> None:
        """Hand in the rest and end the process, within about ``seconds`` whatever happens."""
        begin = time.monotonic()
        grace = min(CONNECT_GRACE_SECONDS, seconds / 3)
        self._waiting.append(_message("finish", outcome))
        self._move()
        while self._process is not None:
            passed = time.monotonic() - begin
            if passed >= seconds:
                self._end(f"W&B did not take everything within {seconds:g} s")
            elif passed >= grace and self._mode == "online" and self._files is None:
                self._offline_instead("the run ends before the server answered")
            else:
                self._process.wait(0.25)
            self._move()
        if self.dropped:
            self._say(f"W&B is without {self.dropped} rows or pictures that it was too slow for.")

    def _put(self, kind: str, content: Mapping[str, Any]) -> None:
        if self._process is None:
            return
        if len(self._waiting) < CAPACITY:
            self._waiting.append(_message(kind, content))
        else:
            self.dropped += 1
            if self.dropped == 1:
                self._say(f"W&B is too slow: {CAPACITY} rows wait, further ones are left out of it.")
        self._move()

    def _move(self) -> None:
        """Read what the process answered and write what it takes; return at once."""
        if self._process is None:
            return
        for kind, content in self._process.answers():
            self._hear(kind, content)
        if self._process is not None and self._files is not None:
            while self._waiting and not self._process.full:
                self._process.send(self._waiting.popleft())
            self._process.push()

    def _hear(self, kind: str, content: Any) -> None:
        """Act on an answer; after ``failed`` and ``finished`` there is no other."""
        if kind == "ready":
            self._files = content["folder"]
            upload = f"offline; upload later with: wandb sync {self._files}"
            self._say(f"W&B: {content['url'] or 'connected' if self._mode == 'online' else upload}")
        elif kind == "finished":
            self._end(None)
        elif self._mode == "online" and self._files is None:
            self._offline_instead(content)
        else:
            self._end(f"W&B stopped ({content})")

    def _launch(self, mode: str) -> None:
        self._mode = mode
        try:
            self._process = _Process(self._folder / "wandb" / "gandist.log")
        except OSError as error:  # no memory, no process, no space: not worth a run
            self._process = None
            self._say(f"W&B cannot be started ({error}). Training is not affected, metrics.jsonl has every row.")
            return
        self._process.send(_message("start", {**self._start, "mode": mode}))
        self._process.push()

    def _offline_instead(self, reason: str) -> None:
        assert self._process is not None
        self._process.kill()
        self._say(f"W&B cannot start online ({_without_key(reason)}); this session is written offline.")
        self._launch("offline")

    def _end(self, complaint: str | None) -> None:
        assert self._process is not None
        self._process.kill()
        self._process = None
        self._waiting.clear()
        if complaint:
            upload = f"; what it has can be uploaded with: wandb sync {self._files}" if self._files else ""
            self._say(f"{_without_key(complaint)}. Training is not affected, metrics.jsonl has every row{upload}")


class _Process:
    """The process that imports wandb, and its two pipes, of which neither blocks.

    Args:
        log: Takes what the process prints, which is nothing as long as all is well.

    """

    def __init__(self, log: Path) -> None:
        package_root = str(Path(__file__).resolve().parents[2])
        environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        environment["PYTHONPATH"] = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment["PYTHONWARNINGS"] = "ignore"  # wandb's own warnings are not this program's
        environment.setdefault("WANDB_ERROR_REPORTING", "false")
        with log.open("ab") as errors:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "gandist.runtime.wandb_run"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                bufsize=0,
                start_new_session=True,  # a Ctrl-C is for the trainer
            )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._in, self._out = self._popen.stdin, self._popen.stdout
        os.set_blocking(self._in.fileno(), False)
        os.set_blocking(self._out.fileno(), False)
        self._outgoing = b""
        self._incoming = b""

    @property
    def full(self) -> bool:
        """Whether so much is under way that more should wait."""
        return len(self._outgoing) >= _IN_TRANSIT_BYTES

    def send(self, message: bytes) -> None:
        """Put a message on its way."""
        self._outgoing += message

    def push(self) -> None:
        """Write as much as the pipe takes now."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # a death is seen where answers are read
            while self._outgoing:
                self._outgoing = self._outgoing[os.write(self._in.fileno(), self._outgoing) :]

    def answers(self) -> list[tuple[str, Any]]:
        """Return what has arrived as (kind, content); the end of the process without a word is a failure too."""
        self.push()
        ended = False
        with contextlib.suppress(BlockingIOError):
            while not ended:
                received = os.read(self._out.fileno(), 1 << 16)
                self._incoming += received
                ended = not received
        *lines, self._incoming = self._incoming.split(b"\n")
        if ended and not lines:
            return [("failed", f"its process ended with {self._popen.wait()}")]
        return [pair for line in lines for pair in json.loads(line).items()]

    def wait(self, seconds: float) -> None:
        """Wait until an answer can be read, or more can be written, or ``seconds`` have passed."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        if self._outgoing:
            poll.register(self._in, select.POLLOUT)
        poll.poll(seconds * 1000)

    def kill(self) -> None:
        """End the process if it has not ended; wandb's service follows it."""
        self._popen.kill()
        self._popen.wait()
        self._in.close()
        self._out.close()


def _message(kind: str, content: Any) -> bytes:
    return json.dumps({kind: content}, default=str).encode() + b"\n"


def _without_key(text: str) -> str:
    key = os.environ.get("WANDB_API_KEY")
    return text.replace(key, "***") if key else text

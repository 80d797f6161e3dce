"""``pipe:COMMAND``: a shard that a shell command writes to its standard output.

Running a command is for the user alone to allow, on the command line: no recipe and no index can do it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import select
import signal
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from gandist.errors import ConfigError, DataError, MachineError

STALL_SECONDS = 120.0
"""A command that writes nothing for so long is ended."""

LIMIT_BYTES = 16 << 30
"""A command that writes more is ended: no shard is that large."""

_PREFIX = "pipe:"
_CHUNK_BYTES = 1 << 20
_SHOWN_CHARACTERS = 200
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_RANGE_LIMIT = 1 << 20


def is_pipe(text: str) -> bool:
    """Return whether a shard is the output of a command."""
    return text.startswith(_PREFIX)


def pipe_shown(text: str) -> str:
    """Return a ``pipe:`` shard in a form to print: one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 3]}..."


def expand_pipe(text: str) -> list[str]:
    """Return one ``pipe:`` shard for each number in ranges such as ``{000..099}``; other braces are the shell's.

    Raises:
        ConfigError: there is no command, or a range cannot be.

    """
    if not text.removeprefix(_PREFIX).strip():
        raise ConfigError(f"data.shards {text!r}: names no command. Write 'pipe:COMMAND'.")
    pieces = _RANGE.split(text)  # text, first, last, text, first, last, text ...
    choices: list[Sequence[str]] = [pieces[:1]]
    for first, last, after in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) <= _RANGE_LIMIT:
            raise ConfigError(f"data.shards {pipe_shown(text)!r}: {{{first}..{last}}} does not rise, or is too long.")
        choices += [[str(number).zfill(len(first)) for number in numbers], [after]]
    return ["".join(parts) for parts in itertools.product(*choices)]


class Spooled:
    """What a command wrote, in a file that has no name: it is gone once closed or forgotten, or the process ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder)
        self.close = weakref.finalize(self, os.close, descriptor)
        os.unlink(name)  # noqa: PTH108
        self._descriptor = descriptor

    @property
    def path(self) -> Path:
        """Where the file can be opened while it is not closed."""
        return Path(f"/proc/self/fd/{self._descriptor}")

    def write(self, data: bytes) -> None:
        """Append."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


def spool(text: str, folder: Path, *, stall_seconds: float = STALL_SECONDS, limit_bytes: int = LIMIT_BYTES) -> Spooled:
    """Run the command of a ``pipe:`` shard to its end and keep its output.

    Args:
        text: the shard; the shell runs what follows ``pipe:``.
        folder: where the output is kept.
        stall_seconds: the command is ended after so long without output.
        limit_bytes: the command is ended when it writes more.

    Raises:
        DataError: the command failed, was killed, stalled, or wrote too much.
        MachineError: the folder has no room for the output.

    """
    with _keeping(folder):
        spooled = Spooled(folder)

    def keep(data: bytes) -> None:
        with _keeping(folder):
            spooled.write(data)

    with tempfile.TemporaryFile() as complaints:
        fault = _run(text, keep, complaints, stall_seconds, limit_bytes)
    if fault is not None:
        spooled.close()
        raise DataError(f"{pipe_shown(text)}: {fault}.")
    return spooled


@contextlib.contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Say what to do where a file cannot be written."""
    try:
        yield
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise MachineError(
            f"{folder}: the output of a command cannot be kept here ({why}). Name another folder with "
            "--execution.cache.dir."
        ) from None


def _run(
    text: str, keep: Callable[[bytes], None], complaints: BinaryIO, stall_seconds: float, limit_bytes: int
) -> str | None:
    """Run the command to its end; return what is wrong with it, if anything."""
    process = subprocess.Popen(
        text.removeprefix(_PREFIX),
        shell=True,  # what the user asked for with the flag
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=complaints,
        start_new_session=True,  # so that everything it starts can be ended with it
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            fault = _copy(process.stdout.fileno(), keep, stall_seconds, limit_bytes)
            return fault or _ending(process, complaints, stall_seconds)
        finally:
            _end(process)


def _copy(source: int, keep: Callable[[bytes], None], stall_seconds: float, limit_bytes: int) -> str | None:
    """Copy until the command closes its output; return what is wrong with it, if anything."""
    written = 0
    watch = select.poll()
    watch.register(source, select.POLLIN)
    while watch.poll(stall_seconds * 1000):
        data = os.read(source, _CHUNK_BYTES)
        if not data:
            return None
        written += len(data)
        if written > limit_bytes:
            return f"the command wrote more than {limit_bytes} bytes and was ended"
        keep(data)
    return f"the command wrote nothing for {stall_seconds:g} seconds and was ended"


def _ending(process: subprocess.Popen[bytes], complaints: BinaryIO, stall_seconds: float) -> str | None:
    """Wait for a command that has closed its output; return what is wrong with how it ended, if anything."""
    try:
        status = process.wait(stall_seconds)
    except subprocess.TimeoutExpired:
        return f"the command closed its output but did not end in {stall_seconds:g} seconds"
    if status == 0:
        return None
    complaints.seek(max(0, os.fstat(complaints.fileno()).st_size - _SHOWN_CHARACTERS))
    said = complaints.read().decode(errors="replace").strip()
    how = f"the command was killed by signal {-status}" if status < 0 else f"the command ended with status {status}"
    return f"{how}, saying {said!r}" if said else how


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command, and whatever it started, unless it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

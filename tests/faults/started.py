"""Processes of a launch, found by a mark in their environment, whatever their parents are by now."""

import os
import secrets
from pathlib import Path

MARK = "GANDIST_TEST_MARK"


def new_mark() -> dict[str, str]:
    """Return an environment variable that no other process has."""
    return {MARK: secrets.token_hex(8)}


def marked(mark: dict[str, str]) -> dict[int, dict[str, str]]:
    """Return the environments of the living processes with a mark."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        except OSError:  # ended meanwhile
            continue
        environment = dict(line.split("=", 1) for line in variables if "=" in line)
        if environment.get(MARK) == mark[MARK] and state not in "ZX":
            found[int(entry.name)] = environment
    return found


def rank(mark: dict[str, str], number: int) -> int | None:
    """Return the process of a rank, None if there is none at the moment."""
    return next((pid for pid, env in marked(mark).items() if env.get("RANK") == str(number)), None)


def launcher(mark: dict[str, str]) -> int | None:
    """Return the launcher: ``accelerate launch``, which is no rank."""
    for pid, environment in marked(mark).items():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if "RANK" not in environment and any(word.endswith(b"/accelerate") for word in words[:2]):
            return pid
    return None


def kill(pid: int | None, number: int) -> None:
    assert pid is not None, "the process is not there"
    os.kill(pid, number)

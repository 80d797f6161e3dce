"""A tiny recipe, and doctors as real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gandist.config import dump, merge, parse

ROOT = Path(__file__).parents[2]
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

TINY: dict[str, Any] = {
    "run": {"name": "tiny", "total_kimg": 64, "seed": 3},
    "data": {"shards": "glyphs", "resolution": 8, "channels": 1},
    "model": {"arch": "mlp", "latent_dim": 8, "mlp": {"generator_widths": [16], "discriminator_widths": [16]}},
    "update": {"batch_images": 16},
    "checkpoint": {"every_kimg": 8},
    "execution": {"workers": 0, "precision": "fp32", "threads": 1, "device": "cpu"},
}


def write_recipe(folder: Path, **sections: Any) -> Path:
    """Write the tiny recipe with changes, whose runs are in ``folder/runs``, and return its path."""
    content = merge(merge(TINY, {"run": {"root": str(folder / "runs")}}), sections)
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(dump(parse(content, "tests"))))  # JSON is YAML
    return path


def environment(rank: int = 0, world: int = 1, port: int = 0) -> dict[str, str]:
    """Return the environment of one rank of a launch."""
    env = {name: value for name, value in os.environ.items() if name not in LAUNCHER} | {"OMP_NUM_THREADS": "1"}
    if world > 1:
        env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return env


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start doctors as processes; whatever is left of them is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        *words: str | Path, env: dict[str, str] | None = None, program: Sequence[str | Path] = ("-m", "gandist")
    ) -> subprocess.Popen[str]:
        command = [sys.executable, *program, "doctor", *words]
        process = subprocess.Popen(
            command, env=env or environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def free_port() -> int:
    """Return a port that nobody holds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_that(
    condition: Callable[[], object], what: str, process: subprocess.Popen[str], seconds: float = 240
) -> None:
    """Wait until a condition holds; fail if the process ends before it does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        assert process.poll() is None, f"ended before {what}: {process.communicate()}"
        time.sleep(0.01)


def facts(printed: str) -> dict[str, tuple[str, str]]:
    """Return level and fact of each check in a doctor's JSON."""
    return {found["check"]: (found["level"], found["fact"]) for found in json.loads(printed)["findings"]}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the time and the content of every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

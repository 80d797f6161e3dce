"""Tiny runs: in this process, or as real processes that find each other over gloo."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gandist.config import Config, dump, merge, parse
from gandist.continuity import Insistence
from gandist.errors import EXIT_DONE
from gandist.trainer import Trainer

TINY: dict[str, Any] = {
    "run": {"name": "tiny", "total_kimg": 0.32, "seed": 3},
    "data": {"shards": "glyphs", "resolution": 8, "channels": 1, "hflip": True},
    "model": {
        "arch": "mlp",
        "latent_dim": 8,
        "mlp": {"generator_widths": [16], "discriminator_widths": [16]},
        "dcgan": {"generator_channels": 4, "discriminator_channels": 4},
        "resnet": {"generator_channels": 4, "discriminator_channels": 4},
    },
    "regularizer": {"r1": {"gamma": 0.1, "interval_steps": 4}},
    "update": {"batch_images": 16},
    "samples": {"every_kimg": 0.16, "rows": 2, "columns": 2},
    "checkpoint": {"every_kimg": 0.08},
    "tracking": {"every_kimg": 0.032},
    "execution": {"workers": 0, "precision": "fp32", "threads": 1, "device": "cpu"},
}


def make_config(root: Path, changes: dict[str, Any] | None = None) -> Config:
    """Return the tiny recipe with changes, its run folder under ``root``."""
    return parse(merge(merge(TINY, {"run": {"root": str(root)}}), changes or {}), "tests")


def play(config: Config, insistence: Insistence | None = None) -> Trainer:
    """Run a configuration to its end in this process."""
    trainer = Trainer(config, insistence)
    assert trainer.train() == EXIT_DONE
    return trainer


def digests(folder: Path, name: str | None = None) -> dict[str, str]:
    """Return the digests of a checkpoint's tensor files, the newest one's if not named: equal bytes, equal weights."""
    checkpoints = folder / "checkpoints"
    checkpoint = checkpoints / (name or (checkpoints / "latest").read_text().strip())
    files = json.loads((checkpoint / "manifest.json").read_text())["files"]
    return {name: entry["sha256"] for name, entry in files.items() if name.endswith(".safetensors")}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics, without what depends on the clock of the machine."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time" and not k.startswith(("speed/", "memory/"))} for row in rows]


@dataclass
class Ranks:
    """Processes of one launch."""

    processes: list[subprocess.Popen[bytes]]
    log: Path

    def kill(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
        self.wait()

    def signal(self, number: int) -> None:
        for process in self.processes:
            process.send_signal(number)

    def wait(self, timeout: float = 120) -> list[int]:
        return [process.wait(timeout) for process in self.processes]

    def output(self) -> str:
        return self.log.read_text()


Launch = Callable[..., Ranks]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start ``gandist train`` as real processes; whatever is left of them is killed at the end."""
    started: list[Ranks] = []

    def start(config: Config, *flags: str, world: int = 1, program: Sequence[str] = ("-m", "gandist.cli")) -> Ranks:
        recipe = tmp_path / f"{config.name}.yaml"
        recipe.write_text(json.dumps(dump(config)))  # JSON is YAML
        command = [sys.executable, *program, "train", str(recipe), *flags]
        ranks = Ranks([], tmp_path / f"{config.name}.{len(started)}.log")
        started.append(ranks)
        port = free_port()
        for rank in range(world):
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            if world > 1:
                env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
                env |= {"LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            with ranks.log.open("ab") as log:
                ranks.processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        return ranks

    yield start
    for ranks in started:
        ranks.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_that(condition: Callable[[], bool], what: str, ranks: Ranks | None = None, seconds: float = 120) -> None:
    """Wait until a condition holds; fail if the processes end before it does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        if ranks is not None and any(process.poll() is not None for process in ranks.processes):
            assert condition(), f"the run ended before {what}:\n{ranks.output()}"
        time.sleep(0.005)

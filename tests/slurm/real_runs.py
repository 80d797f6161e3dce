"""Tiny runs of gandist itself under Slurm: the recipe, what they leave behind, and the processes they are made of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import Job, wait_until

ROUNDS, BATCH = 200, 16
RECIPE: dict[str, Any] = {
    "run": {"total_kimg": ROUNDS * BATCH / 1000},
    "data": {"resolution": 8, "channels": 1, "hflip": True},
    "model": {"arch": "mlp", "latent_dim": 8, "mlp": {"generator_widths": [16], "discriminator_widths": [16]}},
    "regularizer": {"r1": {"gamma": 0.1, "interval_steps": 4}},
    "update": {"batch_images": BATCH},
    "samples": {"every_kimg": 0.8, "rows": 2, "columns": 2},
    "checkpoint": {"every_kimg": 0.4},
    "tracking": {"every_kimg": 0.08, "wandb": {"mode": "offline"}},
    "execution": {"device": "cpu", "precision": "fp32", "workers": 1},
}
SECRETS = {
    name: f"canary{number:034x}"  # as long as a W&B key
    for number, name in enumerate(("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MY_SECRET_TOKEN"))
}
START_SECONDS = 150  # most that a start may take on a busy machine: seven processes that import torch or wandb


# --- what a run leaves behind ------------------------------------------------------------------------------


def digests(run: Path) -> dict[str, str]:
    """Return the digests of the newest checkpoint's tensor files, and its name."""
    newest = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    files = json.loads((newest / "manifest.json").read_text())["files"]
    found = {name: entry["sha256"] for name, entry in files.items() if name.endswith(".safetensors")}
    return {"name": newest.name, **found}


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl`` without what depends on the clock of the machine."""
    return [_timeless(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def wandb_sessions(run: Path) -> list[list[dict[str, Any]]]:
    """Return the rows in the W&B files of every attempt, without what depends on the clock of the machine."""
    return [_wandb_rows(file) for file in sorted(run.glob("wandb/offline-run-*/*.wandb"))]


def _wandb_rows(file: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    items = [record["history"]["item"] for record in map(json.loads, out.splitlines()) if record["type"] == "history"]
    return [_timeless(item) for item in items if "loss/d" in item]


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != "time" and not k.startswith(("speed/", "memory/", "_"))}


def state(run: Path) -> str:
    """Return what ``status.json`` says of the run."""
    return str(json.loads((run / "status.json").read_text())["state"])


# --- the processes of a job --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """A process of a job: a rank, or anything else."""

    pid: int
    parent: int
    environment: dict[str, str]
    command: str


def processes(job: Job) -> dict[int, Process]:
    """Return the processes of the job's steps and its batch shell, by their numbers."""
    own = {"SLURM_CONF": str(job.cluster.conf), "SLURM_JOB_ID": job.field("JobId")}
    return {each.pid: each for each in _all_processes() if own.items() <= each.environment.items()}


def ranks(job: Job) -> dict[int, int]:
    """Return the process number of each rank of the job."""
    found = {pid: each for pid, each in processes(job).items() if "RANK" in each.environment}
    return {int(each.environment["RANK"]): pid for pid, each in found.items() if each.parent not in found}


def hold(job: Job, run: Path) -> dict[int, int]:
    """Wait for the run's first checkpoint and stop its ranks there, in the middle of the run; return them.

    Whatever a test then does reaches the run before it is done, on any machine.
    """
    wait_until(lambda: (run / "checkpoints" / "latest").exists() or not job.lives(), START_SECONDS, job.describe)
    held = ranks(job)
    for pid in held.values():
        os.kill(pid, signal.SIGSTOP)
    return held


def release(held: dict[int, int]) -> None:
    """Let the ranks go on."""
    for pid in held.values():
        os.kill(pid, signal.SIGCONT)


def _all_processes() -> Iterator[Process]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended, or is another user's
                continue
            yield Process(int(folder.name), parent, dict(e.split("=", 1) for e in environment if "=" in e), command)

"""Checkouts for jobs to run in: with stand-ins for gandist and accelerate, or with them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Cluster, Job, missing_programs
from real_runs import RECIPE

ROOT = Path(__file__).parents[2]
STANDIN = Path(__file__).parent / "standin"


def require_slurm() -> None:
    """Skip the test, or fail where Slurm must be there, when it is not."""
    if missing := missing_programs():
        reason = (
            f"Slurm is not installed here: no {', '.join(missing)} (on Debian: slurmctld slurmd slurm-client munge)"
        )
        if os.environ.get("GANDIST_REQUIRE_SLURM"):
            pytest.fail(reason)
        pytest.skip(reason)


@dataclass(frozen=True)
class Checkout:
    """A folder that holds slurm/, launch/ and a trainer, and perhaps the programs that a job finds first, in bin/."""

    folder: Path
    cluster: Cluster
    grace_seconds: int  # in which W&B must have taken its last rows, after another rank has ended

    @property
    def run_folder(self) -> Path:
        return self.folder / "runs" / "standin"

    def train(self, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> Job:
        """Submit slurm/train.sbatch for two nodes without GPUs, unless ``options`` say otherwise."""
        size = ("--nodes=2", "--gpus-per-node=0", "--cpus-per-task=2")
        return self._submit("slurm/train.sbatch", arguments, (*size, *options), variables)

    def train_array(
        self, *arguments: str, tasks: Sequence[int], options: tuple[str, ...] = (), **variables: str
    ) -> dict[int, Job]:
        """Submit slurm/train.sbatch as an array of jobs that have one rank each."""
        size = ("--nodes=1", "--gpus-per-node=0", "--cpus-per-task=1", *options)
        env = self._environment(variables)
        return self.cluster.submit_array(
            "slurm/train.sbatch", *arguments, tasks=tasks, cwd=self.folder, options=size, env=env
        )

    def evaluate(self, *arguments: str) -> Job:
        """Submit slurm/evaluate.sbatch."""
        return self._submit("slurm/evaluate.sbatch", arguments, ("--cpus-per-task=2",), {})

    def prepare(self, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> Job:
        """Submit slurm/prepare.sbatch."""
        return self._submit("slurm/prepare.sbatch", arguments, ("--cpus-per-task=2", *options), variables)

    def preempt(self) -> Job:
        """Submit a short job that outranks the others and wants both nodes to itself."""
        return self.prepare("--help", options=("--partition=urgent", "--nodes=2", "--ntasks=2", "--exclusive"))

    def _submit(
        self, script: str, arguments: tuple[str, ...], options: tuple[str, ...], variables: dict[str, str]
    ) -> Job:
        env = self._environment(variables)
        return self.cluster.submit(script, *arguments, cwd=self.folder, options=options, env=env)

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "GANDIST_"))}
        own = {"PATH": path, "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        own["GANDIST_GRACE_SECONDS"] = str(self.grace_seconds)
        return {**mine, **own, **variables}


def checkout_with_standins(folder: Path, cluster: Cluster) -> Checkout:
    """Make a checkout whose trainer, launcher and command line are stand-ins."""
    _copy_scripts(folder)
    (folder / "bin").mkdir()
    for name in ("gandist", "accelerate"):
        shutil.copy(STANDIN / name, folder / "bin" / name)
    shutil.copy(STANDIN / "train.py", folder)
    return Checkout(folder, cluster, grace_seconds=3)


def checkout_with_gandist(folder: Path, cluster: Cluster) -> Checkout:
    """Make a checkout with the real trainer, launcher and command line, and the recipe tiny.yaml."""
    _copy_scripts(folder)
    shutil.copy(ROOT / "train.py", folder)
    (folder / "tiny.yaml").write_text(json.dumps(RECIPE))  # JSON is YAML
    return Checkout(folder, cluster, grace_seconds=60)


def _copy_scripts(folder: Path) -> None:
    for name in ("slurm", "launch"):
        shutil.copytree(ROOT / name, folder / name)

"""One Slurm cluster for all tests of this folder, and a checkout for each test with a stand-in for the trainer."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, Job, missing_programs

ROOT = Path(__file__).parents[2]
STANDIN = Path(__file__).parent / "standin"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing := missing_programs():
        reason = (
            f"Slurm is not installed here: no {', '.join(missing)} (on Debian: slurmctld slurmd slurm-client munge)"
        )
        if os.environ.get("GANDIST_REQUIRE_SLURM"):
            pytest.fail(reason)
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        yield running


@dataclass(frozen=True)
class Checkout:
    """A folder that holds slurm/, launch/ and a stand-in trainer, and the programs that a job finds first."""

    folder: Path
    cluster: Cluster

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

    def prepare(self, *arguments: str, options: tuple[str, ...] = ()) -> Job:
        """Submit slurm/prepare.sbatch."""
        return self._submit("slurm/prepare.sbatch", arguments, ("--cpus-per-task=2", *options), {})

    def preempt(self) -> Job:
        """Submit a short job that outranks the others and wants both nodes to itself."""
        return self.prepare(options=("--partition=urgent", "--nodes=2", "--ntasks=2", "--exclusive"))

    def _submit(
        self, script: str, arguments: tuple[str, ...], options: tuple[str, ...], variables: dict[str, str]
    ) -> Job:
        env = self._environment(variables)
        return self.cluster.submit(script, *arguments, cwd=self.folder, options=options, env=env)

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "GANDIST_GRACE_SECONDS": "3", **variables}


@pytest.fixture
def checkout(cluster: Cluster, tmp_path: Path) -> Checkout:
    """A checkout whose ``accelerate`` is a stand-in, too."""
    for name in ("slurm", "launch"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for name in ("gandist", "accelerate"):
        shutil.copy(STANDIN / name, tmp_path / "bin" / name)
    shutil.copy(STANDIN / "train.py", tmp_path)
    cluster.wait_idle()
    return Checkout(tmp_path, cluster)


@pytest.fixture
def checkout_with_accelerate(checkout: Checkout) -> Checkout:
    """A checkout with the real launcher."""
    (checkout.folder / "bin" / "accelerate").unlink()
    return checkout

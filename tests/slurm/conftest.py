"""One Slurm cluster for all tests of this folder, and a checkout for each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkouts import Checkout, checkout_with_gandist, checkout_with_standins, require_slurm
from cluster import Cluster, Job
from real_runs import SECRETS


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of whoever runs the tests."""
    require_slurm()
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        yield running


@pytest.fixture
def checkout(cluster: Cluster, tmp_path: Path) -> Iterator[Checkout]:
    """A checkout whose ``accelerate`` is a stand-in, too."""
    cluster.wait_idle()
    yield checkout_with_standins(tmp_path, cluster)
    cluster.end_jobs()


@pytest.fixture
def checkout_with_accelerate(checkout: Checkout) -> Checkout:
    """A checkout with the real launcher."""
    (checkout.folder / "bin" / "accelerate").unlink()
    return checkout


@pytest.fixture
def real(cluster: Cluster, tmp_path: Path) -> Iterator[Checkout]:
    """A checkout with gandist itself."""
    cluster.wait_idle()
    yield checkout_with_gandist(tmp_path, cluster)
    cluster.repair()
    cluster.end_jobs()


@pytest.fixture(scope="session")
def undisturbed_job(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that played tiny.yaml on two nodes and that nothing happened to; there were secrets in its environment."""
    checkout = checkout_with_gandist(tmp_path_factory.mktemp("undisturbed"), cluster)
    job = checkout.train("tiny.yaml", **SECRETS)
    job.wait_for("COMPLETED", 300)
    return job


@pytest.fixture
def undisturbed(undisturbed_job: Job) -> Path:
    """The run folder of that job."""
    return undisturbed_job.output.parent / "runs" / "tiny"

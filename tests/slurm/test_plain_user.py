"""Slurm as a user who is not root: the whole cluster is theirs, and so is the job."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkouts import Checkout, checkout_with_standins, require_slurm
from cluster import Cluster, give_to

NOBODY = "nobody"
PYTHONS = "/usr/local/bin:/usr/bin:/bin"  # root's own may lie where nobody else may look


@pytest.fixture
def plain_checkout(request: pytest.FixtureRequest) -> Iterator[Checkout]:
    """A checkout with stand-ins on a plain user's cluster: the usual one, or, if root tests, one that nobody owns."""
    if os.getuid() != 0:
        yield request.getfixturevalue("checkout")
        return
    require_slurm()
    python = shutil.which("python3", path=PYTHONS)
    if python is None:
        pytest.skip(f"no python3 in {PYTHONS} for a user who is not root")
    folder = Path(tempfile.mkdtemp(prefix="gandist-slurm-"))  # pytest's own folder is for its user alone
    folder.chmod(0o755)
    try:
        with Cluster(folder / "cluster", user=NOBODY) as cluster:
            (folder / "checkout").mkdir()
            checkout = checkout_with_standins(folder / "checkout", cluster)
            (checkout.folder / "bin" / "python3").symlink_to(python)  # found first
            give_to(NOBODY, checkout.folder)
            yield checkout
    finally:
        shutil.rmtree(folder)


@pytest.mark.long
def test_a_plain_user_has_a_run_on_two_nodes_requeued(plain_checkout):
    job = plain_checkout.train("--rounds", "60")
    job.wait_for_line("attempt 0 starts at round 0")
    job.signal_batch_shell("USR1")
    job.wait_for_line("saved: back to the queue")
    job.wait_for("COMPLETED")
    assert job.field("Restarts") == "1"
    assert "attempt 1 starts at round " in job.printed()
    assert "attempt 1 starts at round 0" not in job.printed()
    ranks = [json.loads(file.read_text()) for file in sorted(plain_checkout.run_folder.glob("rank*.json"))]
    assert [rank["node"] for rank in ranks] == ["n1", "n2"]
    owner = pwd.getpwnam(plain_checkout.cluster.user)
    assert owner.pw_uid != 0
    assert job.field("UserId") == f"{owner.pw_name}({owner.pw_uid})"
    assert (plain_checkout.run_folder / "status.json").stat().st_uid == owner.pw_uid

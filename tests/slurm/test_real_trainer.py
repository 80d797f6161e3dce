"""gandist itself on two nodes, with loading processes and W&B: whatever interrupts it, it ends as if nothing had.

Each test does one thing to a run and checks what slurm/README.md promises of it. Its end is then compared with the end
of a run that nothing happened to: the same bytes in the last checkpoint, the same rows of metrics.
"""

from __future__ import annotations

import os
import signal

import pytest
from cluster import wait_until
from real_runs import START_SECONDS, digests, hold, metrics, ranks, release, state, wandb_sessions

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

END_SECONDS = 300


@pytest.fixture
def run_folder(real):
    return real.folder / "runs" / "tiny"


def assert_ended_like(run, undisturbed, *, wandb_killed=False):
    """Compare to the bit; W&B was told the rows of metrics.jsonl, by all attempts together, and no others.

    Where Slurm signals every process, W&B's own dies of it, and lacks what it was told in the seconds before.
    """
    assert state(run) == "done"
    assert digests(run) == digests(undisturbed)
    rows, sessions = metrics(run), wandb_sessions(run)
    assert rows == metrics(undisturbed)
    told = [row for session in sessions for row in session]
    assert all(row in rows for row in told)
    assert sessions[-1] == rows[-len(sessions[-1]) :]
    if not wandb_killed:
        assert {row["images_seen"] for row in told} == {row["images_seen"] for row in rows}


def test_time_is_up(real, run_folder, undisturbed):
    """Slurm itself sends USR1 to the batch shell, a minute or two before the limit of two minutes."""
    job = real.train("tiny.yaml", options=("--time=2", "--signal=B:USR1@60"))
    held = hold(job, run_folder)
    job.wait_for_line("asked to save and stop", 150)
    release(held)
    job.wait_for_line("saved: back to the queue", START_SECONDS)
    job.wait_for("COMPLETED", END_SECONDS)
    assert int(job.field("Restarts")) >= 1
    assert_ended_like(run_folder, undisturbed)


def test_preempted_with_grace(real, run_folder, undisturbed):
    real.cluster.set_partition(GraceTime=60)
    job = real.train("tiny.yaml")
    hold(job, run_folder)  # Slurm lets the ranks go on before it asks them to end
    urgent = real.preempt()
    job.wait_for_line("saved: back to the queue", 90)
    urgent.wait_for("COMPLETED", 90)
    job.wait_for("COMPLETED", END_SECONDS)
    assert job.field("Restarts") == "1"
    assert_ended_like(run_folder, undisturbed, wandb_killed=True)


def test_preempted_without_grace(real, run_folder, undisturbed):
    real.cluster.set_partition(GraceTime=0)
    job = real.train("tiny.yaml")
    hold(job, run_folder)
    real.preempt().wait_for("COMPLETED", 90)
    job.wait_for("COMPLETED", END_SECONDS)
    assert job.field("Restarts") == "1"
    assert "back to the queue" not in job.printed()
    assert_ended_like(run_folder, undisturbed, wandb_killed=True)


def test_cancelled_and_submitted_again(real, run_folder, undisturbed):
    job = real.train("tiny.yaml")
    hold(job, run_folder)
    job.cancel()
    job.wait_for("CANCELLED")
    real.cluster.wait_idle()
    assert job.field("Restarts") == "0"
    assert state(run_folder) in {"preempted", "running"}, "saved, or killed before that"
    real.train("tiny.yaml").wait_for("COMPLETED", END_SECONDS)
    assert_ended_like(run_folder, undisturbed, wandb_killed=True)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_dies(real, run_folder, undisturbed, rank):
    job = real.train("tiny.yaml")
    held = hold(job, run_folder)
    os.kill(held.pop(rank), signal.SIGKILL)
    release(held)
    job.wait_for_line("time 1 since the last progress): back to the queue", 120)
    job.wait_for("COMPLETED", END_SECONDS)
    assert job.field("Restarts") == "1"
    assert_ended_like(run_folder, undisturbed)


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_node_dies(real, run_folder, undisturbed, node):
    """On n1 the batch shell, rank 0 and W&B die too."""
    job = real.train("tiny.yaml")
    held = hold(job, run_folder)
    real.cluster.kill_node(node)
    release({rank: pid for rank, pid in held.items() if pid in ranks(job).values()})
    wait_until(lambda: job.field("Restarts") == "1", 90, job.describe)
    real.cluster.start_node(node)
    job.wait_for("COMPLETED", END_SECONDS)
    assert_ended_like(run_folder, undisturbed, wandb_killed=node == "n1")


def test_an_array_of_two_seeds_of_which_one_is_interrupted(real, undisturbed):
    jobs = real.train_array("tiny.yaml", tasks=(0, 1), options=("--nodes=2",))
    folders = {seed: real.folder / "runs" / f"tiny-seed{seed}" for seed in jobs}
    held = hold(jobs[0], folders[0])
    jobs[0].signal_batch_shell("USR1")
    jobs[0].wait_for_line("asked to save and stop")
    release(held)
    jobs[0].wait_for_line("saved: back to the queue", START_SECONDS)
    for job in jobs.values():
        job.wait_for("COMPLETED", END_SECONDS)
    assert [job.field("Restarts") for job in jobs.values()] == ["1", "0"]
    assert_ended_like(folders[0], undisturbed)
    assert state(folders[1]) == "done"
    assert digests(folders[1]) != digests(undisturbed)

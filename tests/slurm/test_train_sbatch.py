"""slurm/train.sbatch on a real Slurm: what it starts, and what every signal and every end leads to."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from checkouts import checkout_with_standins

HOSTILE = [
    "--run.root=it's", 'say "hi"', "$(touch owned)", "`touch owned`", "; touch owned", "a\nb", "  two  spaces  ", "",
    "*", "~", "back\\slash", "${HOME}", "--debug", "--nnodes=7", "&& touch owned", "ünï", "'\"'\"'", "-",
]  # fmt: skip


def ranks(checkout):
    return [json.loads(file.read_text()) for file in sorted(checkout.run_folder.glob("rank*.json"))]


def state(checkout):
    return json.loads((checkout.run_folder / "status.json").read_text())["state"]


def test_a_long_save_outlives_a_signal_to_the_whole_step_under_the_real_launcher(checkout_with_accelerate):
    """TERM reaches task shells, launchers and ranks alike; a launcher that acted on it would kill the saving rank."""
    checkout = checkout_with_accelerate
    arguments = ["--rounds", "100", "--save-seconds", "3", *HOSTILE]
    job = checkout.train(*arguments, GANDIST_GRACE_SECONDS="1")
    job.wait_for_line("attempt 0 starts at round 0")
    job.signal_steps("TERM")
    job.wait_for_line("saved: back to the queue")
    job.wait_for("COMPLETED")
    assert "attempt 1 starts at round " in job.printed()
    assert "attempt 1 starts at round 0" not in job.printed()
    assert job.field("Restarts") == "1"
    assert state(checkout) == "done"
    assert [rank["node"] for rank in ranks(checkout)] == ["n1", "n2"]
    assert all(rank["arguments"] == arguments for rank in ranks(checkout))


def test_time_is_up(checkout):
    """USR1 reaches the batch shell alone, as shortly before the time limit."""
    job = checkout.train("--rounds", "60", "--deaf")
    job.wait_for_line("attempt 0 starts at round 0")
    job.signal_batch_shell("USR1")
    job.wait_for_line("saved: back to the queue")
    job.wait_for("COMPLETED")
    assert "attempt 1 starts at round " in job.printed()
    assert "attempt 1 starts at round 0" not in job.printed()


def test_a_request_that_a_starting_trainer_takes_for_an_old_one_is_repeated(checkout):
    job = checkout.train("--rounds", "10000", "--deaf", "--forgetful")
    job.wait_for_line("starting")
    job.signal_batch_shell("USR1")
    job.wait_for_line("attempt 0 starts")
    job.wait_for_line("saved: back to the queue")
    assert not list(checkout.run_folder.glob("STOP")) + list(checkout.run_folder.glob("slurm-*"))


def test_a_request_that_comes_before_there_is_a_run_folder_is_kept(checkout):
    gandist = checkout.folder / "bin" / "gandist"
    waits = 'echo "asked for the folder" >&2; while [[ ! -e go ]]; do sleep 0.05; done; set -eu'
    gandist.write_text(gandist.read_text().replace("set -eu", waits))
    job = checkout.train("--slow")
    job.wait_for_line("asked for the folder")
    job.signal_batch_shell("USR1")
    (checkout.folder / "go").touch()
    job.wait_for_line("told to stop before it got any further (images 0, time 1 since the last progress): back to the")


def test_arguments_arrive_as_they_were_given_at_every_rank(checkout):
    job = checkout.train("--rounds", "1", *HOSTILE, options=("--nodes=1",), NPROC="2")
    job.wait_for("COMPLETED")
    assert [(rank["world"], rank["node"]) for rank in ranks(checkout)] == [(2, "n1"), (2, "n1")]
    assert all(rank["arguments"] == ["--rounds", "1", *HOSTILE] for rank in ranks(checkout))
    assert not (checkout.folder / "owned").exists()


def test_a_checkout_may_have_any_name(cluster, tmp_path):
    folder = tmp_path / """-it's "a" $(touch owned) `touch owned` ünï"""
    folder.mkdir()
    cluster.wait_idle()
    checkout = checkout_with_standins(folder, cluster)
    checkout.train("--rounds", "1").wait_for("COMPLETED")
    assert [rank["node"] for rank in ranks(checkout)] == ["n1", "n2"]
    assert not list(tmp_path.rglob("owned"))


def test_a_cancelled_job_saves_and_stays_cancelled(checkout):
    job = checkout.train("--rounds", "10000")
    job.wait_for_line("attempt 0 starts")
    job.cancel()
    job.wait_for("CANCELLED")
    checkout.cluster.wait_idle()
    assert state(checkout) == "preempted"
    assert "cancelled, preempted or out of time; state 'preempted'" in job.printed()
    assert "back to the queue" not in job.printed()
    assert job.field("Restarts") == "0"


def test_a_crash_is_requeued_a_bounded_number_of_times_and_frees_the_other_nodes(checkout):
    job = checkout.train("--crash-at", "3", GANDIST_MAX_CRASHES="1", GANDIST_GRACE_SECONDS="1")
    job.wait_for("FAILED")
    assert job.field("Restarts") == "1"
    assert "state 'running', time 1 since the last progress): back to the queue" in job.printed()
    assert "state 'running', time 2 since the last progress): giving up" in job.printed()
    assert not list(checkout.run_folder.glob("*.crashes"))


@pytest.mark.long
def test_preempted_with_grace_saves_through_the_file_where_no_signal_reaches_the_ranks(checkout):
    checkout.cluster.set_partition(GraceTime=30)
    job = checkout.train("--rounds", "100", "--deaf")
    job.wait_for_line("attempt 0 starts")
    urgent = checkout.preempt()
    job.wait_for_line("saved: back to the queue", 20)
    urgent.wait_for("COMPLETED")
    job.wait_for("COMPLETED")
    assert "attempt 1 starts at round 0" not in job.printed()


@pytest.mark.long
def test_preempted_without_grace_is_requeued_by_slurm_alone(checkout):
    checkout.cluster.set_partition(GraceTime=0)
    job = checkout.train("--rounds", "100")
    job.wait_for_line("attempt 0 starts")
    checkout.preempt()
    job.wait_for_line("attempt 1 starts")
    assert "attempt 1 starts at round 0" not in job.printed()
    job.wait_for("COMPLETED")
    assert "back to the queue" not in job.printed()


@pytest.mark.long
def test_a_save_forgives_the_crashes_before_it(checkout):
    job = checkout.train("--rounds", "10000", "--crash-at", "40", GANDIST_MAX_CRASHES="1", GANDIST_GRACE_SECONDS="1")
    job.wait_for_line("attempt 1 starts")
    job.signal_batch_shell("USR1")
    job.wait_for_line("saved: back to the queue")
    job.wait_for_line("attempt 2 starts")
    job.wait_for_line("giving up")
    assert job.printed().count("time 1 since the last progress): back to the queue") == 2


@pytest.mark.long
def test_a_job_that_is_always_told_to_stop_before_a_round_is_requeued_a_bounded_number_of_times(checkout):
    job = checkout.train("--rounds", "10000", "--slow", GANDIST_MAX_CRASHES="1")
    for attempt in range(2):
        job.wait_for_line(f"attempt {attempt} starts at round 0")
        job.signal_batch_shell("USR1")
    job.wait_for("FAILED")
    assert (
        "told to stop before it got any further (images 0, time 2 since the last progress): giving up" in job.printed()
    )
    assert job.field("ExitCode") == "75:0"
    assert job.field("Restarts") == "1"


def test_a_site_without_requeue_is_told_so(checkout):
    job = checkout.train("--rounds", "10000", options=("--no-requeue",))
    job.wait_for_line("attempt 0 starts")
    job.signal_batch_shell("USR1")
    job.wait_for("FAILED")
    assert job.field("ExitCode") == "75:0"
    assert "this site does not let jobs requeue themselves; submit the same command again" in job.printed()


@pytest.mark.long
def test_a_time_limit_that_nothing_warned_of_leaves_time_for_a_save_and_is_not_requeued(checkout):
    job = checkout.train("--rounds", "100000", options=("--time=1", "--signal=B:CONT@1"))
    job.wait_for("TIMEOUT", 150)
    checkout.cluster.wait_idle()
    assert state(checkout) == "preempted"
    assert "cancelled, preempted or out of time; state 'preempted'" in job.printed()
    assert job.field("Restarts") == "0"


def test_a_straggler_that_is_killed_at_the_end_spoils_nothing(checkout):
    job = checkout.train("--rounds", "2", "--linger", GANDIST_GRACE_SECONDS="1")
    job.wait_for("COMPLETED")
    assert "Terminated" in job.printed() or "Killed" in job.printed()


def test_a_straggler_that_is_killed_after_the_save_does_not_stop_the_requeue(checkout):
    job = checkout.train("--rounds", "60", "--linger", GANDIST_GRACE_SECONDS="1")
    job.wait_for_line("attempt 0 starts")
    job.signal_steps("USR1")
    job.wait_for_line("saved: back to the queue")


def test_a_stop_file_ends_the_job_for_good(checkout):
    job = checkout.train("--rounds", "10000")
    job.wait_for_line("attempt 0 starts")
    (checkout.run_folder / "STOP").touch()
    job.wait_for("FAILED")
    assert job.field("ExitCode") == "75:0"
    assert state(checkout) == "preempted"
    assert not list(checkout.run_folder.glob("STOP")) + list(checkout.run_folder.glob("slurm-*"))
    assert "submit the same command again" in job.printed()


def test_an_old_stop_file_is_not_obeyed(checkout):
    checkout.run_folder.mkdir(parents=True)
    (checkout.run_folder / "STOP").touch()
    checkout.train("--rounds", "2").wait_for("COMPLETED")


def test_wrong_settings_are_refused_before_a_rank_starts(checkout):
    job = checkout.train("--no.such.knob", "1")
    job.wait_for("FAILED")
    assert job.field("ExitCode") == "2:0"
    assert not checkout.run_folder.exists()


def test_a_trainer_that_never_got_going_is_not_requeued_even_after_a_save(checkout):
    checkout.run_folder.mkdir(parents=True)
    (checkout.run_folder / "status.json").write_text('{"state": "preempted", "attempt": "of another job"}')
    job = checkout.train("--fail-early")
    job.wait_for("FAILED")
    assert "the trainer did not start" in job.printed()
    assert job.field("Restarts") == "0"


def test_prepare_hands_its_arguments_on(checkout):
    checkout.prepare(*HOSTILE).wait_for("COMPLETED")
    assert (checkout.folder / "prepare.arguments").read_text().split("\0")[:-1] == ["prepare", *HOSTILE]


def test_evaluate_hands_its_arguments_on(checkout):
    checkout.evaluate("sample", "runs/a b", *HOSTILE).wait_for("COMPLETED")
    handed_on = (checkout.folder / "sample.arguments").read_text().split("\0")[:-1]
    assert handed_on == ["sample", "runs/a b", *HOSTILE]
    assert not (checkout.folder / "owned").exists()


@pytest.mark.parametrize(("arguments", "words"), [(["sample"], "needs a verb and a run"), (["train", "a"], "to train")])
def test_evaluate_refuses_what_it_is_not_for(checkout, arguments, words):
    job = checkout.evaluate(*arguments)
    job.wait_for("FAILED")
    assert job.field("ExitCode") == "2:0"
    assert words in job.printed()


def test_a_container_is_one_variable(checkout):
    """A command that runs the rest of its line stands before every program of gandist, here and on each node."""
    (checkout.folder / "bin" / "box").write_text('#!/bin/bash\necho "$2 $3" >>boxed\nshift\nexec "$@"\n')
    (checkout.folder / "bin" / "box").chmod(0o755)
    checkout.train("--rounds", "1", *HOSTILE, GANDIST_CONTAINER="box image.sif").wait_for("COMPLETED")
    boxed = (checkout.folder / "boxed").read_text().splitlines()
    assert sorted(boxed) == ["accelerate launch", "accelerate launch", "gandist config"]
    assert all(rank["arguments"] == ["--rounds", "1", *HOSTILE] for rank in ranks(checkout))


def test_a_container_of_enroot_sees_the_job_and_its_folder(checkout):
    """With a stand-in that keeps to enroot's manual."""
    shutil.copy(Path(__file__).parent / "standin" / "enroot", checkout.folder / "bin")
    variables = {
        "GANDIST_CONTAINER": "enroot start --conf slurm/enroot.conf image",
        "IMAGE_PATH": f"{checkout.folder / 'bin'}:{os.environ['PATH']}",
        "SECRET": "it's $HOME",
        "LINES": "a\nb",
    }
    (checkout.folder / "bin" / "gandist").write_text(
        (Path(__file__).parent / "standin" / "gandist").read_text().replace("set -eu", "set -eu; env -0 >seen")
    )
    checkout.train("--rounds", "1", *HOSTILE, **variables).wait_for("COMPLETED")
    assert [rank["node"] for rank in ranks(checkout)] == ["n1", "n2"]
    assert all(rank["arguments"] == ["--rounds", "1", *HOSTILE] for rank in ranks(checkout))
    seen = dict(word.split("=", 1) for word in (checkout.folder / "seen").read_text().split("\0")[:-1])
    assert seen["SECRET"] == "it's $HOME"
    assert seen["PATH"] == variables["IMAGE_PATH"]
    assert seen["IN_CONTAINER"] == "1"
    assert "LINES" not in seen
    assert (
        checkout.folder / "image.mounts"
    ).read_text() == f"{checkout.folder} {checkout.folder} none x-create=dir,bind,rw\n"

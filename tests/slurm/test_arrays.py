"""Arrays of slurm/train.sbatch: a run for each task, with a seed or a line of a sweep, that fares for itself."""

from __future__ import annotations

import json

import pytest

SEEDS = (0, 3)
LINES = [
    r"""--a 'it is "quoted" $(touch owned)' "`touch owned`" back\\slash --b=\ x ; touch owned && ünï ~ * '' """,
    "# --a 1",
    "   ",
    "--a 'never closed",
    "\t--optimizer.generator.lr 0.001\r",
]
WORDS = {
    1: [
        "--a", 'it is "quoted" $(touch owned)', "`touch owned`", "back\\slash", "--b= x", ";", "touch", "owned", "&&",
        "ünï", "~", "*", "",
    ],
    5: ["--optimizer.generator.lr", "0.001"],
}  # fmt: skip


def arguments(checkout, name):
    return json.loads((checkout.folder / "runs" / name / "rank0.json").read_text())["arguments"]


def states(checkout, names):
    return [json.loads((checkout.folder / "runs" / name / "status.json").read_text()) for name in names]


@pytest.mark.long
def test_an_array_plays_the_recipe_with_other_seeds_and_an_interrupted_task_continues_alone(checkout):
    jobs = checkout.train_array("--rounds", "60", "--run.seed", "9", tasks=SEEDS)
    jobs[3].wait_for_line("attempt 0 starts at round 0")
    jobs[3].signal_batch_shell("USR1")
    jobs[3].wait_for_line("saved: back to the queue")
    for job in jobs.values():
        job.wait_for("COMPLETED")
    assert [job.field("Restarts") for job in jobs.values()] == ["0", "1"]
    for seed in SEEDS:
        given = ["--rounds", "60", "--run.seed", "9", "--run.name", f"standin-seed{seed}", "--run.seed", f"{seed}"]
        assert arguments(checkout, f"standin-seed{seed}") == given
    assert "attempt 1 starts at round " in jobs[3].printed()
    assert "attempt 1 starts at round 0" not in jobs[3].printed()
    assert [run["state"] for run in states(checkout, ["standin-seed0", "standin-seed3"])] == ["done", "done"]


def test_a_sweep_takes_the_words_of_a_line_and_refuses_a_line_without(checkout):
    sweep = checkout.folder / "a sweep; touch owned"
    sweep.write_text("\n".join(LINES), newline="")
    jobs = checkout.train_array(
        "--rounds", "1", tasks=range(7), options=("--cpus-per-task=1",), GANDIST_SWEEP=sweep.name
    )
    for task, words in WORDS.items():
        jobs[task].wait_for("COMPLETED")
        name = f"standin-{task}"
        assert arguments(checkout, name) == ["--rounds", "1", *words, "--run.name", name]
    refusals = {0: "count from 1", 2: "a comment", 3: "empty", 4: "cannot be split into words", 6: "not there"}
    for task, reason in refusals.items():
        jobs[task].wait_for("FAILED")
        assert jobs[task].field("ExitCode") == "2:0"
        assert reason in jobs[task].printed()
    assert len(list((checkout.folder / "runs").iterdir())) == len(WORDS)
    assert not (checkout.folder / "owned").exists()


@pytest.mark.parametrize(
    ("tasks", "sweep", "reason"), [([1], "nowhere", "'nowhere' is no file"), ([], "x", "no array")]
)
def test_a_sweep_that_cannot_be_is_refused(checkout, tasks, sweep, reason):
    job = checkout.train_array(tasks=tasks, GANDIST_SWEEP=sweep)[1] if tasks else checkout.train(GANDIST_SWEEP=sweep)
    job.wait_for("FAILED")
    assert job.field("ExitCode") == "2:0"
    assert reason in job.printed()
    assert not (checkout.folder / "runs").exists()

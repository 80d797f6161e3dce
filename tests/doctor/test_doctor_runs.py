"""The whole doctor as real processes: alone, launched by accelerate, interrupted, with a rank that breaks."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_runs import ROOT, Start, await_that, environment, facts, free_port, snapshot, write_recipe

pytestmark = pytest.mark.long

TRIED = ["data", "batch", "run", "speed", "time", "images", "memory", "checkpoint", "disk", "exact resume"]
TOGETHER = ["ranks", "same everywhere", "clocks", "all-reduce", "shared folder", "replacing a file", "gradients"]


def test_one_process_tries_a_recipe_and_leaves_the_real_run_as_it_is(tmp_path: Path, start: Start) -> None:
    recipe = write_recipe(tmp_path)
    train = [sys.executable, "-m", "gandist", "train", recipe, "--run.total_kimg", "0.64"]
    subprocess.run(train, env=environment(), check=True, capture_output=True, timeout=240)
    before = snapshot(tmp_path)
    doctor = start(recipe, "--seconds", "1", "--json")
    printed, errors = doctor.communicate(timeout=280)
    assert doctor.returncode == 0, printed + errors
    assert errors == "", "nothing is said beside the JSON"
    found = facts(printed)
    tried = [*TRIED, "two processes"]
    assert {name: found[name][0] for name in tried} == {**dict.fromkeys(tried, "ok"), "run": "note"}
    assert "run.total_kimg was 0.64, now 64" in found["run"][1]
    assert "would continue at 0.64 of 64 kimg" in printed
    assert "63 kimg that are left" in found["time"][1]
    assert snapshot(tmp_path) == before


def test_two_ranks_of_accelerate_try_a_recipe_together(tmp_path: Path) -> None:
    """The command of the docs."""
    recipe = write_recipe(tmp_path)
    before = sorted(tmp_path.iterdir())
    launcher = [Path(sys.executable).parent / "accelerate", "launch", "--config_file", ROOT / "launch" / "cpu.yaml"]
    command = [*launcher, "-m", "gandist", "doctor", recipe, "--seconds", "1", "--json"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=290, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = facts(done.stdout)
    wanted = [*TRIED, *TOGETHER]
    assert {name: found[name][0] for name in wanted} == dict.fromkeys(wanted, "ok")
    assert "2 ranks on 1 machine" in found["ranks"][1]
    assert "8 on each of 2 ranks" in found["batch"][1]
    assert sorted(tmp_path.iterdir()) == before


def test_ranks_with_different_recipes_are_told_so_and_do_not_play(tmp_path: Path, start: Start) -> None:
    recipe, port = write_recipe(tmp_path), free_port()
    doctors = [start(recipe, "--json", "--run.seed", str(rank), env=environment(rank, 2, port)) for rank in range(2)]
    (printed, errors), (silence, _) = (doctor.communicate(timeout=280) for doctor in doctors)
    assert [doctor.returncode for doctor in doctors] == [1, 1], errors
    assert silence == ""
    level, fact = facts(printed)["same everywhere"]
    assert (level, fact.startswith("recipe is ")) == ("FAIL", True)
    assert "speed" not in facts(printed)


@pytest.mark.parametrize(
    ("number", "playing"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)]
)
def test_an_interrupted_doctor_leaves_nothing(
    tmp_path: Path, start: Start, number: signal.Signals, playing: bool
) -> None:
    recipe = write_recipe(tmp_path)
    doctor = start(recipe, "--seconds", "200")
    pattern = ".gandist-doctor-*/exactness/metrics.jsonl" if playing else ".gandist-doctor-*/owner"
    await_that(lambda: list((tmp_path / "runs").glob(pattern)), "the doctor's folder", doctor)
    doctor.send_signal(number)
    printed, errors = doctor.communicate(timeout=240)
    assert doctor.returncode == 130, printed + errors
    assert sorted(tmp_path.iterdir()) == [recipe]


def test_a_doctor_that_is_killed_is_cleared_up_by_the_next(tmp_path: Path, start: Start) -> None:
    recipe = write_recipe(tmp_path)
    doctor = start(recipe, "--seconds", "200")
    await_that(lambda: list((tmp_path / "runs").glob(".gandist-doctor-*/owner")), "the doctor's folder", doctor)
    doctor.kill()
    doctor.communicate()
    assert len(list((tmp_path / "runs").iterdir())) == 1
    again = start(recipe, "--seconds", "1", "--json")
    printed, errors = again.communicate(timeout=280)
    assert again.returncode == 0, printed + errors
    assert list((tmp_path / "runs").iterdir()) == [], "a root that was there stays"


def test_a_rank_that_breaks_is_named_and_ends_the_others(tmp_path: Path, start: Start) -> None:
    recipe, port = write_recipe(tmp_path), free_port()
    program = Path(__file__).with_name("doctor_with_fault.py")
    doctors = [start(recipe, "--json", env=environment(rank, 2, port), program=[program]) for rank in range(2)]
    (printed, errors), (_, other) = (doctor.communicate(timeout=280) for doctor in doctors)
    assert [doctor.returncode for doctor in doctors] == [1, 1], printed + errors + other
    assert "gandist doctor [rank 1]: RuntimeError: the GPU fell off the bus" in other
    assert json.loads(printed)["failed"]
    assert facts(printed)["rounds"][0] == "FAIL"
    assert sorted(tmp_path.iterdir()) == [recipe]

"""The verb in this process: its exit codes, its printed page, an inexact trainer that is found out."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from doctor_runs import TINY, facts, write_recipe

from gandist import continuity
from gandist.cli import main
from gandist.config import merge, parse
from gandist.doctor import network, trial
from gandist.doctor.finding import Finding, ok
from gandist.doctor.page import Page
from gandist.doctor.rounds import Rounds
from gandist.errors import CheckpointError
from gandist.runtime.checkpoint import CheckpointStore
from gandist.runtime.distributed import Ranks


@pytest.fixture(autouse=True)
def _no_pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two more processes would take long, and have a test of their own; runs are written below ``tmp_path``."""

    def no_pair() -> list[Finding]:
        return [ok("two processes", "not tried")]

    monkeypatch.setattr(network, "pair_findings", no_pair)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: no such recipe file"),
        (["--seconds", "soon"], "--seconds soon: how long to play rounds"),
        (["--seconds=0"], "--seconds 0"),
        (["--seconds"], "--seconds : how long"),
    ],
)
def test_wrong_words_are_an_error_of_the_user(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["doctor", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_a_recipe_it_looks_at_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--execution.device", "cpu"])
    printed = capsys.readouterr().out
    assert code == (1 if "FAIL " in printed else 0)
    headings = [line for line in printed.splitlines() if line and not line.startswith(" ")]
    assert headings[1:-1] == ["Software", "Machine", "Disks", "Network", "Tracking", "Slurm"]
    assert list(tmp_path.iterdir()) == []


def test_something_that_will_not_work_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, data={"shards": str(tmp_path / "nothing")})
    assert main(["doctor", str(recipe), "--json"]) == 1
    found = facts(capsys.readouterr().out)
    assert found["data"][0] == "FAIL"
    assert "speed" not in found, "no rounds without data"
    assert list(tmp_path.iterdir()) == [recipe]


def test_a_world_smaller_than_launched_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANDIST_LAUNCHED_WORLD", "2")
    assert main(["doctor", str(write_recipe(tmp_path)), "--json"]) == 1
    level, fact = facts(capsys.readouterr().out)["launch"]
    assert (level, "GANDIST_LAUNCHED_WORLD=2 ranks were launched" in fact) == ("FAIL", True)


# --- rounds --------------------------------------------------------------------------------------------------


def played(folder: Path, **sections: Any) -> dict[str, tuple[str, str]]:
    """Play rounds of the tiny recipe, and return level and fact of each check."""
    config = parse(merge(merge(TINY, {"run": {"root": str(folder)}}), sections), "tests")
    page = Page(None)
    Rounds(config, folder, Ranks(0, 1, None), page, job=None, seconds=0.2).play()
    return {finding.check: (finding.level, finding.fact) for finding in page.findings}


def test_rounds_are_played_measured_and_exact(tmp_path: Path) -> None:
    found = played(tmp_path)
    assert found["exact resume"] == ("ok", "8 rounds in one go and with a stop after 4 end in the same bytes")
    assert found["checkpoint"][0] == "ok"
    assert "images/s in fp32" in found["speed"][1]
    assert found["time"][1].endswith("for 64 kimg")
    assert [entry.name for entry in tmp_path.iterdir()] == ["speed"], "nothing of the real run"


def test_a_trainer_that_forgets_its_optimizers_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuity, "load_optimizer", lambda *_: None)
    assert played(tmp_path)["exact resume"][0] == "FAIL"


def test_a_checkpoint_that_was_not_saved_fails_though_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, measuring = CheckpointStore.save, False

    def full_for_once(store: CheckpointStore, images_seen: int, *rest: Any) -> Path:
        nonlocal measuring
        first_of_its_session = not store.names()
        if measuring and first_of_its_session:
            measuring = False
            raise CheckpointError("the disk is full: free some space.")
        measuring = measuring or images_seen == 8 * 16  # the end of the first two sessions
        return real(store, images_seen, *rest)

    monkeypatch.setattr(CheckpointStore, "save", full_for_once)
    level, fact = played(tmp_path)["checkpoint"]
    assert (level, "the disk is full" in fact) == ("FAIL", True)


def test_a_trainer_that_refuses_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coupled = {"model": {"arch": "dcgan"}, "data": {"resolution": 16}, "execution": {"micro_images": 4}}
    recipe = write_recipe(tmp_path, **coupled)
    assert main(["doctor", str(recipe), "--seconds", "0.2"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  rounds" in printed
    assert "execution.micro_images: 4 would cut" in printed
    assert list(tmp_path.iterdir()) == [recipe]


def test_a_recipe_too_slow_to_try_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(trial, "HALF_ROUNDS", 1 << 16)
    found = played(tmp_path, run={"total_kimg": 1e6})
    assert (found["rounds"][0], "exact resume" in found) == ("warn", False)
    assert "images/s" in found["speed"][1], "what was played is measured all the same"


def test_a_copy_is_the_recipe_but_for_when_and_where(tmp_path: Path) -> None:
    config = parse(merge(TINY, {"tracking": {"wandb": {"mode": "online"}}, "update": {"d_steps": 2}}), "tests")
    copy = trial.Trial(config, tmp_path, Ranks(0, 1, None), seconds=1).copied(10, log_rounds=2, save_rounds=6)
    assert copy.folder == tmp_path / "exactness"
    assert (copy.run.total_kimg, copy.tracking.every_kimg, copy.checkpoint.every_kimg) == (0.32, 0.064, 0.192)
    assert copy.tracking.wandb.mode == "disabled"
    for part in ("data", "model", "loss", "regularizer", "update", "optimizer", "ema"):
        assert getattr(copy, part) == getattr(config, part)


def test_what_a_trainer_says_to_who_trains_is_dropped_and_its_last_words_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import sys

    stream = trial.LastWords(sys.stderr)
    print("12:00  Continuing at 3 kimg", file=stream)
    print("gandist: rank 1 got no further", file=stream)
    assert capsys.readouterr().err == "gandist: rank 1 got no further\n"


def test_memory_of_this_process() -> None:
    used, there = trial.memory_of(None)
    assert 0 < used < there <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 1.1
    assert json.dumps([used, there])

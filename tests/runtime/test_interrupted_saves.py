"""A save that is interrupted anywhere leaves the checkpoint before it, or itself, whole."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gandist.errors import CheckpointError
from gandist.runtime.checkpoint import CheckpointStore, Part

PROGRAM = Path(__file__).with_name("interrupted_saves.py")
# What was there before: nothing, one before, one of this position, one before that was the best one.
SCENARIOS = {"first": None, "next": 1, "again": 1, "best": 1}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("interrupted")
    run = subprocess.run([sys.executable, PROGRAM, folder], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("way", ["killed", "no space"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_old_or_the_new_checkpoint_is_there(report: dict[str, Any], scenario: str, way: str) -> None:
    outcomes = report[f"{scenario}, {way}"]
    assert len(outcomes) > 20, "every operation was hit"
    found = [outcome["found"] for outcome in outcomes]
    assert set(found) == {SCENARIOS[scenario], 2}
    if way == "killed":
        assert found == sorted(found, key=lambda number: number == 2), "once it is published it stays"
    for outcome in outcomes:
        assert outcome["warnings"] == [], "nobody ever sees a part of a checkpoint"


@pytest.mark.parametrize("way", ["killed", "no space"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_next_save_finds_a_clean_folder(report: dict[str, Any], scenario: str, way: str) -> None:
    for outcome in report[f"{scenario}, {way}"]:
        assert outcome["after"] == 3
        assert outcome["files"] == ["000000300", "latest"], outcome


@pytest.mark.parametrize("way", ["killed", "no space"])
def test_the_best_checkpoint_is_always_one_that_is_there(report: dict[str, Any], way: str) -> None:
    outcomes = report[f"best, {way}"]
    assert {outcome["best"] for outcome in outcomes} == {100, 200}, "the one before, until the new one is published"
    for outcome in outcomes:
        assert outcome["best"] == 100 or outcome["found"] == 2, outcome
        assert outcome["best_after"] == 300


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_error_says_so_and_leaves_no_draft(report: dict[str, Any], scenario: str) -> None:
    outcomes = report[f"{scenario}, no space"]
    for outcome in outcomes:
        assert not any(re.fullmatch(r"\.\d{9}\.\d+\.part", name) for name in outcome["drafts"]), outcome
        if outcome["found"] != 2:
            assert "No space left on device" in outcome["said"]
            assert "free some space" in outcome["said"]
            assert "000000200" in outcome["said"]
    assert outcomes[-1]["said"] == ""


def test_a_file_that_may_not_grow_leaves_the_old_checkpoint(
    tmp_path: Path, parts: Callable[[int], dict[str, Part]]
) -> None:
    """The limit comes from the system in the middle of a large file, as on a full disk or over a quota."""
    store = CheckpointStore(tmp_path, keep=1)
    store.save(100, parts(1), {})
    large = {"generator": Part({"weight": torch.zeros(1 << 20)})}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(CheckpointError, match=r"000000200: .*the disk is full: free some space\. Earlier.* whole"):
            store.save(200, large, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000100", "latest"]
    store.save(200, large, {})
    assert store.names() == ["000000200"]


def test_a_folder_that_cannot_be_made_is_an_error_with_a_name(
    tmp_path: Path, parts: Callable[[int], dict[str, Part]]
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"file/checkpoints.*could not be written"):
        CheckpointStore(tmp_path / "file" / "checkpoints", keep=1).save(100, parts(1), {})

"""A disk without room, at each file that a run writes: one clear word, nothing lost, and on it goes with room again."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from full_disk import CASES
from trainer_runs import Launch, digests, make_config, metrics, play

from gandist.errors import EXIT_DONE, EXIT_FAILED
from gandist.runtime.checkpoint import CheckpointStore, open_checkpoint

PROGRAM = Path(__file__).with_name("full_disk.py")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("full")
    run = subprocess.run([sys.executable, PROGRAM, folder], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    straight, *cases = map(json.loads, run.stdout.splitlines())
    return {"straight": straight, **{case["case"]: case for case in cases}}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_it_ends_with_one_clear_word_or_goes_on(report: dict[str, Any], name: str) -> None:
    found = report[name]
    assert "Traceback" not in found["said"]
    assert "Warning" not in found["said"]
    if found["code"] == EXIT_DONE:
        assert found["state"] == "done"
        return
    complaints = [line for line in found["said"].splitlines() if line.startswith("gandist: ")]
    assert len(complaints) == 1, found["said"]
    assert "No space left on device" in complaints[0]
    assert "free some space" in complaints[0]
    assert found["state"] in (None, "failed"), "whoever reads the status learns that it did not end well"


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_what_was_saved_is_whole_and_with_room_it_ends_bitwise_the_same(report: dict[str, Any], name: str) -> None:
    found = report[name]
    assert found["warnings"] == []
    assert found["drafts"] == [], "what could not be finished takes no room"
    assert found["again"] == EXIT_DONE, found["said_again"]
    assert found["rows"] == report["straight"]["rows"]
    assert found["digests"] == report["straight"]["digests"]


@pytest.mark.long
def test_only_a_checkpoint_that_is_missing_costs_more_than_a_word(report: dict[str, Any]) -> None:
    """A run whose status, pictures or events find no room at its end has all its checkpoints."""
    newest = {name: report[name]["newest"] for name in ("last status", "last picture", "events", "latest")}
    assert newest == dict.fromkeys(newest, 320)
    assert report["second checkpoint"]["newest"] == 80
    codes = {name: report[name]["code"] for name in ("last status", "first picture", "last picture", "events")}
    assert codes == dict.fromkeys(codes, EXIT_DONE)
    assert "NOT DRAWN" in report["first picture"]["said"]


@pytest.mark.long
def test_latest_is_put_right_once_there_is_room(report: dict[str, Any]) -> None:
    assert report["latest"]["latest"] == "000000320"


# --- a real file system that fills up ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "gandist-test", str(place)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.long
def test_a_disk_that_fills_up_while_training(small_disk: Path, tmp_path: Path, launch: Launch) -> None:
    """Every checkpoint is kept, so the run fills the disk by itself."""
    changes = {"run": {"total_kimg": 3.2}, "checkpoint": {"keep": 1000}, "samples": {"every_kimg": 1000.0}}
    straight = play(make_config(tmp_path / "straight", changes))
    config = make_config(small_disk, changes)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(400_000))
    job = launch(config)
    code = job.wait()[0]
    assert code == EXIT_FAILED, job.output()
    assert "Traceback" not in job.output()
    assert "NOT SAVED" in job.output()
    assert "free some space" in job.output().splitlines()[-1]
    assert json.loads((config.folder / "status.json").read_text())["state"] == "failed"
    names = CheckpointStore(config.folder / "checkpoints", keep=1000).names()
    assert len(names) > 2
    for name in names:
        open_checkpoint(config.folder / "checkpoints" / name)
    assert os.statvfs(small_disk).f_bavail < 20, "it was the disk"

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert play(config).resumed_at == int(names[-1])
    assert digests(config.folder) == digests(straight.folder)
    assert metrics(config.folder) == metrics(straight.folder)

"""Two jobs on one run folder: the second is refused, and one that was given up publishes nothing more."""

import json
import signal
from pathlib import Path

import pytest
from trainer_runs import Launch, await_that, make_config, play

from gandist.cli import main
from gandist.config import dump
from gandist.errors import EXIT_FAILED, EXIT_USER_ERROR
from gandist.runtime.lease import LEASE_NAME

LONG = {"run": {"total_kimg": 1000.0}, "checkpoint": {"every_kimg": 0.016, "keep": 1000}}


def published(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*") if path.name.isdigit())


def test_a_second_job_is_refused_and_takes_over_when_the_first_is_dead(
    tmp_path: Path, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path, LONG)
    first = launch(config)
    await_that(lambda: len(published(config.folder)) > 1, "checkpoints", first)
    recipe = tmp_path / "again.yaml"
    recipe.write_text(json.dumps(dump(config)))
    assert main(["train", str(recipe)]) == EXIT_USER_ERROR
    assert "another job is training in this folder" in capsys.readouterr().err
    first.kill()
    seen = int(published(config.folder)[-1])
    play(make_config(tmp_path, {**LONG, "run": {"total_kimg": (seen + 160) / 1000}}))
    assert json.loads((config.folder / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("world", [1, 2])
def test_an_attempt_that_lost_its_folder_ends_and_leaves_it_alone(tmp_path: Path, launch: Launch, world: int) -> None:
    """As a job on a node that was cut off: another attempt has started, unseen, and it must not disturb that one."""
    config = make_config(tmp_path, LONG)
    job = launch(config, world=world)
    await_that(lambda: len(published(config.folder)) > 1, "checkpoints", job)
    job.signal(signal.SIGSTOP)
    (config.folder / LEASE_NAME).write_text(json.dumps({"owner": "x", "pid": 7, "host": "n2", "since": "noon"}))
    before = published(config.folder)
    status = (config.folder / "status.json").read_text()
    rows = (config.folder / "metrics.jsonl").read_bytes()
    job.signal(signal.SIGCONT)
    assert set(job.wait()) == {EXIT_FAILED}
    assert "process 7 on n2 has taken it over since noon" in job.output()
    assert published(config.folder) == before
    assert (config.folder / "status.json").read_text() == status
    later = (config.folder / "metrics.jsonl").read_bytes()
    assert later.count(b"\n") <= rows.count(b"\n") + 1, "at most the row that was being written"

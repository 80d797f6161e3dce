"""A whole run with W&B beside it: what it tells W&B is what it wrote down, and losing W&B changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import Launch, await_that, digests, make_config, play

OFFLINE: dict[str, Any] = {"tracking": {"wandb": {"mode": "offline", "project": "tests"}}}


@pytest.fixture(autouse=True)
def _no_wandb_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def records(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def test_an_offline_run_reads_back_as_it_was_logged(tmp_path: Path) -> None:
    config = make_config(tmp_path, OFFLINE)
    play(config)
    logged = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    found = records(config.folder)
    rows = [record["history"]["item"] for record in found if record["type"] == "history"]
    told = [row for row in rows if "loss/d" in row]
    assert [row["images_seen"] for row in told] == [row["images_seen"] for row in logged]
    for name in ("loss/d", "loss/g", "logits/real", "accuracy/fake", "grad_norm/g", "lr/d", "speed/data_wait_share"):
        assert [row[name] for row in told] == pytest.approx([row[name] for row in logged])
    settings = next(record for record in found if record["type"] == "run")
    assert "tiny" in json.dumps(settings)
    assert any(config.folder.glob("wandb/offline-run-*/files/media/images/**/*.png"))


def test_wandb_killed_in_the_middle_changes_nothing(tmp_path: Path, launch: Launch) -> None:
    straight = play(make_config(tmp_path / "straight", {"run": {"total_kimg": 6.4}}))
    config = make_config(tmp_path / "killed", {**OFFLINE, "run": {"total_kimg": 6.4}})
    ranks = launch(config)
    trainer = ranks.processes[0].pid
    log = config.folder / "metrics.jsonl"
    await_that(lambda: log.is_file() and log.read_bytes().count(b"\n") > 3 and bool(children(trainer)), "W&B", ranks)
    for child in children(trainer):
        os.kill(child, signal.SIGKILL)
    assert ranks.wait() == [0], ranks.output()
    assert digests(config.folder) == digests(straight.folder)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []

"""What a run says when it cannot go on: out of memory, out of contact, too little time to save."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_runs import make_config, play

from gandist import faults
from gandist.errors import RunError
from gandist.runtime.contact import lost_contact
from gandist.runtime.machine import NOTICE_SECONDS
from gandist.trainer import Trainer


def failing(monkeypatch: pytest.MonkeyPatch, at: int, action: Any) -> None:
    play_round = Trainer._play_round

    def played(trainer: Trainer, *given: Any) -> Any:
        if trainer.clock.round_index == at:
            action()
        return play_round(trainer, *given)

    monkeypatch.setattr(Trainer, "_play_round", played)


def gpu_is_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")


@pytest.mark.parametrize("full", [gpu_is_full, lambda: torch.empty(1 << 50)], ids=["gpu", "host"])
@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "One pass holds 16 images. Try --execution.micro_images 8, which changes nothing else"),
        ({"execution": {"micro_images": 4}}, "One pass holds 4 images. Try --execution.micro_images 2"),
        ({"model": {"arch": "dcgan"}}, "One pass holds 16 images. Try more ranks"),
    ],
    ids=["whole", "cut", "batch norm"],
)
def test_memory_that_does_not_suffice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: Any, changes: dict[str, Any], advice: str
) -> None:
    failing(monkeypatch, 12, full)
    config = make_config(tmp_path, changes)
    with pytest.raises(RunError, match=r"Out of memory on cpu: this process used up to \d+\.\d GiB of \d+") as told:
        Trainer(config).train()
    assert advice in str(told.value)
    status = json.loads((config.folder / "status.json").read_text())
    assert (status["state"], status["images_seen"]) == ("failed", 192)
    assert "Out of memory" in status["reason"]
    assert (config.folder / "checkpoints" / "latest").read_text().strip() == "000000160"


def test_another_error_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug() -> None:
        raise ZeroDivisionError("a bug")

    failing(monkeypatch, 2, bug)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        Trainer(make_config(tmp_path)).train()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]"
        ),
        torch.distributed.DistBackendError("NCCL error: remote process exited"),
    ],
)
def test_lost_contact_is_told_in_words(tmp_path: Path, error: Exception) -> None:
    assert lost_contact(error)
    trainer = Trainer(make_config(tmp_path))
    told = faults.explained(error, trainer.game, 16, torch.device("cpu"))
    assert isinstance(told, RunError)
    assert "lost contact" in str(told)


def test_other_errors_are_no_lost_contact() -> None:
    assert not lost_contact(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lost_contact(ValueError("NCCL"))


@pytest.mark.parametrize(("notice", "warned"), [("0", True), ("600", False), ("soon", False)])
def test_a_save_that_takes_longer_than_the_notice_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notice: str, warned: bool
) -> None:
    monkeypatch.setenv(NOTICE_SECONDS, notice)
    config = make_config(tmp_path, {"run": {"total_kimg": 1.6}, "tracking": {"every_kimg": 0.016}})
    trainer = Trainer(config)
    save = trainer.saver.save

    def saved(*given: Any) -> None:
        save(*given)
        trainer.saver.finish()  # so that the next log round has a finished save to tell of
        trainer.saver._news = True

    monkeypatch.setattr(trainer.saver, "save", saved)
    trainer.train()
    text = (config.folder / "events.log").read_text()
    assert text.count("but this job is asked to save only 0 s before its end") == int(warned)
    assert text.count("--signal=B:USR1@") == int(warned)
    rows = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    costs = [row["speed/checkpoint_seconds"] for row in rows if "speed/checkpoint_seconds" in row]
    assert 0 < len(costs) < len(rows)
    assert all(cost > 0 for cost in costs)


def test_the_best_checkpoint_is_kept_and_followed(tmp_path: Path) -> None:
    changes = {
        "run": {"total_kimg": 0.64},
        "checkpoint": {"every_kimg": 0.032, "keep": 2, "best_metric": "loss/g", "best_mode": "min"},
    }
    config = make_config(tmp_path / "straight", changes)
    play(config)
    rows = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["loss/g"])["images_seen"]
    assert best < 576, "an older one than those that are kept anyway"
    link = config.folder / "best"
    assert link.is_symlink()
    assert link.resolve().name == f"{best:09d}"
    assert sorted(p.name for p in config.folder.glob("checkpoints/0*")) == [f"{best:09d}", "000000608", "000000640"]
    assert not list(config.folder.glob(".best*"))

    parts = {**changes, "run": {"total_kimg": 0.32}}
    play(make_config(tmp_path / "parts", parts))
    again = play(make_config(tmp_path / "parts", changes))
    assert (again.folder / "best").readlink() == link.readlink()
    assert again.best.state()["best"]["value"] == pytest.approx(min(row["loss/g"] for row in rows))


def test_a_best_metric_that_is_not_measured_is_told(tmp_path: Path) -> None:
    config = make_config(tmp_path, {"checkpoint": {"best_metric": "eval/fid"}})
    play(config)
    text = (config.folder / "events.log").read_text()
    assert "no column 'eval/fid' so far; it has accuracy/fake, " in text
    assert not (config.folder / "best").exists()

"""NaN on the way: skipped on all ranks alike, gone back from once, told of in the end, and never saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainer_runs import Launch, digests, make_config, metrics, play

from gandist.adversarial.game import Real
from gandist.errors import EXIT_DONE, RunError
from gandist.trainer import Trainer

SPOILT = Path(__file__).with_name("spoilt_images.py")
SHORT_PATIENCE = {"fault": {"skip_steps": 3}}
EVERY_ROUND = {"tracking": {"every_kimg": 0.016}}


def spoil(monkeypatch: pytest.MonkeyPatch, when: Callable[[Trainer], bool]) -> None:
    to_device = Trainer._to_device

    def moved(trainer: Trainer, *given: Any) -> Real:
        real = to_device(trainer, *given)
        if when(trainer):
            real.x[0, 0, 0, 0] = math.nan
        return real

    monkeypatch.setattr(Trainer, "_to_device", moved)


def assert_all_finite(folder: Path) -> None:
    files = sorted(folder.glob("checkpoints/*/*.safetensors"))
    assert files
    for file in files:
        for name, tensor in load_file(file).items():
            assert tensor.isfinite().all(), (file, name)


def events(folder: Path) -> str:
    return (folder / "events.log").read_text()


@pytest.mark.parametrize("arch", ["mlp", "dcgan"])
def test_one_bad_batch_costs_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str) -> None:
    spoil(monkeypatch, lambda trainer: trainer.clock.round_index == 6)
    config = make_config(tmp_path, {**EVERY_ROUND, "model": {"arch": arch}})
    trainer = play(config)
    assert trainer.game.discriminator.guard.skipped().total == 1
    assert trainer.game.generator.guard.skipped().total == 0
    assert "1 step(s) of the discriminator skipped: gradients not finite." in events(config.folder)
    rows = metrics(config.folder)
    assert [row["images_seen"] for row in rows] == [16 * n for n in range(1, 21)]
    assert [row.get("fault/skipped_d") for row in rows] == [None] * 6 + [1.0] * 14
    assert [row["loss/d"] == "NaN" for row in rows] == [n == 6 for n in range(20)]
    assert_all_finite(config.folder)


@pytest.mark.parametrize("world", [2])
def test_the_bad_batch_of_one_rank_is_skipped_by_all(tmp_path: Path, launch: Launch, world: int) -> None:
    """That the ranks still agree to the bit is checked before every checkpoint by the trainer itself."""
    config = make_config(tmp_path, {**EVERY_ROUND, "model": {"arch": "dcgan"}})
    ranks = launch(config, world=world, program=[str(SPOILT), "1", "6", "7"])
    assert ranks.wait() == [EXIT_DONE] * world, ranks.output()
    assert metrics(config.folder)[-1]["fault/skipped_d"] == 2
    assert_all_finite(config.folder)


def test_the_run_goes_back_once_and_takes_other_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda trainer: trainer.rollbacks == 0 and trainer.clock.round_index >= 12)
    config = make_config(tmp_path / "a", {**SHORT_PATIENCE, **EVERY_ROUND})
    straight = {row["images_seen"]: row for row in metrics(play(make_config(tmp_path / "b", EVERY_ROUND)).folder)}
    assert play(config).rollbacks == 1
    said = events(config.folder)
    assert "The discriminator's gradients have not been finite since round 12, first in layers.0.weight: " in said
    assert "Going back to 0.16 kimg" in said
    rows = metrics(config.folder)
    assert [row["images_seen"] for row in rows] == [16 * n for n in range(1, 21)], "no row is lost or written twice"
    for row in rows:
        same = row["loss/g"] == straight[row["images_seen"]]["loss/g"]
        assert same == (row["images_seen"] <= 160), "other latents from the checkpoint on"
    assert_all_finite(config.folder)

    monkeypatch.undo()
    spoil(monkeypatch, lambda trainer: trainer.rollbacks == 0 and trainer.clock.round_index >= 12)
    stopped = make_config(tmp_path / "c", {**SHORT_PATIENCE, **EVERY_ROUND, "run": {"total_kimg": 0.272}})
    play(stopped)
    resumed = make_config(tmp_path / "c", {**SHORT_PATIENCE, **EVERY_ROUND})
    assert play(resumed).rollbacks == 1, "a run that is continued knows that it went back"
    assert digests(resumed.folder) == digests(config.folder)
    assert metrics(resumed.folder) == rows


def test_a_run_that_cannot_be_helped_ends_and_says_where_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda trainer: trainer.clock.round_index >= 12)
    config = make_config(tmp_path, SHORT_PATIENCE)
    with pytest.raises(RunError, match=r"since round 12, first in .*gone back 1 time\(s\) before.*clip_norm"):
        Trainer(config).train()
    assert json.loads((config.folder / "status.json").read_text())["state"] == "failed"
    assert "since round 12" in json.loads((config.folder / "status.json").read_text())["reason"]
    assert_all_finite(config.folder)
    assert (config.folder / "checkpoints" / "latest").read_text().strip() == "000000160"
    monkeypatch.undo()
    play(config)


def test_there_is_nothing_to_go_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda trainer: True)
    config = make_config(tmp_path, SHORT_PATIENCE)
    with pytest.raises(RunError, match="since round 0"):
        Trainer(config).train()
    assert not list((config.folder / "checkpoints").glob("0*"))


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a flipped bit, which no gradient has shown yet."""
    config = make_config(tmp_path)
    trainer = Trainer(config)
    update = trainer.averages.update

    def spoilt(images_seen: int, images: int) -> None:
        update(images_seen, images)
        if images_seen == 160 and trainer.rollbacks == 0:
            with torch.no_grad():
                next(trainer.averages.network.parameters()).view(-1)[3] = math.inf

    monkeypatch.setattr(trainer.averages, "update", spoilt)
    assert trainer.train() == EXIT_DONE
    assert trainer.rollbacks == 1
    assert "numbers are not finite (ema: layers.0.weight); this was not saved." in events(config.folder)
    assert_all_finite(config.folder)

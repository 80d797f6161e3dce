"""``--debug``: small, loud, and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from trainer_runs import digests, make_config, metrics

from gandist import debug
from gandist.cli import main
from gandist.config import dump
from gandist.errors import RunError
from gandist.trainer import Trainer


def test_it_runs_a_few_rounds_beside_the_real_run_and_says_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "big.yaml"
    changes = {"update": {"batch_images": 256}, "tracking": {"wandb": {"mode": "online"}}, "run": {"total_kimg": 1e6}}
    recipe.write_text(json.dumps(dump(make_config(tmp_path / "runs", changes))))
    assert main(["train", str(recipe), "--debug"]) == 0
    said = capsys.readouterr().err
    assert "generator.layers.0: Linear -> [16, 16]" in said
    assert "discriminator.(output): MlpDiscriminator -> [16]" in said
    assert "read back at 192 images" in said
    assert len(metrics(tmp_path / "runs" / "tiny-debug")) == debug.ROUNDS
    assert not (tmp_path / "runs" / "tiny").exists()
    first = digests(tmp_path / "runs" / "tiny-debug")
    assert main(["train", str(recipe), "--debug"]) == 0
    assert digests(tmp_path / "runs" / "tiny-debug") == first


def test_a_number_that_is_not_finite_is_traced_to_its_layer(tmp_path: Path) -> None:
    trainer = Trainer(make_config(tmp_path))
    network = trainer.game.generator.module
    debug.watch("generator", network, lambda line: None)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match=r"generator\.layers\.0 \(Linear\): its output is not finite"):
        trainer.train()
    assert json.loads((trainer.folder / "status.json").read_text())["state"] == "failed"
    assert "generator.layers.0" in (trainer.folder / "events.log").read_text()

"""Which W&B run a folder belongs to."""

from pathlib import Path

import pytest

from gandist.errors import MachineError
from gandist.runtime.wandb_link import wandb_run_id


def test_the_run_id_is_drawn_once(no_wandb: Path, tmp_path: Path) -> None:
    first = wandb_run_id(tmp_path)
    assert wandb_run_id(tmp_path) == first
    (tmp_path / "other").mkdir()
    assert wandb_run_id(tmp_path / "other") != first


def test_a_sweep_chooses_the_run_id(no_wandb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "not/an/id")
    with pytest.raises(MachineError, match="WANDB_RUN_ID: holds no W&B run id"):
        wandb_run_id(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "sweep-17")
    assert wandb_run_id(tmp_path) == "sweep-17"


@pytest.mark.parametrize("content", ["", "two words", "a/b"])
def test_a_damaged_run_id_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "wandb_run_id").write_text(content)
    with pytest.raises(MachineError, match="wandb_run_id: holds no W&B run id"):
        wandb_run_id(tmp_path)

"""Wrong input to ``gandist train`` and ``gandist sample``: exit code 2, one clear message, nothing written or lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_runs import make_config, play

from gandist.cli import main
from gandist.config import dump, merge
from gandist.errors import EXIT_USER_ERROR
from gandist.runtime.lease import LEASE_NAME


def complaint(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(words) == EXIT_USER_ERROR
    captured = capsys.readouterr()
    assert captured.err.startswith("gandist: ")
    assert "Traceback" not in captured.err
    return captured.err


def recipe(tmp_path: Path, changes: dict[str, Any]) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(merge(dump(make_config(tmp_path / "runs")), changes)))
    return str(path)


CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "resolution of dcgan": ({"model": {"arch": "dcgan"}, "data": {"resolution": 24}}, ["power of two", "16 or 32"]),
    "resolution of resnet": ({"model": {"arch": "resnet"}, "data": {"resolution": 4}}, ["from 8 px on, not 4"]),
    "missing shards": ({"data": {"shards": "no/such/folder"}}, ["no/such/folder", "gandist prepare"]),
    "no wandb key": ({"tracking": {"wandb": {"mode": "online"}}}, ["WANDB_API_KEY", "offline"]),
    "class that is not there": ({"data": {"classes": [3, 12]}}, ["data.classes", "12"]),
    "passes and batch norm": (
        {"model": {"arch": "dcgan"}, "execution": {"micro_images": 4}},
        ["execution.micro_images: 4", "batch normalisation"],
    ),
    "several faults": (
        {"loss": {"knid": "hinge"}, "update": {"batch_images": 0}},
        ["2 thing(s)", "loss.knid", "Did you mean 'kind'?", "update.batch_images", "not 0"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_that_cannot_be_run(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    changes, words = CASES[case]
    message = complaint(capsys, ["train", recipe(tmp_path, changes)])
    for word in words:
        assert word in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = complaint(capsys, ["train", recipe(tmp_path, {}), "--execution.device", "cuda"])
    assert "no CUDA device" in message
    assert "--execution.device cpu" in message


def test_classes_wanted_of_images_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from PIL import Image

    from gandist.data.making.prepare import prepare

    (tmp_path / "loose").mkdir()
    for n in range(4):
        Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(tmp_path / "loose" / f"{n}.png")
    prepare(str(tmp_path / "loose"), tmp_path / "shards", resolution=8, channels=1, workers=0)
    changes = {"data": {"shards": str(tmp_path / "shards")}, "model": {"conditional": True}}
    assert "no classes" in complaint(capsys, ["train", recipe(tmp_path, changes)])
    other_size = {"data": {"shards": str(tmp_path / "shards"), "resolution": 16}}
    message = complaint(capsys, ["train", recipe(tmp_path, other_size)])
    assert "16" in message
    assert "8" in message


def test_a_launcher_that_compiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    assert "--execution.compile" in complaint(capsys, ["train", recipe(tmp_path, {})])


@pytest.mark.parametrize(
    ("text", "word"), [("a: [", "not YAML"), ("- 1", "mapping of sections"), ("run: {seed: -1}", "run.seed")]
)
def test_a_recipe_file_that_cannot_be_read(
    text: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert word in complaint(capsys, ["train", str(path)])


def test_a_missing_recipe_names_the_one_that_was_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fashion.yaml").write_text("")
    assert "fashion.yaml'?" in complaint(capsys, ["train", str(tmp_path / "fashoin.yaml")])


def test_a_flag_that_is_no_knob(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", recipe(tmp_path, {}), "--loss.kin", "hinge"])
    assert left.value.code == EXIT_USER_ERROR
    assert "--loss.kind" in capsys.readouterr().err
    assert "Did you mean 'loss.kind'?" in complaint(capsys, ["train", recipe(tmp_path, {}), "--accept", "loss.knd"])


def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thesis = tmp_path / "runs" / "tiny" / "thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("chapter one")
    assert "thesis.tex" in complaint(capsys, ["train", recipe(tmp_path, {})])
    assert [p.name for p in thesis.parent.iterdir()] == ["thesis.tex"]


def test_another_configuration_in_the_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config(tmp_path / "runs")
    play(config)
    capsys.readouterr()

    def files() -> list[tuple[Path, int]]:
        return sorted((p, p.stat().st_mtime_ns) for p in config.folder.rglob("*") if p.name != LEASE_NAME)

    before = files()
    message = complaint(capsys, ["train", recipe(tmp_path, {}), "--model.latent_dim", "9"])
    assert "model.latent_dim was 8, now 9" in message
    assert "--accept model.latent_dim" in message
    assert files() == before


def test_nothing_to_sample_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such run" in complaint(capsys, ["sample", str(tmp_path / "nowhere")])
    assert "no ema.safetensors" in complaint(capsys, ["sample", str(tmp_path)])


def test_a_verb_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'train'?" in complaint(capsys, ["trian"])

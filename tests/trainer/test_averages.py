"""Power function averages of a run: kept, resumed, and made into other widths by ``gandist ema``."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from trainer_runs import Launch, digests, make_config, play

from gandist import averages as module
from gandist.averages import ema
from gandist.cli import main
from gandist.config import Config
from gandist.continuity import Insistence
from gandist.errors import CheckpointError, ConfigError, ResumeError
from gandist.evaluation.sample import load_generator
from gandist.runtime.checkpoint import read_weights
from gandist.runtime.snapshots import SnapshotStore
from gandist.trainer import Trainer

WIDTHS = {"ema": {"power_stds": [0.05, 0.1], "snapshot_kimg": 0.064}}  # of a run of 0.32 kimg, in rounds of 16


def config_of(root: Path, *changes: dict[str, Any]) -> Config:
    merged: dict[str, Any] = {"ema": dict(WIDTHS["ema"])}
    for change in changes:
        for section, knobs in change.items():
            merged[section] = {**merged.get(section, {}), **knobs}
    return make_config(root, merged)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "averages").iterdir())


def flat(path: Path) -> Tensor:
    return torch.cat([t.double().flatten() for t in read_weights(path)[0].values()])


def test_a_run_keeps_its_averages(tmp_path: Path) -> None:
    trainer = play(config_of(tmp_path))
    assert names(trainer.folder) == [
        f"{images:09d}-{std}.safetensors" for images in (64, 128, 192, 256, 320) for std in ("0.05", "0.1")
    ]
    parts = digests(trainer.folder)
    assert {"ema.safetensors", "average_0_05.safetensors", "average_0_1.safetensors"} <= parts.keys()
    last = trainer.folder / "averages" / "000000320-0.1.safetensors"
    kept, card = load_generator(last)
    assert card.images_seen == 320
    tracked = trainer.averages.networks["average_0_1"].state_dict()
    assert all(torch.equal(tracked[name], tensor) for name, tensor in kept.state_dict().items())
    assert main(["sample", str(last), "--rows", "1", "--columns", "1", "--out", str(tmp_path / "one.png")]) == 0
    assert (tmp_path / "one.png").is_file()


def test_without_widths_nothing_is_kept(tmp_path: Path) -> None:
    trainer = play(make_config(tmp_path))
    assert not (trainer.folder / "averages").exists()
    with pytest.raises(ConfigError, match=r"no snapshots .* --ema\.power_stds"):
        ema(trainer.folder, (0.1,))


@pytest.mark.parametrize("arch", ["mlp", pytest.param("dcgan", marks=pytest.mark.long)])
def test_stopped_and_continued_the_averages_are_bitwise_those_of_a_straight_run(arch: str, tmp_path: Path) -> None:
    model = {"model": {"arch": arch}}
    straight = play(config_of(tmp_path / "straight", model))
    play(config_of(tmp_path / "parts", model, {"run": {"total_kimg": 0.128}}))
    continued = play(config_of(tmp_path / "parts", model))
    assert digests(continued.folder) == digests(straight.folder)
    assert names(continued.folder) == names(straight.folder)
    for name in names(straight.folder):
        assert (continued.folder / "averages" / name).read_bytes() == (straight.folder / "averages" / name).read_bytes()


@pytest.mark.long
def test_a_width_is_made_as_if_it_had_been_tracked(tmp_path: Path) -> None:
    """0.07 is tracked too, but hidden; what is made from 0.05 and 0.1 must be far nearer to it than these are."""
    changes = {
        "ema": {"power_stds": [0.05, 0.07, 0.1], "snapshot_kimg": 0.032},
        "run": {"total_kimg": 0.64},
        "optimizer": {"generator": {"lr": 0.01}},
    }
    folder = play(config_of(tmp_path, changes)).folder
    tracked = {std: flat(folder / "averages" / f"000000640-{std}.safetensors") for std in ("0.05", "0.07", "0.1")}
    for path in (folder / "averages").glob("*-0.07.safetensors"):
        path.unlink()
    said = ema(folder, (0.07, 0.1))
    made = flat(folder / "ema" / "000000640-0.07.safetensors")
    error, apart = (made - tracked["0.07"]).norm(), (tracked["0.05"] - tracked["0.1"]).norm()
    assert float(error / apart) < 0.01
    torch.testing.assert_close(flat(folder / "ema" / "000000640-0.1.safetensors"), tracked["0.1"], rtol=0, atol=1e-6)
    assert "From 40 snapshots (widths 0.05 0.1 at 20 moments up to 0.64 kimg):" in said
    assert "width 0.07, 0.00" in said
    with Image.open(folder / "ema" / "000000640.png") as picture:
        assert picture.height == 2 * 68 + 4
    _, card = load_generator(folder / "ema" / "000000640-0.07.safetensors")
    assert card.images_seen == 640


@pytest.mark.long
def test_a_moment_in_the_past(tmp_path: Path) -> None:
    """At 0.2 kimg the last snapshot is that of 0.192; what came later takes no part."""
    folder = play(config_of(tmp_path, {"model": {"conditional": True}})).folder
    words = ["--std", "0.05", "0.07", "--at", "0.2", "--columns", "3"]
    assert main(["ema", str(folder), *words, "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "000000192-0.05.safetensors", "000000192-0.07.safetensors", "000000192.png",
    ]  # fmt: skip
    kept = flat(folder / "averages" / "000000192-0.05.safetensors")
    torch.testing.assert_close(flat(tmp_path / "out" / "000000192-0.05.safetensors"), kept, rtol=0, atol=1e-6)


def test_what_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = play(config_of(tmp_path)).folder
    wrong = {
        "--std 0.01": r"come no nearer to it than",
        "--std 0.3": "above 0 and at most 0.28",
        "--std 0": "above 0 and at most 0.28",
        "--std 0.05 --at 0.01": "from 0.064 to 0.32 kimg",
        "--std 0.05 --at 7": "from 0.064 to 0.32 kimg",
        "--std 0.05 --columns 0": "one column or more",
    }
    for words, said in wrong.items():
        assert main(["ema", str(folder), *words.split()]) == 2, words
        assert said in capsys.readouterr().err
    assert main(["ema", str(tmp_path / "nowhere"), "--std", "0.1"]) == 2
    assert "no such run folder" in capsys.readouterr().err
    assert not (folder / "ema").exists()
    (folder / "averages" / "000000128-0.1.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"000000128-0\.1"):
        ema(folder, (0.07,))


@pytest.mark.long
def test_only_the_newest_moments_are_kept(tmp_path: Path) -> None:
    folder = play(config_of(tmp_path, {"ema": {"keep_snapshots": 2}})).folder
    assert names(folder) == [f"{images:09d}-{std}.safetensors" for images in (256, 320) for std in ("0.05", "0.1")]


def test_a_run_that_goes_on_from_an_older_moment_forgets_what_lay_ahead(tmp_path: Path) -> None:
    folder = play(config_of(tmp_path)).folder
    store = SnapshotStore(folder)
    (folder / "averages" / ".000000320-0.1.safetensors.7.part").write_bytes(b"cut short")
    (folder / "averages" / "notes.txt").write_text("somebody's")
    store.forget_after(192)
    assert {snapshot.images_seen for snapshot in store.found()} == {64, 128, 192}
    assert names(folder)[-1] == "notes.txt"
    assert not list((folder / "averages").glob(".*"))


@pytest.mark.long
def test_the_trainer_forgets_them_where_it_continues(tmp_path: Path) -> None:
    import shutil

    folder = play(config_of(tmp_path)).folder
    shutil.rmtree(folder / "checkpoints" / "000000320")  # the newest is gone: the run goes on at 240
    Trainer(config_of(tmp_path))._let_go_of_folder()
    assert {snapshot.images_seen for snapshot in SnapshotStore(folder).found()} == {64, 128, 192}


@pytest.mark.long
def test_a_disk_that_is_full_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "000000064-0.05.safetensors")

    monkeypatch.setattr(SnapshotStore, "write", full)
    trainer = play(config_of(tmp_path))
    events = (trainer.folder / "events.log").read_text()
    assert events.count("NOT KEPT: 000000064-0.05.safetensors: No space left on device. The run goes on.") == 5


def test_another_set_of_widths_is_another_run(tmp_path: Path) -> None:
    play(config_of(tmp_path, {"run": {"total_kimg": 0.16}}))
    more = config_of(tmp_path, {"ema": {"power_stds": [0.05, 0.1, 0.2]}})
    with pytest.raises(ResumeError, match=r"ema\.power_stds was \[0\.05, 0\.1\]"):
        Trainer(more)
    trainer = Trainer(more, Insistence(accept=("ema.power_stds",)))
    added = trainer.averages.networks["average_0_2"].state_dict()
    now = trainer.game.generator.module.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in added.items()), "it begins with G as it is"
    trainer._let_go_of_folder()


def test_each_width_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ema\.power_stds: each width once"):
        config_of(tmp_path, {"ema": {"power_stds": [0.1, 0.1]}})
    with pytest.raises(ConfigError, match=r"ema\.power_stds"):
        config_of(tmp_path, {"ema": {"power_stds": [0.3]}})


@pytest.mark.long
def test_a_variance_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights below zero times an early, large variance must not leave a negative one, whose root is not a number."""
    folder = play(config_of(tmp_path, {"model": {"arch": "dcgan"}})).folder
    rebuild = module.rebuild

    def torn(kept: Any, wanted: Any) -> Any:
        weights = rebuild(kept, wanted).weights * 0
        weights[0], weights[-1] = -9.0, 10.0
        return module.Rebuilt(weights, 0.1)

    monkeypatch.setattr(module, "rebuild", torn)
    ema(folder, (0.07,))
    tensors = read_weights(folder / "ema" / "000000320-0.07.safetensors")[0]
    variances = torch.cat([tensor for name, tensor in tensors.items() if name.endswith("running_var")])
    assert float(variances.min()) == 0
    counts = [tensor for name, tensor in tensors.items() if name.endswith("num_batches_tracked")]
    assert {int(count) for count in counts} == {20}, "of the last snapshot"


@pytest.mark.long
def test_two_ranks_keep_what_one_keeps(tmp_path: Path, launch: Launch) -> None:
    config = config_of(tmp_path / "two", {"run": {"name": "two"}})
    assert launch(config, world=2).wait() == [0, 0]
    one = play(config_of(tmp_path / "one"))
    assert names(config.folder) == names(one.folder)
    for name in names(one.folder):
        alone, shared = flat(one.folder / "averages" / name), flat(config.folder / "averages" / name)
        torch.testing.assert_close(shared, alone, rtol=1e-3, atol=1e-5)

"""A run that was stopped or killed, and run again, ends as one that was not."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import Launch, await_that, digests, make_config, metrics, play

from gandist.config import Config
from gandist.continuity import Insistence
from gandist.data.making.prepare import prepare
from gandist.data.shards.index_files import read_index
from gandist.errors import EXIT_PREEMPTED, CheckpointError, ResumeError
from gandist.trainer import Trainer

RARER = ("USR1", "USR2", "INT")
ROUNDS = {"run": {"total_kimg": 16 * 120 / 1000}}


@pytest.mark.parametrize(
    ("arch", "workers"),
    [
        ("mlp", 2), ("dcgan", 0),
        *(pytest.param(arch, workers, marks=pytest.mark.long)
          for arch, workers in (("mlp", 0), ("dcgan", 2), ("resnet", 0), ("resnet", 2))),
    ],
)  # fmt: skip
def test_killed_at_a_random_moment_and_rerun_is_bitwise_the_straight_run(
    arch: str, workers: int, tmp_path: Path, launch: Launch
) -> None:
    changes = {"model": {"arch": arch, "conditional": arch == "resnet"}, "execution": {"workers": workers}, **ROUNDS}
    straight = play(make_config(tmp_path / "straight", changes))

    config = make_config(tmp_path / "killed", changes)
    play_through_a_kill(config, launch)
    assert digests(config.folder) == digests(straight.folder)
    assert metrics(config.folder) == metrics(straight.folder)


def test_killed_while_it_reads_shards_and_rerun_is_bitwise_the_straight_run(tmp_path: Path, launch: Launch) -> None:
    """Over several epochs of real shards, with classes, mirroring, and an image that must be replaced in each epoch."""
    shards = tmp_path / "shards"
    prepare("glyphs:300", shards, resolution=8, channels=1, format="png", shard_images=70, workers=0)
    spoil_an_image(shards)
    data = {"shards": str(shards), "chunk": 4, "block": 64, "lanes": 2, "stripe": 8, "bad_images": 0.01}
    changes = {"data": data, "model": {"conditional": True}, "execution": {"workers": 2}, **ROUNDS}
    straight = play(make_config(tmp_path / "straight", changes))
    assert "The next image of the shard takes its place" in (straight.folder / "events.log").read_text()

    config = make_config(tmp_path / "killed", changes)
    play_through_a_kill(config, launch)
    assert digests(config.folder) == digests(straight.folder)


def play_through_a_kill(config: Config, launch: Launch) -> None:
    """Kill the run at a random moment and run it again to its end."""
    rows = random.randrange(5, 40)
    ranks = launch(config)
    log = config.folder / "metrics.jsonl"
    await_that(lambda: log.is_file() and log.read_bytes().count(b"\n") >= rows, f"{rows} rows", ranks)
    ranks.kill()
    assert play(config).resumed_at, "killed before the first checkpoint: the test did not resume"


def spoil_an_image(shards: Path) -> None:
    """Overwrite the pixels of one image, so that its shard is whole and the image is not."""
    index = read_index(shards)
    path = shards / index.shards[1].url
    raw = bytearray(path.read_bytes())
    at, size = int(index.offset[80]), int(index.size[80])
    raw[at + 40 : at + size] = bytes(size - 40)
    path.write_bytes(raw)


def test_bf16_resumes_bitwise(tmp_path: Path) -> None:
    changes = {"model": {"arch": "dcgan"}, "execution": {"precision": "bf16", "channels_last": True}}
    straight = play(make_config(tmp_path / "straight", changes))
    half = {**changes, "run": {"total_kimg": 0.16}}
    play(make_config(tmp_path / "halves", half))
    second = play(make_config(tmp_path / "halves", changes))
    assert second.resumed_at == 160
    assert digests(second.folder) == digests(straight.folder)


def test_the_seed_matters(tmp_path: Path) -> None:
    one = play(make_config(tmp_path / "one"))
    other = play(make_config(tmp_path / "other", {"run": {"seed": 4}}))
    assert digests(one.folder)["generator.safetensors"] != digests(other.folder)["generator.safetensors"]


def test_a_finished_run_says_so_and_changes_nothing(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    play(config)
    before = digests(config.folder), metrics(config.folder)
    play(config)
    assert (digests(config.folder), metrics(config.folder)) == before


@pytest.mark.parametrize(
    "request_stop", ["TERM", "file", *(pytest.param(name, marks=pytest.mark.long) for name in RARER)]
)
def test_a_request_to_stop_saves_and_the_rerun_goes_on_exactly(
    request_stop: str, tmp_path: Path, launch: Launch
) -> None:
    changes = {"run": {"total_kimg": 8.0}, "checkpoint": {"every_kimg": 1000.0}, "execution": {"workers": 1}}
    config = make_config(tmp_path / "stopped", changes)
    ranks = launch(config)
    log = config.folder / "metrics.jsonl"
    await_that(lambda: log.is_file() and b"\n" in log.read_bytes(), "the first row", ranks)
    if request_stop == "file":
        (config.folder / "STOP").touch()
    else:
        ranks.signal(getattr(signal, f"SIG{request_stop}"))
    assert ranks.wait() == [EXIT_PREEMPTED], ranks.output()
    status = (config.folder / "status.json").read_text()
    assert '"preempted"' in status
    assert not (config.folder / "STOP").exists()

    stopped_at = int((config.folder / "checkpoints" / "latest").read_text())
    assert 0 < stopped_at < 8000
    end = {**changes, "run": {"total_kimg": stopped_at / 1000 + 0.16}}
    resumed = play(make_config(tmp_path / "stopped", end))
    assert resumed.resumed_at == stopped_at
    straight = play(make_config(tmp_path / "straight", end))
    assert digests(resumed.folder) == digests(straight.folder)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    config = make_config(tmp_path / "damaged")
    straight = play(config)
    whole, rows = digests(straight.folder), metrics(straight.folder)
    weights = config.folder / "checkpoints" / "000000320" / "generator.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    again = play(config)
    assert again.resumed_at == 240
    assert "digest" in (config.folder / "events.log").read_text()
    assert digests(config.folder) == whole
    assert metrics(config.folder) == rows, "240 images lie between two rows: the half-filled row is in the checkpoint"


def test_no_whole_checkpoint_is_an_error_and_not_a_new_start(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    play(config)
    for manifest in config.folder.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{}")
    with pytest.raises(CheckpointError, match="none of the 3"):
        Trainer(config)


def test_settings_that_make_another_run_are_refused_with_both_values_and_the_remedy(tmp_path: Path) -> None:
    play(make_config(tmp_path))
    changed = make_config(tmp_path, {"loss": {"kind": "hinge"}, "update": {"batch_images": 8}})
    with pytest.raises(ResumeError) as refused:
        Trainer(changed)
    message = str(refused.value)
    assert "loss.kind was non_saturating, now hinge" in message
    assert "--update.batch_images 16" in message
    assert "--accept loss.kind" in message
    Trainer(changed, Insistence(accept=("loss.kind", "update.batch_images")))


def test_schedules_continue_with_a_warning_and_execution_without(tmp_path: Path) -> None:
    play(make_config(tmp_path, {"run": {"total_kimg": 0.16}}))
    changes = {"optimizer": {"generator": {"lr": 1e-4}}, "execution": {"workers": 1}, "checkpoint": {"keep": 1}}
    play(make_config(tmp_path, changes))
    events = (tmp_path / "tiny" / "events.log").read_text()
    assert "optimizer.generator.lr was 0.0002, now 0.0001" in events
    assert "execution.workers" not in events


def test_other_data_is_refused_unless_restarted(tmp_path: Path) -> None:
    play(make_config(tmp_path, {"run": {"total_kimg": 0.16}}))
    other = make_config(tmp_path, {"run": {"seed": 9}})
    with pytest.raises(ResumeError, match=r"run\.seed"):
        Trainer(other)
    with pytest.raises(ResumeError, match="--restart-data"):
        Trainer(other, Insistence(accept=("run.seed",)))
    assert Trainer(other, Insistence(accept=("run.seed",), restart_data=True)).clock.data_position == 0


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from gandist.runtime import checkpoint

    real_save, calls = checkpoint.save_file, []

    def full_once(*arguments: object, **more: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real_save(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save_file", full_once)
    config = make_config(tmp_path)
    play(config)
    assert "free some space" in (config.folder / "events.log").read_text()
    assert [p.name for p in sorted(config.folder.glob("checkpoints/0*"))] == ["000000160", "000000240", "000000320"]


def test_a_last_save_that_fails_is_not_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from gandist.runtime import checkpoint

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = make_config(tmp_path, {"checkpoint": {"every_kimg": 1000.0}})
    trainer = Trainer(config)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(CheckpointError, match="free some space"):
            trainer.train()
    assert '"failed"' in (config.folder / "status.json").read_text()
    play(config)
    assert '"done"' in (config.folder / "status.json").read_text()


@pytest.mark.parametrize("arch", ["mlp", "dcgan"])
def test_a_save_whose_copy_is_slow_holds_the_state_of_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    """Weights are copied while the next pass computes; the step after it waits, however slow the copy is."""
    changes = {"model": {"arch": arch}, "checkpoint": {"every_kimg": 0.08, "keep": 9}}
    straight = play(make_config(tmp_path / "stopped", {**changes, "run": {"total_kimg": 0.16}}))
    trainer = Trainer(make_config(tmp_path / "slow", changes))
    save, copy_the_rest = trainer.saver.save, trainer.saver._copy_the_rest
    passed, stepped = threading.Event(), threading.Event()  # D's next passes are done; its next step is

    def saved(*given: Any) -> None:
        passed.clear()
        stepped.clear()
        save(*given)

    def slow(later: Any) -> None:
        assert trainer.finished or passed.wait(60)
        stepped.wait(0.3)  # in vain, if the step waits for the copy
        copy_the_rest(later)

    player = trainer.game.discriminator
    wait, step = player.before_step, player.step

    def before_step() -> None:
        passed.set()
        wait()

    def step_and_tell(round_index: int) -> Any:
        done = step(round_index)
        stepped.set()
        return done

    player.before_step, player.step = before_step, step_and_tell  # type: ignore[method-assign]
    monkeypatch.setattr(trainer.saver, "save", saved)
    monkeypatch.setattr(trainer.saver, "_copy_the_rest", slow)
    trainer.train()
    assert digests(trainer.folder, "000000160") == digests(straight.folder)

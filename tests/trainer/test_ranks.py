"""Real processes over gloo: the number of ranks is no part of the result."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainer_runs import Launch, await_that, digests, make_config, metrics

from gandist.config import Config, merge
from gandist.errors import EXIT_FAILED, EXIT_PREEMPTED, EXIT_USER_ERROR

TWENTY_ROUNDS = {
    "run": {"total_kimg": 0.32},
    "model": {"mlp": {"generator_widths": [64], "discriminator_widths": [64]}},
}
FILES = ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d")


def finish(launch: Launch, config: Config, world: int) -> None:
    ranks = launch(config, world=world)
    assert ranks.wait() == [0] * world, ranks.output()


def worst_difference(one: Path, other: Path) -> float:
    """Return the largest relative distance, tensor by tensor, of two runs' newest checkpoints."""
    worst = 0.0
    for name in FILES:
        newest = [path / "checkpoints" / (path / "checkpoints" / "latest").read_text().strip() for path in (one, other)]
        a, b = (load_file(folder / f"{name}.safetensors") for folder in newest)
        assert a.keys() == b.keys()
        for key, tensor in a.items():
            mine, theirs = tensor.double(), b[key].double()
            worst = max(worst, float((mine - theirs).norm() / mine.norm().clamp_min(1e-12)))
    return worst


def assert_same_rows(rows: list[dict[str, Any]], expected: list[dict[str, Any]], after: Iterable[int] = ()) -> None:
    """Compare rows of metrics; the first one ``after`` some images seen only by its clock."""
    assert [row["images_seen"] for row in rows] == [row["images_seen"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        if not any(row["images_seen"] - 32 < end < row["images_seen"] for end in after):
            assert row == pytest.approx(other, rel=2e-4, abs=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("arch", ["mlp", "dcgan"])
def test_1_2_and_4_processes_agree_after_20_rounds_with_r1(tmp_path: Path, launch: Launch, arch: str) -> None:
    """R1 at every fourth step, dropout, swapped labels, batch norms over all ranks: all of it keyed by row."""
    changes = merge(TWENTY_ROUNDS, {"loss": {"swap_probability": 0.1}, "model": {"arch": arch}})
    for world in (1, 2, 4):
        finish(launch, make_config(tmp_path / str(world), changes), world)
    for world in (2, 4):
        assert worst_difference(tmp_path / "1" / "tiny", tmp_path / str(world) / "tiny") < 1e-5
    assert_same_rows(metrics(tmp_path / "4" / "tiny"), metrics(tmp_path / "1" / "tiny"))


@pytest.mark.parametrize("part", ["discriminator", pytest.param("ema", marks=pytest.mark.long)])
def test_ranks_that_no_longer_agree_end_and_save_nothing(tmp_path: Path, launch: Launch, part: str) -> None:
    """One bit of one weight of one rank, as a faulty device might change it, after the second checkpoint."""
    config = make_config(tmp_path, {"checkpoint": {"every_kimg": 0.08}})
    ranks = launch(config, world=2, program=(str(Path(__file__).with_name("flipped_bit.py")), part, "11"))
    assert ranks.wait() == [EXIT_FAILED] * 2, ranks.output()
    assert f"At 0.24 kimg the ranks no longer agree, first in {part}: " in ranks.output()
    published = [path.name for path in (config.folder / "checkpoints").iterdir() if path.name.isdigit()]
    assert sorted(published) == ["000000080", "000000160"]
    finish(launch, config, 2)
    finish(launch, make_config(tmp_path / "straight"), 2)
    assert digests(config.folder) == digests(tmp_path / "straight" / "tiny")


@pytest.mark.long
def test_two_ranks_with_micro_batches_agree_with_one_pass(tmp_path: Path, launch: Launch) -> None:
    finish(launch, make_config(tmp_path / "1", TWENTY_ROUNDS), 1)
    micro = {**TWENTY_ROUNDS, "execution": {"micro_images": 3}}
    finish(launch, make_config(tmp_path / "2", micro), 2)
    assert worst_difference(tmp_path / "1" / "tiny", tmp_path / "2" / "tiny") < 1e-5


@pytest.mark.long
def test_two_ranks_stop_on_a_signal_to_one_and_go_on_bitwise(tmp_path: Path, launch: Launch) -> None:
    """Batch statistics differ per rank in training, and are equal whenever a checkpoint is taken."""
    changes = {"model": {"arch": "dcgan"}, "checkpoint": {"every_kimg": 1000.0}, "run": {"total_kimg": 16.0}}
    stopped = make_config(tmp_path / "stopped", changes)
    ranks = launch(stopped, world=2)
    log = stopped.folder / "metrics.jsonl"
    await_that(lambda: log.is_file() and b"\n" in log.read_bytes(), "the first row", ranks)
    ranks.processes[1].send_signal(signal.SIGUSR1)
    assert ranks.wait() == [EXIT_PREEMPTED] * 2, ranks.output()

    stopped_at = int((stopped.folder / "checkpoints" / "latest").read_text())
    end = {**changes, "run": {"total_kimg": stopped_at / 1000 + 0.16}}
    finish(launch, make_config(tmp_path / "stopped", end), 2)
    finish(launch, make_config(tmp_path / "straight", end), 2)
    assert digests(tmp_path / "stopped" / "tiny") == digests(tmp_path / "straight" / "tiny")


def test_the_average_of_two_ranks_follows_buffers_too(tmp_path: Path, launch: Launch) -> None:
    """With a half-life of nothing the average is G itself: wrapping G must not leave the average with dead buffers."""
    changes = {"model": {"arch": "dcgan"}, "ema": {"halflife_kimg": 0.0}, "run": {"total_kimg": 0.064}}
    finish(launch, make_config(tmp_path, changes), 2)
    newest = tmp_path / "tiny" / "checkpoints" / "000000064"
    average, generator = (load_file(newest / f"{name}.safetensors") for name in ("ema", "generator"))
    assert int(generator["layers.1.num_batches_tracked"]) == 4
    for name, tensor in generator.items():
        assert torch.allclose(average[name].float(), tensor.float(), rtol=1e-6), name


@pytest.mark.long
def test_a_run_of_two_ranks_continues_on_one(tmp_path: Path, launch: Launch) -> None:
    half = {**TWENTY_ROUNDS, "run": {"total_kimg": 0.16}}
    finish(launch, make_config(tmp_path / "moved", half), 2)
    finish(launch, make_config(tmp_path / "moved", TWENTY_ROUNDS), 1)
    finish(launch, make_config(tmp_path / "stayed", TWENTY_ROUNDS), 1)
    assert worst_difference(tmp_path / "moved" / "tiny", tmp_path / "stayed" / "tiny") < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("arch", ["mlp", "dcgan"])
def test_a_run_of_four_ranks_continues_on_two_and_then_on_one(tmp_path: Path, launch: Launch, arch: str) -> None:
    """The loss curve is that of a run that was never moved, row by row, although each move is between two rows."""
    changes = merge(TWENTY_ROUNDS, {"model": {"arch": arch}})
    for world, kimg in {4: 0.112, 2: 0.208, 1: 0.32}.items():
        finish(launch, make_config(tmp_path / "moved", {**changes, "run": {"total_kimg": kimg}}), world)
    finish(launch, make_config(tmp_path / "stayed", changes), 1)
    assert worst_difference(tmp_path / "moved" / "tiny", tmp_path / "stayed" / "tiny") < 1e-5
    moved, stayed = (metrics(tmp_path / name / "tiny") for name in ("moved", "stayed"))
    ends = {112, 208}  # each end of a run has a row of its own, which takes its rounds from the row after it
    assert_same_rows([row for row in moved if row["images_seen"] not in ends], stayed, after=ends)


@pytest.mark.long
def test_a_run_continues_with_another_global_batch_where_that_is_accepted(tmp_path: Path, launch: Launch) -> None:
    """On two ranks, then on one; the next real images follow where the smaller batches ended."""
    half = {**TWENTY_ROUNDS, "run": {"total_kimg": 0.16}}
    wide = {**TWENTY_ROUNDS, "update": {"batch_images": 32}}
    for name, world in {"two": 2, "one": 1}.items():
        finish(launch, make_config(tmp_path / name, half), world)
    refused = launch(make_config(tmp_path / "two", wide), world=2)
    assert refused.wait() == [EXIT_USER_ERROR] * 2
    assert "update.batch_images was 16, now 32" in refused.output()
    for name, world in {"two": 1, "one": 2}.items():
        ranks = launch(make_config(tmp_path / name, wide), "--accept", "update.batch_images", world=world)
        assert ranks.wait() == [0] * world, ranks.output()
    assert worst_difference(tmp_path / "one" / "tiny", tmp_path / "two" / "tiny") < 1e-5
    rows = metrics(tmp_path / "two" / "tiny")
    assert [row["images_seen"] for row in rows] == list(range(32, 321, 32))
    assert [row["round"] for row in rows][-2:] == [14, 15], "10 rounds of 16 images, then 5 of 32"
    newest = json.loads((tmp_path / "two" / "tiny" / "checkpoints" / "000000320" / "state.json").read_text())
    assert newest["data"]["t"] == 320


@pytest.mark.long
@pytest.mark.parametrize("together", [True, False])
def test_norms_that_see_one_process_are_told_of(tmp_path: Path, launch: Launch, together: bool) -> None:
    changes = {"model": {"arch": "dcgan"}, "execution": {"sync_batch_norm": together}, "run": {"total_kimg": 0.032}}
    finish(launch, make_config(tmp_path, changes), 2)
    told = "Batch normalisation sees the 8 images of one process" in (tmp_path / "tiny" / "events.log").read_text()
    assert told is not together


def test_a_batch_that_the_ranks_cannot_share_names_sizes_that_work(tmp_path: Path, launch: Launch) -> None:
    ranks = launch(make_config(tmp_path, {"update": {"batch_images": 15}}), world=2)
    assert ranks.wait() == [EXIT_USER_ERROR] * 2
    assert "14 or 16" in ranks.output()
    assert not (tmp_path / "tiny").exists()


def test_more_ranks_launched_than_found_is_an_error(
    tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANDIST_LAUNCHED_WORLD", "2")
    ranks = launch(make_config(tmp_path))
    assert ranks.wait() == [EXIT_USER_ERROR]
    assert "GANDIST_LAUNCHED_WORLD=2" in ranks.output()
    assert not (tmp_path / "tiny").exists()


def test_status_says_where_and_what(tmp_path: Path, launch: Launch) -> None:
    config = make_config(tmp_path)
    finish(launch, config, 1)
    status = json.loads((config.folder / "status.json").read_text())
    assert (status["state"], status["images_seen"]) == ("done", 320)
    assert status["host"]
    assert status["since"]

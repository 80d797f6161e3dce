"""Ranks decide together: with one process, and with two real ones over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gandist.errors import MachineError
from gandist.runtime.distributed import LAUNCHED_WORLD, Ranks, accelerate_flags, bit_sum

PROGRAM = Path(__file__).with_name("two_ranks.py")


def refuse(why: str) -> None:
    raise MachineError(why)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv(LAUNCHED_WORLD, raising=False)


def test_one_process_alone_agrees_with_itself() -> None:
    ranks = Ranks.join(0, 1)
    assert (ranks.rank, ranks.world, ranks.main) == (0, 1, True)
    assert [ranks.any(True), ranks.any(False)] == [True, False]
    assert ranks.from_main({"a": [1]}) == {"a": [1]}
    assert ranks.to_main(["a", "b"]) == ["a", "b"]
    assert ranks.first_difference({"a": torch.ones(3)}) is None
    assert ranks.on_main(lambda: 3, MachineError) == 3
    with pytest.raises(MachineError, match="no room"):
        ranks.on_main(lambda: refuse("no room"), MachineError)
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(ranks.mean(values), values)
    norm = nn.BatchNorm1d(2)
    ranks.average_statistics(norm)
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0.0, 0.0]
    ranks.barrier()


@pytest.mark.parametrize("name", ["WORLD_SIZE", LAUNCHED_WORLD])
def test_another_number_of_ranks_than_was_launched_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Such processes would train the same run side by side and overwrite each other's files."""
    monkeypatch.setenv(name, "2")
    with pytest.raises(MachineError, match=rf"{name}=2 ranks were launched, but this process is one of 1"):
        Ranks.join(0, 1)
    monkeypatch.setenv(name, "1")
    assert Ranks.join(0, 1).world == 1
    monkeypatch.setenv(name, "")
    assert Ranks.join(0, 1).world == 1


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("/venv/bin/python /venv/bin/accelerate launch --cpu --num_processes 2 train.py", "2"),
        ("accelerate launch --num-processes=16 --num_machines 2 train.py", "16"),
        ("python -m accelerate.commands.launch --num_processes 3 train.py", "3"),
        ("/venv/bin/accelerate-launch --num_processes 4 train.py", "4"),
        ("accelerate launch --config_file launch/cpu.yaml train.py", None),
        ("accelerate launch train.py --num_processes", ""),
        ("bash launch --num_processes 2", None),
        ("", None),
    ],
)
def test_what_accelerate_was_asked_for(command: str, asked: str | None) -> None:
    assert accelerate_flags(command.split(" ")) == ({} if asked is None else {"--num_processes": asked})


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks saw."""
    store = tmp_path_factory.mktemp("ranks") / "store"
    environment = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", LAUNCHED_WORLD)}
    environment["GLOO_SOCKET_IFNAME"] = "lo"
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(rank), store],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in (0, 1)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [error for _, error in results]
    return [json.loads(output) for output, _ in results]


def test_rank_0_is_the_one_that_writes(seen: list[dict[str, Any]]) -> None:
    assert [one["main"] for one in seen] == [True, False]


def test_a_flag_on_any_rank_is_seen_on_all(seen: list[dict[str, Any]]) -> None:
    assert [one["any"] for one in seen] == [[False, True, True, True]] * 2


def test_the_value_of_rank_0_is_seen_on_all(seen: list[dict[str, Any]]) -> None:
    assert [one["from_main"] for one in seen] == [["", None, 0, [], {}]] * 2
    assert [one["nested"] for one in seen] == [True, True]


def test_lines_of_all_ranks_reach_rank_0(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["to_main"] == [[], ["Zürich"], ["of 0", "", "of 1", "x" * 1000]]
    assert seen[1]["to_main"] == [[], [], []]


def test_what_rank_0_does_fails_on_all_ranks_alike(seen: list[dict[str, Any]]) -> None:
    assert [one["on_main fine"] for one in seen] == ["done", None]
    assert [one["on_main refused"] for one in seen] == ["refused: no room"] * 2


def test_the_first_tensor_that_differs_by_a_bit_is_named_on_all_ranks(seen: list[dict[str, Any]]) -> None:
    assert [one["difference"] for one in seen] == [[None, None, "d"]] * 2


@given(st.lists(st.integers(0, 255), min_size=8, max_size=64), st.integers(0, 7), st.integers(0, 511))
def test_every_flipped_bit_changes_the_sum(content: list[int], bit: int, at: int) -> None:
    raw = torch.tensor(content[: len(content) // 8 * 8], dtype=torch.uint8)
    flipped = raw.clone()
    flipped[at % len(raw)] ^= 1 << bit
    for kind in (torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.int64):
        assert bit_sum(raw.view(kind)) != bit_sum(flipped.view(kind))
        assert bit_sum(raw.view(kind)) == bit_sum(raw.clone().view(kind))


def test_means(seen: list[dict[str, Any]]) -> None:
    assert [one["mean"] for one in seen] == [[2.0, 20.0]] * 2
    assert [one["mean leaves its argument"] for one in seen] == [True, True]


def test_the_mean_over_ranks_has_two_derivatives(seen: list[dict[str, Any]]) -> None:
    """Each rank's loss counts: y = 2.5, d(2 y^2)/dx = 4 y x, and of its squares' sum 96 y^2 x, for x = 1 and 2."""
    for rank, one in enumerate(seen):
        x = rank + 1
        assert one["derivatives"] == [[2.5], [10.0 * x], [600.0 * x]]


def test_running_statistics_become_their_mean_and_nothing_else_changes(seen: list[dict[str, Any]]) -> None:
    for rank, one in enumerate(seen):
        for name, value in (("first", 1.0), ("second", 5.0)):
            assert one[name]["1.0.running_mean"] == [value + 0.5] * 2
            assert one[name]["1.0.running_var"] == [10 * value + 5.0] * 2
            assert one[name]["1.0.weight"] == [value + rank] * 2, "weights are DDP's affair"
            assert one[name]["1.0.num_batches_tracked"] == value + rank


def test_a_rank_does_not_wait_for_ever(seen: list[dict[str, Any]]) -> None:
    assert "1500ms" in seen[0]["waited in vain"], "half as long again as the watchdog"


def test_missing_ranks_are_an_error_on_every_rank(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert f"{LAUNCHED_WORLD}=4 ranks were launched, but this process is one of 2" in one["error"]

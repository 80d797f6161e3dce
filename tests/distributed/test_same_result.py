"""The number of ranks and of passes is no part of the result: weights, averages and optimizers are equal to rounding.

The bounds stand far above rounding and far below what a wrong share of the noise or a missing reduction makes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cases import CASES
from playing import PARTS, Played

Look = Callable[[str, int], Played]

FP32, BF16 = 1e-5, 0.2
KINK = 2e-3
"""In a ReLU network an activation within rounding of zero may fall to either side, which moves a gradient a little."""

NAMES = [case.name for case in CASES if case.name.startswith("many:") and case.mistake is None]


def without_effect(name: str) -> bool:
    """Tell whether a tensor does nothing: a bias before a batch norm, or the running mean, which it alone moves.

    Such a bias has a gradient of pure rounding noise, and Adam makes full steps of it.
    """
    part, _, key = name.partition(":")
    in_generator = part in ("generator", "ema", "optimizer_g") and key.startswith("blocks.")
    return in_generator and any(f"{layer}.bias" in key for layer in ("conv1", "conv2", "shortcut"))


def distance(one: Played, other: Played) -> float:
    return max(one.distance(other, leaving_out=without_effect).values())


def bound(name: str) -> float:
    return BF16 if "bf16" in name else KINK if "resnet" in name else FP32


@pytest.mark.parametrize("name", ["few:plain", "few:dcgan", "few:conditional resnet"])
def test_two_ranks_end_as_one_does(played: Look, name: str) -> None:
    """With R1 at every second step, whose second derivative crosses ranks in the batch norms of both networks."""
    two = played(name, 2)
    assert distance(played(name, 1), two) < bound(name)
    assert two.ranks_differ() == []
    for losses, expected in zip(two.notes[0]["losses"], played(name, 1).notes[0]["losses"], strict=True):
        assert losses == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["few:noise of another rank", "few:gradients not reduced", "few:norms of one rank"])
def test_a_mistake_would_be_noticed(played: Look, name: str) -> None:
    right = "few:dcgan" if name == "few:norms of one rank" else "few:plain"
    apart = played(right, 1).distance(played(name, 2), leaving_out=without_effect)
    assert min(apart.values()) > 100 * FP32, "in each of the networks, the average and the optimizers"


def test_norms_of_one_rank_still_save_equal_statistics(played: Look) -> None:
    assert played("few:norms of one rank", 2).ranks_differ() == []
    assert played("few:gradients not reduced", 2).ranks_differ() != []


def test_a_round_reduces_gradients_and_two_numbers_for_each_channel_of_a_norm(played: Look) -> None:
    """Mean and second moment in fp64, forward and backward: once in G, in D for reals, for fakes, and in G's step."""
    plain, synced = (played(f"few:{name}", 2).notes[0] for name in ("norms of one rank", "dcgan"))
    gradients = 4 * plain["parameters"]
    assert plain["bytes"] == {"float32": gradients}
    channels_g, channels_d = 8 + 4, 8
    assert synced["bytes"] == {"float32": gradients, "float64": 16 * 2 * (channels_g + 3 * channels_d)}


# --- all of it -------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_1_2_and_4_ranks_end_alike(played: Look, name: str, world: int) -> None:
    head, _, passes = name.rpartition(", ")
    straight = f"{head}, 1 passes" if passes.endswith("passes") else name
    if (straight, 1) != (name, world):
        assert distance(played(straight, 1), played(name, world)) < bound(name)
    assert played(name, world).ranks_differ() == []


@pytest.mark.long
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", ["many:bf16, noise of another rank", "many:bf16, gradients not reduced"])
def test_a_mistake_would_be_noticed_in_bf16(played: Look, name: str, world: int) -> None:
    apart = played("many:bf16, dcgan", 1).distance(played(name, world))
    assert min(apart[part] for part in PARTS) > 2 * BF16

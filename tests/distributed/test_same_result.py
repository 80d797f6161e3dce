"""The number of ranks and of passes is no part of the result: weights, averages and optimizers are equal to rounding.

The bounds stand far above rounding and far below what a wrong share of the noise or a missing reduction makes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cases import CASES, METHODS
from playing import Played

NAMES = [case.name for case in CASES if case.name.startswith("many:") and case.mistake is None]
MISTAKES = [case.name for case in CASES if case.name.startswith("few:") and (case.mistake or "norms of" in case.name)]

Look = Callable[[str, int], Played]

ROUNDING = 1e-5
"""Bound on the relative distance of every single tensor."""
KINK, BF16, MISTAKE = 0.01, 0.1, 0.3
"""Bounds on the detour of a network, as a share of the way that training took it.

In a ReLU network an activation within rounding of zero may fall to either side, which moves a gradient a little.
"""


def without_effect(key: str) -> bool:
    """Tell whether a tensor of the residual G does nothing: a bias whose effect a batch norm takes away again.

    Its gradient is pure rounding noise, and Adam makes full steps of it.
    """
    part, _, name = key.partition(":")
    return part in ("generator", "ema", "optimizer_g") and name.startswith("blocks.") and ".bias" in name


def assert_same(one: Played, other: Played, name: str) -> None:
    """Compare tensor by tensor where rounding stays rounding, else network by network."""
    if "bf16" in name or "resnet" in name:
        detour = one.detour(other, leaving_out=without_effect)
        assert max(detour.values()) < (BF16 if "bf16" in name else KINK), detour
    else:
        apart = one.distances(other)
        if name == "average":  # which looks at differences alone, so D's last bias does nothing
            apart = {key: distance for key, distance in apart.items() if "head.bias" not in key}
        assert max(apart.values()) < ROUNDING, {key: value for key, value in apart.items() if value >= ROUNDING}


@pytest.mark.parametrize("name", ["few:plain", "few:dcgan", "few:conditional resnet"])
def test_two_ranks_end_as_one_does(played: Look, name: str) -> None:
    """With R1 at every second step, whose second derivative crosses ranks in the batch norms of both networks."""
    one, two = played(name, 1), played(name, 2)
    assert_same(one, two, name)
    assert two.ranks_differ() == []
    for losses, expected in zip(two.notes[0]["losses"], one.notes[0]["losses"], strict=True):
        assert losses == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_would_be_noticed(played: Look, name: str) -> None:
    detour = played(name.partition(", ")[0], 1).detour(played(name, 2), leaving_out=without_effect)
    assert min(detour.values()) > KINK, "in each of the networks, the average and the optimizers"
    assert min(detour[part] for part in ("generator", "ema", "optimizer_g")) > 10 * KINK


def test_norms_of_one_rank_still_save_equal_statistics(played: Look) -> None:
    assert played("few:dcgan, norms of one rank", 2).ranks_differ() == []
    assert played("few:plain, gradients not reduced", 2).ranks_differ() != []


def test_a_round_reduces_gradients_and_two_numbers_for_each_channel_of_a_norm(played: Look) -> None:
    """Mean and second moment in fp64, forward and backward: once in G, in D for reals, for fakes, and in G's step."""
    plain, synced = (played(f"few:dcgan{name}", 2).notes[0] for name in (", norms of one rank", ""))
    gradients = 4 * plain["parameters"]
    assert plain["bytes"] == {"float32": gradients}
    channels_g, channels_d = 8 + 4, 8
    assert synced["bytes"] == {"float32": gradients, "float64": 16 * 2 * (channels_g + 3 * channels_d)}


# --- all of it -------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_1_2_and_4_ranks_end_alike(played: Look, name: str, world: int) -> None:
    """One rank with one pass is what all are compared with."""
    head, _, passes = name.rpartition(", ")
    straight = f"{head}, 1 passes" if passes.endswith("passes") else name
    assert_same(played(straight, 1), played(name, world), name)
    assert played(name, world).ranks_differ() == []


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_the_same_on_two_ranks(played: Look, name: str) -> None:
    """What a penalty carries from round to round is a part of the checkpoint, and equal as well."""
    one, two = played(f"method:{name}", 1), played(f"method:{name}", 2)
    assert_same(one, two, name)
    assert two.ranks_differ() == []


@pytest.mark.long
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("mistake", ["noise of another rank", "gradients not reduced"])
def test_a_mistake_would_be_noticed_in_bf16(played: Look, mistake: str, world: int) -> None:
    detour = played("many:bf16, dcgan", 1).detour(played(f"many:bf16, dcgan, {mistake}", world))
    assert min(detour.values()) > MISTAKE

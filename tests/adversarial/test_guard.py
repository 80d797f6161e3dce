"""Steps that are not finite: skipped without a trace, counted, and named."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gandist.adversarial.guard import FiniteGuard, first_not_finite
from gandist.adversarial.player import Player

Make = Callable[..., Any]
NAN, INF = float("nan"), float("inf")


def player(kind: type[torch.optim.Optimizer] = torch.optim.Adam, **settings: Any) -> Player:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return Player(network, network, kind(network.parameters(), lr=0.1, **settings))


def step(seat: Player, index: int, spoil: float | None = None) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(index))
    seat.network(x).square().mean().backward()
    if spoil is not None:
        weight = seat.module[2].weight
        weight.grad[0, 1] = spoil
    seat.step(index)


def everything(seat: Player) -> list[torch.Tensor]:
    moments = [v for state in seat.optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return [t.detach().clone() for t in [*seat.module.parameters(), *moments]]


KINDS = [(torch.optim.Adam, {"fused": True}), (torch.optim.Adam, {"foreach": True}), (torch.optim.SGD, {"fused": True})]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
@pytest.mark.parametrize("spoil", [NAN, INF, -INF])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_step_that_is_not_finite_leaves_weights_and_optimizer_as_they_were(
    kind: type[torch.optim.Optimizer], settings: dict[str, Any], spoil: float, clip_norm: float | None
) -> None:
    seat = player(kind, **settings)
    seat.clip_norm = clip_norm
    step(seat, 0)
    before = everything(seat)
    step(seat, 1, spoil)
    for mine, theirs in zip(everything(seat), before, strict=True):
        assert torch.equal(mine, theirs)
    assert all(p.grad is None for p in seat.parameters)
    step(seat, 2)
    assert not torch.equal(everything(seat)[0], before[0]), "the next good step is taken"


def test_the_first_step_of_all_may_be_the_one_that_is_skipped() -> None:
    spoilt, fine = player(fused=True), player(fused=True)
    step(spoilt, 0, NAN)
    for seat in (spoilt, fine):
        step(seat, 1)
        seat.guard.settle()
    for mine, theirs in zip(everything(spoilt), everything(fine), strict=True):
        assert torch.equal(mine, theirs)


def test_skipped_steps_are_counted_and_the_spoilt_gradient_is_named() -> None:
    seat = player(fused=True)
    assert seat.guard.skipped().total == 0
    seen = []
    for index, spoil in enumerate([None, NAN, INF, None, NAN, NAN, NAN]):
        step(seat, index, spoil)
        skipped = seat.guard.skipped()
        seen.append((skipped.total, skipped.streak, skipped.since_round if skipped.streak else None))
        assert list(skipped.tensors) == (["2.weight"] if spoil is not None else [])
    assert seen == [(0, 0, None), (1, 1, 1), (2, 2, 1), (2, 0, None), (3, 1, 4), (4, 2, 4), (5, 3, 4)]
    state = seat.guard.state()
    again = player(fused=True)
    again.guard.restore(state, torch.device("cpu"))
    assert again.guard.state() == state
    step(again, 7, NAN)
    assert (again.guard.skipped().total, again.guard.skipped().streak, again.guard.skipped().since_round) == (6, 4, 4)
    again.guard.forgive()
    assert (again.guard.skipped().total, again.guard.skipped().streak) == (6, 0)


def test_running_statistics_that_a_pass_spoilt_are_put_back() -> None:
    seat = player()
    norm = seat.module[1]
    step(seat, 0)
    seat.guard.settle()
    good = norm.running_mean.clone()
    seat.network(torch.full((4, 3), NAN))
    assert norm.running_mean.isnan().all()
    seat.guard.settle()
    assert torch.equal(norm.running_mean, good)
    seat.network(torch.ones(4, 3))
    moved = norm.running_mean.clone()
    seat.guard.settle()
    assert torch.equal(norm.running_mean, moved), "good ones stay"
    assert not torch.equal(moved, good)


def test_a_network_without_statistics_has_nothing_to_settle() -> None:
    FiniteGuard(nn.Linear(2, 2)).settle()


def test_the_first_tensor_that_is_not_finite_is_named() -> None:
    fine = {"a": torch.ones(2), "b": torch.tensor([1, 2]), "c": torch.tensor(3.0)}
    assert first_not_finite({}) is None
    assert first_not_finite(fine) is None
    assert first_not_finite({**fine, "d": torch.tensor([1.0, NAN]), "e": torch.tensor(INF)}) == "d"


@given(st.lists(st.sampled_from([0.0, 1.0, NAN, INF]), min_size=2, max_size=2), st.integers(0, 1 << 40))
def test_the_verdict_is_that_of_the_norms(norms: list[float], round_index: int) -> None:
    guard = FiniteGuard(nn.Linear(2, 2))
    spoilt = any(value in (INF,) or value != value for value in norms)
    assert bool(guard.judge(torch.tensor(norms), round_index)) == spoilt
    assert guard.skipped().since_round == (round_index if spoilt else 0)


def test_a_spoilt_discriminator_step_does_not_keep_the_generator_from_moving(set_table: Make) -> None:
    table = set_table("mlp", dropout=0.0)
    reals = table.reals()
    reals[0].x[0, 0, 0, 0] = NAN
    table.strategy(table.round(), reals)
    assert not table.moved("discriminator")
    assert table.moved("generator")
    assert table.game.discriminator.guard.skipped().streak == 1

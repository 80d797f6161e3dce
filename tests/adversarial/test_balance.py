"""Who learns: decided by what was measured, alike on all ranks, and never for ever."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gandist.adversarial.balance import Balance, Band, Kind
from gandist.adversarial.game import Moves
from gandist.assembly.balance import balance_of
from gandist.config import Config, dump, merge, parse
from gandist.errors import ConfigError
from gandist.trainer import Trainer

BAND = Band(low=0.6, high=0.9, margin=0.05, longest_rounds=12)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("score", "moves", "alone_rounds", "expected"),
    [
        (0.75, "both", 0, "both"),
        (0.59, "both", 0, "discriminator"),
        (0.91, "both", 0, "generator"),
        (0.60, "both", 0, "both"),
        (0.90, "both", 0, "both"),
        (0.64, "discriminator", 4, "discriminator"),
        (0.66, "discriminator", 4, "both"),
        (0.86, "generator", 4, "generator"),
        (0.84, "generator", 4, "both"),
        (0.86, "discriminator", 4, "both"),
        (0.95, "discriminator", 4, "generator"),
        (0.10, "generator", 4, "discriminator"),
        (0.10, "discriminator", 11, "discriminator"),
        (0.10, "discriminator", 12, "both"),
        (0.99, "generator", 13, "both"),
    ],
)
def test_a_band_says_who_learns(score: float, moves: Moves, alone_rounds: int, expected: Moves) -> None:
    assert BAND.next(score, moves, alone_rounds) == expected


def accuracies(real: float, fake: float) -> dict[str, Tensor]:
    return {"accuracy/real": torch.tensor(real), "accuracy/fake": torch.tensor(fake), "loss/d": torch.tensor(7.0)}


def alone(tensor: Tensor) -> Tensor:
    return tensor


def test_it_decides_by_the_mean_of_an_interval() -> None:
    """Each of the four rounds alone would say something else: the mean is 0.5875."""
    balance = Balance("accuracy", BAND, interval_rounds=4)
    for real, fake in ((1.0, 0.9), (0.5, 0.5), (0.3, 0.5), (0.5, 0.5)):
        assert not balance.due
        assert balance.decide(alone) is None
        balance.observe(accuracies(real, fake))
    assert balance.due
    news = balance.decide(alone)
    assert balance.moves == "discriminator"
    assert news == "Balance: D learns alone: D's accuracy is 0.588, below 0.6."
    assert balance.statistics() == {"balance/score": 0.5875, "balance/alone": 1.0}
    for _ in range(4):
        balance.observe(accuracies(0.5, 0.5))
    assert balance.decide(alone) is None, "nothing has changed, so there is no news"
    for _ in range(4):
        balance.observe(accuracies(0.7, 0.7))
    news = balance.decide(alone)
    assert balance.moves == "both"
    assert news == "Balance: both learn again after 8 rounds of D alone: D's accuracy is 0.7."
    assert balance.statistics()["balance/alone"] == 0


def test_a_low_loss_is_a_high_score() -> None:
    config = parse(merge(dump(Config()), {"balance": {"kind": "loss", "interval_rounds": 1}}), "test")
    balance = balance_of(config)
    said = []
    for loss in (1.38, 0.7, 0.2, 0.31, 0.33):
        balance.observe({"loss/d": torch.tensor(loss)})
        said.append((balance.decide(alone), balance.moves))
    assert said == [
        ("Balance: D learns alone: D's loss is 1.38, above 1.35.", "discriminator"),
        ("Balance: both learn again after 1 rounds of D alone: D's loss is 0.7.", "both"),
        ("Balance: G learns alone: D's loss is 0.2, below 0.3.", "generator"),
        (None, "generator"),
        ("Balance: both learn again after 2 rounds of G alone: D's loss is 0.33.", "both"),
    ]


def test_fixed_reads_nothing() -> None:
    balance = Balance("fixed", BAND, interval_rounds=1)
    for _ in range(5):
        balance.observe({})
        assert not balance.due
        assert balance.decide(alone) is None
    assert (balance.moves, balance.statistics()) == ("both", {})


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=8, max_size=40), st.integers(1, 5), st.integers(1, 20))
def test_it_can_never_lock(scores: list[float], interval: int, longest: int) -> None:
    """Whatever D does, no network is left out for longer than the limit and the interval that it ends in."""
    balance = Balance("accuracy", Band(0.55, 0.95, 0.02, longest), interval)
    played: list[Moves] = []
    for score in scores:
        played.append(balance.moves)
        balance.observe(accuracies(score, score))
        balance.decide(alone)
    longest_run = max((len(list(run)) for moves, run in itertools.groupby(played) if moves != "both"), default=0)
    assert longest_run < longest + interval


@pytest.mark.parametrize("score", [0.5, 1.0])
def test_a_score_that_never_changes_lets_both_learn_now_and_then(score: float) -> None:
    balance = Balance("accuracy", BAND, interval_rounds=4)
    played: list[Moves] = []
    for _ in range(36):
        played.append(balance.moves)
        balance.observe(accuracies(score, score))
        balance.decide(alone)
    one = "discriminator" if score < 0.6 else "generator"
    assert [(moves, len(list(run))) for moves, run in itertools.groupby(played)] == [
        ("both", 4), (one, 12), ("both", 4), (one, 12), ("both", 4),
    ]  # fmt: skip


def test_ranks_decide_alike() -> None:
    """One rank's D is at chance and the other's is not; only their mean counts, in either order of adding."""
    ranks = [Balance("accuracy", BAND, interval_rounds=2) for _ in range(2)]
    for _ in range(2):
        for balance, accuracy in zip(ranks, (0.5, 0.68), strict=True):
            balance.observe(accuracies(accuracy, accuracy))
    sums = [balance.state(alone)["sum"] / 2 for balance in ranks]
    orders: list[Callable[[Tensor], Tensor]] = [
        lambda _: torch.tensor((sums[0] + sums[1]) / 2),
        lambda _: torch.tensor((sums[1] + sums[0]) / 2),
    ]
    news = [balance.decide(order) for balance, order in zip(ranks, orders, strict=True)]
    assert news[0] == news[1] == "Balance: D learns alone: D's accuracy is 0.59, below 0.6."
    assert ranks[0].moves == ranks[1].moves == "discriminator"


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 7, 10, 14, 18, 20, 23])
def test_a_stop_at_any_round_changes_nothing(stop: int) -> None:
    curve = [0.5] * 9 + [0.99] * 9 + [0.75] * 6

    def play(balance: Balance, rounds: range) -> list[Any]:
        said = []
        for index in rounds:
            balance.observe(accuracies(curve[index], curve[index] - 0.01))
            said.append((balance.decide(alone), balance.moves, balance.statistics()))
        return said

    whole = play(Balance("accuracy", BAND, 3), range(24))
    first = Balance("accuracy", BAND, 3)
    said = play(first, range(stop))
    again = Balance("accuracy", BAND, 3)
    again.restore(json.loads(json.dumps(first.state(alone))), CPU)
    assert said + play(again, range(stop, 24)) == whole
    assert {moves for _, moves, _ in whole} == {"both", "discriminator", "generator"}


def test_another_kind_forgets() -> None:
    """Else a run that is continued with the kind fixed would leave a network out for ever."""
    balance = Balance("accuracy", BAND, 1)
    balance.observe(accuracies(0.5, 0.5))
    balance.decide(alone)
    fixed = Balance("fixed", BAND, 1)
    fixed.restore(balance.state(alone), CPU)
    assert (balance.moves, fixed.moves) == ("discriminator", "both")


def test_a_critic_has_no_accuracy() -> None:
    changes: dict[str, Any] = {"balance": {"kind": "accuracy"}, "loss": {"kind": "wasserstein"}}
    with pytest.raises(ConfigError, match="critic"):
        balance_of(parse(merge(dump(Config()), changes), "test"))
    changes["loss"]["relativistic"] = "pairs"
    assert balance_of(parse(merge(dump(Config()), changes), "test")).kind == "accuracy"


@pytest.mark.parametrize("band", ["accuracy", "loss"])
def test_a_band_has_room(band: str) -> None:
    with pytest.raises(ConfigError, match="more than two margins apart"):
        parse({"balance": {band: {"low": 0.5, "high": 0.53, "margin": 0.02}}}, "test")


# --- in a run --------------------------------------------------------------------------------------------------


def config_of(root: Path, kind: Kind, **accuracy: float) -> Config:
    ring = {
        "run": {"root": str(root), "name": "run", "total_kimg": 0.096},
        "data": {"shards": "ring", "resolution": 1, "channels": 2},
        "model": {"arch": "mlp", "mlp": {"generator_widths": [8], "discriminator_widths": [8]}},
        "update": {"batch_images": 8},
        "balance": {"kind": kind, "interval_rounds": 2, "longest_rounds": 4, "accuracy": accuracy},
        "tracking": {"every_kimg": 0.008},
        "execution": {"workers": 0, "device": "cpu", "threads": 1},
    }
    return parse(merge(dump(Config()), ring), "test")


@pytest.mark.parametrize(("accuracy", "letter"), [({"low": 0.9, "high": 1.0}, "g"), ({"low": 0.0, "high": 0.1}, "d")])
def test_in_a_run_the_other_network_stands_still(tmp_path: Path, accuracy: dict[str, float], letter: str) -> None:
    """Twelve rounds: two of both, four of one alone, two of both, four of one alone."""
    trainer = Trainer(config_of(tmp_path, "accuracy", **accuracy, margin=0.0))
    before: list[list[Tensor]] = []
    observe = trainer.balance.observe

    def noted(statistics: Any) -> None:
        before.append([p.detach().clone() for p in trainer.game.players[letter].module.parameters()])
        observe(statistics)

    trainer.balance.observe = noted  # type: ignore[method-assign]
    assert trainer.train() == 0
    moved = [any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(before)]
    assert moved == [True] + [False] * 4 + [True] * 2 + [False] * 4
    said = (trainer.folder / "events.log").read_text()
    who = "D" if letter == "g" else "G"
    assert said.count(f"Balance: {who} learns alone") == 2
    assert said.count(f"Balance: both learn again after 4 rounds of {who} alone") == 2
    rows = [json.loads(line) for line in (trainer.folder / "metrics.jsonl").read_text().splitlines()]
    one = 1 if who == "D" else -1
    assert [row.get("balance/alone", 0) for row in rows] == [0, one, one, one, one, 0, 0, one, one, one, one, 0]

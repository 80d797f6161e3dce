"""What the monitor finds: made-up curves that must trigger each finding, and those of healthy runs that must not."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gandist.config import Config, leaves
from gandist.evaluation.diversity import diversity, look
from gandist.evaluation.health import KEPT_ROWS, LOOKS, HealthMonitor, Window, findings
from gandist.models.contract import Generator

ROWS = 4
HEALTHY: dict[str, list[float]] = {
    "accuracy/real": [0.7, 0.72, 0.69, 0.71] * 4,
    "accuracy/fake": [0.75, 0.7, 0.74, 0.72] * 4,
    "logits/real": [0.8, 0.9, 0.7, 0.8] * 4,
    "logits/fake": [-0.8, -0.9, -0.7, -0.8] * 4,
    "grad_norm/d": [1.0, 2.0, 4.0, 0.5] * 4,
    "grad_norm/g": [1.0, 2.0, 4.0, 0.5] * 4,
    "penalty/r1": [0.1, 0.2, 0.1, 0.2] * 4,
    "penalty/r1_floor": [0.01] * 16,
    "health/pair_fake": [0.2, 0.25, 0.22, 0.23] * 4,
    "health/pair_real": [0.3] * 16,
    "health/variety_fake": [0.5, 0.6, 0.55, 0.57] * 4,
    "health/variety_real": [0.7] * 16,
    "health/missed": [0.05, 0.0, 0.02, 0.01] * 4,
    "health/stray": [0.3, 0.2, 0.1, 0.2] * 4,
}
Ends = Mapping[str, Sequence[float]]


def healthy_but(ends: Ends) -> dict[str, Sequence[float]]:
    return {**HEALTHY, **{column: [*HEALTHY[column], *values] for column, values in ends.items()}}


def found(ends: Ends, *, boundary: bool = True) -> list[str]:
    """Return the names of what is found where some of the healthy curves end otherwise."""
    return [finding.name for finding in findings(Window(healthy_but(ends), ROWS, boundary))]


def test_a_healthy_run_has_no_findings() -> None:
    assert found({}) == []
    assert findings(Window({}, ROWS)) == []


SATURATED = "D is saturated"
CHANCE = "D is at chance"
REPEATS = "G repeats itself (mode collapse)"
LEAVES_OUT = "G leaves out part of the data (mode collapse)"
SURE = {"logits/real": [6.0] * 4, "logits/fake": [-6.0] * 4}
TRIGGERS: dict[str, tuple[str, Ends]] = {
    "real logits that grow": ("logits drift", {"logits/real": [60.0, 70.0, 80.0, 90.0]}),
    "fake logits that fall": ("logits drift", {"logits/fake": [-40.0, -60.0, -80.0, -100.0]}),
    "gradients of d": ("gradients of the discriminator explode", {"grad_norm/d": [1.0, 50.0]}),
    "gradients of g": ("gradients of the generator explode", {"grad_norm/g": [1.0, 50.0]}),
    "d is always right": (SATURATED, {"accuracy/real": [1.0] * 4, "accuracy/fake": [0.995] * 4, **SURE}),
    "d guesses": (CHANCE, {"accuracy/real": [0.5, 0.51, 0.49, 0.5], "accuracy/fake": [0.5, 0.5, 0.52, 0.5]}),
    "d says real to all": (CHANCE, {"accuracy/real": [1.0] * 4, "accuracy/fake": [0.0] * 4}),
    "samples come in pairs": (REPEATS, {"health/pair_fake": [0.01, 0.012, 0.009, 0.01]}),
    "samples are all alike": (REPEATS, {"health/variety_fake": [0.1, 0.08, 0.09, 0.1]}),
    "modes are missing": (LEAVES_OUT, {"health/missed": [0.5, 0.45, 0.5, 0.55]}),
    "rounding": ("the penalty r1 is lost in rounding", {"penalty/r1_floor": [0.3, 0.3, 0.4, 0.3]}),
}


@pytest.mark.parametrize("case", TRIGGERS)
def test_what_must_be_found(case: str) -> None:
    name, ends = TRIGGERS[case]
    assert found(ends) == [name]


@pytest.mark.parametrize("case", ["d is always right", "d guesses", "samples come in pairs", "modes are missing"])
def test_all_rows_of_the_window_must_agree(case: str) -> None:
    _, ends = TRIGGERS[case]
    assert found({name: values[1:] for name, values in ends.items()}) == []


@pytest.mark.parametrize(
    "ends",
    [
        {"logits/real": [90.0, 80.0, 70.0, 60.0]},  # large, but no longer growing
        {"logits/real": [60.0, 61.0, 62.0, 63.0]},
        {"logits/real": [10.0, 20.0, 30.0, 40.0]},  # growing, but not large
        {"grad_norm/d": [1.0, 20.0]},
        {"accuracy/real": [1.0] * 4, "accuracy/fake": [1.0] * 4},  # right, but not by far
        SURE,  # but not right
        {"health/variety_fake": [0.05, 0.07, 0.1, 0.13]},  # G begins to differ
        {"health/missed": [0.9] * 4, "health/stray": [0.9] * 4},  # G has not learned yet
        {"health/missed": [0.9, 0.6, 0.4, 0.3]},  # G finds one mode after the other
    ],
)
def test_what_must_not_be_found(ends: Ends) -> None:
    assert found(ends) == []


def test_a_critic_is_neither_right_nor_wrong() -> None:
    for case in ("d guesses", "d is always right"):
        assert found(TRIGGERS[case][1], boundary=False) == []


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_numbers_that_are_not_finite_find_nothing(wrong: float) -> None:
    for _, ends in TRIGGERS.values():
        assert found({name: [*values[:-1], wrong] for name, values in ends.items()}) == []


def test_gradients_have_no_usual_size_in_the_beginning() -> None:
    assert findings(Window({"grad_norm/d": [0.01] * 7 + [100.0]}, ROWS)) == []
    assert findings(Window({"grad_norm/d": [0.01] * 8 + [100.0]}, ROWS)) != []


@pytest.mark.parametrize("case", TRIGGERS)
def test_every_finding_gives_figures_and_knobs_that_are_there(case: str) -> None:
    knobs = {leaf.path for leaf in leaves(Config())}
    (finding,) = findings(Window(healthy_but(TRIGGERS[case][1]), ROWS))
    assert re.search(r"\d", finding.evidence)
    named = re.findall(r"--([a-z_0-9]+(?:\.[a-z_0-9]+)+)", finding.suggestion)
    assert named
    assert set(named) <= knobs
    assert len(LOOKS) == len({name for name, _ in TRIGGERS.values()} - {"gradients of the generator explode"})


# --- what is told, and when ------------------------------------------------------------------------------------


def row(accuracy: float, **more: float) -> dict[str, float]:
    return {"accuracy/real": accuracy, "accuracy/fake": accuracy, "speed/images_per_second": 1e9, **more}


def told(monitor: HealthMonitor, rows: Sequence[Mapping[str, float]]) -> list[list[str]]:
    return [[news.partition(": it is")[0] for news in monitor.look(measured)] for measured in rows]


def test_a_finding_is_told_once_until_it_clears() -> None:
    rows = [row(a) for a in [0.5] * 6 + [0.7] * 8 + [0.5] * 5]
    assert told(HealthMonitor(3), rows) == [
        [], [], ["Health: D is at chance"], [], [], [],
        [], [], [], [], [], ["Health: no longer so: D is at chance."], [], [],
        [], [], ["Health: D is at chance"], [], [],
    ]  # fmt: skip


def test_a_finding_that_flickers_is_told_once() -> None:
    rows = [row(a) for a in [0.5, 0.5, 0.6, 0.5, 0.5, 0.5, 0.6, 0.5, 0.5, 0.5]]
    assert [news for each in told(HealthMonitor(3), rows) for news in each] == ["Health: D is at chance"]


def test_how_many_rows_must_agree_can_be_chosen() -> None:
    for rows in (2, 5):
        news = told(HealthMonitor(rows), [row(0.5)] * 6)
        assert [bool(each) for each in news].index(True) == rows - 1


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_stop_tells_nothing_twice(stop: int) -> None:
    norms = [1.0] * 9 + [99.0, math.nan]
    curve = zip([0.5] * 4 + [0.7] * 7, norms, strict=True)  # a last number that JSON does not know
    rows = [row(accuracy, **{"grad_norm/d": norm}) for accuracy, norm in curve]
    whole = told(HealthMonitor(3), rows)
    first = HealthMonitor(3)
    said = told(first, rows[:stop])
    again = HealthMonitor(3)
    again.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert said + told(again, rows[stop:]) == whole
    assert len([news for each in whole for news in each]) == 3


def test_memory_is_bounded() -> None:
    monitor = HealthMonitor(3)
    for _ in range(3 * KEPT_ROWS):
        monitor.look(row(0.7))
    history = monitor.state()["history"]
    kept = {name: len(values) for name, values in history.items()}
    assert kept == {"accuracy/real": KEPT_ROWS, "accuracy/fake": KEPT_ROWS}


# --- what differs ------------------------------------------------------------------------------------------------


def points(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)[:, :, None, None]


SQUARE = points((-1, -1), (-1, 1), (1, -1), (1, 1))


def test_distances_by_hand() -> None:
    """A square of side 2, whose corners are sqrt 2 from its middle; distances are per number, so divided by sqrt 2."""
    fakes = points((-1, -1), (-1, -0.9), (1, 1), (1, 0.9))
    measured = diversity(fakes, SQUARE)
    root = math.sqrt(2)
    assert measured["pair_real"] == pytest.approx(2 / root)
    assert measured["pair_fake"] == pytest.approx(0.1 / root)
    assert measured["variety_real"] == pytest.approx(1)
    assert measured["variety_fake"] == pytest.approx((root + math.sqrt(1 + 0.81)) / 2 / root)
    assert (measured["missed"], measured["stray"]) == (0, 0), "nothing is ten times as far as a side of the square"


def test_what_is_missed_and_what_strays() -> None:
    """Two far clusters of real images: fakes reach one of them, and one fake lies between."""
    reals = points(*((x + 0.01 * k, 0.0) for x in (-1, 1) for k in range(4)))
    fakes = points(*((-1 + 0.013 * k, 0.01) for k in range(7)), (0.0, 0.0))
    measured = diversity(fakes, reals)
    assert (measured["missed"], measured["stray"]) == (0.5, 0.125)
    same = diversity(reals, reals)
    assert (same["missed"], same["stray"]) == (0, 0)
    assert same["pair_fake"] == same["pair_real"] == measured["pair_real"]


def test_images_that_are_all_the_same() -> None:
    measured = diversity(torch.full((4, 3, 32, 32), 0.3), torch.rand(4, 3, 32, 32))
    assert measured["pair_fake"] == 0
    assert measured["variety_fake"] == pytest.approx(0, abs=1e-12)
    assert measured["pair_real"] > 0


def test_size_and_grain_do_not_matter() -> None:
    """The same pictures, four times as large, are as different as before."""
    small = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    large = small.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    for name, value in diversity(small, small).items():
        assert diversity(large, large)[name] == pytest.approx(value), name


def test_near_pairs_are_not_lost_in_rounding() -> None:
    """By products of matrices, points 1e-4 apart at distance 1 would be 0 or 3e-4 apart."""
    pair = points((0.9, 0.3), (0.9001, 0.3))
    apart = float(pair[1, 0, 0, 0].double() - pair[0, 0, 0, 0].double())  # as float32 has them
    assert diversity(pair, pair)["pair_fake"] == pytest.approx(apart / math.sqrt(2), rel=1e-9)


class Fixed(Generator):
    def forward(self, z: Tensor, c: Any) -> Tensor:
        return z[:, :2, None, None]


def test_as_many_fakes_as_real_images_are_compared() -> None:
    z, c = torch.randn(9, 3), torch.zeros(9, dtype=torch.int64)
    expected = diversity(z[:4, :2, None, None], SQUARE)
    assert look(Fixed(), z, c, SQUARE) == {f"health/{name}": value for name, value in expected.items()}
    expected = diversity(z[:3, :2, None, None], SQUARE[:3])
    assert look(Fixed(), z[:3], c[:3], SQUARE) == {f"health/{name}": value for name, value in expected.items()}
    assert look(Fixed(), z, c, SQUARE[:1]) == {}, "a single image has no neighbour"


def test_looking_disturbs_no_random_numbers() -> None:
    state = torch.random.get_rng_state()
    look(Fixed(), torch.ones(4, 3), torch.zeros(4, dtype=torch.int64), SQUARE)
    assert torch.equal(torch.random.get_rng_state(), state)

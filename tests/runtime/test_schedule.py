"""Schedules and cadence, on the one clock of images seen."""

import math
from decimal import Decimal
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gandist.config import Schedule
from gandist.runtime.schedule import crossed, factor


def at(kimg: float, total_kimg: float = 100.0, **knobs: float | str) -> float:
    return factor(Schedule.model_validate(knobs), round(kimg * 1000), total_kimg)


def test_constant_is_one() -> None:
    assert [at(kimg) for kimg in (0, 50, 100, 1000)] == [1.0] * 4


def test_linear_decay() -> None:
    knobs: dict[str, float | str] = {"shape": "linear", "begin_kimg": 20, "end_kimg": 60, "final": 0.2}
    expected = {0: 1.0, 20: 1.0, 30: 0.8, 40: 0.6, 60: 0.2, 61: 0.2, 1000: 0.2}
    for kimg, value in expected.items():
        assert at(kimg, **knobs) == pytest.approx(value)


def test_cosine_decay() -> None:
    knobs: dict[str, float | str] = {"shape": "cosine", "begin_kimg": 0, "end_kimg": 60, "final": 0.1}
    expected = {
        0: 1.0,
        20: 0.1 + 0.9 * (1 + math.cos(math.pi / 3)) / 2,
        30: 0.55,
        60: 0.1,
        90: 0.1,
    }
    for kimg, value in expected.items():
        assert at(kimg, **knobs) == pytest.approx(value)


def test_a_decay_without_an_end_ends_with_the_run() -> None:
    assert at(25, total_kimg=50, shape="linear") == pytest.approx(0.5)
    assert at(25, total_kimg=100, shape="linear") == pytest.approx(0.75)
    assert at(50, total_kimg=50, shape="cosine") == pytest.approx(0.0, abs=1e-12)


def test_a_decay_that_would_begin_after_the_run_has_no_length() -> None:
    assert at(10, total_kimg=50, shape="linear", begin_kimg=60) == 1.0
    assert at(60, total_kimg=50, shape="linear", begin_kimg=60, final=0.3) == pytest.approx(0.3)


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_warm_up_rises_from_nothing_and_multiplies_the_decay(shape: str) -> None:
    for kimg in (0, 2.5, 5, 10, 40):
        whole = at(kimg, shape=shape, final=0.5)
        assert at(kimg, shape=shape, final=0.5, warmup_kimg=10) == pytest.approx(whole * min(1, kimg / 10))


@given(
    st.sampled_from(["linear", "cosine"]),
    st.floats(0, 1),
    st.floats(0, 50),
    st.floats(51, 100),
    st.lists(st.integers(0, 200_000), min_size=2, max_size=10),
)
def test_a_decay_never_rises(shape: str, final: float, begin: float, end: float, images: list[int]) -> None:
    schedule = Schedule.model_validate({"shape": shape, "final": final, "begin_kimg": begin, "end_kimg": end})
    values = [factor(schedule, seen, 100.0) for seen in sorted(images)]
    assert all(1 + 1e-12 >= a >= b - 1e-12 and b >= final - 1e-12 for a, b in pairwise(values))


# --- cadence -------------------------------------------------------------------------------------------------

every = st.sampled_from([0.001, 0.064, 0.1, 0.3, 0.7, 1.0, 1.1, 20.0]) | st.floats(0.001, 50)


def multiples(every_kimg: float, before: int, after: int) -> int:
    """Return how many multiples lie in (before, after], in the decimal numbers that a person wrote."""
    step = Decimal(repr(every_kimg)) * 1000
    return int(Decimal(after) // step) - int(Decimal(before) // step)


@given(every, st.lists(st.integers(1, 3000), min_size=1, max_size=30), st.integers(0, 10**7))
def test_a_round_is_due_if_it_reaches_a_multiple(every_kimg: float, rounds: list[int], start: int) -> None:
    seen = start
    for images in rounds:
        assert crossed(every_kimg, seen, seen + images) == (multiples(every_kimg, seen, seen + images) > 0)
        seen += images


@given(st.integers(100, 3000), st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(0, 10**7))
def test_the_cadence_does_not_depend_on_the_rounds(every_images: int, rounds: list[int], start: int) -> None:
    """However a run is cut into rounds, none longer than the interval, as many of them are due."""
    ends = list(accumulate(rounds, initial=start))
    due = sum(crossed(every_images / 1000, before, after) for before, after in pairwise(ends))
    assert due == ends[-1] // every_images - start // every_images


@pytest.mark.parametrize("every_kimg", [0.1, 0.3, 0.7, 0.016, 1.0, 1.1, 50.0, 0.0333, 0.0417])
def test_a_multiple_is_due_in_the_round_that_reaches_it(every_kimg: float) -> None:
    step = Decimal(repr(every_kimg)) * 1000
    for k in range(1, 500):
        multiple = math.ceil(k * step)  # the first image at or behind it
        assert crossed(every_kimg, multiple - 1, multiple), f"{multiple} images are {k} times {every_kimg} kimg"
        assert not crossed(every_kimg, multiple, math.ceil((k + 1) * step) - 1)


def test_a_round_that_leaps_over_several_multiples_is_due_once() -> None:
    assert crossed(0.1, 0, 1000) is True
    assert crossed(0.1, 950, 999) is False

"""Keyed randomness: the same numbers for ever, other numbers for other words."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gandist.runtime import rng

GOLDEN = {
    (0,): 2631537505891389924,
    (0, "weights"): 2934036865011653446,
    (7, "round", 120, "step0.z"): 2466642994821634678,
    (-3, "a", ""): 1352375956884011600,
    (2**80, "é"): 1847365014500685821,
}

words = st.lists(st.integers() | st.text(max_size=5), max_size=4).map(tuple)


@pytest.mark.parametrize("name", GOLDEN)
def test_keys_never_change(name: tuple[Any, ...]) -> None:
    assert rng.key(*name) == GOLDEN[name], "with other keys no run made before can be continued exactly"


def test_numbers_of_a_key_never_change() -> None:
    drawn = torch.randn(3, generator=rng.generator(7, "round", 120, "step0.z"))
    assert drawn.tolist() == pytest.approx([0.2397049, -3.2063518, 1.1374341], abs=1e-6), (
        "torch draws other numbers from the same seed than it did: runs made with an older torch continue differently"
    )


@given(words, words, st.integers(0, 2**63), st.integers(0, 2**63))
def test_other_words_or_seeds_give_other_keys(a: tuple[Any, ...], b: tuple[Any, ...], one: int, other: int) -> None:
    assert (rng.key(one, *a) == rng.key(other, *b)) == ((one, a) == (other, b))


def test_words_keep_their_borders_and_kinds() -> None:
    same_letters = [("ab", "c"), ("a", "bc"), ("abc",), ("a, b", "c"), ("a", "b", "c")]
    assert len({rng.key(0, *name) for name in same_letters}) == len(same_letters)
    assert rng.key(0, 1) != rng.key(0, "1")
    assert rng.key(1, 2) != rng.key(12)


@given(st.integers(), words)
def test_keys_fit_a_torch_seed(seed: int, name: tuple[Any, ...]) -> None:
    assert 0 <= rng.key(seed, *name) < 2**63
    assert rng.generator(seed, *name).initial_seed() == rng.key(seed, *name)


def test_draws_leave_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    torch.randn(5, generator=rng.generator(0, "x"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(torch.randn(5, generator=rng.generator(0, "x")), torch.randn(5, generator=rng.generator(0, "x")))

"""How gradients travel between ranks: compressed, clipped after they are reduced, scaled for each network alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from playing import Played

Look = Callable[[str, int], Played]

FORMATS = {"bf16": ("bfloat16", 2**-8), "fp16": ("float16", 2**-11)}
"""The name of a format in which gradients travel, and its rounding."""


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("form", FORMATS)
def test_compressed_gradients_are_half_the_bytes_and_equal_on_all_ranks(played: Look, form: str, passes: int) -> None:
    """With R1 due, and with passes that are not reduced; the compressed bytes are all that is sent."""
    two, (name, rounding) = played(f"few:{form} travels, {passes} passes", 2), FORMATS[form]
    assert two.notes[0]["bytes"] == {name: 2 * two.notes[0]["parameters"]}
    assert two.ranks_differ() == []
    exact = played("few:plain", 2).notes[0]
    assert exact["bytes"] == {"float32": 4 * exact["parameters"]}
    first, expected = two.notes[0]["norms"][0], exact["norms"][0]
    assert first == pytest.approx(expected, rel=rounding)
    assert first != pytest.approx(expected, rel=1e-7), "both networks' gradients were rounded"


def test_one_rank_alone_compresses_nothing(played: Look) -> None:
    for form in FORMATS:
        apart = played("few:plain", 1).distances(played(f"few:{form} travels, 1 passes", 1))
        assert set(apart.values()) == {0.0}


def test_clipping_is_that_of_the_whole_batch(played: Look) -> None:
    """Each rank clips the reduced gradient, whose norm is that of one process; both networks' norms are above it."""
    one, two = (played("few:clipped", world) for world in (1, 2))
    assert torch.tensor(one.notes[0]["norms"]).min() > 0.02
    for got, expected in zip(two.notes[0]["norms"], one.notes[0]["norms"], strict=True):
        assert got == pytest.approx(expected, rel=1e-4)
    assert max(one.distances(two).values()) < 1e-5
    assert played("few:plain", 1).detour(one)["optimizer_g"] > 0.1, "it clips"


@pytest.mark.parametrize("name", ["plain", "clipped"])
def test_loss_scaling_changes_nothing(played: Look, name: str) -> None:
    """Gradients are scaled back before they are measured and clipped."""
    one, two = played(f"few:{name}", 1), played(f"few:{name} and scaled", 2)
    assert max(one.distances(two).values()) < 1e-5
    for got, expected in zip(two.notes[0]["norms"], one.notes[0]["norms"], strict=True):
        assert got == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("victim", ["discriminator", "generator"])
def test_an_overflow_on_one_rank_skips_its_own_network_on_all(played: Look, victim: str) -> None:
    one, two = (played(f"few:overflow in {victim}", world) for world in (1, 2))
    skipped = [victim != "discriminator", victim != "generator"]
    for notes in two.notes:
        assert notes["moved"] == [[True, True], skipped, *[[True, True]] * 6]
        assert notes["scales"][-1] == [512.0 if not moved else 1024.0 for moved in skipped]
    assert two.ranks_differ() == []
    assert max(one.distances(two).values()) < 1e-5
    whole = played("few:plain", 1).detour(two)
    assert whole["optimizer_d" if victim == "discriminator" else "optimizer_g"] > 0.01, "a step is missing"

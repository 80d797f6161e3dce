"""The random numbers of a round: which rows get which, whatever the split."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from gandist.adversarial.game import Draws, Game, Real
from gandist.adversarial.losses import LOSSES, Targets
from gandist.adversarial.player import Player
from gandist.adversarial.round import Round
from gandist.assembly import class_cdf
from gandist.models.noise import RowNoise
from gandist.runtime import rng

Make = Callable[..., Any]

partitions = st.lists(st.integers(1, 5), min_size=1, max_size=6)


def draws(noise: RowNoise) -> list[Tensor]:
    """Draw several times, of every kind, from the same noise."""
    return [noise.normal(3), noise.uniform(), noise.integers(10, 2, 2), noise.normal(1, 2), noise.uniform(4)]


@given(sizes=partitions, seed=st.integers(0, 2**40))
def test_the_parts_of_any_partition_are_the_whole(sizes: list[int], seed: int) -> None:
    batch = sum(sizes)
    parts, start = [], 0
    for size in sizes:
        parts.append(draws(RowNoise(rng.generator(seed), batch, start, size)))
        start += size
    whole = draws(RowNoise(rng.generator(seed), batch, 0, batch))
    for pieces, one in zip(zip(*parts, strict=True), whole, strict=True):
        assert torch.equal(torch.cat(pieces), one)


@given(shares=st.integers(1, 4), passes=partitions, seed=st.integers(0, 2**40))
def test_passes_of_shares_are_the_whole(shares: int, passes: list[int], seed: int) -> None:
    """Every rank cuts its contiguous share of the global batch into the same passes."""
    share = sum(passes)

    def stream(site: str) -> torch.Generator:
        return rng.generator(seed, site)

    found = []
    for rank in range(shares):
        mine, start = Draws(stream, shares * share, rank * share), 0
        for size in passes:
            found.append(mine.rows("z", slice(start, start + size)).normal(2))
            start += size
    whole = Draws(stream, shares * share, 0).rows("z", slice(0, shares * share)).normal(2)
    assert torch.equal(torch.cat(found), whole)


def test_draws_are_what_they_say() -> None:
    noise = RowNoise(rng.generator(1), batch=20_000, start=0, count=20_000)
    normal, uniform, whole = noise.normal(2), noise.uniform(2), noise.integers(5, 2)
    assert abs(normal.mean().item()) < 0.03
    assert normal.std().item() == pytest.approx(1.0, abs=0.03)
    assert (uniform.min().item() >= 0, uniform.max().item() < 1) == (True, True)
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert sorted(whole.unique().tolist()) == [0, 1, 2, 3, 4]
    assert (normal.shape, uniform.shape, whole.shape) == ((20_000, 2),) * 3


def test_sites_and_rounds_have_numbers_of_their_own(set_table: Make) -> None:
    table = set_table("mlp")
    real = table.reals()[0]
    found = [table.round(index).draw_latents(real, site).z for index in (0, 1) for site in ("step0", "step1")]
    for k, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[:k])
    assert torch.equal(found[1], table.round(0).draw_latents(real, "step1").z), "the same words, the same numbers"


def test_classes_are_drawn_as_often_as_they_occur() -> None:
    counts = [5, 0, 2, 1]
    c = classes_drawn(class_cdf(counts), 40_000)
    shares = torch.bincount(c, minlength=4) / len(c)
    assert shares.tolist() == pytest.approx([n / 8 for n in counts], abs=0.012)  # five standard deviations
    assert shares[1] == 0, "a class without images is never drawn"


@example(counts=[0, 1])
@example(counts=[1, 10**9, 0])
@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=50).filter(any))
def test_every_uniform_number_falls_into_a_class_that_exists(counts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        edges = torch.tensor([0.0, 0.5, 1 - 2**-24])  # with the least and the largest number that torch.rand makes
        patch.setattr(RowNoise, "uniform", lambda noise: edges)
        c = classes_drawn(class_cdf(counts), len(edges))
    assert all(counts[k] > 0 for k in c.tolist())


def classes_drawn(cdf: Tensor, images: int) -> Tensor:
    network = torch.nn.Linear(1, 1)
    player = Player(network, network, torch.optim.SGD(network.parameters()))
    game = Game(player, player, LOSSES["hinge"], Targets(), (), latent_dim=1, class_cdf=cdf)
    draws = Draws(lambda site: rng.generator(0, site), images, 0)
    latents = Round(game, draws, 0, 0).draw_latents(Real(torch.zeros(images, 1, 1, 1), None), "step0")
    assert latents.c is not None
    return latents.c


def test_labels_are_swapped_by_their_own_draws(set_table: Make) -> None:
    """Real and fake labels are swapped independently, each with the given probability."""
    batch, p = 20_000, 0.25
    table = set_table("mlp", loss="wasserstein", targets=Targets(1.0, 0.0, swap_probability=p), batch=batch)
    noise = table.round().draws.rows("step0.swap", slice(0, batch)).uniform(2)
    real_swapped, fake_swapped = (noise < p).unbind(dim=1)
    assert real_swapped.float().mean().item() == pytest.approx(p, abs=0.016)  # five standard deviations
    assert (real_swapped & fake_swapped).float().mean().item() == pytest.approx(p * p, abs=0.009)

    real_logits, fake_logits = torch.linspace(0, 1, batch), torch.linspace(2, 5, batch)
    got = table.round()._adversarial_loss(real_logits, fake_logits, "step0", slice(0, batch))
    on_real = torch.where(real_swapped, real_logits, -real_logits).mean()
    on_fake = torch.where(fake_swapped, -fake_logits, fake_logits).mean()
    assert got.item() == pytest.approx((on_real + on_fake).item(), rel=1e-5)


def test_dropout_differs_between_the_passes_of_a_round(set_table: Make) -> None:
    """D sees real images, fakes, and fakes again in the generator's step: three masks, not one."""
    table = set_table("mlp", dropout=0.5, rate=0.0)
    masks: list[Tensor] = []
    layer = table.game.discriminator.random_layers[0]
    layer.register_forward_hook(lambda module, inputs, output: masks.append((output == 0) & (inputs[0] != 0)))
    table.play()
    assert len(masks) == 3
    assert not any(torch.equal(masks[a], masks[b]) for a, b in ((0, 1), (0, 2), (1, 2)))

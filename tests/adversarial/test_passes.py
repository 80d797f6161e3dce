"""Cutting a batch into passes, or into the shares of several ranks, changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gandist.adversarial.losses import Targets
from gandist.adversarial.regularizers import PENALTIES, Regularizer

Make = Callable[..., Any]


def r1(gamma: float = 0.5, interval: int = 1) -> Regularizer:
    return Regularizer("r1", PENALTIES["r1"](), lambda images_seen: gamma, interval)


GAMES: dict[str, dict[str, Any]] = {
    "mlp with dropout": {"arch": "mlp", "dropout": 0.4},
    "conditional mlp": {"arch": "mlp", "dropout": 0.4, "conditional": True},
    "resnet without batch norm": {"arch": "resnet", "batch_norm": False},
    "dcgan without batch norm": {"arch": "dcgan", "batch_norm": False, "conditional": True},
}
WHOLE = {
    "regularizers": [r1(interval=2)],
    "targets": Targets(0.9, 0.05, swap_probability=0.3),
    "d_steps": 2,
    "rate": 0.5,
}


@pytest.mark.parametrize("micro", [1, 2, 3, 4])
@pytest.mark.parametrize("game", GAMES)
def test_passes_give_the_gradients_of_the_whole_batch(set_table: Make, game: str, micro: int) -> None:
    whole, cut = set_table(**GAMES[game], **WHOLE), set_table(**GAMES[game], **WHOLE, micro_images=micro)
    for index in range(2):
        a, b = (
            whole.play(index),
            cut.play(
                index,
            ),
        )
        assert a.statistics.keys() == b.statistics.keys()
        for name, value in a.statistics.items():
            assert b.statistics[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
    for role in ("generator", "discriminator"):
        for ours, theirs in zip(cut.weights(role), whole.weights(role), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("game", GAMES)
def test_the_mean_of_two_shares_is_the_gradient_of_the_whole_batch(set_table: Make, game: str) -> None:
    """What DDP does with two ranks: each plays its rows, and the gradients are averaged."""
    settings = {**GAMES[game], **WHOLE, "d_steps": 1, "rate": 1.0}

    def gradients(rows: slice) -> list[Tensor]:
        table = set_table(**settings)
        played, real = table.round(start=rows.start), table.reals(rows=rows)[0]
        latents = played.draw_latents(real, "step0")
        played.discriminator_step(real, latents, None, "step0", number=0)
        return table.moves("discriminator")

    halves = zip(gradients(slice(0, 3)), gradients(slice(3, 6)), strict=True)
    for (a, b), whole in zip(halves, gradients(slice(0, 6)), strict=True):
        torch.testing.assert_close((a + b) / 2, whole, rtol=1e-5, atol=1e-6)


def test_a_spectral_norm_moves_on_once_in_a_step_however_many_passes(set_table: Make) -> None:
    tables = [set_table("resnet", batch_norm=False, micro_images=micro) for micro in (None, 1)]
    for one in tables:
        one.play()
    whole, cut = (dict(one.d.named_buffers()) for one in tables)
    fresh = dict(set_table("resnet", batch_norm=False).d.named_buffers())
    assert any(not torch.allclose(whole[name], fresh[name]) for name in whole)
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], rtol=1e-5, atol=1e-6)

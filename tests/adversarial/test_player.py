"""A player's step: clipping, what is measured, and loss scaling in half precision."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gandist.adversarial.penalties.base import Penalty, Scene
from gandist.adversarial.regularizers import PENALTIES, Regularizer

Make = Callable[..., Any]


def r1(gamma: float = 0.5, interval: int = 1) -> Regularizer:
    return Regularizer("r1", PENALTIES["r1"](), lambda images_seen: gamma, interval)


def total_norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([t.square().sum() for t in tensors]).sum().sqrt())


def test_clipping_bounds_the_norm_of_all_gradients_together(set_table: Make) -> None:
    free = set_table("mlp")
    free.play()
    norms = {role: total_norm(free.moves(role)) for role in ("generator", "discriminator")}
    assert norms["generator"] > 1e-3

    limit = norms["discriminator"] / 3
    clipped = set_table("mlp", clip_norm=limit)
    played = clipped.play()
    assert total_norm(clipped.moves("discriminator")) == pytest.approx(limit, rel=1e-4)
    assert played.statistics["grad_norm/d"].item() == pytest.approx(norms["discriminator"], rel=1e-5), "before clipping"
    for move, whole in zip(clipped.moves("discriminator"), free.moves("discriminator"), strict=True):
        torch.testing.assert_close(move, whole / 3, rtol=1e-4, atol=1e-7)

    loose = set_table("mlp", clip_norm=100.0)
    loose.play()
    for move, whole in zip(loose.moves("discriminator"), free.moves("discriminator"), strict=True):
        torch.testing.assert_close(move, whole)


def test_norms_are_those_of_the_gradients(set_table: Make) -> None:
    table = set_table("mlp")
    statistics = table.play().statistics
    for role, name in (("discriminator", "grad_norm/d"), ("generator", "grad_norm/g")):
        assert statistics[name].item() == pytest.approx(total_norm(table.moves(role)), rel=1e-5)


def test_statistics_say_what_the_discriminator_thinks(set_table: Make) -> None:
    table = set_table("mlp", dropout=0.0, loss="least_squares", rate=0.0)
    played, real = table.play(), table.reals()[0]
    z = table.round().draw_latents(real, "step0").z
    with torch.no_grad():
        real_logits, fake_logits = table.d(real.x, None), table.d(table.g(z, None), None)
    expected = {
        "loss/d": ((real_logits - 1).square() / 2).mean() + (fake_logits.square() / 2).mean(),
        "loss/g": ((fake_logits - 1).square() / 2).mean(),
        "logits/real": real_logits.mean(),
        "logits/fake": fake_logits.mean(),
        "accuracy/real": (real_logits > 0.5).float().mean(),
        "accuracy/fake": (fake_logits < 0.5).float().mean(),
    }
    assert played.statistics.keys() == {*expected, "grad_norm/d", "grad_norm/g"}
    for name, value in expected.items():
        torch.testing.assert_close(played.statistics[name], value, rtol=1e-5, atol=1e-6)


# --- loss scaling -------------------------------------------------------------------------------------------


def overflow(network: nn.Module) -> None:
    next(network.parameters()).register_hook(lambda gradient: gradient * float("inf"))


@pytest.mark.parametrize("victim", ["discriminator", "generator"])
def test_an_overflow_skips_its_own_network_alone(set_table: Make, victim: str) -> None:
    table = set_table("mlp", scalers=True)
    other = "generator" if victim == "discriminator" else "discriminator"
    overflow(getattr(table.game, victim).module)
    played = table.play()
    assert not table.moved(victim)
    assert table.moved(other)
    assert all(torch.isfinite(move).all() for move in table.moves(other))
    assert played.discriminator_moved is (victim != "discriminator")
    assert played.generator_moved is (victim != "generator")
    assert getattr(table.game, victim).loss_scale == 512.0, "halved"
    assert getattr(table.game, other).loss_scale == 1024.0
    table.play(1)
    assert not table.moved(victim)
    assert all(p.grad is None for p in getattr(table.game, victim).parameters), "a skipped step drops its gradients"


def test_an_overflow_with_clipping_leaves_the_weights_whole(set_table: Make) -> None:
    table = set_table("mlp", scalers=True, clip_norm=1.0)
    overflow(table.d)
    table.play()
    assert not table.moved("discriminator")


def test_loss_scaling_changes_nothing_else(set_table: Make) -> None:
    plain, scaled = (set_table("mlp", regularizers=[r1()], clip_norm=0.5, scalers=on) for on in (False, True))
    expected, played = plain.play(), scaled.play()
    assert (played.discriminator_moved, played.generator_moved) == (True, True)
    for role in ("generator", "discriminator"):
        for ours, theirs in zip(scaled.weights(role), plain.weights(role), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    for name, value in expected.statistics.items():
        assert played.statistics[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_penalties_learn_the_loss_scale(set_table: Make) -> None:
    scales: list[float] = []

    class Record(Penalty):
        def cost(self, scene: Scene) -> Tensor:
            scales.append(scene.loss_scale)
            return scene.logits["real"].mean() * 0

    for scalers in (False, True):
        set_table("mlp", scalers=scalers, regularizers=[Regularizer("record", Record(), lambda seen: 1.0)]).play()
    assert scales == [1.0, 1024.0]


def test_fp16_passes_on_the_cpu(set_table: Make) -> None:
    table = set_table("mlp", scalers=True, regularizers=[r1()])
    with torch.autocast("cpu", torch.float16):
        played = table.play()
    assert (played.discriminator_moved, played.generator_moved) == (True, True)
    assert table.moved("generator")
    assert table.moved("discriminator")
    exact = set_table("mlp", regularizers=[r1()]).play().statistics["loss/d"].item()
    assert played.statistics["loss/d"].item() == pytest.approx(exact, rel=1e-2)

"""The round: which gradients reach whom, and what a round computes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gandist.adversarial.losses import Targets
from gandist.adversarial.penalties.base import Penalty, Scene
from gandist.adversarial.player import frozen
from gandist.adversarial.regularizers import PENALTIES, Regularizer

ARCHITECTURES = ["mlp", "dcgan", "resnet"]
Make = Callable[..., Any]


def r1(gamma: float = 0.5, interval: int = 1) -> Regularizer:
    return Regularizer("r1", PENALTIES["r1"](), lambda images_seen: gamma, interval)


# --- gradients go where they belong ---------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("shared", [True, False], ids=["one forward", "fresh fakes"])
def test_nothing_of_the_discriminator_step_reaches_the_generator(set_table: Make, arch: str, shared: bool) -> None:
    table = set_table(arch, regularizers=[r1()])
    played, real = table.round(), table.reals()[0]
    latents = played.draw_latents(real, "step0")
    fakes = played.generate(latents, slice(0, len(real.x)), "step0", graph=True) if shared else None
    played.discriminator_step(real, latents, fakes, "step0", number=0)
    assert all(p.grad is None for p in table.g.parameters())
    assert not table.moved("generator")
    assert table.moved("discriminator")
    assert all(p.grad is None for p in table.d.parameters()), "a step drops its gradients"


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_of_the_generator_step_reaches_the_discriminator(set_table: Make, arch: str) -> None:
    table = set_table(arch)
    played = table.round()
    real = table.reals()[0]
    latents = played.draw_latents(real, "step0")
    with gradients_seen(table.d) as seen:
        played.generator_step(latents, None, "step0", real, number=0)
    assert seen == []
    assert all(p.grad is None for p in table.d.parameters())
    assert not table.moved("discriminator")
    assert table.moved("generator")
    assert all(p.requires_grad for p in table.d.parameters()), "thawed again"


@contextmanager
def gradients_seen(network: nn.Module) -> Iterator[list[str]]:
    """Collect the names of weights whose gradient is computed, even if it is dropped later."""
    seen: list[str] = []
    hooks = [p.register_hook(lambda g, n=name: seen.append(n)) for name, p in network.named_parameters()]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_weight_moves_in_a_round(set_table: Make, arch: str) -> None:
    table = set_table(arch, regularizers=[r1()], dropout=0.0)
    table.play()
    for role in ("generator", "discriminator"):
        names = [name for name, _ in getattr(table.game, role).module.named_parameters()]
        still = [name for name, move in zip(names, table.moves(role), strict=True) if not move.any()]
        assert not still, role


def test_frozen_restores_exactly_what_could_be_trained(set_table: Make) -> None:
    network = set_table().d
    first, *rest = network.parameters()
    first.requires_grad_(False)
    with frozen(network):
        assert not any(p.requires_grad for p in network.parameters())
    assert not first.requires_grad
    assert all(p.requires_grad for p in rest)
    with pytest.raises(ZeroDivisionError), frozen(network):
        raise ZeroDivisionError
    assert not first.requires_grad
    assert all(p.requires_grad for p in rest), "also after an error"


# --- what a round computes ------------------------------------------------------------------------------------


def test_a_round_is_the_textbook_round(set_table: Make) -> None:
    """Goodfellow et al. 2014, algorithm 1, with the non-saturating cost and lazy R1, in plain torch."""
    table = set_table("mlp", dropout=0.0, regularizers=[r1(gamma=0.3, interval=4)], rate=0.1)
    g, d = deepcopy(table.g), deepcopy(table.d)
    real = table.reals()[0].x
    z = table.round().draw_latents(table.reals()[0], "step0").z
    table.play()

    fake = g(z, None)
    x = real.clone().requires_grad_()
    logits = d(x, None)
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    penalty = 0.3 / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
    d_loss = F.softplus(-logits).mean() + F.softplus(d(fake.detach(), None)).mean() + 4 * penalty
    descend(d, d_loss, 0.1)
    descend(g, F.softplus(-d(fake, None)).mean(), 0.1)
    for ours, theirs in ((table.g, g), (table.d, d)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def descend(network: nn.Module, loss: Tensor, rate: float) -> None:
    weights = list(network.parameters())
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= rate * gradient


@pytest.mark.parametrize("d_steps", [1, 3])
def test_the_generator_runs_once_for_each_step_of_the_discriminator(set_table: Make, d_steps: int) -> None:
    """The last forward serves both networks; the fakes before it are fresh and carry no graph."""
    table = set_table("mlp", d_steps=d_steps)
    fakes: list[Tensor] = []
    table.g.register_forward_hook(lambda module, inputs, output: fakes.append(output))
    table.play()
    assert [fake.requires_grad for fake in fakes] == [False] * (d_steps - 1) + [True]
    for a, b in pairwise(fakes):
        assert not torch.allclose(a, b), "each step draws latents of its own"


def test_in_passes_the_fakes_of_the_generator_step_are_made_again(set_table: Make) -> None:
    table = set_table("mlp", d_steps=2, micro_images=4)  # of 6 images: two passes
    graphs: list[bool] = []
    table.g.register_forward_hook(lambda module, inputs, output: graphs.append(output.requires_grad))
    table.play()
    assert graphs == [False, False, False, False, True, True]


def test_penalties_are_due_by_the_number_of_the_step_in_the_run(set_table: Make) -> None:
    paid_in: list[int] = []
    index = 0

    class Count(Penalty):
        def cost(self, scene: Scene) -> Tensor:
            paid_in.append(index)
            return scene.logits["real"].mean() * 0

    table = set_table("mlp", d_steps=2, regularizers=[Regularizer("count", Count(), lambda images_seen: 1.0, 3)])
    for index in range(6):
        table.play(index)
    assert paid_in == [0, 1, 3, 4], "steps 0, 3, 6 and 9 of the run lie in these rounds"


def test_a_penalty_of_weight_zero_is_not_computed(set_table: Make) -> None:
    class Never(Penalty):
        def cost(self, scene: Scene) -> Tensor:
            raise AssertionError

    table = set_table("mlp", regularizers=[Regularizer("never", Never(), lambda seen: 0.0 if seen < 100 else 1.0, 1)])
    table.play(images_seen=99)
    with pytest.raises(AssertionError):
        table.play(images_seen=100)


class NoReading(TorchDispatchMode):
    """Fails where a number is read out of a tensor, which on a GPU would wait for it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func), "a tensor was read in the hot path"
        assert "nonzero" not in str(func), "the shape of a result depends on values"
        return func(*args, **(kwargs or {}))


def test_a_round_never_waits_for_the_device(set_table: Make) -> None:
    targets = Targets(0.9, 0.05, swap_probability=0.3)
    table = set_table("mlp", conditional=True, targets=targets, regularizers=[r1()], clip_norm=0.1, d_steps=2)
    with NoReading():
        table.play()
        with pytest.raises(AssertionError, match="was read"):
            table.g.layers[0].weight.sum().item()

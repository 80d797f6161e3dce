"""The sweep over learning rates, on problems whose curves are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gandist.adversarial.player import Player
from gandist.config import ModelConfig
from gandist.fitting.sweep import LOOK_STEPS, Curve, Task, best, sweep
from gandist.models.build import build
from gandist.models.contract import Generator, ImageShape
from gandist.models.noise import Dropout
from gandist.runtime import rng


class Constant(Generator):
    """One number for all images: a parabola to descend."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        return self.value.expand(len(z), 1, 1, 1)


class Dropping(Generator):
    """Half of the latent is dropped, by draws of the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 32), Dropout(0.5), nn.Linear(32, 1))

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        images: Tensor = self.layers(z)[:, :, None, None]
        return images


def task_for(network: nn.Module, images: int, shape: tuple[int, int], latent: int, micro: int | None = None) -> Task:
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(images, latent, generator=draws)
    x = torch.rand(images, shape[0], shape[1], shape[1], generator=draws) * 2 - 1
    return Task(z, None, x, lambda: rng.generator(1, "layers"), micro)


def adam(network: nn.Module) -> Player:
    return Player(network, network, torch.optim.Adam(network.parameters(), lr=1.0, betas=(0.5, 0.999)))


def dcgan() -> Generator:
    model = ModelConfig.model_validate({"arch": "dcgan", "latent_dim": 4, "dcgan": {"generator_channels": 2}})
    return build(model, ImageShape(8, 1), 0, seed=3).generator


def mlp() -> Generator:
    model = ModelConfig.model_validate({"arch": "mlp", "latent_dim": 4, "mlp": {"generator_widths": [16]}})
    return build(model, ImageShape(8, 1), 0, seed=3).generator


def test_gradient_descent_on_a_parabola() -> None:
    """With loss (w - x)^2, step k of rate r has (1 - 2 r)^(2 k) of the first loss: best at 1/2, diverging above 1."""
    network = Constant(3.0)
    player = Player(network, network, torch.optim.SGD(network.parameters(), lr=1.0))
    x = torch.full((4, 1, 1, 1), 1.0)
    task = Task(torch.zeros(4, 1), None, x, lambda: rng.generator(0, "none"))
    rates = [0.05, 0.1, 0.3, 0.7, 0.95, 1.2, 100.0]
    curves = list(sweep(player, task, rates, steps=20, show=2))
    for curve in curves[:6]:
        expected = [4 * (1 - 2 * curve.lr) ** (2 * step) for step in range(20)]
        assert curve.losses == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert [curve.state for curve in curves] == ["learns"] * 5 + ["diverged"] * 2
    found = best(curves)
    assert found is not None
    assert found.lr in (0.3, 0.7)
    assert task.variance == 0
    assert curves[0].pictures.shape == (2, 1, 1, 1)
    assert curves[0].pictures[0].item() == pytest.approx(1 + 2 * 0.9**20, rel=1e-4), "drawn after the last step"


@pytest.mark.parametrize("make", [dcgan, mlp])
def test_every_rate_starts_from_the_same(make: Callable[[], Generator]) -> None:
    """Weights, batch statistics and moments of the rate before are gone: the order of the rates does not matter."""
    network = make()
    player, task = adam(network), task_for(network, 8, (1, 8), 4)
    up = {curve.lr: curve.losses for curve in sweep(player, task, [0.001, 0.01, 0.1], steps=12, show=1)}
    down = {curve.lr: curve.losses for curve in sweep(adam(make()), task, [0.1, 0.01, 0.001], steps=12, show=1)}
    assert up == down
    assert len({losses[0] for losses in up.values()}) == 1
    assert len({losses[-1] for losses in up.values()}) == 3


def test_passes_change_nothing() -> None:
    curves = [
        next(sweep(adam(mlp()), task_for(mlp(), 10, (1, 8), 4, micro), [0.01], steps=8, show=3)) for micro in (None, 4)
    ]
    assert curves[0].losses == pytest.approx(curves[1].losses, rel=1e-5)
    torch.testing.assert_close(curves[0].pictures, curves[1].pictures, rtol=0, atol=1e-5)


def test_the_noise_of_layers_is_fixed_too() -> None:
    """With a rate of nearly nothing the loss stays where it is: each step draws the same mask."""
    network = Dropping()
    curve = next(sweep(adam(network), task_for(network, 6, (1, 1), 4), [1e-12], steps=12, show=1))
    assert len(set(curve.losses)) == 1


def test_a_loss_that_runs_away_is_left() -> None:
    network = Constant(3.0)
    player = Player(network, network, torch.optim.SGD(network.parameters(), lr=1.0))
    task = Task(torch.zeros(4, 1), None, torch.zeros(4, 1, 1, 1), lambda: rng.generator(0, "none"))
    curve = next(sweep(player, task, [1e6], steps=10 * LOOK_STEPS, show=1))
    assert len(curve.losses) <= LOOK_STEPS + 1
    assert curve.state == "diverged"
    assert best([curve]) is None


def curve_of(losses: list[float], lr: float = 0.1) -> Curve:
    return Curve(lr, tuple(losses), torch.zeros(1, 1, 1, 1))


def test_how_curves_are_called() -> None:
    falling = [2.0 ** -(step / 10) for step in range(100)]
    assert curve_of(falling).state == "learns"
    assert curve_of(falling).end == pytest.approx(sum(falling[90:]) / 10)
    assert curve_of(falling).lowest == curve_of(falling).end
    lost = [*falling[:90], *[0.5] * 10]
    assert curve_of(lost).state == "unsteady", "it ends above what it had reached"
    assert curve_of(lost).lowest == pytest.approx(sum(falling[80:90]) / 10)
    assert curve_of([1.0] * 20).state == "diverged", "no better than at first"
    assert curve_of([*falling, math.nan]).state == "diverged"
    assert curve_of([*falling, math.inf]).state == "diverged"
    assert math.isfinite(curve_of([*falling, math.nan]).lowest)
    spike = [*falling[:97], 0.9, *falling[98:]]
    assert best([curve_of(spike, 0.2), curve_of([0.5] * 50 + [0.2] * 50, 0.1), curve_of(lost, 0.4)]) is not None
    assert best([curve_of(falling, 0.2), curve_of([1.0] + [1e-9] * 98 + [math.nan], 0.1)]) == curve_of(falling, 0.2)

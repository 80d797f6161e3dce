"""The sweep: from the same first weights, G learns the same batch by heart at one learning rate after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gandist.adversarial.player import Player
from gandist.models.noise import RowNoise, seed_layers

State = Literal["learns", "unsteady", "diverged"]

LAST_SHARE = 0.1
"""The end of a curve is the mean over this share of its steps, the last ones: single steps jump."""
UNSTEADY = 2.0
"""A curve whose end is so many times above the lowest mean over as many steps lost what it had learned."""
HOPELESS = 1e3
"""A loss so many times the first one never comes back."""
LOOK_STEPS = 25
"""Steps between two looks at the device for a loss that ran away."""


@dataclass(frozen=True)
class Task:
    """What G is to learn by heart: images for latents, always the same.

    Attributes:
        z: latents.
        c: classes of the images, where G sees them.
        x: the images, in the numbers that G makes.
        noise: from nothing to the draws of G's random layers, the same at each call.
        micro_images: images in one pass; None for all of them.

    """

    z: Float[Tensor, "batch latent"]
    c: Int[Tensor, " batch"] | None
    x: Float[Tensor, "batch channels height width"]
    noise: Callable[[], torch.Generator]
    micro_images: int | None = None

    @property
    def variance(self) -> float:
        """Return the loss of the best single image for all latents, which is the mean of the images."""
        return (self.x - self.x.mean(dim=0)).square().mean().item()

    def passes(self) -> Iterator[slice]:
        """Yield the rows of each pass."""
        size = self.micro_images or len(self.x)
        for start in range(0, len(self.x), size):
            yield slice(start, min(start + size, len(self.x)))


@dataclass(frozen=True)
class Curve:
    """The mean squared error over the steps at one learning rate.

    Attributes:
        lr: the learning rate.
        losses: before each step; shorter than was asked for where the loss ran away.
        pictures: G's images of the batch's first latents at the end, on the CPU.

    """

    lr: float
    losses: tuple[float, ...]
    pictures: Float[Tensor, "few channels height width"]

    @property
    def end(self) -> float:
        """Return the loss at the end, averaged over the last steps."""
        return self._mean(len(self.losses))

    @property
    def lowest(self) -> float:
        """Return the lowest loss on the way, averaged over as many steps as the end is."""
        means = [self._mean(stop) for stop in range(self._span, len(self.losses) + 1)]
        return min((mean for mean in means if math.isfinite(mean)), default=math.inf)

    @property
    def state(self) -> State:
        """Return how it went: diverged is a loss at the end that is not finite or no better than at first."""
        if not self.end < self.losses[0]:
            return "diverged"
        return "unsteady" if self.end > UNSTEADY * self.lowest else "learns"

    @property
    def _span(self) -> int:
        return max(1, round(LAST_SHARE * len(self.losses)))

    def _mean(self, stop: int) -> float:
        return sum(self.losses[stop - self._span : stop]) / self._span


def best(curves: Sequence[Curve]) -> Curve | None:
    """Return the curve with the lowest loss at the end; None if all diverged."""
    return min((curve for curve in curves if curve.state != "diverged"), key=lambda curve: curve.end, default=None)


def sweep(player: Player, task: Task, rates: Sequence[float], steps: int, show: int) -> Iterator[Curve]:
    """Yield a curve for each learning rate, each from the player's weights as they are at first.

    Args:
        player: the generator.
        task: what it learns.
        rates: learning rates.
        steps: of the optimizer, at each rate.
        show: images of the batch that a curve keeps.

    """
    first = {name: tensor.clone() for name, tensor in player.module.state_dict().items()}
    scaler = None if player.scaler is None else player.scaler.state_dict()
    for rate in rates:
        player.module.load_state_dict(first)
        player.optimizer.state.clear()
        if player.scaler is not None and scaler:
            player.scaler.load_state_dict(scaler)
        for group in player.optimizer.param_groups:
            group["lr"] = rate
        losses = _learn(player, task, steps)
        with torch.no_grad():
            made = torch.cat([_images(player, task, rows) for rows in task.passes()])
        yield Curve(rate, losses, made[:show].float().cpu())


def _learn(player: Player, task: Task, steps: int) -> tuple[float, ...]:
    player.module.train()
    losses: list[Tensor] = []
    for step in range(steps):
        total = task.x.new_zeros(())
        for rows in task.passes():
            share = (rows.stop - rows.start) / len(task.x)
            loss = (_images(player, task, rows).float() - task.x[rows]).square().mean() * share
            player.backward(player.scaled(loss))
            total += loss.detach()
        player.step(step)
        losses.append(total)
        if step % LOOK_STEPS == 0 and not total < HOPELESS * losses[0]:
            break
    return tuple(torch.stack(losses).tolist())


def _images(player: Player, task: Task, rows: slice) -> Tensor:
    """Return G's images for some rows, with the same noise in its layers each time."""
    if player.random_layers:
        noise = RowNoise(task.noise(), len(task.x), rows.start, rows.stop - rows.start)
        seed_layers(player.random_layers, noise)
    images: Tensor = player.network(task.z[rows], None if task.c is None else task.c[rows])
    return images

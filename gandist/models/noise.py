"""Random numbers for the rows of a batch that several ranks and passes share.

A draw is made for the whole global batch and cut to the rows at hand. So row ``i`` of the batch gets the same
numbers whether one process sees all rows at once or eight see a few at a time, and the run does not depend on
how the batch is split. The price, drawing the other rows' numbers too, is small beside a network's pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Noise(Protocol):
    """Draws for the rows of a pass, on the CPU; each call draws anew."""

    def normal(self, *shape: int) -> Tensor:
        """Return (rows, *shape) standard normal numbers."""

    def uniform(self, *shape: int) -> Tensor:
        """Return (rows, *shape) numbers uniform in [0, 1)."""

    def integers(self, below: int, *shape: int) -> Tensor:
        """Return (rows, *shape) int64 numbers uniform in 0 .. below - 1."""


@dataclass(frozen=True)
class RowNoise:
    """Draws for rows ``start`` to ``start + count`` of a batch of ``batch`` rows."""

    generator: torch.Generator
    batch: int
    start: int
    count: int

    def _cut(self, full: Tensor) -> Tensor:
        return full[self.start : self.start + self.count]

    def normal(self, *shape: int) -> Tensor:
        """Return (count, *shape) standard normal numbers."""
        return self._cut(torch.randn(self.batch, *shape, generator=self.generator))

    def uniform(self, *shape: int) -> Tensor:
        """Return (count, *shape) numbers uniform in [0, 1)."""
        return self._cut(torch.rand(self.batch, *shape, generator=self.generator))

    def integers(self, below: int, *shape: int) -> Tensor:
        """Return (count, *shape) int64 numbers uniform in 0 .. below - 1."""
        return self._cut(torch.randint(below, (self.batch, *shape), generator=self.generator))


@dataclass(frozen=True)
class JoinedNoise:
    """Draws for several parts that pass through a network as one batch, each as it would draw alone."""

    parts: Sequence[Noise]

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers for the rows of all parts."""
        return torch.cat([part.normal(*shape) for part in self.parts])

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers uniform in [0, 1) for the rows of all parts."""
        return torch.cat([part.uniform(*shape) for part in self.parts])

    def integers(self, below: int, *shape: int) -> Tensor:
        """Return int64 numbers uniform in 0 .. below - 1 for the rows of all parts."""
        return torch.cat([part.integers(below, *shape) for part in self.parts])


class RandomLayer(nn.Module):
    """A layer that draws in training, from the :class:`Noise` that the round gives it before each pass."""

    noise: Noise | None = None


class Dropout(RandomLayer):
    """Dropout whose mask for a row depends on the row's place in the global batch alone (Srivastava et al. 2014)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Zero each element of ``x`` with the layer's probability and scale the rest up by 1 / (1 - probability)."""
        if not self.training or self.probability == 0:
            return x
        assert self.noise is not None, "a network in training mode needs its row noise: see seed_layers()"
        keep = self.noise.uniform(*x.shape[1:]) >= self.probability
        return x * keep.to(x.device, x.dtype) / (1 - self.probability)


def random_layers(network: nn.Module) -> list[RandomLayer]:
    """Return the layers of ``network`` that draw, in the order of their names."""
    return [module for module in network.modules() if isinstance(module, RandomLayer)]


def seed_layers(layers: list[RandomLayer], noise: Noise | None) -> None:
    """Give the layers the draws of the coming pass; they take them one after the other."""
    for layer in layers:
        layer.noise = noise

"""Moving averages of the generator, whose widths are counted in images."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gandist.adversarial.posthoc import gamma_of
from gandist.models.contract import Generator
from gandist.models.layers import begin_step


class Average(ABC):
    """A copy of G whose weights and buffers follow G's. Batch statistics are averaged like weights; integers copied.

    Attributes:
        network: the copy, in evaluation mode, without gradients.

    """

    def __init__(self, generator: Generator) -> None:
        self.network = copy.deepcopy(generator).eval().requires_grad_(False)
        self._generator = generator

    @abstractmethod
    def decay(self, images_seen: int, images: int) -> float:
        """Return the factor old weights keep when ``images`` more real images make it ``images_seen`` in all."""

    @torch.no_grad()
    def update(self, images_seen: int, images: int) -> None:
        """Move the average towards G after a round of ``images`` real images, ``images_seen`` in all."""
        # Looked up each time: wrapping a network for several processes puts new tensors in the place of its buffers.
        pairs = list(zip(_tensors(self.network), _tensors(self._generator), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_(
            [mine for mine, _ in averaged], [theirs for _, theirs in averaged], 1 - self.decay(images_seen, images)
        )
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)
        begin_step(self.network)  # an average of singular vectors is none: spectral norms look for those of their own


class GeneratorAverage(Average):
    """The exponential average, with a half-life (Yazici et al. 2019; Karras et al. 2018).

    After ``halflife_images`` images a weight's share in the average has halved, whatever the batch. Early in a run
    the half-life is at most ``rampup`` times the images seen, so that the first weights are soon forgotten
    (Karras et al. 2020).
    """

    def __init__(self, generator: Generator, halflife_images: float, rampup: float | None) -> None:
        super().__init__(generator)
        self.halflife_images = halflife_images
        self.rampup = rampup

    def decay(self, images_seen: int, images: int) -> float:
        """Return 2^(-images / half-life)."""
        halflife = self.halflife_images
        if self.rampup is not None:
            halflife = min(halflife, images_seen * self.rampup)
        return 0.5 ** (images / halflife) if halflife > 0 else 0.0


class PowerAverage(Average):
    """The average in which the moment tau of a run counts as tau^gamma (Karras et al. 2024, EDM2, section 3.1).

    Its width ``std`` (the paper's sigma_rel) is a share of the images seen, so it grows with the run, and the weights
    that G began with count for nothing from the first update on. See :mod:`gandist.adversarial.posthoc`.
    """

    def __init__(self, generator: Generator, std: float) -> None:
        super().__init__(generator)
        self.std = std
        self.gamma = gamma_of(std)

    def decay(self, images_seen: int, images: int) -> float:
        """Return beta = (1 - dt / t)^(gamma + 1), the share of the profile at t that lies before t - dt."""
        beta: float = (1 - images / images_seen) ** (self.gamma + 1)
        return beta


class Averages:
    """All averages of one G, which move together.

    Args:
        main: the one that samples are drawn from.
        powers: those from which other widths are made after the run.

    """

    def __init__(self, main: Average, powers: Sequence[PowerAverage] = ()) -> None:
        self.main = main
        self.powers = tuple(powers)

    @property
    def network(self) -> Generator:
        """Return the network that samples are drawn from."""
        return self.main.network

    @property
    def networks(self) -> Mapping[str, Generator]:
        """Return all averaged networks under the names of their parts of a checkpoint."""
        return {"ema": self.main.network, **{part_name(power.std): power.network for power in self.powers}}

    @property
    def added_later(self) -> frozenset[str]:
        """Return the parts that a checkpoint may lack: a width that is added to a run begins with G as it is then."""
        return frozenset(part_name(power.std) for power in self.powers)

    def update(self, images_seen: int, images: int) -> None:
        """Move all averages towards G after a round of ``images`` real images, ``images_seen`` in all."""
        for average in (self.main, *self.powers):
            average.update(images_seen, images)


def part_name(std: float) -> str:
    """Return the name of a power function average among the parts of a checkpoint: ``average_0_05`` for 0.05."""
    return "average_" + f"{std:g}".replace(".", "_")


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]

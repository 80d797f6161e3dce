"""The exponential moving average of the generator, with its half-life counted in images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gandist.models.contract import Generator


class GeneratorAverage:
    """A copy of G whose weights and buffers follow G's exponentially (Yazici et al. 2019; Karras et al. 2018).

    After ``halflife_images`` images a weight's share in the average has halved, whatever the batch. Early in a run
    the half-life is at most ``rampup`` times the images seen, so that the first weights are soon forgotten
    (Karras et al. 2020). Batch statistics are averaged like weights; integer buffers are copied.
    """

    def __init__(self, generator: Generator, halflife_images: float, rampup: float | None) -> None:
        self.network = copy.deepcopy(generator).eval().requires_grad_(False)
        self.halflife_images = halflife_images
        self.rampup = rampup
        self._generator = generator

    def decay(self, images_seen: int, images: int) -> float:
        """Return the factor old weights keep when ``images`` more real images make it ``images_seen`` in all."""
        halflife = self.halflife_images
        if self.rampup is not None:
            halflife = min(halflife, images_seen * self.rampup)
        return 0.5 ** (images / halflife) if halflife > 0 else 0.0

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


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]

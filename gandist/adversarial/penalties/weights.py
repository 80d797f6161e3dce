"""Penalties of a network's weights, whatever it is shown."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gandist.adversarial.penalties.base import GeneratorPenalty, Made, Penalty, Scene


def orthogonality(network: nn.Module) -> Float[Tensor, ""]:
    """Return the sum over weights of |W^T W * (1 - I)|_F^2 (Brock et al. 2019, equation 3).

    W has a column for each of the layer's outputs, so different filters should point in different directions, whatever
    their lengths. Embeddings, norms and biases have no such weight. A product wider than the filters are long is
    computed the other way round, since |W^T W|_F = |W W^T|_F.
    """
    costs = [
        _off_diagonal(module.weight.flatten(1))
        for module in network.modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(module.weight, Tensor)
    ]
    return torch.stack(costs).sum() if costs else next(network.parameters()).sum() * 0


def _off_diagonal(filters: Tensor) -> Tensor:
    filters = filters.float()
    short = filters if filters.shape[0] <= filters.shape[1] else filters.t()
    return (short @ short.t()).square().sum() - filters.square().sum(dim=1).square().sum()


class OrthogonalDiscriminator(Penalty):
    """Orthogonality of D's filters."""

    def cost(self, scene: Scene) -> Float[Tensor, ""]:
        """Return the penalty."""
        return orthogonality(scene.discriminator)


class OrthogonalGenerator(GeneratorPenalty):
    """Orthogonality of G's filters."""

    def cost(self, made: Made) -> Float[Tensor, ""]:
        """Return the penalty."""
        return orthogonality(made.generator)

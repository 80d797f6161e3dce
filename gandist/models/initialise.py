"""How the weights of a network begin, where the recipe does not leave that to the architecture's paper."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gandist.models.layers import ConditionalBatchNorm, begin_step

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)

REDRAWN = ("mlp", "dcgan", "resnet", "biggan")
"""Architectures that may begin otherwise; others count on the size of their first weights."""
SETTLING_STEPS = 15
"""Power iterations after which spectral norms know a new weight."""


def variance_scaled(
    weight: Float[Tensor, "*shape"], inputs: int, gain: float = math.sqrt(2)
) -> Float[Tensor, "*shape"]:
    """Draw ``weight`` in place from N(0, gain^2 / inputs) (He et al. 2015, equation 10, for the gain sqrt(2) of ReLU).

    ``inputs`` counts the numbers that one output is summed from.
    """
    with torch.no_grad():
        return weight.normal_(0, gain / math.sqrt(inputs))


def inputs_of(layer: Layer) -> int:
    """Return how many numbers one output of a layer is summed from.

    A transposed convolution's kernel reaches an output at every ``stride``-th of its places only.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        return max(1, layer.weight[:, 0].numel() // (layer.stride[0] * layer.stride[1]))
    return 1 if isinstance(layer, nn.Embedding) else layer.weight[0].numel()


DRAWS: dict[str, Callable[[Layer, Tensor], object]] = {
    # rows or columns orthonormal (Saxe et al. 2014; in GANs Brock et al. 2019)
    "orthogonal": lambda _, weight: nn.init.orthogonal_(weight),
    # N(0, 0.02^2) (Radford et al. 2016, section 4)
    "normal": lambda _, weight: nn.init.normal_(weight, 0.0, 0.02),
    # uniform, of variance 2 / (inputs + outputs) (Glorot & Bengio 2010, equation 16)
    "xavier": lambda _, weight: nn.init.xavier_uniform_(weight),
    "he": lambda layer, weight: variance_scaled(
        weight, inputs_of(layer), 1.0 if isinstance(layer, nn.Embedding) else math.sqrt(2)
    ),
}
"""From the knob's words to how a layer's weight is drawn."""


def initialise(network: nn.Module, kind: str) -> None:
    """Draw all weights of convolutions, linear layers and embeddings anew, and put their biases to zero, in place.

    Scales of batch norms begin at one, with ``normal`` at N(1, 0.02^2) as in the official DCGAN tutorial. The scales
    and shifts that classes give to a norm stay: they are no layer's weights.
    """
    norms = [module for module in network.modules() if isinstance(module, ConditionalBatchNorm)]
    kept = {id(part) for norm in norms for part in norm.modules()}
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02 if kind == "normal" else 0.0)
            nn.init.zeros_(module.bias)
        if not isinstance(module, LAYERS) or id(module) in kept:
            continue
        weight = module.parametrizations.weight.original if parametrize.is_parametrized(module) else module.weight  # type: ignore[union-attr]
        assert isinstance(weight, Tensor)
        DRAWS[kind](module, weight)
        if not isinstance(module, nn.Embedding) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for _ in range(SETTLING_STEPS):
        begin_step(network)

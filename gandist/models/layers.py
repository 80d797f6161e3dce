"""Layers that several architectures share."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gandist.errors import ConfigError

M = TypeVar("M", bound=nn.Module)


class SpectralNorm(nn.Module):
    """Divides a weight by its largest singular value, W / (u^T W v) (Miyato et al. 2018, equations 7-11).

    The power iteration that keeps u and v close to the leading singular vectors is not hidden in the forward
    pass: the round calls :meth:`iterate` once before each step of the network. So the real and the fake batch see
    the same weight, and the result does not depend on the number of passes a step is cut into.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, warmup: int = 15) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0))
        for _ in range(warmup):
            self.iterate(weight)

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """Take one step of the power method towards the leading singular vectors of ``weight``."""
        matrix = weight.detach().flatten(1)
        self.v.copy_(F.normalize(matrix.t() @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``weight`` scaled to spectral norm one; the gradient flows through the scale as well."""
        with torch.autocast(weight.device.type, enabled=False):
            sigma = torch.dot(self.u.clone(), weight.flatten(1) @ self.v.clone())
        return weight / sigma


def spectral_norm(module: M) -> M:
    """Return ``module`` with its weight spectrally normalised."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    parametrize.register_parametrization(module, "weight", SpectralNorm(weight))
    return module


def begin_step(network: nn.Module) -> None:
    """Let every spectral norm of ``network`` take its one power iteration; called before each of its steps."""
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList):
            for layer in module:
                if isinstance(layer, SpectralNorm):
                    original = module.original
                    assert isinstance(original, Tensor)
                    layer.iterate(original)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose scale and shift are the class's (Dumoulin et al. 2017, section 2.2)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(classes, channels)
        self.shift = nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], c: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Normalise over the batch, then scale and shift each image by its class."""
        out: Tensor = self.norm(x) * self.scale(c)[:, :, None, None] + self.shift(c)[:, :, None, None]
        return out


def couples_batch(network: nn.Module) -> list[str]:
    """Return the names of the layers in which images of a batch see each other through its statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    return [name for name, module in network.named_modules() if isinstance(module, kind)]


def power_of_two_stages(arch: str, resolution: int, smallest: int) -> int:
    """Return how many doublings lead from 4 px to ``resolution``.

    Raises:
        ConfigError: the resolution is not a power of two, or below ``smallest``.

    """
    if resolution < smallest or resolution & (resolution - 1):
        above = max(smallest, 1 << resolution.bit_length())
        below = max(smallest, above // 2)
        sizes = f"{below} or {above}" if below != above else str(above)
        raise ConfigError(
            f"data.resolution: {arch} needs a power of two from {smallest} px on, not {resolution}. "
            f"Prepare the images at {sizes} px and set --data.resolution to that."
        )
    return resolution.bit_length() - 3

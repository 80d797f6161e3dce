"""Layers that several architectures share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gandist.errors import ConfigError

M = TypeVar("M", bound=nn.Module)


def precise(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``x`` in fp32 at least: D's last layers are never computed in less (autocast switched off beside it)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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


def renew_spectral_norms(state: dict[str, Tensor], iterations: int = 50) -> None:
    """Let the vectors of spectral norms in a network's state, added up from others', find those of its own weights."""
    marked = ".original"
    for name in [name for name in state if name.endswith(marked)]:
        u, v = (state.get(f"{name.removesuffix(marked)}.0.{vector}") for vector in ("u", "v"))
        if u is None or v is None:
            continue
        matrix = state[name].flatten(1)
        for _ in range(iterations):
            v.copy_(F.normalize(matrix.t() @ u, dim=0))
            u.copy_(F.normalize(matrix @ v, dim=0))


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


BatchNorm = nn.modules.batchnorm._BatchNorm
Across = Callable[[Tensor], Tensor]
"""Returns the mean of a tensor over all ranks, which can be differentiated, and its derivative again."""


class SyncedBatchNorm(nn.Module):
    """Batch normalisation by the images of all ranks (Ioffe & Szegedy 2015, algorithm 1).

    It stands in the place of a plain batch norm, whose tensors it takes over under the same names. Unlike PyTorch's
    own it has a second derivative, which penalties take, and runs on CPUs. In evaluation it is the plain norm and
    asks nobody. All ranks must have equally many images.

    Args:
        norm: the plain norm.
        across: means over ranks.
        ranks: how many there are.

    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: BatchNorm, across: Across, ranks: int) -> None:
        super().__init__()
        self.register_parameter("weight", norm.weight)
        self.register_parameter("bias", norm.bias)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum = norm.eps, norm.momentum
        self.across, self.ranks = across, ranks
        self.train(norm.training)

    def forward(self, x: Float[Tensor, "batch channels *place"]) -> Float[Tensor, "batch channels *place"]:
        """Normalise over the images of all ranks and all places; in any format, computed in fp32 at least."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        with torch.autocast(x.device.type, enabled=False):
            h = x.to(torch.promote_types(x.dtype, torch.float32))
            mean, variance = self._moments(h)
            self._follow(mean, variance, images=x.numel() // x.shape[1] * self.ranks)
            scale = torch.rsqrt(variance + self.eps)
            if self.weight is not None:
                scale = scale * self.weight
            shift = -mean * scale if self.bias is None else self.bias - mean * scale
            as_x = (-1, *[1] * (x.ndim - 2))
            return torch.addcmul(shift.to(h.dtype).view(as_x), h, scale.to(h.dtype).view(as_x)).to(x.dtype)

    def _moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each channel over all ranks, in fp64.

        So one reduction is enough: the difference of the second moment and the squared mean loses nothing that fp32
        would notice.
        """
        own_variance, own_mean = torch.var_mean(h, dim=[0, *range(2, h.ndim)], correction=0)
        own_mean = own_mean.double()
        moments = self.across(torch.cat([own_mean, own_variance.double() + own_mean.square()]))
        mean, second = moments.chunk(2)
        return mean, second - mean.square()

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, images: int) -> None:
        """Move the running statistics, as a plain norm that sees all ``images`` values of a channel does."""
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        unbiased = variance * (images / (images - 1))
        for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.copy_(running + share * (now.to(running.dtype) - running))


def synchronise_batch_norms(network: nn.Module, across: Across, ranks: int) -> None:
    """Let every batch norm of ``network`` see the images of all ranks, in place."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNorm):
                setattr(parent, name, SyncedBatchNorm(child, across, ranks))


def couples_batch(network: nn.Module) -> list[str]:
    """Return the names of the layers in which images of a batch see each other through its statistics."""
    kinds = (BatchNorm, SyncedBatchNorm)
    return [name for name, module in network.named_modules() if isinstance(module, kinds)]


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

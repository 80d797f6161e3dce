"""Path length regularisation of a generator that has styles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gandist.adversarial.losses import Across, alone
from gandist.adversarial.penalties.base import GeneratorPenalty, Made


@dataclass
class PathLength(GeneratorPenalty):
    """Mean of (|J_w^T y| - a)^2 with y ~ N(0, I) / sqrt(pixels) (Karras et al. 2020, equation 4).

    J_w is the derivative of the image by the style w, and a the running mean of the lengths |J_w^T y| over the steps
    before that paid, zero at first. Where each of L layers has its own copy of w, the length is the root of the mean
    over layers of the squared lengths.

    Args:
        decay: the mean moves by 1 - ``decay`` at each step that pays.

    """

    decay: float = 0.99

    second_order = True

    def __post_init__(self) -> None:
        self._mean: Tensor | None = None

    def cost(self, made: Made) -> Float[Tensor, ""]:
        """Return the penalty."""
        images, w = made.styled()
        y = made.noise("path").normal(*images.shape[1:]).to(images.device, non_blocking=True)
        scale = min(made.loss_scale, 4096.0)  # for fp16, as in input_gradient
        projected = (images.float() * y).sum() / math.sqrt(images[0, 0].numel())
        (gradient,) = torch.autograd.grad(projected * scale, w, create_graph=True)
        lengths = (gradient.float() / scale).square().sum(dim=2).mean(dim=1).sqrt()
        made.measured["path_length"] = lengths.detach().mean()
        mean = torch.zeros_like(lengths[0]) if self._mean is None else self._mean
        return (lengths - mean).square().mean()

    def end_step(self, measured: Mapping[str, Tensor], across: Across = alone) -> None:
        """Move the running mean; lengths that are not finite leave it as it is."""
        now = across(measured["path_length"].float())
        before = torch.zeros_like(now) if self._mean is None else self._mean
        self._mean = torch.where(now.isfinite(), torch.lerp(now, before, self.decay), before)

    def state(self) -> dict[str, Tensor]:
        """Return the running mean."""
        return {} if self._mean is None else {"mean": self._mean}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue with the mean that a checkpoint kept."""
        self._mean = state.get("mean")

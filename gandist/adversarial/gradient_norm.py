"""Normalisation of the gradient that reaches G, so that other terms of its loss mean the same for every D."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gandist.adversarial.losses import Across


class GradientNormalization:
    """Divides the gradient of G's loss by a fake x by a running root mean square (Adversarial Flow Models, 2025).

    Forward it is the identity. Backward, g becomes g / sqrt(n E), where E is the average over past steps of |g|^2 over
    the global batch and n the number of elements of that batch: g then has the root mean square 1 / n, as the
    gradient of a mean over elements has. The average is that of the steps before, so that the result does not depend
    on how a step is cut into passes. In the first step the gradient passes as it is.

    Args:
        decay: of the average, for each step.

    """

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        self._mean: Tensor | None = None  # of n |g|^2, and the sum of the average's weights
        self._now: list[Tensor] = []

    def __call__(self, fake: Tensor, loss_scale: float) -> Tensor:
        """Return ``fake``; its gradient is normalised on its way back."""
        passed: Tensor = _Normalize.apply(fake, self, loss_scale)
        return passed

    def scale(self, like: Tensor) -> Tensor:
        """Return the factor on the gradient."""
        if self._mean is None:
            return like.new_ones((), dtype=torch.float32)
        total, weight = self._mean
        return torch.where(weight > 0, (total / weight).clamp_min(1e-30).rsqrt(), torch.ones_like(total))

    def note(self, gradient: Tensor, loss_scale: float) -> None:
        """Take in the gradient of one pass."""
        self._now.append((gradient.float() / loss_scale).square().sum())

    def end_step(self, elements: int, across: Across) -> None:
        """Move the average after a step whose share on this rank has so many elements."""
        total = torch.stack(self._now).sum() * elements
        now = torch.stack([across(total), total.new_ones(())])
        kept = torch.zeros_like(now) if self._mean is None else self._mean
        self._mean = torch.where(now[0].isfinite(), self.decay * kept + (1 - self.decay) * now, kept)
        self._now = []

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {} if self._mean is None else {"mean": self._mean}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what a checkpoint kept."""
        self._mean = state.get("mean")
        self._now = []


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, owner: GradientNormalization, loss_scale: float) -> Tensor:
        ctx.owner, ctx.loss_scale = owner, loss_scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.owner.note(gradient, ctx.loss_scale)
        return gradient * ctx.owner.scale(gradient).to(gradient.dtype), None, None

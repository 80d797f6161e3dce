"""Penalties that D pays beside its adversarial loss, each applied lazily at its own interval.

A penalty that is due at every k-th D step enters with k times its weight, so its strength does not depend on k
(Karras et al. 2020, appendix B). It is part of the same backward pass as the loss. A new penalty is a new function
and a new row of :data:`PENALTIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch *shape"]
Logits = Float[Tensor, " batch"]
Penalty = Callable[[Images, Logits, float], Float[Tensor, ""]]
"""From real images that require a gradient, D's logits for them, and the loss scale, to the mean penalty."""


def r1(real: Images, real_logits: Logits, loss_scale: float = 1.0) -> Float[Tensor, ""]:
    """Return the mean of |grad_x D(x)|^2 / 2 over real images (Mescheder et al. 2018, equation 9, with gamma 1)."""
    gradient = input_gradient(real, real_logits, loss_scale)
    return gradient.square().flatten(1).sum(dim=1).mean() / 2


def input_gradient(x: Images, logits: Logits, loss_scale: float = 1.0) -> Images:
    """Return the gradient of each image's logit by the image, itself differentiable.

    It is taken of scaled logits and scaled back, so that it survives fp16: by ``loss_scale``, but by no more than
    4096, since the scale itself is the first number of this backward pass and fp16 ends at 65504.
    """
    loss_scale = min(loss_scale, 4096.0)
    (gradient,) = torch.autograd.grad((logits * loss_scale).sum(), x, create_graph=True)
    return gradient.float() / loss_scale


PENALTIES: dict[str, Penalty] = {"r1": r1}


@dataclass(frozen=True)
class Regularizer:
    """A penalty with its weight, as a function of images seen, and its interval in D steps."""

    name: str
    penalty: Penalty
    weight: Callable[[int], float]
    interval_steps: int = 1

    def due(self, step: int) -> bool:
        """Tell whether D step number ``step`` of the run pays this penalty."""
        return step % self.interval_steps == 0

    def scale(self, images_seen: int) -> float:
        """Return the factor on the penalty in a step that pays it."""
        return self.weight(images_seen) * self.interval_steps

"""Penalties that players pay beside their adversarial loss, each applied lazily at its own interval.

A penalty that is due at every k-th step of its player enters with k times its weight, so its strength does not depend
on k (Karras et al. 2020, appendix B). It is part of the same backward pass as the loss. A new penalty is a class with a
``cost`` and a new row of a table below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gandist.adversarial.penalties.base import GeneratorPenalty, Penalty
from gandist.adversarial.penalties.consistency import BalancedConsistency, LatentConsistency, LatentVariety
from gandist.adversarial.penalties.gradient import R1, R2, GradientPenalty
from gandist.adversarial.penalties.logits import Centring, LeCam
from gandist.adversarial.penalties.path_length import PathLength
from gandist.adversarial.penalties.weights import OrthogonalDiscriminator, OrthogonalGenerator

PENALTIES: dict[str, Callable[..., Penalty]] = {
    "r1": R1,
    "r2": R2,
    "gradient_penalty": GradientPenalty,
    "centring": Centring,
    "lecam": LeCam,
    "bcr": BalancedConsistency,
    "zcr_d": LatentConsistency,
    "orthogonal_d": OrthogonalDiscriminator,
}
"""What D can pay."""

GENERATOR_PENALTIES: dict[str, Callable[..., GeneratorPenalty]] = {
    "path_length": PathLength,
    "zcr_g": LatentVariety,
    "orthogonal_g": OrthogonalGenerator,
}
"""What G can pay."""

P = TypeVar("P", Penalty, GeneratorPenalty, covariant=True)


@dataclass(frozen=True)
class Regularizer(Generic[P]):
    """A penalty with its weight, as a function of images seen, and its interval in steps of its player."""

    name: str
    penalty: P
    weight: Callable[[int], float]
    interval_steps: int = 1

    def due(self, step: int, images_seen: int) -> bool:
        """Tell whether step number ``step`` of the run pays this penalty."""
        return step % self.interval_steps == 0 and self.weight(images_seen) > 0

    def scale(self, images_seen: int) -> float:
        """Return the factor on the penalty in a step that pays it."""
        return self.weight(images_seen) * self.interval_steps

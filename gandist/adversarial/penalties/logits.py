"""Penalties of D's logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gandist.adversarial.penalties.base import Penalty, Scene


class Centring(Penalty):
    """Mean of (D(x) + D(G(z)))^2 over pairs (Adversarial Flow Models, 2025).

    A relativistic loss looks at differences of logits alone, so nothing else holds their mean near zero.
    """

    def cost(self, scene: Scene) -> Float[Tensor, ""]:
        """Return the penalty."""
        return (scene.logits["real"] + scene.logits["fake"]).square().mean()


@dataclass
class LeCam(Penalty):
    """Mean of (D(x) - a_F)^2 plus mean of (D(G(z)) - a_R)^2 (Tseng et al. 2021, equation 6).

    a_R and a_F are moving averages of D's logits for real images and fakes over the steps before.

    Args:
        decay: of the averages, for each step.
        start_kimg: nothing is paid before; the averages settle meanwhile.

    """

    decay: float = 0.99
    start_kimg: float = 1.0

    watches = True

    def __post_init__(self) -> None:
        self._anchors: Tensor | None = None

    def cost(self, scene: Scene) -> Float[Tensor, ""]:
        """Return the penalty; zero before it starts."""
        real, fake = scene.logits["real"], scene.logits["fake"]
        if self._anchors is None or scene.images_seen < self.start_kimg * 1000:
            return 0 * (real.mean() + fake.mean())
        anchor_real, anchor_fake = self._anchors
        cost: Tensor = (real - anchor_fake).square().mean() + (fake - anchor_real).square().mean()
        return cost

    def observe(self, real_logit: Float[Tensor, ""], fake_logit: Float[Tensor, ""], images_seen: int) -> None:
        """Move the averages; steps that are not finite leave them as they are."""
        del images_seen
        now = torch.stack([real_logit, fake_logit]).float()
        if self._anchors is None:
            self._anchors = torch.where(now.isfinite(), now, torch.zeros_like(now))
        else:
            self._anchors = torch.where(now.isfinite(), torch.lerp(now, self._anchors, self.decay), self._anchors)

    def state(self) -> dict[str, Tensor]:
        """Return the averages."""
        return {} if self._anchors is None else {"anchors": self._anchors}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue with averages that a checkpoint kept."""
        self._anchors = state.get("anchors")

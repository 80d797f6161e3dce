"""Consistency: D should say the same of an image and of a slightly changed one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gandist.adversarial.penalties.base import GeneratorPenalty, Images, Made, Penalty, Scene
from gandist.models.noise import Noise


@dataclass
class BalancedConsistency(Penalty):
    """bCR: lambda_real (D(x) - D(T(x)))^2 + lambda_fake (D(G(z)) - D(T(G(z))))^2 (Zhao et al. 2021, algorithm 1).

    T mirrors an image with probability one half and shifts it by up to ``shift`` of its size.
    """

    real_weight: float = 10.0
    fake_weight: float = 10.0
    shift: float = 0.125

    def prepare(self, scene: Scene) -> None:
        """Ask for the transformed images."""
        for name in ("real", "fake"):
            x = scene.views[name].x.detach()
            moved = mirror_and_shift(x, scene.noise(f"{name}.transform"), self.shift)
            scene.add(f"T({name})", moved, name)

    def cost(self, scene: Scene) -> Float[Tensor, ""]:
        """Return the penalty."""
        on_real, on_fake = (
            (scene.logits[name] - scene.logits[f"T({name})"]).square().mean() for name in ("real", "fake")
        )
        return self.real_weight * on_real + self.fake_weight * on_fake


@dataclass
class LatentConsistency(Penalty):
    """zCR of D: (D(G(z)) - D(G(z + dz)))^2 with dz ~ N(0, sigma^2 I) (Zhao et al. 2021, algorithm 2)."""

    sigma: float = 0.03

    def prepare(self, scene: Scene) -> None:
        """Ask for the fakes of latents nearby."""
        scene.add("near", scene.fakes_near(scene.noise("near"), self.sigma), "fake")

    def cost(self, scene: Scene) -> Float[Tensor, ""]:
        """Return the penalty."""
        return (scene.logits["fake"] - scene.logits["near"]).square().mean()


@dataclass
class LatentVariety(GeneratorPenalty):
    """zCR of G: minus the mean of (G(z) - G(z + dz))^2 over images and their elements (the same, algorithm 2)."""

    sigma: float = 0.03

    def cost(self, made: Made) -> Float[Tensor, ""]:
        """Return the penalty, which is negative."""
        near = made.near(made.noise("near"), self.sigma)
        return -(made.fake.float() - near.float()).square().mean()


def mirror_and_shift(x: Images, noise: Noise, share: float) -> Images:
    """Return images of which half are mirrored, each shifted by whole pixels, with reflection at the edges."""
    height, width = x.shape[-2:]
    reach_y, reach_x = min(round(share * height), height - 1), min(round(share * width), width - 1)
    mirrored = noise.integers(2, 1, 1, 1).to(x.device, non_blocking=True) == 1
    x = x.flip(-1).where(mirrored, x)
    padded = F.pad(x, (reach_x, reach_x, reach_y, reach_y), mode="reflect")
    rows = noise.integers(2 * reach_y + 1, 1, 1).to(x.device, non_blocking=True)
    columns = noise.integers(2 * reach_x + 1, 1, 1).to(x.device, non_blocking=True)
    y = rows + torch.arange(height, device=x.device).view(1, height, 1)
    at = (y * padded.shape[-1] + columns + torch.arange(width, device=x.device)).flatten(1)
    return padded.flatten(2).gather(2, at[:, None].expand(-1, x.shape[1], -1)).view(x.shape)

"""What stays the same from round to round, and what a round is played with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gandist.adversarial.augment import Augment
from gandist.adversarial.gradient_norm import GradientNormalization
from gandist.adversarial.losses import Across, AdversarialLoss, Targets, alone
from gandist.adversarial.penalties.base import GeneratorPenalty, Penalty
from gandist.adversarial.player import Player
from gandist.adversarial.regularizers import Regularizer
from gandist.models.layers import couples_batch
from gandist.models.noise import RowNoise

Statistics = dict[str, Tensor]
"""Named scalars on the device; reading one out waits for the device, so only log rounds do."""

Moves = Literal["both", "discriminator", "generator"]
"""Who learns in a round."""


@runtime_checkable
class Stateful(Protocol):
    """A part of the method that carries numbers from round to round; they are equal on all ranks."""

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what a checkpoint kept."""


@dataclass(frozen=True)
class Real:
    """Real images of one D step, in [-1, 1], with their classes where D sees them."""

    x: Float[Tensor, "batch channels height width"]
    c: Int[Tensor, " batch"] | None


@dataclass(frozen=True)
class Latents:
    """The inputs of one batch of fakes."""

    z: Float[Tensor, "batch latent"]
    c: Int[Tensor, " batch"] | None

    def rows(self, rows: slice) -> Latents:
        """Return some of them."""
        return Latents(self.z[rows], cut(self.c, rows))


@dataclass(frozen=True)
class Draws:
    """Random numbers of one round: a stream for each site, drawn for the global batch and cut to this share's rows.

    Args:
        stream: from the name of a site to its generator, seeded by the round and the site alone.
        batch: rows of the global batch.
        start: first row of this share.

    """

    stream: Callable[[str], torch.Generator]
    batch: int
    start: int

    def rows(self, site: str, rows: slice) -> RowNoise:
        """Return the draws of ``site`` for the rows of a pass, counted from this share's first."""
        return RowNoise(self.stream(site), self.batch, self.start + rows.start, rows.stop - rows.start)


@dataclass
class Game:
    """What stays the same from round to round.

    Args:
        generator: the player that makes fakes.
        discriminator: the player that tells them from real images.
        loss: the adversarial loss.
        targets: D's targets for it.
        regularizers: penalties that D pays.
        latent_dim: length of z.
        class_cdf: P(class <= k) for every class k, from which the classes of fakes are drawn as often as those of
            the real images occur; None in an unconditional game.
        micro_images: images in one pass; None for all of a step's.
        generator_regularizers: penalties that G pays.
        auxiliary_weight: of the classification loss, where D has an auxiliary classifier.
        augment: what is done to images before D sees them.
        gradient_norm: scales the gradient that D sends to G.
        clip_weights: D's weights are clipped to this absolute value after each of its steps (Arjovsky et al. 2017,
            algorithm 1), if not None.
        share_latents: one batch of fakes serves the last D step and the (first) G step.
        g_steps: G steps in a round.
        concatenate: D sees real images and fakes as one batch.
        across: means over ranks.

    """

    generator: Player
    discriminator: Player
    loss: AdversarialLoss
    targets: Targets
    regularizers: Sequence[Regularizer[Penalty]]
    latent_dim: int
    class_cdf: Float[Tensor, " classes"] | None = None
    micro_images: int | None = None
    generator_regularizers: Sequence[Regularizer[GeneratorPenalty]] = ()
    auxiliary_weight: float = 1.0
    augment: Augment | None = None
    gradient_norm: GradientNormalization | None = None
    clip_weights: float | None = None
    share_latents: bool = True
    g_steps: int = 1
    concatenate: bool = False
    across: Across = field(default=alone)

    @property
    def couples_batch(self) -> bool:
        """Whether images of a batch see each other in a layer, so that a step cannot be cut into passes."""
        return bool(couples_batch(self.generator.module) or couples_batch(self.discriminator.module))

    @property
    def players(self) -> dict[str, Player]:
        """Both players under the letters that papers give their networks."""
        return {"d": self.discriminator, "g": self.generator}

    @property
    def stateful(self) -> dict[str, Stateful]:
        """The parts that carry numbers from round to round, by name."""
        found: dict[str, Stateful] = {f"penalty.{r.name}": r.penalty for r in self.regularizers}
        found |= {f"penalty.{r.name}": r.penalty for r in self.generator_regularizers}
        if self.augment is not None:
            found["augment"] = self.augment
        if self.gradient_norm is not None:
            found["gradient_norm"] = self.gradient_norm
        return found


def cut(c: Tensor | None, rows: slice) -> Tensor | None:
    """Return some rows of the classes, where there are classes."""
    return None if c is None else c[rows]

"""A game small enough to be played in milliseconds, with everything that a recipe can switch on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gandist.adversarial.game import Draws, Game, Real
from gandist.adversarial.losses import LOSSES, Comparison, Targets
from gandist.adversarial.player import Player
from gandist.adversarial.regularizers import Regularizer
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import detach
from gandist.config import ModelConfig
from gandist.models.build import build
from gandist.models.contract import ImageShape
from gandist.runtime import rng

RESOLUTION, LATENT_DIM, CLASSES = 8, 6, 3
RULES = ("share_latents", "g_steps", "concatenate", "clip_weights", "auxiliary_weight")
TINY = {
    "latent_dim": LATENT_DIM,
    "mlp": {"generator_widths": [12, 10], "discriminator_widths": [12, 10], "dropout": 0.3},
    "dcgan": {"generator_channels": 4, "discriminator_channels": 4},
    "resnet": {"generator_channels": 4, "discriminator_channels": 4},
}


@dataclass
class Table:
    """Two players at a game, and how a round of it is played."""

    game: Game
    batch: int = 6
    d_steps: int = 1
    seed: int = 0
    strategy: Callable[[Round, Sequence[Real]], None] = detach
    weights_before: dict[str, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights_before = {role: self.weights(role) for role in ("generator", "discriminator")}

    @property
    def g(self) -> nn.Module:
        return self.game.generator.module

    @property
    def d(self) -> nn.Module:
        return self.game.discriminator.module

    def reals(self, index: int = 0, rows: slice = slice(None)) -> list[Real]:
        """Return the real images of a round, one batch for each D step, cut to some rows of the global batch."""
        found = []
        for k in range(self.d_steps):
            draw = rng.generator(self.seed, "real", index, k)
            x = torch.rand(self.batch, 1, RESOLUTION, RESOLUTION, generator=draw) * 2 - 1
            c = torch.randint(CLASSES, (self.batch,), generator=draw) if self.game.class_cdf is not None else None
            found.append(Real(x[rows], None if c is None else c[rows]))
        return found

    def round(self, index: int = 0, images_seen: int = 0, start: int = 0) -> Round:
        """Return a round that was not played yet."""
        draws = Draws(partial(rng.generator, self.seed, "round", index), self.batch, start)
        return Round(self.game, draws, index, images_seen)

    def play(self, index: int = 0, **more: Any) -> Round:
        """Play one round on the whole batch."""
        played = self.round(index, **more)
        self.strategy(played, self.reals(index))
        return played

    def weights(self, role: str) -> list[Tensor]:
        """Return copies of a player's weights."""
        return [p.detach().clone() for p in getattr(self.game, role).parameters]

    def moves(self, role: str) -> list[Tensor]:
        """Return how far each weight has moved since the beginning; with SGD at rate 1, minus its gradient."""
        return [now - then for now, then in zip(self.weights(role), self.weights_before[role], strict=True)]

    def moved(self, role: str) -> bool:
        return any(bool(move.any()) for move in self.moves(role))


def without_batch_norm(network: nn.Module) -> nn.Module:
    """Return the network with every batch norm put out of action, in place."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    return network


@pytest.fixture
def set_table() -> Callable[..., Table]:
    """Return a function that sets up a game; plain SGD at rate 1 makes a step equal to minus its gradient."""

    def make(
        arch: str = "mlp",
        *,
        conditional: bool = False,
        batch_norm: bool = True,
        dropout: float = 0.3,
        loss: str = "non_saturating",
        relativistic: Comparison = "off",
        head: str = "own",
        targets: Targets | None = None,
        regularizers: Sequence[Regularizer] = (),
        micro_images: int | None = None,
        clip_norm: float | None = None,
        rate: float = 1.0,
        scalers: bool = False,
        **more: Any,
    ) -> Table:
        settings = {**TINY, "arch": arch, "conditional": conditional, "head": head}
        settings["mlp"] = {**TINY["mlp"], "dropout": dropout}  # type: ignore[dict-item]
        model = ModelConfig.model_validate(settings)
        networks = build(model, ImageShape(RESOLUTION, 1), CLASSES, seed=7)

        def seat(network: nn.Module) -> Player:
            network = network if batch_norm else without_batch_norm(network)
            scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if scalers else None
            optimizer = torch.optim.SGD(network.parameters(), lr=rate, fused=True)
            return Player(network, network, optimizer, clip_norm=clip_norm, scaler=scaler)

        game = Game(
            generator=seat(networks.generator),
            discriminator=seat(networks.discriminator),
            loss=LOSSES[loss].compared(relativistic),
            targets=targets or Targets(),
            regularizers=regularizers,
            latent_dim=LATENT_DIM,
            class_cdf=torch.tensor([0.5, 0.75, 1.0]) if conditional else None,
            micro_images=micro_images,
            **{name: more.pop(name) for name in RULES if name in more},
        )
        return Table(game, **more)

    return make

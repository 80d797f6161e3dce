"""One round of the game: D steps, then a G step.

Symbols as in the papers: ``z`` latents, ``c`` classes, ``x`` images, G and D the networks. A *round* is one
exchange; a *step* is one network's update inside it; a *pass* is the part of a step's batch that is held in memory
at once. Nothing here knows of ranks, devices or files: a :class:`Player` says how its gradients travel, and
:class:`Draws` where random numbers come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.adversarial.guard import FiniteGuard
from gandist.adversarial.losses import AdversarialLoss, Targets
from gandist.adversarial.regularizers import Regularizer
from gandist.models.layers import begin_step, couples_batch
from gandist.models.noise import RowNoise, random_layers, seed_layers

Statistics = dict[str, Tensor]
"""Named scalars on the device; reading one out waits for the device, so only log rounds do."""


@dataclass
class Player:
    """One network, its optimizer, and how its gradients travel.

    Args:
        network: what a pass calls when it wants this network's gradients (it may reduce them over ranks).
        module: the same network bare: its parameters, and what a pass calls when it does not want them.
        optimizer: over the parameters of ``module``.
        clip_norm: gradients are scaled down to this global norm, if not None.
        scaler: loss scaling for fp16, one for each network so that neither sees the other's overflows.
        backward: runs the backward pass of a scalar.
        no_sync: a context in which a backward pass of ``network`` is not reduced.
        before_step: called before each step; returns when the weights may change.

    """

    network: nn.Module
    module: nn.Module
    optimizer: torch.optim.Optimizer
    clip_norm: float | None = None
    scaler: torch.amp.GradScaler | None = None
    backward: Callable[[Tensor], None] = torch.Tensor.backward
    no_sync: Callable[[], AbstractContextManager[object]] = nullcontext
    before_step: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.parameters = list(self.module.parameters())
        self.random_layers = random_layers(self.module)
        self.guard = FiniteGuard(self.module)

    @property
    def loss_scale(self) -> float:
        """The factor that keeps small fp16 gradients from vanishing; 1 in other formats."""
        return 1.0 if self.scaler is None else self.scaler.get_scale()

    def scaled(self, loss: Tensor) -> Tensor:
        """Return ``loss`` times the current loss scale."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def step(self, round_index: int) -> tuple[Tensor, bool]:
        """Apply the gathered gradients and drop them; a step whose gradients are not finite changes nothing.

        Returns:
            the gradients' global norm before clipping, and whether the step counts as one: False where an overflow of
            fp16 skipped it. Other skipped steps are known on the device alone (:class:`FiniteGuard`).

        """
        self.before_step()
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.new_zeros(()) if p.grad is None else p.grad for p in self.parameters]
        norms = torch.stack(torch._foreach_norm(gradients))
        norm = torch.linalg.vector_norm(norms)
        skip = self.guard.judge(norms, round_index)
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        taken = True
        if self.scaler is None:
            self._apply_unless(skip)
        else:
            before = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            taken = self.scaler.get_scale() >= before
        self.optimizer.zero_grad(set_to_none=True)
        return norm, taken

    def _apply_unless(self, skip: Tensor) -> None:
        """Take the optimizer's step unless ``skip``, which a fused optimizer reads where it lies."""
        if self.optimizer.param_groups[0].get("fused"):
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skip:
            self.optimizer.step()


@dataclass(frozen=True)
class Real:
    """Real images of one D step, in [-1, 1], with their classes where D sees them."""

    x: Float[Tensor, "batch channels height width"]
    c: Int[Tensor, " batch"] | None


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

    """

    generator: Player
    discriminator: Player
    loss: AdversarialLoss
    targets: Targets
    regularizers: Sequence[Regularizer]
    latent_dim: int
    class_cdf: Float[Tensor, " classes"] | None = None
    micro_images: int | None = None

    @property
    def couples_batch(self) -> bool:
        """Whether images of a batch see each other in a layer, so that a step cannot be cut into passes."""
        return bool(couples_batch(self.generator.module) or couples_batch(self.discriminator.module))

    @property
    def players(self) -> dict[str, Player]:
        """Both players under the letters that papers give their networks."""
        return {"d": self.discriminator, "g": self.generator}


@dataclass(frozen=True)
class Latents:
    """The inputs of one batch of fakes."""

    z: Float[Tensor, "batch latent"]
    c: Int[Tensor, " batch"] | None


@dataclass
class Round:
    """One round as it is played: the moment, and what it measured.

    Args:
        game: the players and the rules.
        draws: this round's random numbers.
        index: of the round in the run.
        images_seen: real images shown to D before this round.
        statistics: filled by the steps.
        discriminator_moved: False if (the last) D step was skipped for an overflow.
        generator_moved: the same of G.

    """

    game: Game
    draws: Draws
    index: int
    images_seen: int
    statistics: Statistics = field(default_factory=dict)
    discriminator_moved: bool = True
    generator_moved: bool = True

    def discriminator_step(self, real: Real, latents: Latents, fakes: Tensor | None, site: str, number: int) -> None:
        """Update D on real images and detached fakes; nothing of it reaches G.

        Args:
            real: this share's real images.
            latents: from which fakes are made, pass by pass, where ``fakes`` is None.
            fakes: the whole step's fakes, if one pass holds them.
            site: names the step among those of the round, for its random draws.
            number: of this D step in the run; says which penalties are due.

        """
        player = self.game.discriminator
        begin_step(player.module)
        due = [r for r in self.game.regularizers if r.due(number) and r.weight(self.images_seen) > 0]
        totals: Statistics = {}
        for rows, last, share in self._passes(len(real.x)):
            fake = fakes if fakes is not None else self.generate(latents, rows, site, graph=False)
            x = real.x[rows].requires_grad_(bool(due))
            with nullcontext() if last else player.no_sync():
                real_logits = self._judge(player.network, x, _cut(real.c, rows), f"{site}.real", rows)
                fake_logits = self._judge(player.network, fake.detach(), _cut(latents.c, rows), f"{site}.fake", rows)
                loss = self._adversarial_loss(real_logits, fake_logits, site, rows)
                measured = {"loss/d": loss.detach(), **self._describe(real_logits, fake_logits)}
                for regularizer in due:
                    value = regularizer.penalty(x, real_logits, player.loss_scale)
                    measured[f"penalty/{regularizer.name}"] = value.detach()
                    loss = loss + regularizer.scale(self.images_seen) * value
                player.backward(player.scaled(loss if share == 1 else loss * share))
            _add(totals, measured, share)
        norm, self.discriminator_moved = player.step(self.index)
        self.statistics |= {**totals, "grad_norm/d": norm}

    def generator_step(self, latents: Latents, fakes: Tensor | None, site: str) -> None:
        """Update G on D's opinion of its fakes, with D frozen: no gradient of D's weights is computed or reduced.

        Args:
            latents: from which fakes are made, pass by pass, where ``fakes`` is None.
            fakes: the whole step's fakes with their graph, if one pass holds them.
            site: names the step, for its random draws.

        """
        player, judge = self.game.generator, self.game.discriminator
        totals: Statistics = {}
        with frozen(judge.module):
            for rows, last, share in self._passes(len(latents.z)):
                with nullcontext() if last else player.no_sync():
                    fake = fakes if fakes is not None else self.generate(latents, rows, site, graph=True)
                    fake_logits = self._judge(judge.module, fake, _cut(latents.c, rows), f"{site}.judged", rows)
                    loss = self.game.loss.generator(fake_logits)
                    player.backward(player.scaled(loss if share == 1 else loss * share))
                _add(totals, {"loss/g": loss.detach()}, share)
        norm, self.generator_moved = player.step(self.index)
        self.statistics |= {**totals, "grad_norm/g": norm}

    def draw_latents(self, images: int, site: str, device: torch.device) -> Latents:
        """Draw z ~ N(0, I) and, in a conditional game, classes as often as they occur, for one step's fakes."""
        rows = slice(0, images)
        z = self.draws.rows(f"{site}.z", rows).normal(self.game.latent_dim).to(device, non_blocking=True)
        if self.game.class_cdf is None:
            return Latents(z, None)
        uniform = self.draws.rows(f"{site}.c", rows).uniform().to(device, non_blocking=True)
        return Latents(z, torch.searchsorted(self.game.class_cdf, uniform, right=True))

    def generate(self, latents: Latents, rows: slice, site: str, *, graph: bool) -> Tensor:
        """Return G's fakes for some rows of the latents; only with ``graph`` can they teach G."""
        player = self.game.generator
        if player.random_layers:
            seed_layers(player.random_layers, self.draws.rows(f"{site}.generator", rows))
        network = player.network if graph else player.module
        with torch.set_grad_enabled(graph):
            fakes: Tensor = network(latents.z[rows], _cut(latents.c, rows))
        return fakes

    def fits_one_pass(self, images: int) -> bool:
        """Tell whether a step of ``images`` images is made in a single pass."""
        return self.game.micro_images is None or images <= self.game.micro_images

    def _passes(self, images: int) -> Iterator[tuple[slice, bool, float]]:
        """Yield each pass's rows, whether it is the last of the step, and its share of the step's images."""
        size = self.game.micro_images or images
        for start in range(0, images, size):
            stop = min(start + size, images)
            yield slice(start, stop), stop == images, (stop - start) / images

    def _judge(
        self, network: nn.Module, x: Tensor, c: Tensor | None, site: str, rows: slice
    ) -> Float[Tensor, " batch"]:
        layers = self.game.discriminator.random_layers
        if layers:
            seed_layers(layers, self.draws.rows(site, rows))
        logits: Tensor = network(x, c)
        return logits.float()

    def _adversarial_loss(self, real_logits: Tensor, fake_logits: Tensor, site: str, rows: slice) -> Tensor:
        game, real_uniform, fake_uniform = self.game, None, None
        if game.targets.swap_probability > 0:
            uniform = self.draws.rows(f"{site}.swap", rows).uniform(2).to(real_logits.device)
            real_uniform, fake_uniform = uniform.unbind(dim=1)
        on_real = game.loss.discriminator(real_logits, game.targets.draw(True, real_uniform))
        on_fake = game.loss.discriminator(fake_logits, game.targets.draw(False, fake_uniform))
        return on_real + on_fake

    @torch.no_grad()
    def _describe(self, real_logits: Tensor, fake_logits: Tensor) -> Statistics:
        boundary = self.game.loss.boundary
        return {
            "logits/real": real_logits.mean(),
            "logits/fake": fake_logits.mean(),
            "accuracy/real": (real_logits > boundary).float().mean(),
            "accuracy/fake": (fake_logits < boundary).float().mean(),
        }


def detach(play: Round, reals: Sequence[Real]) -> None:
    """Play D steps on ``reals``, then a G step; one forward of G serves the last D step, detached, and the G step.

    Earlier D steps, if there are several, see fresh fakes made without a graph. Where a step takes several passes,
    G's graph is not kept from one network's step to the other's: the same fakes are made again, pass by pass.
    """
    for k, real in enumerate(reals):
        site, images = f"step{k}", len(real.x)
        latents, fakes = play.draw_latents(images, site, real.x.device), None
        if k == len(reals) - 1 and play.fits_one_pass(images):
            fakes = play.generate(latents, slice(0, images), site, graph=True)
        play.discriminator_step(real, latents, fakes, site, number=play.index * len(reals) + k)
    play.generator_step(latents, fakes, site)


STRATEGIES: dict[str, Callable[[Round, Sequence[Real]], None]] = {"detach": detach}
"""How a round shares the forward passes of G between the two networks' steps."""


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Switch off the gradients of the module's parameters, and on again for those that had them."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _cut(c: Tensor | None, rows: slice) -> Tensor | None:
    return None if c is None else c[rows]


def _add(totals: Statistics, measured: Statistics, share: float) -> None:
    for name, value in measured.items():
        part = value if share == 1 else value * share
        totals[name] = totals[name] + part if name in totals else part

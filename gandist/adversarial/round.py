"""One round of the game: D steps and G steps.

Symbols as in the papers: ``z`` latents, ``c`` classes, ``x`` images, G and D the networks. A *round* is one
exchange; a *step* is one network's update inside it; a *pass* is the part of a step's batch that is held in memory
at once. Nothing here knows of ranks, devices or files: a :class:`Player` says how its gradients travel, and
:class:`Draws` where random numbers come from. In which order the steps are played is the strategy's choice
(:mod:`gandist.adversarial.strategies`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gandist.adversarial.game import Draws, Game, Latents, Moves, Real, Statistics, cut
from gandist.adversarial.losses import auxiliary_loss
from gandist.adversarial.penalties.base import GeneratorPenalty, Made, Penalty, Scene, View
from gandist.adversarial.player import frozen
from gandist.adversarial.regularizers import Regularizer
from gandist.models.contract import Verdict
from gandist.models.layers import begin_step
from gandist.models.noise import JoinedNoise, Noise, seed_layers

Due = Sequence[Regularizer[Penalty]]
GeneratorDue = Sequence[Regularizer[GeneratorPenalty]]


@dataclass
class Round:
    """One round as it is played: the moment, and what it measured.

    Args:
        game: the players and the rules.
        draws: this round's random numbers.
        index: of the round in the run.
        images_seen: real images shown to D before this round.
        moves: who learns; the other network is used and stays as it is.
        statistics: filled by the steps.
        discriminator_moved: False if (the last) D step was skipped for an overflow.
        generator_moved: the same of G; False as well in a round in which it does not learn.

    """

    game: Game
    draws: Draws
    index: int
    images_seen: int
    moves: Moves = "both"
    statistics: Statistics = field(default_factory=dict)
    discriminator_moved: bool = True
    generator_moved: bool = True

    # --- the steps ---------------------------------------------------------------------------------------------

    def discriminator_step(self, real: Real, latents: Latents, fakes: Tensor | None, site: str, number: int) -> None:
        """Update D on real images and detached fakes; nothing of it reaches G.

        Args:
            real: this share's real images.
            latents: from which fakes are made, pass by pass, where ``fakes`` is None.
            fakes: the whole step's fakes, if they are there already.
            site: names the step among those of the round, for its random draws.
            number: of this D step in the run; says which penalties are due.

        """
        player, totals = self.game.discriminator, Statistics()
        if self.moves == "generator":
            self._watch(real, latents, fakes, site)
            return
        begin_step(player.module)
        due = self._due(number)
        for rows, last, share in self._passes(len(real.x)):
            fake = fakes[rows] if fakes is not None else self.generate(latents, rows, site, graph=False)
            with nullcontext() if last else player.no_sync():
                loss, measured, _ = self._discriminator_loss(real, fake.detach(), latents, site, rows, due)
                player.backward(player.scaled(loss if share == 1 else loss * share))
            _add(totals, measured, share)
        self._end_discriminator_step(totals)

    def generator_step(self, latents: Latents, fakes: Tensor | None, site: str, real: Real, number: int) -> Tensor:
        """Update G on D's opinion of its fakes, with D frozen: no gradient of D's weights is computed or reduced.

        Args:
            latents: from which fakes are made, pass by pass, where ``fakes`` is None.
            fakes: the whole step's fakes with their graph, if one pass holds them.
            site: names the step, for its random draws.
            real: real images, which a relativistic loss compares the fakes with.
            number: of this G step in the run; says which penalties are due.

        Returns:
            the fakes, without their graph.

        """
        player, judge, totals, made = self.game.generator, self.game.discriminator, Statistics(), list[Tensor]()
        due = self._generator_due(number)
        with frozen(judge.module):
            for rows, last, share in self._passes(len(latents.z)):
                with nullcontext() if last else player.no_sync():
                    fake = fakes if fakes is not None else self.generate(latents, rows, site, graph=True)
                    made.append(fake.detach())
                    view = View(self._gradient_normalized(fake), cut(latents.c, rows))
                    verdict = self._judge(judge.module, view, f"{site}.judged", rows)
                    loss, measured = self._generator_loss(verdict, self._real_logits(real, site, rows), view.c)
                    loss = self._pay(loss, measured, due, fake, latents, site, rows)
                    player.backward(player.scaled(loss if share == 1 else loss * share))
                _add(totals, measured, share)
        self._end_generator_step(totals, due, sum(fake.numel() for fake in made))
        return torch.cat(made) if len(made) > 1 else made[0]

    def simultaneous_step(self, real: Real, latents: Latents, site: str, number: int) -> None:
        """Update both networks from where they stand: one forward of G, and one of D on the fakes, serve both.

        Each backward pass is told whose gradients it is for, so that nothing of D's loss reaches G and nothing of G's
        reaches D. Both networks move when both gradients are known. Moving D between the two backward passes, as old
        tutorials do, would let the second one use weights that its graph was not made with; PyTorch refuses since 1.5.
        """
        d, g, totals = self.game.discriminator, self.game.generator, Statistics()
        begin_step(d.module)
        due, generator_due, elements = self._due(number), self._generator_due(self.index), 0
        for rows, last, share in self._passes(len(real.x)):
            with nullcontext() if last else d.no_sync(), nullcontext() if last else g.no_sync():
                fake = self.generate(latents, rows, site, graph=True)
                elements += fake.numel()
                seen = self._gradient_normalized(fake)
                d_loss, measured, verdicts = self._discriminator_loss(real, seen, latents, site, rows, due)
                d.backward(d.scaled(d_loss * share), inputs=d.learning, retain_graph=True)
                real_logits = verdicts["real"].logits.detach() if self.game.loss.needs_real else None
                g_loss, more = self._generator_loss(verdicts["fake"], real_logits, cut(latents.c, rows))
                g_loss = self._pay(g_loss, more, generator_due, fake, latents, site, rows)
                g.backward(g.scaled(g_loss * share), inputs=g.learning)
            _add(totals, {**measured, **more}, share)
        self._end_discriminator_step(totals)
        self._end_generator_step(totals, generator_due, elements)

    def _watch(self, real: Real, latents: Latents, fakes: Tensor | None, site: str) -> None:
        """Let D judge without learning, so that its accuracy is still known."""
        totals = Statistics()
        with torch.no_grad():
            for rows, _, share in self._passes(len(real.x)):
                fake = fakes[rows] if fakes is not None else self.generate(latents, rows, site, graph=False)
                _, measured, _ = self._discriminator_loss(real, fake.detach(), latents, site, rows, ())
                _add(totals, measured, share)
        self.statistics |= totals

    # --- what a pass costs -------------------------------------------------------------------------------------

    def _discriminator_loss(
        self, real: Real, fake: Tensor, latents: Latents, site: str, rows: slice, due: Due
    ) -> tuple[Tensor, Statistics, dict[str, Verdict]]:
        """Return D's loss in one pass, what was measured, and what D said of each view."""
        game, player = self.game, self.game.discriminator
        wanted = {name for regularizer in due for name in regularizer.penalty.gradients}
        if "fake" in wanted and not fake.requires_grad:
            fake = fake.requires_grad_()
        views = {
            "real": View(real.x[rows].requires_grad_("real" in wanted), cut(real.c, rows)),
            "fake": View(fake, cut(latents.c, rows)),
        }
        scene = Scene(
            views,
            player.module,
            noise=lambda name: self.draws.rows(f"{site}.{name}", rows),
            fakes_near=lambda noise, sigma: self._make_near(latents.rows(rows), rows, site, noise, sigma, graph=False),
            real_std=lambda: self._standard_deviation(real.x),
            loss_scale=player.loss_scale,
            rounding=player.rounding,
            images_seen=self.images_seen,
        )
        for regularizer in due:
            regularizer.penalty.prepare(scene)
        joined = game.concatenate or any(regularizer.penalty.joined for regularizer in due)
        verdicts = self._judge_views(scene.views, site, rows, joined=joined)
        scene.logits = {name: verdict.logits for name, verdict in verdicts.items()}
        loss = self._adversarial_loss(scene.logits["real"], scene.logits["fake"], site, rows)
        measured = {"loss/d": loss.detach(), **self._describe(scene.logits["real"], scene.logits["fake"])}
        for name in ("real", "fake"):
            classes, c = verdicts[name].classes, scene.views[name].c
            if classes is not None and c is not None:
                loss = loss + game.auxiliary_weight * auxiliary_loss(classes, c)
                measured[f"accuracy/class_{name}"] = (classes.detach().argmax(dim=1) == c).float().mean()
        for regularizer in due:
            value = regularizer.penalty.cost(scene)
            measured[f"penalty/{regularizer.name}"] = value.detach()
            loss = loss + regularizer.scale(self.images_seen) * value
        return loss, {**measured, **scene.measured}, verdicts

    def _generator_loss(
        self, verdict: Verdict, real_logits: Tensor | None, c: Tensor | None
    ) -> tuple[Tensor, Statistics]:
        """Return G's loss in one pass, and what was measured."""
        game = self.game
        loss = game.loss.generator(verdict.logits, real_logits, game.across)
        measured = {"loss/g": loss.detach()}
        if verdict.classes is not None and c is not None:
            loss = loss + game.auxiliary_weight * auxiliary_loss(verdict.classes, c)
        return loss, measured

    def _pay(
        self,
        loss: Tensor,
        measured: Statistics,
        due: GeneratorDue,
        fake: Tensor,
        latents: Latents,
        site: str,
        rows: slice,
    ) -> Tensor:
        """Return G's loss with the penalties that are due."""
        if not due:
            return loss
        player, some = self.game.generator, latents.rows(rows)
        made = Made(
            fake,
            player.module,
            near=lambda noise, sigma: self._make_near(some, rows, site, noise, sigma, graph=True),
            styled=lambda: self._make_styled(some, rows, site),
            noise=lambda name: self.draws.rows(f"{site}.{name}", rows),
            loss_scale=player.loss_scale,
        )
        for regularizer in due:
            value = regularizer.penalty.cost(made)
            measured[f"penalty/{regularizer.name}"] = value.detach()
            loss = loss + regularizer.scale(self.images_seen) * value
        measured |= made.measured
        return loss

    def _end_discriminator_step(self, totals: Statistics) -> None:
        game, player = self.game, self.game.discriminator
        norm, self.discriminator_moved = player.step(self.index)
        if game.clip_weights is not None:
            torch._foreach_clamp_min_(player.data, -game.clip_weights)
            torch._foreach_clamp_max_(player.data, game.clip_weights)
        watchers = [regularizer.penalty for regularizer in game.regularizers if regularizer.penalty.watches]
        if watchers or game.augment is not None:
            heard = torch.stack([totals[name] for name in ("logits/real", "logits/fake", "accuracy/real")])
            real_logit, fake_logit, accuracy = game.across(heard)
            for penalty in watchers:
                penalty.observe(real_logit, fake_logit, self.images_seen)
            if game.augment is not None:
                game.augment.observe(2 * accuracy - 1, self.draws.batch)  # the mean sign of D(x)
                totals |= game.augment.statistics()
        self.statistics |= {**totals, "grad_norm/d": norm}

    def _end_generator_step(self, totals: Statistics, due: GeneratorDue, elements: int) -> None:
        for regularizer in due:
            regularizer.penalty.end_step(totals, self.game.across)
        if self.game.gradient_norm is not None:
            self.game.gradient_norm.end_step(elements, self.game.across)
        norm, self.generator_moved = self.game.generator.step(self.index)
        self.statistics |= {**totals, "grad_norm/g": norm}

    # --- fakes -------------------------------------------------------------------------------------------------

    def draw_latents(self, real: Real, site: str) -> Latents:
        """Draw z ~ N(0, I) and, in a conditional game, classes, for as many fakes as there are real images.

        Classes are drawn as often as they occur. A relativistic loss compares images of the same class, so there the
        fakes have the classes of the real images.
        """
        images, device, cdf = len(real.x), real.x.device, self.game.class_cdf
        rows = slice(0, images)
        z = self.draws.rows(f"{site}.z", rows).normal(self.game.latent_dim).to(device, non_blocking=True)
        if cdf is None:
            return Latents(z, None)
        if self.game.loss.needs_real:
            return Latents(z, real.c)
        uniform = self.draws.rows(f"{site}.c", rows).uniform().to(device, non_blocking=True)
        return Latents(z, torch.searchsorted(cdf, uniform, right=True))

    def begin_generator(self) -> None:
        """Let G get ready for its next step; before the first forward pass whose fakes that step uses."""
        if self.moves != "discriminator":
            begin_step(self.game.generator.module)

    def generate(self, latents: Latents, rows: slice, site: str, *, graph: bool) -> Tensor:
        """Return G's fakes for some rows of the latents; only with ``graph`` can they teach G."""
        return self._make(latents.rows(rows), rows, site, graph=graph)

    def _make(self, some: Latents, rows: slice, site: str, *, graph: bool) -> Tensor:
        player = self.game.generator
        self._seed_generator(site, rows)
        network = player.network if graph else player.module
        with torch.set_grad_enabled(graph):
            fakes: Tensor = network(some.z, some.c)
        return fakes

    def _make_near(self, some: Latents, rows: slice, site: str, noise: Noise, sigma: float, *, graph: bool) -> Tensor:
        """Return fakes of latents nearby, with the same draws inside G."""
        shift = sigma * noise.normal(self.game.latent_dim).to(some.z.device, non_blocking=True)
        return self._make(Latents(some.z + shift, some.c), rows, site, graph=graph)

    def _make_styled(self, some: Latents, rows: slice, site: str) -> tuple[Tensor, Tensor]:
        """Return the same fakes once more, and their styles."""
        self._seed_generator(site, rows)
        images, w = self.game.generator.network(some.z, some.c, with_styles=True)
        return images, w

    def _seed_generator(self, site: str, rows: slice) -> None:
        player = self.game.generator
        if player.random_layers:
            seed_layers(player.random_layers, self.draws.rows(f"{site}.generator", rows))

    def fits_one_pass(self, images: int) -> bool:
        """Tell whether a step of ``images`` images is made in a single pass."""
        return self.game.micro_images is None or images <= self.game.micro_images

    # --- judging -----------------------------------------------------------------------------------------------

    def _judge(self, network: nn.Module, view: View, site: str, rows: slice) -> Verdict:
        """Return what D says of one view."""
        layers = self.game.discriminator.random_layers
        x = self._augmented(view.x, site, rows)
        if layers:
            seed_layers(layers, self.draws.rows(site, rows))
        return _verdict(network(x, view.c))

    def _judge_views(self, views: dict[str, View], site: str, rows: slice, *, joined: bool) -> dict[str, Verdict]:
        """Return what D says of all views, with a graph; ``joined`` in a single forward pass."""
        player = self.game.discriminator
        sites = {name: f"{site}.{view.like or name}" for name, view in views.items()}
        if not joined:
            return {name: self._judge(player.network, view, sites[name], rows) for name, view in views.items()}
        x = torch.cat([self._augmented(view.x, sites[name], rows) for name, view in views.items()])
        known = [view.c for view in views.values() if view.c is not None]
        if player.random_layers:
            parts = [self.draws.rows(sites[name], rows) for name in views]
            seed_layers(player.random_layers, JoinedNoise(parts))
        verdict, size = _verdict(player.network(x, torch.cat(known) if known else None)), rows.stop - rows.start
        logits = verdict.logits.split(size)
        classes = [None] * len(views) if verdict.classes is None else verdict.classes.split(size)
        return {name: Verdict(*said) for name, *said in zip(views, logits, classes, strict=True)}

    def _augmented(self, x: Tensor, site: str, rows: slice) -> Tensor:
        augment = self.game.augment
        return x if augment is None else augment(x, self.draws.rows(f"{site}.augment", rows), self.images_seen)

    def _real_logits(self, real: Real, site: str, rows: slice) -> Tensor | None:
        """Return D's logits for real images in a G step, where its loss depends on them."""
        if not self.game.loss.needs_real:
            return None
        with torch.no_grad():
            view = View(real.x[rows], cut(real.c, rows))
            return self._judge(self.game.discriminator.module, view, f"{site}.compared", rows).logits

    def _gradient_normalized(self, fake: Tensor) -> Tensor:
        normalization = self.game.gradient_norm
        return fake if normalization is None else normalization(fake, self.game.generator.loss_scale)

    def _adversarial_loss(self, real_logits: Tensor, fake_logits: Tensor, site: str, rows: slice) -> Tensor:
        game, real_uniform, fake_uniform = self.game, None, None
        if game.targets.swap_probability > 0:
            uniform = self.draws.rows(f"{site}.swap", rows).uniform(2).to(real_logits.device, non_blocking=True)
            real_uniform, fake_uniform = uniform.unbind(dim=1)
        targets = game.targets.draw(True, real_uniform), game.targets.draw(False, fake_uniform)
        return game.loss.discriminator(real_logits, fake_logits, *targets, game.across)

    @torch.no_grad()
    def _describe(self, real_logits: Float[Tensor, " batch"], fake_logits: Float[Tensor, " batch"]) -> Statistics:
        game = self.game
        real, fake = game.loss.measured(real_logits, fake_logits, game.across)
        return {
            "logits/real": real_logits.mean(),
            "logits/fake": fake_logits.mean(),
            "accuracy/real": (real > game.loss.boundary).float().mean(),
            "accuracy/fake": (fake < game.loss.boundary).float().mean(),
        }

    @torch.no_grad()
    def _standard_deviation(self, x: Tensor) -> Tensor:
        """Return the standard deviation of all elements of a step's images, over all ranks."""
        mean, square = self.game.across(torch.stack([x.mean(), x.square().mean()]))
        deviation: Tensor = (square - mean.square()).clamp_min(0).sqrt()
        return deviation

    # --- who pays, and pass by pass ----------------------------------------------------------------------------

    def _due(self, number: int) -> Due:
        return [regularizer for regularizer in self.game.regularizers if regularizer.due(number, self.images_seen)]

    def _generator_due(self, number: int) -> GeneratorDue:
        return [r for r in self.game.generator_regularizers if r.due(number, self.images_seen)]

    def _passes(self, images: int) -> Iterator[tuple[slice, bool, float]]:
        """Yield each pass's rows, whether it is the last of the step, and its share of the step's images."""
        size = self.game.micro_images or images
        for start in range(0, images, size):
            stop = min(start + size, images)
            yield slice(start, stop), stop == images, (stop - start) / images


def _verdict(said: Tensor | Verdict) -> Verdict:
    """Return D's answer in fp32, whether or not it has an auxiliary classifier."""
    if isinstance(said, Verdict):
        return said._replace(logits=said.logits.float())
    return Verdict(said.float(), None)


def _add(totals: Statistics, measured: Statistics, share: float) -> None:
    for name, value in measured.items():
        part = value if share == 1 else value * share
        totals[name] = totals[name] + part if name in totals else part

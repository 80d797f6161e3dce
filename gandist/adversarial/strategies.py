"""In which order the two networks move in a round, and which forward passes their steps share.

==================  ==========  =========  ================  =================================================
strategy            forwards    backwards  gradients of      remarks
                    of G, D     of G, D    dropped weights
==================  ==========  =========  ================  =================================================
``detach``          1, 3        1, 3       none              D moves, then G looks at the new D (the default)
``retain_graph``    1, 2        1, 3       none              both move from where they stand
``generator_first`` 1, 3        1, 3       none              G's graph is gone before D's is made: least memory
==================  ==========  =========  ================  =================================================

for one D step and one G step in a single pass. With ``share_latents`` off, each network's step draws latents of its own
and G runs twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from gandist.adversarial.game import Latents, Real
from gandist.adversarial.round import Round

Strategy = Callable[[Round, Sequence[Real]], None]


def detach(play: Round, reals: Sequence[Real]) -> None:
    """Play D steps on ``reals``, then G steps; one forward of G serves the last D step, detached, and the G step.

    Earlier D steps, if there are several, see fresh fakes made without a graph. Where a step takes several passes,
    G's graph is not kept from one network's step to the other's: the same fakes are made again, pass by pass.
    """
    play.begin_generator()
    for k, real in enumerate(reals):
        site, fakes = f"step{k}", None
        latents = play.draw_latents(real, site)
        shared = k == len(reals) - 1 and play.game.share_latents and play.moves != "discriminator"
        if shared and play.fits_one_pass(len(real.x)):
            fakes = play.generate(latents, slice(0, len(real.x)), site, graph=True)
        play.discriminator_step(real, latents, fakes, site, number=play.index * len(reals) + k)
    _generator_steps(play, real, site, latents, fakes)


def retain_graph(play: Round, reals: Sequence[Real]) -> None:
    """Play all but the last D step, then move both networks at once: simultaneous gradient descent.

    The fakes are made once and judged once. In a round in which only one network learns there is nothing to share, so
    it is played as ``detach`` does.
    """
    if play.moves != "both":
        detach(play, reals)
        return
    play.begin_generator()
    first = play.index * len(reals)
    for k, real in enumerate(reals[:-1]):
        latents = play.draw_latents(real, f"step{k}")
        play.discriminator_step(real, latents, None, f"step{k}", number=first + k)
    k, real = len(reals) - 1, reals[-1]
    play.simultaneous_step(real, play.draw_latents(real, f"step{k}"), f"step{k}", number=first + k)


def generator_first(play: Round, reals: Sequence[Real]) -> None:
    """Play G steps, then D steps; the fakes of the (last) G step, detached, serve the first D step.

    G's graph, and D's on the fakes, are gone before D's own step begins, so this holds the least memory.
    """
    play.begin_generator()
    real, site = reals[0], "step0"
    latents, fakes, site = _generator_steps(play, real, site, play.draw_latents(real, site), None, shared=True)
    for k, real in enumerate(reals):
        if k > 0 or not play.game.share_latents:
            site, fakes = f"step{k}.d", None
            latents = play.draw_latents(real, site)
        play.discriminator_step(real, latents, fakes, site, number=play.index * len(reals) + k)


def _generator_steps(
    play: Round, real: Real, site: str, latents: Latents, fakes: Tensor | None, *, shared: bool = False
) -> tuple[Latents, Tensor | None, str]:
    """Play the G steps of a round; return the latents, fakes (without graph) and site of the last."""
    if play.moves == "discriminator":
        play.generator_moved = False
        return latents, fakes, site
    for k in range(play.game.g_steps):
        if k > 0 or not (shared or play.game.share_latents):
            if k > 0:
                play.begin_generator()
            site, fakes = f"g{k}", None
            latents = play.draw_latents(real, site)
        made = play.generator_step(latents, fakes, site, real, number=play.index * play.game.g_steps + k)
    return latents, made, site


STRATEGIES: dict[str, Strategy] = {
    "detach": detach,
    "retain_graph": retain_graph,
    "generator_first": generator_first,
}
"""How a round shares the forward passes of G between the two networks' steps."""

"""The verb ``gandist fit``: build the generator of a recipe, sweep learning rates, say which is the best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gandist.adversarial.player import Player
from gandist.assembly import build_networks, open_accelerator, seat_players
from gandist.config import Config, dump, merge, parse
from gandist.errors import ConfigError
from gandist.evaluation.rows import save_rows
from gandist.evaluation.sample import to_uint8
from gandist.feed import Feed
from gandist.fitting.chart import draw_chart
from gandist.fitting.sweep import Curve, Task, best, sweep
from gandist.latents.pictures import Show
from gandist.models.contract import follow
from gandist.models.noise import RowNoise
from gandist.runtime import machine, rng
from gandist.runtime.distributed import Ranks
from gandist.runtime.files import write_json

RATES = tuple(1e-4 * 2**doubling for doubling in range(11))
"""0.0001 to 0.1, each twice the one before: the best rate is within a factor of two of one of them."""
IMAGES = 64
STEPS = 300
SHOWN = 8
ALIKE = 1.1
"""Losses at the end that differ by no more than this factor do not tell rates apart."""

PROMISE = """\
What this shows: that the generator and its optimizer can learn these images at all, and how fast at which rate.
What it does not show: which rate is best against a discriminator, whose gradients are noisier and whose aim moves.
That is usually a lower one. It says nothing of the discriminator, nor of images outside this batch."""


def fit(
    config: Config,
    *,
    images: int = IMAGES,
    steps: int = STEPS,
    rates: Sequence[float] = RATES,
    say: Callable[[str], None] = print,
    allow_pipe: bool = False,
) -> Path:
    """Let the recipe's generator learn a fixed batch by heart at several rates; return the folder of what was found.

    Raises:
        ConfigError: several processes were launched, or the numbers asked for make no sense.

    """
    _check(images, steps, rates)
    player, task, show = prepare(config, images, allow_pipe=allow_pipe)
    variance = task.variance
    say(
        f"fitting {images} images with {sum(p.numel() for p in player.parameters):,} parameters, {steps} steps of Adam "
        f"at each of {len(rates)} rates, on {task.x.device.type}"
    )
    say(f"{'rate':>9}  {'loss at end':>11}  {'of variance':>11}  {'lowest':>9}  state")
    curves = []
    for curve in sweep(player, task, sorted(rates), steps, SHOWN):
        curves.append(curve)
        say(row(curve, variance))
    folder = config.run.root / "fits" / config.name
    folder.mkdir(parents=True, exist_ok=True)
    found = best(curves)
    write_json(folder / "fit.json", _record(config, curves, found, variance))
    title = f"{config.name}: G alone, {images} images, {steps} steps"
    draw_chart(curves, found, variance, title, folder / "curves.png")
    rows = [("images", task.x[:SHOWN]), *((f"{curve.lr:.3g}", curve.pictures) for curve in curves)]
    pictures = task.x.shape[-1] > 1  # points of the plane are none
    if pictures:
        shown = [(label, to_uint8(show(made.to(task.x.device).nan_to_num())).cpu()) for label, made in rows]
        save_rows(shown, folder / "pictures.png")
    say("")
    say(verdict(curves, found, variance))
    say(f"\n{PROMISE}\n")
    say(f"{folder}: curves.png, {'pictures.png, ' if pictures else ''}fit.json")
    return folder


def prepare(config: Config, images: int, *, allow_pipe: bool = False) -> tuple[Player, Task, Show]:
    """Return the generator of a recipe, what it is to learn, and what makes pictures of that.

    Raises:
        ConfigError: several processes were launched, or the data holds fewer images.

    """
    alone = {"update": {"batch_images": images}, "data": {"hflip": False}, "execution": {"workers": 0}}
    config = parse(merge(dump(config), alone), "fit")
    kind = machine.choose_device(config.execution)
    precision = machine.choose_precision(config.execution, kind)
    if config.execution.deterministic:
        machine.require_determinism()
    accelerator = open_accelerator(kind, precision)
    if accelerator.num_processes > 1:
        raise ConfigError("fit runs in one process: call it with `gandist fit CONFIG`.")
    machine.set_threads(config.execution.threads, kind, 1)
    device, seed = accelerator.device, config.run.seed
    feed = Feed(config, Ranks.join(0, 1), device, allow_pipe=allow_pipe)
    if feed.images.samples is not None and feed.images.samples < images:
        raise ConfigError(f"--images {images}: data.shards {config.data.shards} holds {feed.images.samples}.")
    real = feed.to_device(next(feed.begin(0)))
    networks = build_networks(config, len(feed.images.class_names), images)
    follow(networks.generator, int(config.run.total_kimg * 1000))  # one that grows is looked at in its last shape
    game, _ = seat_players(config, networks, accelerator, precision, feed.images.class_counts)
    z = RowNoise(rng.generator(seed, "fit", "z"), images, 0, images).normal(config.model.latent_dim)
    noise = partial(rng.generator, seed, "fit", "layers")
    task = Task(z.to(device), real.c, real.x, noise, config.execution.micro_images)
    return game.generator, task, feed.show


def _check(images: int, steps: int, rates: Sequence[float]) -> None:
    if images < 2:
        raise ConfigError(f"--images {images}: at least 2.")
    if steps < 10:
        raise ConfigError(f"--steps {steps}: at least 10, or there is no end to compare.")
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise ConfigError(f"--lrs {' '.join(map(str, rates))}: learning rates above 0, such as 1e-4 1e-3 1e-2.")


def row(curve: Curve, variance: float) -> str:
    """Return a curve as a line of the table."""
    end = f"{curve.end:11.4g}  {curve.end / variance:11.1%}" if math.isfinite(curve.end) else f"{'-':>11}  {'-':>11}"
    lowest = f"{curve.lowest:9.4g}" if math.isfinite(curve.lowest) else f"{'-':>9}"
    return f"{curve.lr:9.3g}  {end}  {lowest}  {curve.state}"


def verdict(curves: Sequence[Curve], found: Curve | None, variance: float) -> str:
    """Return what the sweep found, as a person would say it."""
    if found is None:
        return "At every rate the loss diverged. Try lower ones with --lrs, and look at the pictures of the data."
    said = [
        f"Best: --optimizer.generator.lr {found.lr:.3g}, which leaves {found.end / variance:.1%} of the images' "
        "variance."
    ]
    rates = [curve.lr for curve in curves]
    near = [curve.lr for curve in curves if curve.end <= ALIKE * found.end]
    if len(near) > 1:
        said.append(f"From {min(near):.3g} to {max(near):.3g} it makes little difference.")
    if len(rates) > 1 and found.lr in (rates[0], rates[-1]):
        beyond = found.lr / 2 if found.lr == rates[0] else found.lr * 2
        said.append(f"It is at the edge of the sweep: look beyond it, with --lrs {beyond:.3g} ...")
    if found.end > 0.5 * variance:
        said.append("More than half is left: give it more --steps, or a generator with more channels.")
    broken = [curve.lr for curve in curves if curve.state == "diverged"]
    if broken:
        said.append(f"From {min(broken):.3g} on the loss diverged." if _all_above(curves) else _list(broken))
    return " ".join(said)


def _all_above(curves: Sequence[Curve]) -> bool:
    """Tell whether all rates from the lowest that diverged upwards did."""
    states = [curve.state == "diverged" for curve in curves]
    return states == sorted(states)


def _list(rates: Sequence[float]) -> str:
    return f"At {', '.join(f'{rate:.3g}' for rate in rates)} the loss diverged."


def _record(config: Config, curves: Sequence[Curve], found: Curve | None, variance: float) -> dict[str, object]:
    """Return what was found as JSON: losses that are not finite become null."""
    return {
        "best_lr": None if found is None else found.lr,
        "variance": variance,
        "curves": [
            {
                "lr": curve.lr,
                "state": curve.state,
                "end": _number(curve.end),
                "lowest": _number(curve.lowest),
                "losses": [_number(loss) for loss in curve.losses],
            }
            for curve in curves
        ],
        "config": json.loads(config.model_dump_json()),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

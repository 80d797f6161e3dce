"""The averages of a run's generator: kept while it trains, and made into any other width afterwards.

``gandist ema RUN --std 0.03 0.1`` adds up snapshots with the weights of :func:`gandist.adversarial.posthoc.rebuild`
(Karras et al. 2024, EDM2) and draws the same latents with every width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gandist.adversarial.ema import Averages
from gandist.adversarial.posthoc import Profile, Rebuilt, rebuild
from gandist.config import WIDEST_STD
from gandist.errors import CheckpointError, ConfigError
from gandist.evaluation.rows import save_rows
from gandist.evaluation.sample import GeneratorCard, draw, fixed_latents, load_generator
from gandist.latents.pictures import show_by
from gandist.models.layers import renew_spectral_norms
from gandist.runtime.checkpoint import read_weights, write_weights
from gandist.runtime.snapshots import Snapshot, SnapshotStore, file_name

COARSE = 0.05
"""A residual from which on the user is told that the average is a rough one."""
TOO_FAR = 0.2
"""A residual from which on what would be made is another average than the one asked for."""


def keep(store: SnapshotStore, averages: Averages, card: GeneratorCard, say: Callable[[str], None]) -> None:
    """Write a snapshot of the power function averages; a failure is said, since it is not worth a run."""
    if not averages.powers:
        return
    weights = {power.std: power.network.state_dict() for power in averages.powers}
    try:
        store.write(card.images_seen, weights, card.header())
    except OSError as error:
        say(f"NOT KEPT: {error.filename or store.folder}: {error.strerror or error}. The run goes on.")


@dataclass(frozen=True)
class Made:
    """One average that was made: its file, its width, and how far its profile is from the one wanted."""

    path: Path
    std: float
    residual: float


def ema(run: Path, std: tuple[float, ...], at: float | None = None, out: Path | None = None, columns: int = 8) -> str:
    """Make averages of G of any width from those that a run kept, and draw the same latents with each.

    A run keeps snapshots of its averages when --ema.power_stds names some widths, such as 0.05 0.1. A width is the
    standard deviation of the moments that count, as a share of the run so far (sigma_rel of Karras et al. 2024).

    Args:
        run: its folder.
        std: widths, such as 0.03 0.05 0.1 0.2.
        at: the moment in kimg; the newest snapshot when left out, else the last one up to it.
        out: folder for the files; RUN/ema when left out.
        columns: images for each width in the picture.

    Raises:
        ConfigError: there are no snapshots, or none that these widths could be made from.
        CheckpointError: a snapshot is damaged.

    """
    if not std or columns < 1:
        raise ConfigError("ema: name one width or more, and one column or more: --std 0.03 0.1 --columns 8")
    for width in std:
        if not 0 < width <= WIDEST_STD:
            raise ConfigError(f"--std {width:g}: a relative width is above 0 and at most {WIDEST_STD:g}.")
    snapshots = _snapshots(run, at)
    moment = snapshots[-1].images_seen
    recipes = {width: _recipe(snapshots, Profile(moment, width)) for width in std}
    tensors, card = _add_up(snapshots, {width: recipe.weights for width, recipe in recipes.items()})
    out = run / "ema" if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for width, recipe in recipes.items():
        path = out / file_name(moment, width)
        write_weights(path, tensors[width], card.header())
        made.append(Made(path, width, recipe.residual))
    picture = out / f"{moment:09d}.png"
    if card.image.resolution > 1:  # points of the plane are no pictures
        _compare(made, columns, picture)
    return _report(snapshots, made, picture if picture.is_file() else None)


def _snapshots(run: Path, at_kimg: float | None) -> list[Snapshot]:
    """Return the snapshots up to the moment asked for; the last ones are of that moment."""
    if not run.is_dir():
        raise ConfigError(f"{run}: no such run folder.")
    store = SnapshotStore(run)
    found = store.found()
    if not found:
        raise ConfigError(
            f"{run}: no snapshots of averages in {store.folder}. A run keeps them when it is started with "
            "--ema.power_stds 0.05 0.1, every --ema.snapshot_kimg images."
        )
    first, last = found[0].images_seen / 1000, found[-1].images_seen / 1000
    if at_kimg is None:
        return found
    reached = [snapshot for snapshot in found if snapshot.images_seen <= at_kimg * 1000]
    if not reached or at_kimg > last:
        raise ConfigError(f"--at {at_kimg:g}: the snapshots of {run} are from {first:g} to {last:g} kimg.")
    return reached


def _recipe(snapshots: Sequence[Snapshot], wanted: Profile) -> Rebuilt:
    kept = [Profile(snapshot.images_seen, snapshot.std) for snapshot in snapshots]
    recipe = rebuild(kept, wanted)
    if recipe.residual > TOO_FAR:
        raise ConfigError(
            f"--std {wanted.std:g}: {_from(snapshots)} come no nearer to it than {recipe.residual:.0%}. "
            f"{_what_is_near(kept, wanted)} Narrower ones need snapshots more often (--ema.snapshot_kimg), or an "
            "average as narrow among --ema.power_stds."
        )
    return recipe


def _what_is_near(kept: Sequence[Profile], wanted: Profile) -> str:
    """Return the range of widths that can be made, as a sentence."""
    tried = [0.001 * (WIDEST_STD / 0.001) ** (step / 40) for step in range(41)]
    near = [std for std in tried if rebuild(kept, Profile(wanted.images_seen, std)).residual <= COARSE]
    return f"Widths from about {min(near):.2g} to {max(near):.2g} can be made." if near else "No width can be made."


@torch.no_grad()
def _add_up(
    snapshots: Sequence[Snapshot], weights: dict[float, Tensor]
) -> tuple[dict[float, dict[str, Tensor]], GeneratorCard]:
    """Return the weighted sums of the snapshots' tensors, added in float64, and the card of the last one.

    One snapshot is in memory at a time. Integers are taken from the last.
    """
    sums: dict[float, dict[str, Tensor]] = {std: {} for std in weights}
    for number, snapshot in enumerate(snapshots):
        tensors, header = read_weights(snapshot.path)
        for std, shares in weights.items():
            total = sums[std]
            if number and {k: t.shape for k, t in total.items()} != {k: t.shape for k, t in tensors.items()}:
                raise CheckpointError(f"{snapshot.path}: not of the same network as {snapshots[0].path}.")
            for name, tensor in tensors.items():
                if tensor.is_floating_point():
                    part = tensor.double() * shares[number]
                    total[name] = total[name].add_(part) if number else part
                else:
                    total[name] = tensor
    like = tensors
    made = {std: {name: t.to(like[name].dtype) for name, t in total.items()} for std, total in sums.items()}
    for tensors in made.values():
        renew_spectral_norms(tensors)
        for name, tensor in tensors.items():
            if name.endswith("running_var"):
                tensor.clamp_(min=0)  # a variance stays one, though some weights are below zero
    return made, GeneratorCard.read(header, snapshots[-1].path)


def _compare(made: Sequence[Made], columns: int, path: Path) -> None:
    """Draw the same latents with every width, one row for each; with classes, each column is another one."""
    rows = []
    for average in made:
        generator, card = load_generator(average.path)
        z, c = fixed_latents(card.model.latent_dim, 0, 1, columns, seed=0)
        c = torch.arange(columns) % len(card.class_names) if card.model.conditional else c
        rows.append((f"{average.std:g}", draw(generator, z, c, show=show_by(card.latents, None, z.device))))
    save_rows(rows, path)


def _report(snapshots: Sequence[Snapshot], made: Sequence[Made], picture: Path | None) -> str:
    lines = [f"From {_from(snapshots)}:"]
    for average in made:
        rough = "; a rough one, that more snapshots would bring nearer" if average.residual > COARSE else ""
        lines.append(f"{average.path}: width {average.std:g}, {average.residual:.2g} from its profile{rough}")
    if picture is not None:
        lines.append(f"{picture}: the same latents with every width")
    return "\n".join(lines)


def _from(snapshots: Sequence[Snapshot]) -> str:
    moments = len({snapshot.images_seen for snapshot in snapshots})
    stds = " ".join(f"{std:g}" for std in sorted({snapshot.std for snapshot in snapshots}))
    last = snapshots[-1].images_seen / 1000
    return f"{len(snapshots)} snapshots (widths {stds} at {moments} moments up to {last:g} kimg)"

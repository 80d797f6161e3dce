"""A run's distance to the real images over the images it has seen, as numbers and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rounds.report import Table

from curves.measure import Judge
from curves.runs import Entry, Played, images_seen
from gandist.config import parse, read_recipe
from gandist.data.images import open_images
from gandist.models.build import build
from gandist.models.contract import ImageShape


@dataclass(frozen=True)
class Point:
    """A checkpoint: the images seen until then, and the distance of its average to the real images."""

    images_seen: int
    distance: float


@dataclass(frozen=True)
class Curve:
    """What is known of a run that ended.

    Attributes:
        name: of the entry.
        title: what tables call it.
        points: its checkpoints, from the first on.
        seconds: that it took, from the start of the process to its end.
        processor_seconds: of all its threads.
        parameters: of G and of D.
        flags: what was changed in the recipe.

    """

    name: str
    title: str
    points: tuple[Point, ...]
    seconds: float
    processor_seconds: float
    parameters: tuple[int, int]
    flags: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)


def curve_of(entry: Entry, played: Played, judge: Judge) -> Curve:
    """Return the curve of a run; every checkpoint is measured."""
    points = tuple(
        Point(images_seen(folder), judge.distance(folder / "ema.safetensors")) for folder in played.checkpoints()
    )
    return Curve(
        entry.name, entry.title, points, played.seconds, played.processor_seconds, _parameters(played.folder),
        entry.flags,
    )  # fmt: skip


def _parameters(run: Path) -> tuple[int, int]:
    """Return how many parameters the networks of a run have."""
    config = parse(read_recipe(run / "config.yaml"), str(run))
    classes = len(open_images(config.data, config.run.seed).class_names)
    networks = build(config.model, ImageShape(config.data.resolution, config.data.channels), classes, seed=0)
    sizes = [sum(p.numel() for p in n.parameters()) for n in (networks.generator, networks.discriminator)]
    return sizes[0], sizes[1]


def by_share(curves: Sequence[Curve], title: str, note: str) -> Table:
    """Return the table of distances: a row for each run, a column for each of its parts."""
    most = max(len(curve.points) for curve in curves)
    columns = ["run", *(f"{share}/{most}" for share in range(1, most + 1))]
    rows = [
        [curve.title, *(number(p.distance) for p in curve.points), *[""] * (most - len(curve.points))]
        for curve in curves
    ]
    return Table(title, note, columns, rows)


def by_images(curves: Sequence[Curve], title: str, note: str) -> Table:
    """Return the table of distances: a row for each run, a column for each checkpoint of the longest run."""
    longest = max(curves, key=lambda curve: curve.points[-1].images_seen).points
    rows = [[curve.title, *(_near(curve, point.images_seen) for point in longest)] for curve in curves]
    return Table(title, note, ["run", *(f"{p.images_seen / 1000:.0f}k" for p in longest)], rows)


def _near(curve: Curve, images: int) -> str:
    """Return the distance at a checkpoint of about so many images; nothing where there is none."""
    return next((number(p.distance) for p in curve.points if abs(p.images_seen / images - 1) < 0.03), "")


def number(value: float) -> str:
    """Return a distance with three significant digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def millions(count: int) -> str:
    """Return a count in millions."""
    return f"{count / 1e6:.2f} M"

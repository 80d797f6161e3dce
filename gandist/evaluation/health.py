"""What is wrong with a run, read from its numbers: findings with their evidence, and which knob to turn.

A finding is a function of the columns that were measured so far. Those here see, in this order: losses that grow
towards infinity, gradients that explode, a D that knows everything, a D that knows nothing, a G that repeats itself, a
G that leaves out part of the data, and a penalty that is lost in rounding. They change nothing; a person decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

History = Mapping[str, Sequence[float]]
"""The values of each column so far, oldest first."""

KEPT_ROWS = 32  # of each column; against their median a gradient counts as large
_FEW_ROWS = 8  # before which there is no median worth the name

# What counts as one. Each is far from what a run that learns shows, since a false alarm costs more than a late one.
_SATURATED_ACCURACY = 0.99
_SATURATED_GAP = 8.0  # between the mean logits: D is sure to one in fifty, where the loss is logistic
_CHANCE = 0.52  # accuracy
_EXPLODED = 20.0  # times the median
_LARGE_LOGIT = 50.0
_GROWTH = 1.25  # within the window
_REPEATED = 0.2  # of the real images' distance
_MISSED = 0.08  # of the real images; those of a good run on a ring of Gaussians are under 0.02
_STRAY = 0.5  # of the fakes; with more of them astray, G is not collapsed but has not learned yet


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: its name, the figures that show it, and what to try."""

    name: str
    evidence: str
    suggestion: str

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence}. Try {self.suggestion}."


@dataclass(frozen=True)
class Window:
    """The last rows of the columns, as many as must agree.

    Args:
        history: the columns.
        rows: how many values must agree.
        boundary: whether a single logit of D can be right or wrong; not so where D is a critic.

    """

    history: History
    rows: int
    boundary: bool = True

    def last(self, name: str) -> Sequence[float]:
        """Return the last values of a column, or nothing while there are too few of them or they are not finite."""
        values = self.history.get(name, ())[-self.rows :]
        return values if len(values) == self.rows and all(map(math.isfinite, values)) else ()

    def accuracy(self) -> list[float]:
        """Return D's accuracy over both kinds of images, where it has one."""
        if not self.boundary:
            return []
        both = zip(self.last("accuracy/real"), self.last("accuracy/fake"), strict=False)
        return [(real + fake) / 2 for real, fake in both]


def logits_drift(window: Window) -> Iterator[Finding]:
    """Find logits that are large and still grow, all in one direction: the loss ends in infinity, bf16 before that."""
    for kind in ("real", "fake"):
        size = [abs(value) for value in window.last(f"logits/{kind}")]
        if size and size[-1] > _LARGE_LOGIT and size[-1] > _GROWTH * size[0] and sorted(size) == size:
            yield Finding(
                "logits drift",
                f"D's mean logit for {kind} images went from {size[0]:.3g} to {size[-1]:.3g} in {len(size)} rows, and "
                "numbers that grow so end as infinity",
                "--regularizer.centring.weight 0.01, a larger --regularizer.r1.gamma, or a lower "
                "--optimizer.discriminator.lr",
            )
            return


def gradients_explode(window: Window) -> Iterator[Finding]:
    """Find a gradient norm far above its own median."""
    for letter, role in (("d", "discriminator"), ("g", "generator")):
        values = [value for value in window.history.get(f"grad_norm/{letter}", ()) if math.isfinite(value)]
        if len(values) <= _FEW_ROWS:
            continue
        usual = median(values[:-1])
        if values[-1] > _EXPLODED * usual > 0:
            yield Finding(
                f"gradients of the {role} explode",
                f"their norm is {values[-1]:.3g}, {values[-1] / usual:.0f} times its median of {usual:.3g}",
                f"--optimizer.{role}.clip_norm {_round(3 * usual)}, or a lower --optimizer.{role}.lr",
            )


def discriminator_saturated(window: Window) -> Iterator[Finding]:
    """Find a D that is sure of every image, so that a saturating loss sends G no gradient."""
    accuracy = window.accuracy()
    real, fake = window.last("logits/real"), window.last("logits/fake")
    gaps = [a - b for a, b in zip(real, fake, strict=False)]
    if accuracy and gaps and min(accuracy) > _SATURATED_ACCURACY and min(gaps) > _SATURATED_GAP:
        yield Finding(
            "D is saturated",
            f"it is right in {mean(accuracy):.1%} of its judgements and its mean logits are {gaps[-1]:.3g} apart: G "
            "hardly learns from it",
            "a larger --regularizer.r1.gamma, a lower --optimizer.discriminator.lr, or --balance.kind accuracy",
        )


def discriminator_at_chance(window: Window) -> Iterator[Finding]:
    """Find a D that tells nothing apart: either it learns nothing, or the fakes are perfect."""
    accuracy = window.accuracy()
    if accuracy and max(accuracy) < _CHANCE:
        yield Finding(
            "D is at chance",
            f"it is right in {mean(accuracy):.1%} of its judgements: unless the samples are as good as the data, it "
            "learns nothing, and G nothing from it",
            "--update.d_steps 2, a higher --optimizer.discriminator.lr, a smaller --regularizer.r1.gamma, or "
            "--balance.kind accuracy",
        )


def generator_repeats_itself(window: Window) -> Iterator[Finding]:
    """Find fakes that differ far less from each other than real images do, and do not become more different."""
    for name, what in (("pair", "the most similar other sample is"), ("variety", "a sample is from the mean sample")):
        fake, real = window.last(f"health/{name}_fake"), window.last(f"health/{name}_real")
        shares = [a / b for a, b in zip(fake, real, strict=False) if b > 0]
        if len(shares) == window.rows and max(shares) < _REPEATED and shares[-1] < _GROWTH * shares[0]:
            yield Finding(
                "G repeats itself (mode collapse)",
                f"{what} {fake[-1]:.3g} away on average, among real images {real[-1]:.3g}",
                _AGAINST_COLLAPSE,
            )
            return


def generator_leaves_out(window: Window) -> Iterator[Finding]:
    """Find real images that no fake comes near, while most fakes are near some real image."""
    missed, stray = window.last("health/missed"), window.last("health/stray")
    if missed and stray and min(missed) > _MISSED and max(stray) < _STRAY and missed[-1] * _GROWTH > missed[0]:
        yield Finding(
            "G leaves out part of the data (mode collapse)",
            f"{mean(missed):.0%} of the real images lie far from every sample, although {1 - mean(stray):.0%} of the "
            "samples lie near a real image",
            _AGAINST_COLLAPSE,
        )


def penalty_is_noise(window: Window) -> Iterator[Finding]:
    """Find a penalty by finite differences that is no larger than what rounding alone would give."""
    for name in sorted(window.history):
        if not (name.startswith("penalty/") and name.endswith("_floor")):
            continue
        penalty = name.removesuffix("_floor")
        floor, value = window.last(name), window.last(penalty)
        if floor and value and mean(floor) > mean(value):
            short = penalty.removeprefix("penalty/")
            yield Finding(
                f"the penalty {short} is lost in rounding",
                f"it is {mean(value):.3g}, and rounding alone would give {mean(floor):.3g}",
                f"a larger --regularizer.{short}.sigma, --regularizer.{short}.method exact, or "
                "--execution.precision fp32",
            )


_AGAINST_COLLAPSE = (
    "a larger --regularizer.r1.gamma, a larger --update.batch_images, --loss.relativistic pairs, or a "
    "lower --optimizer.generator.lr"
)

Look = Callable[[Window], Iterator[Finding]]

LOOKS: tuple[Look, ...] = (
    logits_drift,
    gradients_explode,
    discriminator_saturated,
    discriminator_at_chance,
    generator_repeats_itself,
    generator_leaves_out,
    penalty_is_noise,
)
"""What is looked for; a new finding is a new function here."""


def findings(window: Window) -> list[Finding]:
    """Return all that is wrong, as the columns show it."""
    return [finding for look in LOOKS for finding in look(window)]


def _round(value: float) -> str:
    return f"{value:.1g}"


class HealthMonitor:
    """Tells each finding once, and once more when it has not been seen for a while.

    Args:
        rows: values of a column that must agree.
        boundary: whether a single logit of D can be right or wrong.

    """

    def __init__(self, rows: int, *, boundary: bool = True) -> None:
        self.rows, self.boundary = rows, boundary
        self._history: dict[str, list[float]] = {}
        self._standing: dict[str, int] = {}  # a finding's name, and for how many looks it was not seen

    def look(self, measured: Mapping[str, float]) -> list[str]:
        """Hear the columns of a row and return what is new, in words for a person."""
        for name, value in measured.items():
            if name.startswith(_WATCHED):
                self._history[name] = [*self._history.get(name, []), value][-KEPT_ROWS:]
        seen = {finding.name: finding for finding in findings(Window(self._history, self.rows, self.boundary))}
        news = [f"Health: {finding}" for name, finding in seen.items() if name not in self._standing]
        unseen = {name: 0 if name in seen else count + 1 for name, count in self._standing.items()}
        patience = 2 * self.rows  # one row that disagrees hides a finding for as many rows as must agree
        news += [f"Health: no longer so: {name}." for name, count in unseen.items() if count >= patience]
        self._standing = {name: count for name, count in unseen.items() if count < patience} | dict.fromkeys(seen, 0)
        return news

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, in JSON's types; numbers that are not finite are left out."""
        finite = {name: [v for v in values if math.isfinite(v)] for name, values in self._history.items()}
        return {"history": finite, "standing": self._standing}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what a checkpoint kept, so that nothing is told twice."""
        self._history = {name: list(values) for name, values in state["history"].items()}
        self._standing = dict(state["standing"])


_WATCHED = ("accuracy/", "logits/", "grad_norm/", "penalty/", "health/")

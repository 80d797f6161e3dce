"""The knobs of who learns, and of what is looked at to tell whether a run is well."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from gandist.config.knobs import Change, Section, knob, section


class BandConfig(Section):
    """Between which values something should be."""

    low: float
    high: float
    margin: float = knob(0.02, "So far inside the band again, the other network joins in.", ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high - self.low <= 2 * self.margin:
            raise ValueError(f"low {self.low:g} and high {self.high:g} must be more than two margins apart")
        return self


class AccuracyBand(BandConfig):
    """Where D's accuracy should be: chance is 0.5."""

    low: float = knob(0.55, "Below this D learns alone.", ge=0, le=1)
    high: float = knob(0.95, "Above this G learns alone.", ge=0, le=1)


class LossBand(BandConfig):
    """Where D's loss should be: chance is 2 log 2 = 1.386 in the logistic losses, 2 in the hinge loss."""

    low: float = knob(0.3, "Below this G learns alone.")
    high: float = knob(1.35, "Above this D learns alone.")


class BalanceConfig(Section):
    """Who learns in a round."""

    kind: Literal["fixed", "accuracy", "loss"] = knob(
        "fixed", "Both networks learn in every round, or one alone while D's accuracy or loss is outside a band."
    )
    interval_rounds: int = knob(
        16, "Decided at every so many rounds, by the mean over them; the device is waited for then.", ge=1
    )
    longest_rounds: int = knob(256, "After so many rounds of one network alone both learn for an interval.", ge=1)
    accuracy: AccuracyBand = section(AccuracyBand, "Read when kind is accuracy.")
    loss: LossBand = section(LossBand, "Read when kind is loss.")


class HealthConfig(Section):
    """What is looked at to tell whether the run is well; findings go to events.log and change nothing."""

    change: ClassVar[Change] = "continue"
    every_kimg: float = knob(
        10.0, "Images between looks at how much samples differ from each other, beside real images.",
        unit="kimg", gt=0,
    )  # fmt: skip
    images: int = knob(64, "Images of each kind in such a look, at most a rank's share of a batch.", ge=4, le=1024)
    rows: int = knob(5, "Rows of metrics that must agree before something is told.", ge=2, le=100)

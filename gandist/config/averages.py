"""The knobs of the averages of G."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from gandist.config.knobs import Change, Section, knob

WIDEST_STD = 0.28
"""Widest power function average; at 12^(-1/2) = 0.289 all moments of a run count alike."""


class EmaConfig(Section):
    """The moving averages of the generator: the one that samples are drawn from, and some to choose a width later."""

    change: ClassVar[Change] = "warn"
    halflife_kimg: float = knob(
        10.0, "Images after which a weight's share in the average has halved.", unit="kimg", ge=0
    )
    rampup: float | None = knob(
        0.05, "The half-life is at most this share of the images seen; no limit when left out.", gt=0
    )
    power_stds: tuple[Annotated[float, Field(ge=0.001, le=WIDEST_STD)], ...] = knob(
        (),
        "Relative widths of power function averages, such as 0.05 0.1, from which gandist ema makes others.",
        change="refuse",
    )
    snapshot_kimg: float = knob(
        50.0, "Images between snapshots of the power function averages.", change="continue", unit="kimg", gt=0
    )
    keep_snapshots: int | None = knob(
        None, "Newest moments whose snapshots are kept; all when left out.", change="continue", ge=1
    )

    @field_validator("power_stds")
    @classmethod
    def _distinct(cls, stds: tuple[float, ...]) -> tuple[float, ...]:
        if len({f"{std:g}" for std in stds}) < len(stds):
            raise ValueError("each width once, apart in its first six digits")
        return stds

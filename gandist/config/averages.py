"""The knobs of the averages of G."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

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
    power_stds: tuple[Annotated[float, Field(gt=0, le=WIDEST_STD)], ...] = knob(
        (), "Widths of power function averages that are kept beside, as shares of the images seen (EDM2: 0.05 0.1)."
    )

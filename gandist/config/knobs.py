"""How a knob and a section of knobs are declared."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Change = Literal["continue", "warn", "refuse"]
"""What resuming with another value means: nothing, a warning, or a different run (``--accept`` to insist)."""


def knob(default: Any, about: str, *, change: Change | None = None, unit: str = "", **limits: Any) -> Any:
    """Declare one knob: default, one sentence, unit, limits (``ge``, ``le``, ...), and the meaning of a change."""
    return Field(default, description=about, json_schema_extra={"change": change, "unit": unit}, **limits)


def section(kind: type[BaseModel], about: str) -> Any:
    """Declare a nested section whose knobs start at their defaults."""
    return Field(default_factory=kind, description=about)


class Section(BaseModel):
    """A frozen group of knobs; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)
    change: ClassVar[Change] = "refuse"  # for the knobs of this section that do not say otherwise

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``batch_images: true``, which pydantic would read as 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("input should not be true or false")
        return value


class Schedule(Section):
    """A factor over images seen: linear warm-up, then constant, then an optional decay to ``final``."""

    change: ClassVar[Change] = "warn"
    shape: Literal["constant", "linear", "cosine"] = knob("constant", "How the value decays after begin_kimg.")
    warmup_kimg: float = knob(0.0, "Rises linearly from 0 over this long.", unit="kimg", ge=0)
    begin_kimg: float = knob(0.0, "Decay begins here.", unit="kimg", ge=0)
    end_kimg: float | None = knob(None, "Decay ends here; the run's length when left out.", unit="kimg", gt=0)
    final: float = knob(0.0, "Factor at and after the end of the decay.", ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end_kimg is not None and self.end_kimg <= self.begin_kimg:
            raise ValueError(f"end_kimg {self.end_kimg:g} must be above begin_kimg {self.begin_kimg:g}")
        return self

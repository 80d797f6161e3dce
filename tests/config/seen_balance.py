"""Rows of test_knobs.py for the knobs of who learns, and of what is looked at to tell whether a run is well."""

from typing import Any

from gandist.assembly.balance import balance_of, monitor_of
from gandist.config import Config, dump, merge, parse


def _kind(kind: str, **more: Any) -> dict[str, Any]:
    return {"balance": {"kind": kind, "interval_rounds": 1, **more}}


_TOO_LOW = {"low": 0.99, "high": 1.0, "margin": 0.0}
_ANY_ACCURACY, _ANY_LOSS = {"low": 0.0, "high": 1.0, "margin": 0.0}, {"low": -99.0, "high": 99.0}
_LOOKS = {"health": {"every_kimg": 0.016, "images": 8}}

# knob: another value, and the settings under which both values are looked at
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "balance.kind": ("accuracy", _kind("fixed", accuracy=_TOO_LOW)),
    "balance.interval_rounds": (2, _kind("accuracy", accuracy=_TOO_LOW)),
    "balance.longest_rounds": (1, _kind("accuracy", accuracy=_TOO_LOW)),
    "balance.accuracy.low": (0.99, _kind("accuracy", accuracy=_ANY_ACCURACY)),
    "balance.accuracy.high": (0.01, _kind("accuracy", accuracy=_ANY_ACCURACY)),
    "balance.loss.low": (50.0, _kind("loss", loss=_ANY_LOSS)),
    "balance.loss.high": (0.0, _kind("loss", loss=_ANY_LOSS)),
    "health.every_kimg": (0.008, _LOOKS),
    "health.images": (4, _LOOKS),
}


def test_margins_and_rows() -> None:
    """They arrive; a run shows them only at the right moment, and tests of their parts what they do."""
    for kind in ("accuracy", "loss"):
        changes = {"balance": {"kind": kind, kind: {"margin": 0.007}}, "health": {"rows": 9}}
        config = parse(merge(dump(Config()), changes), "tests")
        assert balance_of(config).band.margin == 0.007
        assert monitor_of(config).rows == 9


ELSEWHERE = dict.fromkeys(["balance.accuracy.margin", "balance.loss.margin", "health.rows"], test_margins_and_rows)

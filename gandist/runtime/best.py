"""Which checkpoint is the best one, by a column of ``metrics.jsonl``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal


class BestCheckpoint:
    """Remembers the best value of a metric and the position it was measured at.

    Args:
        metric: a column of the metrics; None if no checkpoint is the best one.
        mode: whether a lower or a higher value is better.

    """

    def __init__(self, metric: str | None, mode: Literal["min", "max"]) -> None:
        self._metric, self._mode = metric, mode
        self._row: Mapping[str, float] = {}
        self._found: dict[str, Any] | None = None

    def measured(self, row: Mapping[str, float]) -> None:
        """Take in the newest row of metrics."""
        self._row = row

    def choose(self, images_seen: int, say: Callable[[str], None]) -> None:
        """Make the checkpoint at this position the best one, if the newest row says so; ``say`` tells a person."""
        if self._metric is None or not self._row:
            return
        value = self._row.get(self._metric)
        if value is None:
            say(
                f"checkpoint.best_metric: metrics.jsonl has no column {self._metric!r} so far; it has "
                f"{', '.join(sorted(self._row))}. No checkpoint is kept as the best one."
            )
        elif math.isfinite(value) and self._better(value):
            self._found = {"metric": self._metric, "value": value, "images_seen": images_seen}

    def _better(self, value: float) -> bool:
        if self._found is None or self._found["metric"] != self._metric:
            return True
        known: float = self._found["value"]
        return value < known if self._mode == "min" else value > known

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the best one so far, and the value that the next is judged by."""
        row = {name: value for name, value in self._row.items() if name == self._metric}
        return {"best": self._found, "best_row": row}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self._found, self._row = state.get("best"), state.get("best_row", {})

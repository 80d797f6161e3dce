"""Rows of test_knobs.py for the knobs of the averages of G."""

from typing import Any

KEPT = {"ema": {"power_stds": [0.1], "snapshot_kimg": 0.016}}

# knob: another value, and the settings under which both values are looked at
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ema.power_stds": ([0.1], {}),
    "ema.snapshot_kimg": (0.008, KEPT),
    "ema.keep_snapshots": (1, KEPT),
}

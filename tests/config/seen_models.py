"""Rows of test_knobs.py for the knobs of architectures."""

from typing import Any

# knob: another value, and the settings under which both values are looked at
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "model.head": ("projection", {"model": {"conditional": True}}),
}

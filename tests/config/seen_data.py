"""Rows of test_knobs.py for the knobs of the images."""

from typing import Any

from gandist.config import merge

GAT = {"model": {"arch": "gat"}, "regularizer": {"r1": {"gamma": 0.0}}}

# knob: another value, and the settings under which both values are looked at
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "model.gat.depth": (4, GAT),
    "model.gat.width": (12, GAT),
    "model.gat.patch": (4, GAT),
    "model.gat.head_width": (8, GAT),
    "model.gat.style_dim": (5, GAT),
    "model.gat.projection_dim": (5, merge(GAT, {"model": {"conditional": True}})),
    "model.gat.levels": (1, GAT),
    "model.gat.attention": ("plain", GAT),
}

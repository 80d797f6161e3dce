"""Every knob of a recipe explained, and two recipes compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gandist.config.knobs import Change
from gandist.config.recipe import Config, dump, leaves, read_recipe


def explain(config: Config, recipe: Path, overrides: Sequence[str] = ()) -> str:
    """Return a table of every knob: value, unit, where the value came from, what a change on resume means, meaning."""
    in_file = {leaf_path for leaf_path, _ in _flatten(read_recipe(recipe))}
    in_flags = {flag[2:].partition("=")[0].replace("-", "_") for flag in overrides if flag.startswith("--")}
    rows = [("knob", "value", "unit", "from", "on resume", "meaning")]
    for leaf in leaves(config):
        origin = "command line" if leaf.path in in_flags else recipe.name if leaf.path in in_file else "default"
        rows.append((leaf.path, _short(leaf.value), leaf.unit, origin, leaf.change, leaf.about))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[5]]) for row in rows)


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Difference:
    """A knob whose value is not the one a run was saved with."""

    path: str
    saved: Any
    current: Any
    change: Change

    def __str__(self) -> str:
        """Say both values and, where the run would be another one, the two ways on."""
        said = f"{self.path} was {_short(self.saved)}, now {_short(self.current)}"
        if self.change != "refuse":
            return said
        value = " ".join(map(str, self.saved)) if isinstance(self.saved, list) else self.saved
        return f"{said}: set it back with --{self.path} {value}, or insist with --accept {self.path}"


def differences(saved: Mapping[str, Any], current: Config) -> list[Difference]:
    """Return the knobs of ``current`` that differ from a saved :func:`dump`; one that it lacks had its default."""
    old, new = dict(_flatten(saved)), dict(_flatten(dump(current)))
    return [
        Difference(leaf.path, before, new[leaf.path], leaf.change)
        for leaf in leaves(current)
        if (before := old.get(leaf.path, _plain(leaf.default))) != new[leaf.path]
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value

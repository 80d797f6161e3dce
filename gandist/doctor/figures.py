"""Figures as a person reads them."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it: ``1.5 GiB``."""
    for unit in _UNITS:
        if abs(count) < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time in the two units that suit it: ``2 d 3 h``, ``45 s``, ``12 ms``."""
    if seconds < 1e-4:
        return "less than 0.1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        hours, rest = divmod(minutes, 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, hours = divmod(round(minutes / 60), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def count(number: int, thing: str, several: str = "") -> str:
    """Return ``1 core``, ``2 cores``, ``60,000 images``."""
    return f"{number:,} {thing if number == 1 else several or thing + 's'}"

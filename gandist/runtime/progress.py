"""The one line that a person watches: images done, speed, losses, D's accuracy, time left.

On a terminal it is redrawn in place. Elsewhere (a log file, a pipe, Slurm) a plain line is written at most every
:data:`QUIET_SECONDS` and once at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from tqdm import tqdm

QUIET_SECONDS = 30.0
REDRAW_SECONDS = 0.1
SMOOTHING = 0.3  # weight of the newest measurement in the speed
_CLEAR = "\r\x1b[K"


class Progress:
    """Draw the progress of a run on ``stream``, and print other lines above it.

    A stream that goes away (a closed terminal, a pipe whose reader left) is let go: the run does not depend on it.

    Args:
        total_images: Length of the run.
        start_images: Where this session begins.
        stream: Usually standard error.
        clock: Seconds, rising.

    """

    def __init__(
        self, total_images: int, start_images: int, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total_images
        self._images = start_images
        self._stream: TextIO | None = stream
        self._terminal = stream.isatty()
        self._ascii_only = not (stream.encoding or "").lower().startswith("utf")
        self._clock = clock
        self._measured_at = self._drawn_at = clock()
        self._rate: float | None = None
        self._metrics: Mapping[str, float] = {}
        self._visible = False

    def update(self, images_seen: int, metrics: Mapping[str, float]) -> None:
        """Take in a logged round; draw if it is time."""
        now = self._clock()
        self._measure(images_seen, now)
        self._metrics = metrics
        if now - self._drawn_at >= (REDRAW_SECONDS if self._terminal else QUIET_SECONDS):
            self._drawn_at = now
            self._draw()

    def line(self, text: str) -> None:
        """Print a line of its own, above the progress."""
        self._write(f"{_CLEAR if self._visible else ''}{text}\n")
        if self._visible:
            self._draw()

    def finish(self) -> None:
        """Draw the last state and leave it standing; what is said afterwards stands below it."""
        self._draw()
        if self._terminal:
            self._write("\n")
        self._visible = False

    def _measure(self, images_seen: int, now: float) -> None:
        seconds = now - self._measured_at
        if seconds <= 0:
            return
        rate = (images_seen - self._images) / seconds
        self._rate = rate if self._rate is None else SMOOTHING * rate + (1 - SMOOTHING) * self._rate
        self._images, self._measured_at = images_seen, now

    def _draw(self) -> None:
        columns = _columns(self._stream) if self._terminal and self._stream else None
        text = progress_text(self._images, self._total, self._rate, self._metrics, columns, self._ascii_only)
        self._write(f"{_CLEAR}{text}" if self._terminal else f"{text}\n")
        self._visible = self._terminal

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._stream = None


def progress_text(
    images: int,
    total: int,
    rate: float | None,
    metrics: Mapping[str, float],
    columns: int | None = None,
    ascii_only: bool = False,
) -> str:
    """Return the line: with a bar and at most ``columns`` wide, or plain and complete if None.

    Args:
        images: Images seen.
        total: Length of the run in images.
        rate: Images per second; None if not measured yet.
        metrics: Read for ``loss/d``, ``loss/g``, ``accuracy/real``, ``accuracy/fake`` (shares); any may be missing.
        columns: Width of the terminal.
        ascii_only: Draw the bar without block characters.

    """
    parts = [f"{rate:.0f} img/s"] if rate is not None else []
    parts += [f"{name.upper()} {metrics[f'loss/{name}']:.3f}" for name in ("d", "g") if f"loss/{name}" in metrics]
    parts += [f"{name} {metrics[f'accuracy/{name}']:.0%}" for name in ("real", "fake") if f"accuracy/{name}" in metrics]
    layout = f"{images / 1000:.1f}/{total / 1000:.1f} kimg {{percentage:3.0f}}%"
    layout += "  ".join(["|{bar}|" if columns else "", *parts, "ETA {remaining}"])
    # a last batch may run past the end, which tqdm would take for an unknown length
    return tqdm.format_meter(
        min(images, total), total, 0.0, ncols=columns, rate=rate, bar_format=layout, ascii=ascii_only
    )


def _columns(stream: TextIO) -> int:
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        width = 0
    return width or 100

"""Tables that read the same on a screen and on a page, and what they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch


@dataclass(frozen=True)
class Table:
    """Rows under a heading, with a sentence or two on how to read them."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table as Markdown, its columns aligned; all but the first to the right."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        lines = [_line(row, widths) for row in (self.columns, rule, *self.rows)]
        return "\n".join([f"## {self.title}", "", self.note, "", *lines, ""])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join([first, *others]) + " |"


def machine(threads: int | None) -> dict[str, str]:
    """Return what the figures are measured on with so many threads (None: as many as torch takes), and when."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores of it",
        "threads": str(threads or torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": "{:.1f} {:.1f} {:.1f} (1, 5, 15 minutes, at the start)".format(*os.getloadavg()),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def heading(
    machine: dict[str, str], title: str = "What one round costs, on CPUs", script: str = "benchmarks/round.py"
) -> str:
    """Return the top of a page of figures."""
    facts = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    return f"# {title}\n\nMeasured by `{script}`.\n\n{facts}\n"

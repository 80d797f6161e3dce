"""Findings for a person, as they come, or as one JSON object at the end."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from typing import Any, TextIO

import gandist
from gandist.doctor.finding import LEVELS, Finding, Level

WIDTH = 120
NARROWEST = 60
_COLOURS: dict[Level, str] = {"ok": "32", "note": "36", "warn": "33", "FAIL": "1;31"}
_CHECK_WIDTH = 18


class Page:
    """Where findings go: printed at once for a person, or kept for JSON. Only one rank has a stream.

    A reader that has seen enough, such as ``head``, ends the printing and not the checks.

    Args:
        stream: usually standard output; None on the ranks that say nothing.
        as_json: print one JSON object at the end instead.
        aside: where a person is told what takes so long, if it is a terminal.

    """

    def __init__(self, stream: TextIO | None, *, as_json: bool = False, aside: TextIO | None = None) -> None:
        self._stream, self._as_json = stream, as_json
        self._aside = aside if aside is not None and aside.isatty() else None
        self._colours = stream is not None and stream.isatty()
        self._width = min(WIDTH, _columns(stream)) if self._colours and stream is not None else WIDTH
        self._busy = False
        self.sections: list[tuple[str, list[Finding]]] = []

    @property
    def findings(self) -> list[Finding]:
        """Return all findings so far."""
        return [finding for _, findings in self.sections for finding in findings]

    def count(self, level: Level) -> int:
        """Return how many findings have a level."""
        return sum(finding.level == level for finding in self.findings)

    def fails(self, *headings: str) -> bool:
        """Return whether something under one of these headings will not work."""
        return any(f.level == "FAIL" for heading, found in self.sections if heading in headings for f in found)

    def title(self, text: str) -> None:
        """Print the first line."""
        if not self._as_json:
            self._print(text)

    def section(self, heading: str, findings: Sequence[Finding]) -> None:
        """Take in the findings under a heading; none, no heading. A heading that is the last one goes on."""
        if not findings:
            return
        goes_on = bool(self.sections) and self.sections[-1][0] == heading
        if goes_on:
            self.sections[-1][1].extend(findings)
        else:
            self.sections.append((heading, list(findings)))
        if self._as_json:
            return
        lines = [] if goes_on else ["", heading]
        self._print("\n".join([*lines, *(_lines(finding, self._width, self._colours) for finding in findings)]))

    def busy(self, what: str) -> None:
        """Tell a person at a terminal what is being done; gone when the next findings are printed."""
        if self._aside is not None and self._stream is not None and not self._as_json:
            self._aside.write(f"\r\x1b[K  ... {what}")
            self._aside.flush()
            self._busy = True

    def close(self, **more: Any) -> None:
        """Print the last words, or the JSON; ``more`` goes into the JSON."""
        if self._as_json:
            self._print(json.dumps({**more, **self._plain()}, indent=2, ensure_ascii=False))
            return
        self._print("\n" + self.verdict())

    def verdict(self) -> str:
        """Return the whole page in a line."""
        failures, warnings = self.count("FAIL"), self.count("warn")
        said = f"{warnings} warning{'s' if warnings != 1 else ''}"
        if failures:
            return f"{failures} thing{'s' if failures != 1 else ''} will not work (FAIL), {said}: see -> above."
        return f"Nothing is broken; {said}: see -> above." if warnings else "Nothing is wrong."

    def _plain(self) -> dict[str, Any]:
        return {
            "gandist": gandist.__version__,
            "failed": self.count("FAIL") > 0,
            "counts": {level: self.count(level) for level in LEVELS},
            "findings": [{"section": heading, **f.plain()} for heading, found in self.sections for f in found],
        }

    def _print(self, text: str) -> None:
        if self._busy and self._aside is not None:
            self._aside.write("\r\x1b[K")
            self._aside.flush()
            self._busy = False
        if self._stream is None:
            return
        try:
            print(text, file=self._stream, flush=True)
        except BrokenPipeError:
            self._stream = None


def _lines(finding: Finding, width: int, colours: bool) -> str:
    """Return a finding as lines: level, check and fact in columns, what to do below them."""
    level = finding.level.ljust(4)
    if colours:
        level = f"\x1b[{_COLOURS[finding.level]}m{level}\x1b[0m"
    fact = f"[{finding.where}] {finding.fact}" if finding.where else finding.fact
    begin = f"  {level}  {finding.check.ljust(_CHECK_WIDTH)} "
    indent = " " * (2 + 4 + 2 + _CHECK_WIDTH + 1)
    lines = _wrapped(fact, indent, width)
    if finding.advice:
        arrow = _wrapped(finding.advice, indent + "   ", width)
        lines += [f"{indent}-> {arrow[0].lstrip()}", *arrow[1:]]
    return "\n".join([begin + lines[0].lstrip(), *lines[1:]])


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    """Return text as lines of at most ``width`` columns, its own line breaks kept; commands stay in one piece."""
    return [
        line
        for part in text.splitlines() or [""]
        for line in textwrap.wrap(
            part, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        or [indent]
    ]


def _columns(stream: TextIO) -> int:
    """Return the width of a terminal; the usual one where it does not say, or is too narrow for columns."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return WIDTH
    return columns if columns >= NARROWEST else WIDTH

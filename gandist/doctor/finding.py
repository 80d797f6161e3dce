"""What a check returns, and how a check is kept from breaking or hanging."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from gandist.errors import GandistError

Level = Literal["ok", "note", "warn", "FAIL"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warn", "FAIL")

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ok; note: worth knowing; warn: works, but will hurt; FAIL: will not work.
        check: what was looked at, in a word or two.
        fact: what was found, with figures and units.
        advice: what to do, where something is to be done.
        figures: the same figures for programs, units in their names.
        where: ranks or host that found it, where that is not all of them.

    """

    level: Level
    check: str
    fact: str
    advice: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    where: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the finding as plain JSON types."""
        return {
            "level": self.level,
            "check": self.check,
            "fact": self.fact,
            "advice": self.advice,
            "figures": dict(self.figures),
            "where": self.where,
        }

    def at(self, where: str) -> Finding:
        """Return the finding with the place that found it."""
        return replace(self, where=where)


def ok(check: str, fact: str, **figures: float) -> Finding:
    """Return that something is as it should be."""
    return Finding("ok", check, fact, figures=figures)


def note(check: str, fact: str, advice: str = "", **figures: float) -> Finding:
    """Return something worth knowing."""
    return Finding("note", check, fact, advice, figures)


def warn(check: str, fact: str, advice: str, **figures: float) -> Finding:
    """Return something that works, but will hurt."""
    return Finding("warn", check, fact, advice, figures)


def fail(check: str, fact: str, advice: str, **figures: float) -> Finding:
    """Return something that will not work."""
    return Finding("FAIL", check, fact, advice, figures)


def softened(findings: list[Finding], works: bool) -> list[Finding]:
    """Return findings; where what they fear is known to work here, a failure is a note."""
    if not works:
        return findings
    return [
        replace(f, level="note", fact=f"{f.fact}; it works all the same") if f.level == "FAIL" else f for f in findings
    ]


Check = Callable[[], list[Finding]]


def examined(name: str, check: Check, seconds: float | None = None) -> list[Finding]:
    """Return what a check finds; one that breaks, or takes longer than ``seconds``, is a finding itself."""
    try:
        return check() if seconds is None else within(seconds, check)
    except TimeoutError:
        return [warn(name, f"no answer within {seconds:g} s", "Look at the network or the disk behind it.")]
    except GandistError as error:
        fact, advice = halves(str(error))
        return [fail(name, fact, advice)]
    except Exception as error:
        return [warn(name, f"this check broke: {described(error)}", "The other checks stand; please report this one.")]


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return what ``action`` returns, or raise :class:`TimeoutError`; what hangs is left behind in a thread.

    For things that cannot be interrupted, such as asking a name server.
    """
    results: list[T] = []
    problems: list[BaseException] = []

    def act() -> None:
        try:
            results.append(action())
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=act, name="doctor", daemon=True)
    thread.start()
    thread.join(seconds)
    if problems:
        raise problems[0]
    if not results:
        raise TimeoutError
    return results[0]


def described(error: BaseException) -> str:
    """Return an unforeseen error in a line, with the place in the code where it came up."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}"


def halves(message: str) -> tuple[str, str]:
    """Return a message of ours in two: its first sentence says what is, the rest what to do."""
    message = message.replace("\n", "\n  ")
    fact, dot, advice = message.partition(". ")
    return (fact, advice) if dot else (message.removesuffix("."), "")

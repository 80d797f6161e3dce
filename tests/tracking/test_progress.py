"""The progress line, on a real terminal and elsewhere, under a clock that the test moves."""

import io
import os
import pty
import re
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from gandist.runtime.progress import QUIET_SECONDS, Progress, progress_text

METRICS = {"loss/d": 1.386, "loss/g": 0.693, "accuracy/real": 0.62, "accuracy/fake": 0.58, "lr/g": 2e-4}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal:
    """A terminal of our own; ``seen`` is what it was sent."""

    def __init__(self, columns: int) -> None:
        self.screen, inner = pty.openpty()
        termios.tcsetwinsize(inner, (24, columns))
        self.stream: TextIO = os.fdopen(inner, "w", encoding="utf-8")
        self.seen = ""

    def new(self) -> str:
        self.stream.write("\0")  # the end of what there is: a terminal hands on in pieces
        self.stream.flush()
        content = b""
        while not content.endswith(b"\0"):
            content += os.read(self.screen, 1 << 16)
        text = content[:-1].decode()
        self.seen += text
        return text

    def shown(self) -> list[str]:
        """Return the lines a person sees: a carriage return with a clear begins the line again."""
        return [line.split("\r\x1b[K")[-1].strip("\r") for line in self.seen.split("\n")]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(100)
    yield terminal
    terminal.stream.close()
    os.close(terminal.screen)


def test_the_line_says_what_a_person_wants_to_know() -> None:
    text = progress_text(12_345, 1_000_000, 800.0, METRICS)
    assert text == "12.3/1000.0 kimg   1%  800 img/s  D 1.386  G 0.693  real 62%  fake 58%  ETA 20:34"


def test_what_is_not_known_is_left_out() -> None:
    assert progress_text(0, 50_000, None, {}) == "0.0/50.0 kimg   0%  ETA ?"
    assert "G nan" in progress_text(0, 50_000, None, {"loss/g": float("nan")})


def test_running_past_the_end_is_one_hundred_percent() -> None:
    assert progress_text(50_032, 50_000, 100.0, {}) == "50.0/50.0 kimg 100%  100 img/s  ETA 00:00"


@pytest.mark.parametrize("columns", [20, 60, 80, 100, 200])
def test_the_line_fits_the_terminal(columns: int) -> None:
    text = progress_text(500_000, 1_000_000, 812.0, METRICS, columns)
    assert len(text) <= columns
    if columns >= 100:
        assert len(text) == columns
        bar = text.split("|")[1]
        assert bar.count("█") == pytest.approx(len(bar) / 2, abs=1)


def test_a_terminal_is_redrawn_in_place(terminal: Terminal) -> None:
    clock = Clock()
    progress = Progress(10_000, 0, terminal.stream, clock)
    for number in range(1, 4):
        clock.now += 1
        progress.update(1000 * number, METRICS)
        text = terminal.new()
        assert text.startswith("\r\x1b[K")
        assert "\n" not in text
    assert "3.0/10.0 kimg  30%" in text
    assert "1000 img/s" in text
    assert "ETA 00:07" in text


def test_a_terminal_is_not_flooded(terminal: Terminal) -> None:
    clock = Clock()
    progress = Progress(10_000, 0, terminal.stream, clock)
    for number in range(1, 1001):
        clock.now += 0.001
        progress.update(number, METRICS)
        terminal.new()
    assert 8 <= terminal.seen.count("kimg") <= 11  # in one second


def test_other_lines_stand_above_the_progress(terminal: Terminal) -> None:
    clock = Clock()
    progress = Progress(10_000, 0, terminal.stream, clock)
    progress.line("started")
    clock.now += 1
    progress.update(1000, METRICS)
    progress.line("saved a checkpoint")
    clock.now += 1
    progress.update(2000, METRICS)
    progress.finish()
    terminal.new()
    started, saved, bar, rest = terminal.shown()
    assert (started, saved, rest) == ("started", "saved a checkpoint", "")
    assert re.match(r"2\.0/10\.0 kimg  20%\|█", bar)


def test_elsewhere_it_is_quiet() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100_000, 0, stream, clock)
    for number in range(1, 101):
        clock.now += 1
        progress.update(100 * number, METRICS)
    progress.line("an event")
    progress.finish()
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["3.0/100.0", "6.0/100.0", "9.0/100.0", "an", "10.0/100.0"]
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert QUIET_SECONDS == 30


def test_a_continued_run_measures_this_session_only() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100_000, 90_000, stream, clock)
    clock.now += 100
    progress.update(91_000, {})
    assert stream.getvalue() == "91.0/100.0 kimg  91%  10 img/s  ETA 15:00\n"


def test_the_speed_follows_a_change() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(1_000_000, 0, stream, clock)
    images = 0
    for rate in [10] * 5 + [1000] * 20:
        clock.now += 30
        images += rate * 30
        progress.update(images, {})
    shown = [int(re.search(r"(\d+) img/s", line).group(1)) for line in stream.getvalue().splitlines()]  # type: ignore[union-attr]
    assert shown[4] == 10
    assert shown[-1] == pytest.approx(1000, rel=0.02)
    assert shown == sorted(shown)


def test_a_plain_terminal_gets_a_plain_bar() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream.isatty = lambda: True  # type: ignore[method-assign]
    clock = Clock()
    progress = Progress(10_000, 0, stream, clock)
    clock.now += 1
    progress.update(5000, {})
    progress.finish()
    assert b"#####" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_screen_that_goes_away_does_not_stop_the_run() -> None:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    progress = Progress(10_000, 0, stream)
    progress.line("seen")
    os.close(reader)
    progress.line("not seen")
    progress.update(1000, METRICS)
    progress.finish()
    with pytest.raises(BrokenPipeError):
        stream.close()

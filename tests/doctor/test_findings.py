"""What a check returns, what becomes of one that breaks, and how findings are printed."""

import io
import json
import os
import re
import termios
import threading

import pytest

from gandist.doctor.figures import count, duration, size
from gandist.doctor.finding import Finding, examined, fail, note, ok, softened, warn
from gandist.doctor.page import WIDTH, Page
from gandist.errors import DataError


def test_a_check_that_breaks_is_a_finding_with_its_place_in_the_code() -> None:
    def broken() -> list[Finding]:
        raise ZeroDivisionError("by nothing")

    (found,) = examined("numbers", broken)
    assert (found.level, found.check) == ("warn", "numbers")
    assert "ZeroDivisionError: by nothing (test_findings.py:" in found.fact


def test_an_error_for_the_user_is_a_failure_in_its_own_words() -> None:
    def refused() -> list[Finding]:
        raise DataError("/x: there is no such folder. Make it with: gandist prepare SOURCE /x")

    (found,) = examined("data", refused)
    assert found == fail("data", "/x: there is no such folder", "Make it with: gandist prepare SOURCE /x")


def test_a_check_that_hangs_is_left_behind() -> None:
    forever = threading.Event()

    def hangs() -> list[Finding]:
        forever.wait()
        return []

    try:
        (found,) = examined("names", hangs, seconds=0.05)
    finally:
        forever.set()
    assert (found.level, found.fact) == ("warn", "no answer within 0.05 s")


def test_a_check_with_a_time_limit_returns_and_raises_as_without() -> None:
    assert examined("a", lambda: [ok("a", "fine")], seconds=30) == [ok("a", "fine")]
    (found,) = examined("a", lambda: [ok("a", str(1 // 0))], seconds=30)
    assert "ZeroDivisionError" in found.fact


def test_a_fear_that_is_known_to_be_groundless_is_a_note() -> None:
    feared = [fail("host name", "n1 is 127.0.0.1", "Correct it."), warn("ports", "few", "x")]
    assert softened(feared, works=False) == feared
    assert softened(feared, works=True) == [
        note("host name", "n1 is 127.0.0.1; it works all the same", "Correct it."), warn("ports", "few", "x"),
    ]  # fmt: skip


def page_of(*findings: Finding) -> str:
    stream = io.StringIO()
    page = Page(stream)
    page.section("Heading", findings)
    page.close()
    return stream.getvalue()


def test_a_person_reads_one_line_for_each_finding_and_what_to_do_below_it() -> None:
    printed = page_of(ok("disk", "1 GiB free"), fail("GPU", "none", "Buy one.").at("rank 1 on b"))
    assert printed.splitlines() == [
        "",
        "Heading",
        "  ok    disk               1 GiB free",
        "  FAIL  GPU                [rank 1 on b] none",
        "                           -> Buy one.",
        "",
        "1 thing will not work (FAIL), 0 warnings: see -> above.",
    ]


def test_long_lines_are_wrapped_below_their_own_beginning() -> None:
    printed = page_of(warn("disk", "word " * 60, "do " * 60))
    lines = [line for line in printed.splitlines() if "word" in line or " do" in line]
    assert len(lines) > 4
    assert all(len(line) <= WIDTH for line in lines)
    assert all(line.startswith(" " * 27) for line in lines[1:])


def test_a_narrow_terminal_gets_narrow_lines_and_is_told_what_takes_so_long() -> None:
    reading, writing = os.openpty()
    termios.tcsetwinsize(writing, (24, 72))
    with os.fdopen(writing, "w") as terminal:
        page = Page(terminal, aside=terminal)
        page.busy("thinking")
        page.section("Disks", [warn("disk", "word " * 30, "Free some.")])
        printed = ""
        while "Free some." not in printed:  # a terminal hands over what there is so far
            printed += os.read(reading, 4096).decode()
    os.close(reading)
    assert "... thinking" in printed
    lines = [re.sub("\x1b\\[[0-9;]*[mK]", "", line) for line in printed.split("\r\n")]
    assert 66 < max(len(line) for line in lines if "word" in line) <= 72


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([ok("a", "b"), note("a", "b")], "Nothing is wrong."),
        ([warn("a", "b", "c")], "Nothing is broken; 1 warning: see -> above."),
        ([warn("a", "b", "c"), *[fail("a", "b", "c")] * 2], "2 things will not work (FAIL), 1 warning: see -> above."),
    ],
)
def test_the_last_line_says_it_all(findings: list[Finding], verdict: str) -> None:
    assert page_of(*findings).splitlines()[-1] == verdict


def test_a_section_is_headed_once_and_only_where_there_is_something() -> None:
    stream = io.StringIO()
    page = Page(stream)
    for found in ([ok("a", "1")], [ok("b", "2")], []):
        page.section("Same", found)
    page.section("Empty", [])
    assert [stream.getvalue().count(word) for word in ("Same", "Empty")] == [1, 0]


def test_json_holds_the_same_findings() -> None:
    stream = io.StringIO()
    page = Page(stream, as_json=True)
    page.title("hello")
    page.section("Disks", [fail("disk", "full", "Free some.", free_bytes=3.0)])
    page.close(recipe="a.yaml")
    told = json.loads(stream.getvalue())
    assert (told["failed"], told["recipe"], told["counts"]["FAIL"]) == (True, "a.yaml", 1)
    assert told["findings"] == [
        {
            "section": "Disks", "level": "FAIL", "check": "disk", "fact": "full", "advice": "Free some.",
            "figures": {"free_bytes": 3.0}, "where": "",
        }
    ]  # fmt: skip


def test_a_reader_that_left_ends_the_printing_and_nothing_else() -> None:
    class Left(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    page = Page(Left())
    page.section("Disks", [fail("disk", "full", "Free some.")])
    page.close()
    assert page.count("FAIL") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00001, "less than 0.1 ms"), (0.0123, "12.3 ms"), (0.9999, "1.0 s"), (4.25, "4.2 s"), (45.2, "45 s"),
        (119.6, "2 min"), (3600, "1 h"), (5400, "1 h 30 min"), (49 * 3600, "2 d 1 h"), (96 * 3600, "4 d"),
    ],
)  # fmt: skip
def test_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (100 << 30, "100 GiB"), (5 << 50, "5120 TiB")]
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


def test_counts() -> None:
    assert [count(1, "core"), count(60_000, "image"), count(0, "class", "classes")] == [
        "1 core", "60,000 images", "0 classes",
    ]  # fmt: skip

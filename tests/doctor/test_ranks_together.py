"""What only ranks together can tell, on two real ones over gloo, with faults that are made."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("doctor_ranks.py")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what each of two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GANDIST_LAUNCHED_WORLD")
    environ = {name: value for name, value in os.environ.items() if name not in launcher}
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(rank), folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ | {"GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in (0, 1)
    ]
    results = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [error for _, error in results]
    return [json.loads(output) for output, _ in results]


def levels(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["level"] for finding in findings]


def test_only_rank_0_has_something_to_print(told: list[dict[str, Any]]) -> None:
    speaking = {name for name, findings in told[1].items() if findings}
    assert speaking <= {"bandwidth"}, "every rank measured that, and only rank 0 prints"


def test_the_ranks_and_their_machines(told: list[dict[str, Any]]) -> None:
    (found,) = told[0]["world"]
    assert (found["level"], found["fact"]) == ("ok", "2 ranks on 2 machines: 1 on n0, 1 on n1")
    (found,) = told[0]["world on one"]
    assert (found["level"], "where the launcher speaks of 2" in found["fact"]) == ("note", True)


def test_versions_that_differ_fail(told: list[dict[str, Any]]) -> None:
    assert levels(told[0]["same"]) == ["ok"]
    (found,) = told[0]["different"]
    assert (found["level"], found["fact"]) == ("FAIL", "torch is 2.9 on rank 0 and 2.10 on rank 1")


def test_a_clock_that_is_off_is_measured(told: list[dict[str, Any]]) -> None:
    assert levels(told[0]["clocks"]) == ["ok"]
    (found,) = told[0]["skewed"]
    assert found["level"] == "warn"
    assert found["figures"]["worst_offset_seconds"] == pytest.approx(-90, abs=1)
    assert "that of rank 1 is 90 s behind that of rank 0" in found["fact"]


def test_reductions_are_right_and_timed(told: list[dict[str, Any]]) -> None:
    (found,) = told[0]["bandwidth"]
    assert found["level"] == "ok"
    assert all(seconds > 0 for seconds in found["figures"].values())


def test_a_shared_folder_is_told_from_one_that_is_not(told: list[dict[str, Any]]) -> None:
    assert [(f["check"], f["level"]) for f in told[0]["shared"]] == [
        ("shared folder", "ok"), ("replacing a file", "ok"), ("locks", "ok"),
    ]  # fmt: skip
    (found,) = told[0]["not shared"]
    assert found["level"] == "FAIL"
    assert found["fact"].startswith("rank 1 on n1 never saw a file that rank 0 wrote")


def test_locks_that_are_not_seen_elsewhere_are_warned_of(told: list[dict[str, Any]]) -> None:
    assert [(f["check"], f["level"]) for f in told[0]["false locks"]][2:] == [("locks", "warn")]


def test_a_file_system_that_shows_half_a_file_fails(told: list[dict[str, Any]]) -> None:
    assert [(f["check"], f["level"]) for f in told[0]["torn"]][1] == ("replacing a file", "FAIL")


def test_findings_of_all_ranks_are_told_once_and_with_who_found_them(told: list[dict[str, Any]]) -> None:
    assert [(f["level"], f["fact"], f["where"]) for f in told[0]["gathered"]] == [
        ("ok", "0 GiB", ""), ("FAIL", "no", ""), ("FAIL", "none", "rank 1 on n1"),
    ]  # fmt: skip

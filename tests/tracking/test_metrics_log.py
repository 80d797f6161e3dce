"""metrics.jsonl: what is in it, and what opening it at a checkpoint's position leaves."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gandist.errors import RunError
from gandist.runtime.metrics_log import MetricsLog, read_metrics

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in ("images_seen", "round", "time")
)
rows = st.dictionaries(names, st.floats(), max_size=5)


def same(left: float, right: float) -> bool:
    return left == right or (math.isnan(left) and math.isnan(right))


def write(path: Path, count: int, *, first: int = 0, position: int = 0) -> list[int]:
    """Log ``count`` rounds; return the position before each of them and at the end."""
    with MetricsLog(path, position) as log:
        positions = [log.position]
        for number in range(first, first + count):
            log.append(64 * (number + 1), number, {"loss/d": number / 7})
            positions.append(log.position)
    return positions


def rounds(path: Path) -> list[int]:
    return [row["round"] for row in read_metrics(path)]


def test_a_row_begins_with_where_it_belongs(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl", clock=lambda: 1234.56789) as log:
        log.append(640, 9, {"loss/d": 0.5, "lr/g": 2e-4})
        # on the disk before the log is closed
        assert (tmp_path / "m.jsonl").read_text() == (
            '{"images_seen": 640, "round": 9, "time": 1234.568, "loss/d": 0.5, "lr/g": 0.0002}\n'
        )


@settings(max_examples=100, deadline=None)
@given(content=st.lists(rows, max_size=5))
def test_every_row_is_valid_json_and_reads_back(content: list[dict[str, float]], tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("log") / "m.jsonl"
    with MetricsLog(path) as log:
        for number, metrics in enumerate(content):
            log.append(number, number, metrics)
    for line in path.read_bytes().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    read = [{k: v for k, v in row.items() if k not in ("images_seen", "round", "time")} for row in read_metrics(path)]
    assert [set(row) for row in read] == [set(row) for row in content]
    assert all(
        same(row[key], value) for row, metrics in zip(read, content, strict=True) for key, value in metrics.items()
    )


@settings(max_examples=60, deadline=None)
@given(kept=st.integers(0, 6), later=st.integers(0, 6), torn=st.binary(max_size=20).filter(lambda b: b"\n" not in b))
def test_a_continued_run_has_every_round_once(kept: int, later: int, torn: bytes, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("log") / "m.jsonl"
    position = write(path, kept + later)[kept]
    with path.open("ab") as file:
        file.write(torn)
    write(path, 3, first=kept, position=position)
    assert rounds(path) == [*range(kept + 3)]


def test_a_torn_last_line_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 3)
    with path.open("ab") as file:
        file.write(b'{"images_seen": 256, "rou')
    assert rounds(path) == [0, 1, 2]


def test_a_log_shorter_than_the_checkpoint_says_so_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    position = write(path, 5)[-1]
    path.write_bytes(path.read_bytes()[: position // 2])  # within a row
    kept = rounds(path)
    with MetricsLog(path, position) as log:
        assert log.notice is not None
        assert f"the checkpoint knew {position}" in log.notice
        log.append(384, 5, {"loss/d": 1.0})
        assert log.position == path.stat().st_size
    assert rounds(path) == [*kept, 5]


def test_a_missing_log_says_so_and_goes_on(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl", 77) as log:
        assert log.notice is not None
        assert "missing" in log.notice
        log.append(64, 0, {})
    assert rounds(tmp_path / "m.jsonl") == [0]


def test_a_log_edited_by_hand_is_cut_at_a_row(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    positions = write(path, 4)
    with MetricsLog(path, positions[2] + 5) as log:
        assert log.notice is not None
        assert "was changed" in log.notice
    assert rounds(path) == [0, 1]


def test_a_log_in_order_has_nothing_to_say(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    position = write(path, 4)[-1]
    with MetricsLog(path, position) as log:
        assert log.notice is None
    with MetricsLog(tmp_path / "new.jsonl") as log:
        assert log.notice is None


def test_removed_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    positions = write(path, 5)
    with MetricsLog(path, positions[2]) as log:
        assert log.notice == f"{path}: 3 row(s) from after the checkpoint were removed; they are made again."


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    log = MetricsLog.__new__(MetricsLog)  # /dev/full can be written, not made or cut
    log.path, log._clock = Path("/dev/full"), lambda: 0.0
    with (
        log.path.open("ab", buffering=0) as log._file,
        pytest.raises(RunError, match="/dev/full: cannot be written"),
    ):
        log.append(1, 1, {})

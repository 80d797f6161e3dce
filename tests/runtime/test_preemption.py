"""Requests to stop only raise a flag, and the signals go back to whom they belonged."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gandist.runtime import preemption
from gandist.runtime.preemption import SIGNALS, StopRequest, StopSignals, remove_stale_request


@pytest.fixture
def stop(tmp_path: Path) -> Iterator[StopRequest]:
    request = StopRequest(tmp_path, poll_seconds=0.0)
    yield request
    request.close()


def test_nothing_is_asked_at_first(stop: StopRequest) -> None:
    assert not stop.requested(look_for_file=True)
    assert stop.reason is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_the_flag(stop: StopRequest, number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    assert stop.requested(look_for_file=False)
    assert stop.reason == f"signal {number.name}"


def test_the_first_reason_stays(stop: StopRequest) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.reason == "signal SIGUSR1"


def test_a_second_ctrl_c_interrupts_at_once(stop: StopRequest) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)  # a launcher that repeats itself does not
    assert stop.requested(look_for_file=False)


def test_a_file_asks_only_who_looks(stop: StopRequest, tmp_path: Path) -> None:
    (tmp_path / "STOP").touch()
    assert not stop.requested(look_for_file=False)
    assert stop.requested(look_for_file=True)
    assert stop.reason == "file STOP"
    assert stop.requested(look_for_file=False), "once seen it is known"


def test_the_file_is_looked_for_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now)
    stop = StopRequest(tmp_path, poll_seconds=5.0)
    try:
        assert not stop.requested(look_for_file=True)
        (tmp_path / "STOP").touch()
        now = 104.9
        assert not stop.requested(look_for_file=True)
        now = 105.0
        assert stop.requested(look_for_file=True)
    finally:
        stop.close()


def test_a_file_from_before_can_be_removed(stop: StopRequest, tmp_path: Path) -> None:
    assert remove_stale_request(tmp_path) is False
    (tmp_path / "STOP").write_text("now")
    assert remove_stale_request(tmp_path) is True
    assert not (tmp_path / "STOP").exists()
    assert not stop.requested(look_for_file=True)
    assert remove_stale_request(tmp_path / "no such folder") is False


def test_the_signals_are_given_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    stop = StopRequest(tmp_path)
    assert all(signal.getsignal(number) != handler for number, handler in zip(SIGNALS, before, strict=True))
    stop.close()
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(("before", "heard"), [(signal.SIG_DFL, "signal SIGHUP"), (signal.SIG_IGN, None)])
def test_a_closed_terminal_asks_to_stop_unless_nohup_said_otherwise(before: signal.Handlers, heard: str | None) -> None:
    previous = signal.signal(signal.SIGHUP, before)
    try:
        signals = StopSignals()
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.first == heard
        signals.close()
        assert signal.getsignal(signal.SIGHUP) == before
    finally:
        signal.signal(signal.SIGHUP, previous)

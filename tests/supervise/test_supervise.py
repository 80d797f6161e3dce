"""The supervisor and a stand-in for the trainer: what is started again, how often, and what it ends with."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from supervised import Supervise, alive

from gandist.cli import main
from gandist.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED, EXIT_USER_ERROR
from gandist.supervise import backoff_seconds, ending, newest_position

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def stand_in(folder: Path, *plan: str) -> list[str]:
    return [sys.executable, STAND_IN, str(folder), *plan]


def attempts(folder: Path) -> int:
    file = folder / "pids"
    return file.read_text().count("\n") if file.exists() else 0


# --- what is started again, and how often -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restarts", "plan", "code", "runs", "says"),
    [
        (3, "done", EXIT_DONE, 1, "the run is done"),
        (3, "crash crash done", EXIT_DONE, 3, "starting again in 0.1 s (restart 2 of 3"),
        (2, "crash crash crash done", EXIT_FAILED, 3, "giving up: 2 restart(s) in a row made no newer checkpoint"),
        (1, "crash save save save done", EXIT_DONE, 5, "The newest checkpoint is at 0.004 kimg"),
        (1, "crash save crash done", EXIT_FAILED, 3, "giving up: 1 restart(s)"),
        (0, "save done", EXIT_FAILED, 1, "giving up: 0 restart(s)"),
        (3, "crash quiet done", EXIT_DONE, 3, "with exit code 1. There is no checkpoint"),
        (3, "refuse done", EXIT_USER_ERROR, 1, "with exit code 2 before the run had begun"),
        (3, "quiet done", EXIT_USER_ERROR, 1, "It is not started again"),
        (3, "crash refuse done", EXIT_USER_ERROR, 2, "It is not started again"),
    ],
)
def test_attempts_and_the_exit_code(
    restarts: int, plan: str, code: int, runs: int, says: str, tmp_path: Path, supervise: Supervise
) -> None:
    run = supervise(stand_in(tmp_path, *plan.split()), "--restarts", str(restarts))
    assert run.wait() == code, run.said()
    assert attempts(tmp_path) == runs
    assert says in run.said()


def test_it_says_why_the_run_failed_and_where_it_is(tmp_path: Path, supervise: Supervise) -> None:
    run = supervise(stand_in(tmp_path, "crash", "done"))
    assert run.wait() == EXIT_DONE
    assert f"gandist supervise: the run is in {tmp_path}\n" in run.said()
    assert "the run ended with exit code 1: RunError: it broke. There is no checkpoint." in run.said()


def test_a_command_that_cannot_be_started(tmp_path: Path, supervise: Supervise) -> None:
    run = supervise([str(tmp_path / "absent"), "--flag"])
    assert run.wait() == EXIT_USER_ERROR
    assert f"{tmp_path}/absent: cannot be started" in run.said()


def test_no_command_is_an_error_that_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["supervise", "--restarts", "2"]) == EXIT_USER_ERROR
    assert "gandist supervise -- gandist train CONFIG" in capsys.readouterr().err


def test_words_after_the_first_two_dashes_are_the_commands(tmp_path: Path, supervise: Supervise) -> None:
    file = tmp_path / "words"
    code = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(repr(sys.argv[2:]))"
    words = ["--restarts", "9", "--", "a b", "$(id)", ""]
    run = supervise([sys.executable, "-c", code, str(file), *words])
    assert run.wait() == EXIT_DONE
    assert file.read_text() == repr(words)
    assert "began no run" in run.said()


# --- requests to stop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1", "HUP"])
def test_a_signal_becomes_the_file_stop(name: str, tmp_path: Path, supervise: Supervise) -> None:
    run = supervise(stand_in(tmp_path, "crash", "train"))
    run.wait_until((tmp_path / "training").exists, "training")
    run.process.send_signal(getattr(signal, f"SIG{name}"))
    assert run.wait() == EXIT_PREEMPTED, run.said()
    assert f"signal SIG{name}: asked the run to save and stop" in run.said()
    assert attempts(tmp_path) == 2


def test_a_file_stop_made_by_a_person_is_no_crash(tmp_path: Path, supervise: Supervise) -> None:
    run = supervise(stand_in(tmp_path, "train", "done"))
    run.wait_until((tmp_path / "training").exists, "training")
    (tmp_path / "STOP").touch()
    assert run.wait() == EXIT_PREEMPTED
    assert attempts(tmp_path) == 1


def test_the_second_interrupt_kills(tmp_path: Path, supervise: Supervise) -> None:
    run = supervise(stand_in(tmp_path, "stuck", "done"))
    run.wait_until(lambda: "the run is in" in run.said(), "training")
    run.process.send_signal(signal.SIGINT)
    run.wait_until(lambda: "A second Ctrl-C kills it" in run.said(), "the first to be heard")
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == EXIT_FAILED
    assert "before it had saved" in run.said()
    assert not alive(int((tmp_path / "pids").read_text()))
    assert attempts(tmp_path) == 1


def test_a_signal_before_the_run_has_begun_ends_the_command(tmp_path: Path, supervise: Supervise) -> None:
    run = supervise(stand_in(tmp_path, "silent", "done"))
    run.wait_until(lambda: attempts(tmp_path) == 1, "the start")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == EXIT_FAILED
    assert "stopped; nothing begun" in run.said()
    assert not alive(int((tmp_path / "pids").read_text()))


@pytest.mark.parametrize(("plan", "code"), [("save", EXIT_PREEMPTED), ("crash", EXIT_FAILED)])
def test_a_signal_between_two_attempts(plan: str, code: int, tmp_path: Path, supervise: Supervise) -> None:
    run = supervise(stand_in(tmp_path, plan, plan, "done"), "--backoff", "600")
    run.wait_until(lambda: "starting again in 600 s" in run.said(), "the wait")
    run.process.send_signal(signal.SIGTERM)
    if plan == "save":  # whether a checkpoint was there before the first look decides nothing here
        assert newest_position(tmp_path) == 1
    assert run.wait() == code
    assert attempts(tmp_path) == 1


# --- what is left behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", ["orphan", pytest.param("deaf", marks=pytest.mark.long)])
def test_what_a_killed_launcher_leaves_behind_is_ended_before_the_next_start(
    rank: str, tmp_path: Path, supervise: Supervise
) -> None:
    """It has a session of its own, so only a parent can find it; a deaf one must be killed, after a while."""
    run = supervise(stand_in(tmp_path, rank, "train"))
    run.wait_until(lambda: attempts(tmp_path) == 2, "the second attempt")
    assert not alive(int((tmp_path / "orphan").read_text()))
    assert "ended 1 process(es) that the command left behind" in run.said()
    assert "the run ended by signal 9" in run.said()


def test_a_run_outlives_its_supervisor_and_can_be_stopped_by_hand(tmp_path: Path, supervise: Supervise) -> None:
    run = supervise(stand_in(tmp_path, "train"))
    run.wait_until((tmp_path / "training").exists, "training")
    run.process.kill()
    run.wait()
    (tmp_path / "STOP").touch()
    run.wait_until(lambda: '"preempted"' in (tmp_path / "status.json").read_text(), "the save", supervised=False)


# --- pure parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "state", "outcome"),
    [
        (0, "done", "done"),
        (-6, "done", "done"),  # an abort after the last word
        (1, "preempted", "stopped"),
        (75, "preempted", "stopped"),
        (1, "failed", "crashed"),
        (2, "failed", "crashed"),  # a full disk is a fault of the machine, found while running
        (-9, "running", "crashed"),
        (1, None, "crashed"),
        (2, None, "refused"),
    ],
)
def test_what_became_of_an_attempt(code: int, state: str | None, outcome: str) -> None:
    assert ending(code, {"state": state, "folder": "/run"} if state else {}) == outcome


def test_the_wait_doubles_up_to_five_minutes() -> None:
    assert [backoff_seconds(5, n) for n in (1, 2, 3, 6, 7, 1000)] == [5, 10, 20, 160, 300, 300]
    assert backoff_seconds(0, 9) == 0
    assert backoff_seconds(900, 3) == 900


def test_the_newest_position_counts_published_checkpoints_only(tmp_path: Path) -> None:
    assert newest_position(tmp_path) == -1
    for name in ("000000999", "1000000000", ".2000000000.7.part", "best"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert newest_position(tmp_path) == 1_000_000_000


def test_it_loads_no_heavy_library() -> None:
    """It starts at once, and stays small beside the training."""
    code = (
        "import sys, gandist.cli, gandist.supervise; print([n for n in ('torch', 'numpy', 'yaml') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

"""A rank that dies or hangs ends the job with a word; the same command, or the supervisor, continues it exactly."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from started import kill, launcher, marked, new_mark, rank
from trainer_runs import Launch, Ranks, await_that, digests, make_config

from gandist.config import Config, dump
from gandist.errors import EXIT_DONE, EXIT_FAILED, EXIT_PREEMPTED

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ROUNDS = {"run": {"total_kimg": 16 * 400 / 1000}}

Command = Callable[..., Ranks]


def launched(config: Config, recipe: Path) -> list[str]:
    """Return the command for two ranks on this machine."""
    recipe.write_text(json.dumps(dump(config)))
    return [str(BIN / "accelerate"), "launch", "--config_file", "launch/cpu.yaml", "train.py", str(recipe)]


@pytest.fixture
def mark() -> dict[str, str]:
    return new_mark()


@pytest.fixture
def start(tmp_path: Path, mark: dict[str, str]) -> Iterator[Command]:
    """Start a command in the checkout; whatever is left of it is killed at the end."""
    started: list[Ranks] = []

    def run(*command: str) -> Ranks:
        log = tmp_path / f"command.{len(started)}.log"
        env = os.environ | {"OMP_NUM_THREADS": "1"} | mark
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)
        started.append(Ranks([process], log))
        return started[-1]

    yield run
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
    for each in started:
        each.wait()


def positions(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit())


def await_checkpoint_after(folder: Path, position: int, job: Ranks) -> None:
    await_that(lambda: bool(positions(folder)) and positions(folder)[-1] > position, "a newer checkpoint", job, 240)


def straight(tmp_path: Path, launch: Launch) -> dict[str, str]:
    config = make_config(tmp_path / "straight", ROUNDS)
    ranks = launch(config, world=2)
    assert ranks.wait(timeout=240) == [EXIT_DONE] * 2, ranks.output()
    return digests(config.folder)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_each_rank_killed_in_turn_ends_the_job_and_the_same_command_continues(
    tmp_path: Path, launch: Launch, start: Command, mark: dict[str, str]
) -> None:
    config = make_config(tmp_path / "killed", ROUNDS)
    command = launched(config, tmp_path / "recipe.yaml")
    for number in (0, 1):
        job = start(*command)
        await_checkpoint_after(config.folder, positions(config.folder)[-1] if number else 0, job)
        kill(rank(mark, number), signal.SIGKILL)
        assert job.wait(timeout=240) == [1], job.output()
        assert marked(mark) == {}, "nobody is left behind"
    last = start(*command)
    assert last.wait(timeout=240) == [EXIT_DONE], last.output()
    assert (config.folder / "events.log").read_text().count("Continuing at") == 2
    assert digests(config.folder) == straight(tmp_path, launch)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_is_stopped_ends_the_others_within_the_timeout(
    stopped: int, tmp_path: Path, launch: Launch
) -> None:
    """As a rank whose machine swaps, or that hangs in a driver: it is there, and does nothing."""
    endless = {"run": {"total_kimg": 1000.0}, "execution": {"timeout_seconds": 10}}
    config = make_config(tmp_path, endless)
    ranks = launch(config, world=2)
    await_checkpoint_after(config.folder, 0, ranks)
    ranks.processes[stopped].send_signal(signal.SIGSTOP)
    other = 1 - stopped
    assert ranks.processes[other].wait(timeout=120) == EXIT_FAILED, ranks.output()
    assert f"gandist: rank {other} of 2 on " in ranks.output()
    assert "got no further for 10 s (execution.timeout_seconds)" in ranks.output()
    stacks = (config.folder / "stacks" / f"rank{other:05d}.txt").read_text()
    assert "_play_on" in stacks
    state = json.loads((config.folder / "status.json").read_text())["state"]
    assert state == ("failed" if other == 0 else "running"), "rank 0 writes the status, where it can"


# --- under the supervisor -----------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_supervised_run_outlives_its_ranks_and_its_launcher(
    tmp_path: Path, launch: Launch, start: Command, mark: dict[str, str]
) -> None:
    config = make_config(tmp_path / "supervised", ROUNDS)
    command = launched(config, tmp_path / "recipe.yaml")
    job = start(str(BIN / "gandist"), "supervise", "--restarts", "1", "--backoff", "0.1", "--", *command)
    position = 0
    victims = {"rank 1": lambda: rank(mark, 1), "rank 0": lambda: rank(mark, 0), "launcher": lambda: launcher(mark)}
    for number, victim in enumerate(victims.values(), 1):
        await_checkpoint_after(config.folder, position, job)
        kill(victim(), signal.SIGKILL)
        await_that(lambda n=number: job.output().count("starting again in") == n, "the restart", job, 240)
        position = positions(config.folder)[-1]
    assert job.wait(timeout=400) == [EXIT_DONE], job.output()
    assert "by signal 9" in job.output()
    assert "2 process(es) that the command left behind" in job.output()
    assert marked(mark) == {}
    assert digests(config.folder) == straight(tmp_path, launch)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_supervised_run_saves_and_stops_on_a_signal(tmp_path: Path, start: Command, mark: dict[str, str]) -> None:
    config = make_config(tmp_path, {"run": {"total_kimg": 1000.0}})
    command = launched(config, tmp_path / "recipe.yaml")
    job = start(str(BIN / "gandist"), "supervise", "--", *command)
    await_checkpoint_after(config.folder, 0, job)
    job.signal(signal.SIGTERM)
    assert job.wait(timeout=240) == [EXIT_PREEMPTED], job.output()
    assert json.loads((config.folder / "status.json").read_text())["state"] == "preempted"
    assert f"the run is in {config.folder}" in job.output()
    assert "the run was asked to stop and has saved" in job.output()
    assert marked(mark) == {}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_supervised_run_whose_input_is_refused_is_not_started_again(tmp_path: Path, start: Command) -> None:
    config = make_config(tmp_path, {"update": {"batch_images": 15}})
    job = start(str(BIN / "gandist"), "supervise", "--", *launched(config, tmp_path / "recipe.yaml"))
    assert job.wait(timeout=240) == [2], job.output()
    assert "14 or 16" in job.output()
    assert "starting again" not in job.output()

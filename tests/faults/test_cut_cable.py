"""Two hosts with a cable between them: cut, both end and say so; plugged in again, the run ends as if it never was."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Hosts
from trainer_runs import Launch, Ranks, await_that, digests, make_config, metrics

from gandist.config import Config, dump
from gandist.errors import EXIT_DONE

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 10
LONG_ENOUGH = {"run": {"total_kimg": 16 * 500 / 1000}, "execution": {"timeout_seconds": TIMEOUT_SECONDS}}


class Job:
    """The same command on both hosts, each with a launcher of its own."""

    def __init__(self, hosts: Hosts, config: Config, folder: Path) -> None:
        self.hosts, self.folder, self.starts = hosts, folder, 0
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(json.dumps(dump(config)))
        self.running: list[Ranks] = []

    def start(self) -> list[Ranks]:
        self.running = [self._on(host) for host in (0, 1)]
        self.starts += 1
        return self.running

    def _on(self, host: int) -> Ranks:
        words = ["--nnodes", "2", "--node-rank", str(host), "--nproc-per-node", "1", "--master-port", "29517"]
        words += ["--master-addr", self.hosts.addresses[0], str(ROOT / "train.py"), str(self.recipe)]
        command = self.hosts.on(host, [sys.executable, "-m", "torch.distributed.run", *words])
        env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.hosts.interface}
        log = self.folder / f"host{host}.{self.starts}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        return Ranks([process], log)

    def close(self) -> None:
        for host in self.running:
            if host.processes[0].poll() is None:
                os.killpg(host.processes[0].pid, 9)
                host.wait()


@pytest.fixture
def job(hosts: Hosts, tmp_path: Path) -> Iterator[Job]:
    made = Job(hosts, make_config(tmp_path / "cut", LONG_ENOUGH), tmp_path)
    yield made
    made.close()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_cut_cable_ends_both_sides_and_the_same_command_continues(
    hosts: Hosts, job: Job, tmp_path: Path, launch: Launch
) -> None:
    folder = tmp_path / "cut" / "tiny"
    first, second = job.start()
    log = folder / "metrics.jsonl"
    await_that(lambda: log.is_file() and log.read_bytes().count(b"\n") > 20, "training", first, seconds=240)
    hosts.cut()
    for side in (first, second):
        assert side.wait(timeout=TIMEOUT_SECONDS + 120) != [EXIT_DONE], side.output()
        assert says_that_it_lost_the_other(side.output()), side.output()
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed"
    assert 0 < status["images_seen"] < LONG_ENOUGH["run"]["total_kimg"] * 1000

    hosts.plug_in()
    for side in job.start():
        assert side.wait(timeout=400) == [EXIT_DONE], side.output()
    assert "Continuing at" in (folder / "events.log").read_text()

    straight = make_config(tmp_path / "straight", LONG_ENOUGH)
    undisturbed = launch(straight, world=2)
    assert undisturbed.wait(timeout=400) == [EXIT_DONE] * 2, undisturbed.output()
    assert digests(folder) == digests(straight.folder)
    assert [row["images_seen"] for row in metrics(folder)] == [row["images_seen"] for row in metrics(straight.folder)]


def says_that_it_lost_the_other(output: str) -> bool:
    """Tell whether a rank says that it hung, or that the connection broke, in a line of its own."""
    lines = [line for line in output.splitlines() if line.startswith("gandist")]
    return any("got no further for 10 s" in line or "contact" in line for line in lines)

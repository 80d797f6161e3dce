"""Host names, ports, W&B and Slurm: each check without a fault and with one that is made."""

import http.server
import importlib.util
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gandist.config import TrackingConfig
from gandist.doctor import network, slurm, tracking
from gandist.doctor.finding import Finding
from gandist.errors import MachineError
from gandist.runtime import probe
from gandist.runtime.place import Place
from gandist.runtime.probe import Reduction

TWO_MACHINES = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "RANK": "0"}


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def unknown(_: str) -> list[str]:
    raise socket.gaierror(-2, "Name or service not known")


def silent(_: str) -> list[str]:
    raise TimeoutError


# --- host names ----------------------------------------------------------------------------------------------


def test_a_host_name_that_does_not_resolve_matters_on_several_machines() -> None:
    (alone,) = network.host_findings(Place("n1", {}), unknown)
    assert alone.level == "warn"
    assert alone.fact == "n1 does not resolve (Name or service not known)"
    (several,) = network.host_findings(Place("n1", TWO_MACHINES), unknown)
    assert (several.level, "/etc/hosts" in several.advice, "GLOO_SOCKET_IFNAME" in several.advice) == (
        "FAIL", True, True,
    )  # fmt: skip


def test_a_host_name_that_leads_back_to_itself_matters_on_several_machines() -> None:
    assert levels(network.host_findings(Place("n1", {}), lambda _: ["127.0.1.1"])) == ["ok"]
    (several,) = network.host_findings(Place("n1", TWO_MACHINES), lambda _: ["127.0.1.1", "::1"])
    assert several.level == "FAIL"
    told = Place("n1", {**TWO_MACHINES, "GLOO_SOCKET_IFNAME": "eth0"})
    assert levels(network.host_findings(told, lambda _: ["127.0.1.1"])) == ["ok"]
    in_slurm = Place("n1", {"SLURM_JOB_NUM_NODES": "2"})
    assert levels(network.host_findings(in_slurm, lambda _: ["127.0.1.1"])) == ["FAIL"]


def test_an_address_of_another_machine_is_warned_of() -> None:
    (found,) = network.host_findings(Place("n1", {}), lambda _: ["192.0.2.7"])  # a net kept for documentation
    assert (found.level, "192.0.2.7 is not an address of this machine" in found.fact) == ("warn", True)


def test_a_name_server_that_is_silent_is_warned_of() -> None:
    assert levels(network.host_findings(Place("n1", {}), silent)) == ["warn"]


def test_names_are_resolved() -> None:
    assert "127.0.0.1" in network.resolve("localhost") + network.resolve("127.0.0.1")
    with pytest.raises(OSError, match=r".+"):
        network.resolve("no.such.host.invalid")


def test_an_interface_that_is_not_there() -> None:
    assert network.interface_findings(Place("n1", {})) == []
    there = probe.loopback_name()
    assert levels(network.interface_findings(Place("n1", {"GLOO_SOCKET_IFNAME": there}))) == ["ok"]
    (found,) = network.interface_findings(Place("n1", {"GLOO_SOCKET_IFNAME": f"{there},ib7"}))
    assert found.level == "FAIL"
    assert "ib7" in found.fact
    assert there in found.advice


def test_the_meeting_point() -> None:
    assert network.meeting_findings(Place("n1", {})) == []
    here = {"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
    (found,) = network.meeting_findings(Place("n1", here), lambda _: ["10.0.0.1"])
    assert (found.level, found.fact) == ("ok", "n1:29500 (10.0.0.1)")
    assert levels(network.meeting_findings(Place("n1", here), unknown)) == ["FAIL"]
    both = {**here, **TWO_MACHINES}
    assert levels(network.meeting_findings(Place("n1", both), lambda _: ["127.0.0.1"])) == ["FAIL"]
    assert levels(network.meeting_findings(Place("n1", both), lambda _: ["10.0.0.1"])) == ["ok"]


# --- ports and processes -------------------------------------------------------------------------------------


def test_a_port_that_somebody_holds_is_a_note() -> None:
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        port = holder.getsockname()[1]
        (found,) = network.port_findings(port)
    assert (found.level, f"{port}, which launchers take, is in use" in found.fact) == ("note", True)
    assert levels(network.port_findings(port)) == ["ok"]


def test_no_ports_at_all_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(network.socket, "socket", forbidden)
    assert levels(network.port_findings()) == ["FAIL"]


def test_reductions_are_told_with_their_speed() -> None:
    (found,) = network.reduction_findings("all-reduce", "of 2 ranks", [Reduction(1 << 20, 0.01)])
    assert (found.level, found.fact) == ("ok", "all-reduce of 2 ranks: 1.0 MiB in 10 ms (0.10 GB/s)")
    assert found.figures == {"all_reduce_1048576_bytes_seconds": 0.01}


def test_a_wrong_sum_fails() -> None:
    measured = [Reduction(1 << 16, 0.01), Reduction(1 << 20, 0.01, correct=False)]
    (found,) = network.reduction_findings("all-reduce", "of 2 ranks", measured)
    assert (found.level, "1.0 MiB" in found.fact, "wrong sum" in found.fact) == ("FAIL", True, True)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('interface lo is gone')", "ended with code 1: interface lo is gone"),
        ("import time; time.sleep(600)", "did not reach each other in 0.5 s"),
    ],
)
def test_two_processes_that_cannot_talk(program: str, words: str) -> None:
    def broken() -> Sequence[Reduction]:
        return probe.try_pair(seconds=0.5 if "sleep" in program else 60, command=(sys.executable, "-c", program))

    (found,) = network.pair_findings(broken)
    assert found.level == "FAIL"
    assert words in found.fact


@pytest.mark.long
def test_two_processes_on_this_machine_talk() -> None:
    (found,) = network.pair_findings()
    assert found.level == "ok", found
    assert "16.0 MiB" in found.fact


# --- W&B -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_CONFIG_DIR", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)


def asked_for(mode: str) -> TrackingConfig:
    return TrackingConfig.model_validate({"wandb": {"mode": mode}})


@pytest.mark.usefixtures("no_key")
def test_a_missing_key_matters_online_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [levels(tracking.tracking_findings(asked_for(m))) for m in ("disabled", "offline", "online")] == [
        ["ok"], ["ok"], ["FAIL"],
    ]  # fmt: skip
    assert "no key here" in tracking.tracking_findings(asked_for("disabled"))[0].fact
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-that-nobody-prints")
    for mode in ("disabled", "online"):
        (found,) = tracking.tracking_findings(asked_for(mode))
        assert (found.level, "a key is there" in found.fact) == ("ok", True)
        assert "secret" not in str(found)


@pytest.mark.usefixtures("no_key")
def test_a_missing_package_matters_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    (found,) = tracking.tracking_findings(asked_for("offline"))
    assert (found.level, found.check, "pip install wandb" in found.advice) == ("FAIL", "W&B", True)


@pytest.fixture
def server() -> Iterator[str]:
    """Return the address of a server that knows nothing, but answers."""

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_the_server_is_asked_only_online(server: str) -> None:
    here = Place("n1", {"WANDB_BASE_URL": server})
    assert tracking.server_findings(asked_for("offline"), here) == []
    (found,) = tracking.server_findings(asked_for("online"), here)
    assert (found.level, found.fact) == ("ok", f"{server} answers")


def test_a_server_that_does_not_answer_is_warned_of() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening: refused
        here = Place("n1", {"WANDB_BASE_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}"})
        (found,) = tracking.server_findings(asked_for("online"), here)
    assert (found.level, "refused" in found.fact) == ("warn", True)
    odd = Place("n1", {"WANDB_BASE_URL": "file:///etc/passwd"})
    assert levels(tracking.server_findings(asked_for("online"), odd)) == ["FAIL"]


# --- Slurm ---------------------------------------------------------------------------------------------------

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_START_TIME": "1000", "SLURM_JOB_END_TIME": "4600"}


def nobody(_: Sequence[str]) -> str:
    raise OSError("scontrol fails: Unable to contact slurm controller")


def says(**fields: str) -> slurm.Run:
    return lambda _: " ".join(f"{name}={value}" for name, value in fields.items())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:03:04", 93784.0), ("02:03:04", 7384.0), ("03:04", 184.0), ("UNLIMITED", None), ("", None),
        ("Partition_Limit", None),
    ],
)  # fmt: skip
def test_times_as_slurm_writes_them(text: str, seconds: float | None) -> None:
    assert slurm.parse_time(text) == seconds


def test_a_job_is_read_from_its_environment_or_from_the_controller() -> None:
    assert slurm.read_job(Place("n1", {}), nobody) is None
    job = slurm.read_job(Place("n1", {**JOB, "GANDIST_NOTICE_SECONDS": "300"}), nobody, now=lambda: 2800)
    assert job == slurm.Job("7", 2, limit_seconds=3600, left_seconds=1800, notice_seconds=300)
    old = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "3"}
    job = slurm.read_job(Place("n1", old), says(TimeLimit="01:00:00", RunTime="00:20:00", Requeue="0"))
    assert job == slurm.Job("7", 3, limit_seconds=3600, left_seconds=2400, requeues=False)
    job = slurm.read_job(Place("n1", old), says(TimeLimit="UNLIMITED", RunTime="00:20:00", Requeue="1"))
    assert job == slurm.Job("7", 3, requeues=True)


def test_a_job_in_order() -> None:
    here = Place("n1", {**JOB, "RANK": "0", "SLURM_CPUS_PER_TASK": "8"})
    job = slurm.Job("7", 2, limit_seconds=3600, left_seconds=1800, notice_seconds=300, requeues=True)
    found = slurm.job_findings(job, here)
    assert [finding.fact for finding in found] == [
        "7 on 2 nodes, 8 cores for each task, 1 h long, 30 min left",
        "told to save 5 min before the time limit",
    ]
    assert levels(found) == ["ok", "ok"]
    assert levels(slurm.job_findings(None, here)) == ["ok"]


@pytest.mark.parametrize(("notice", "level"), [(None, "note"), (3600.0, "FAIL"), (30.0, "warn"), (300.0, "ok")])
def test_the_notice_before_the_time_limit(notice: float | None, level: str) -> None:
    job = slurm.Job("7", 1, limit_seconds=3600, notice_seconds=notice)
    assert levels(slurm.notice_findings(job)) == [level]


def test_a_job_that_may_not_be_requeued_is_warned_of() -> None:
    job = slurm.Job("7", 1, requeues=False)
    assert [f.check for f in slurm.job_findings(job, Place("n1", {})) if f.level == "warn"] == ["requeue"]


def test_one_process_on_several_nodes_says_what_it_did_not_see() -> None:
    job = slurm.Job("7", 4)
    (found,) = slurm.spread_findings(job, Place("n1", JOB))
    assert (found.level, found.fact) == ("note", "looked at n1 only, one of 4")
    assert slurm.spread_findings(job, Place("n1", {**JOB, "RANK": "0"})) == []


def test_the_programs_of_slurm() -> None:
    assert levels(slurm.program_findings(lambda _: None)) == ["ok"]
    assert levels(slurm.program_findings(lambda name: f"/bin/{name}")) == ["ok"]
    (found,) = slurm.program_findings(lambda name: None if name == "srun" else name)
    assert (found.level, found.fact) == ("warn", "srun not found")


def test_a_controller_that_is_silent_matters_in_a_job() -> None:
    job = slurm.Job("7", 1)
    for one, level in ((None, "note"), (job, "warn")):
        assert levels(slurm.controller_findings(one, nobody, lambda _: "there")) == [level]
        assert levels(slurm.controller_findings(one, lambda _: "Slurmctld(primary) at n1 is DOWN", str)) == [level]
        assert levels(slurm.controller_findings(one, lambda _: "Slurmctld(primary) at n1 is UP", str)) == ["ok"]
    assert slurm.controller_findings(job, nobody, lambda _: None) == []


@pytest.mark.parametrize("script", ["echo no such job >&2; exit 1", "exec sleep 60"])
def test_a_program_that_fails_or_hangs_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(slurm, "ASK_SECONDS", 1.0 if "sleep" in script else 60.0)
    with pytest.raises(OSError, match=r"scontrol fails: no such job|scontrol gives no answer in 1 s"):
        slurm.run([str(program)])


def test_missing_processes_are_an_error_of_the_machine() -> None:
    with pytest.raises(MachineError, match="one of two processes ended with code 3: it said nothing"):
        probe.try_pair(command=(sys.executable, "-c", "raise SystemExit(3)"))

"""A real Slurm on this machine: munged, slurmctld and one slurmd per node, all of them children of the test run.

Everything lives in one folder and listens on free ports of the loopback interface. No systemd, no cgroups, no
accounting database, and no need to be root: jobs run as the user whose cluster it is. ``munged`` is used although Slurm
can do without it, because without it anybody who reaches a port may run jobs as this user.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "scancel", "scontrol", "sinfo", "squeue")
SEARCH_PATH = (
    f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where the daemons are, which a plain user does not search
)
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}


def missing_programs() -> list[str]:
    """Return the names of the programs that a cluster needs and this machine lacks."""
    return [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name, path=SEARCH_PATH) is None]


def wait_until(condition: Callable[[], object], seconds: float, what: Callable[[], str]) -> None:
    """Poll ``condition`` until it holds; fail with ``what()`` when it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s: {what()}")
        time.sleep(0.05)


class Cluster:
    """Starts on ``with``; leaves no process behind.

    Args:
        folder: a new folder, which that user must reach.
        user: whose cluster it is, if not whoever runs the tests; only root can give it to somebody else.

    """

    def __init__(self, folder: Path, nodes: int = 2, cpus: int = 4, user: str | None = None) -> None:
        self.folder = folder
        self.user = user or pwd.getpwuid(os.getuid()).pw_name
        self.nodes = [f"n{i}" for i in range(1, nodes + 1)]
        self.cpus = cpus
        self.conf = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        with ExitStack() as undo:  # a start that fails half-way is undone
            undo.callback(self._stop)
            self._start()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(
        self, *command: str, check: bool = True, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> str:
        """Run a Slurm client against this cluster and return what it printed."""
        done = subprocess.run(
            command, env=self.env(env or os.environ), cwd=cwd, timeout=30, text=True, **self._identity(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{' '.join(command)} -> {done.returncode}\n{done.stdout}"
        return done.stdout

    def env(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return ``base`` pointed at this cluster, without what an outer Slurm job may have left in it."""
        inherited = {k: v for k, v in base.items() if not k.startswith(("SLURM", "SBATCH_", "SRUN_"))}
        return {**inherited, "SLURM_CONF": str(self.conf)}

    def submit(
        self, script: str, *arguments: str, cwd: Path, options: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Job:
        """Submit ``script`` with ``arguments`` from the folder ``cwd``."""
        command = ["sbatch", "--parsable", "--output=job-%j.out", *options, script, *arguments]
        number = self.run(*command, env=env, cwd=cwd).strip()
        return Job(self, number, cwd / f"job-{number}.out")

    def submit_array(
        self, script: str, *arguments: str, tasks: Sequence[int], cwd: Path, options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> dict[int, Job]:  # fmt: skip
        """Submit ``script`` as an array; return its tasks by their numbers."""
        array = ("--array=" + ",".join(map(str, tasks)), "--output=job-%A_%a.out")
        whole = self.submit(script, *arguments, cwd=cwd, options=(*options, *array), env=env)
        return {task: Job(self, f"{whole.id}_{task}", cwd / f"job-{whole.id}_{task}.out") for task in tasks}

    def set_partition(self, **settings: object) -> None:
        """Change settings of the partition ``main``."""
        self.run("scontrol", "update", "PartitionName=main", *(f"{k}={v}" for k, v in settings.items()))

    def wait_idle(self, seconds: float = 30) -> None:
        """Wait until every node is free and healthy."""
        wait_until(
            lambda: (
                self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).split()
                == ["idle"] * len(self.nodes)
            ),
            seconds,
            lambda: f"nodes are not idle:\n{self.run('sinfo', '-N', '-l', check=False)}\n{self._log_tails()}",
        )

    def _start(self) -> None:
        for name in ("state", "run", "log", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        self.conf.write_text(self._configuration())
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(64))
        give_to(self.user, self.folder)
        run, log = self.folder / "run", self.folder / "log"
        self._spawn(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={run}/munge.sock",
            f"--pid-file={run}/munged.pid", f"--seed-file={run}/munged.seed", f"--log-file={log}/munged.log",
        )  # fmt: skip
        wait_until((run / "munge.sock").exists, 10, self._log_tails)
        self._spawn("slurmctld", "-D", "-c", "-f", str(self.conf))
        for node in self.nodes:
            self.start_node(node)
        self.wait_idle()

    def start_node(self, node: str) -> None:
        """Start the daemon of a node, for the first time or after :meth:`kill_node`."""
        self._spawn("slurmd", "-D", "-N", node, "-f", str(self.conf), name=node)

    def kill_node(self, node: str) -> None:
        """Kill the daemon of a node and every process of every job on it, as when its power fails."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()
        while doomed := self._processes_on(node):
            for pid in doomed:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def repair(self) -> None:
        """Start the daemons of nodes that were killed."""
        for node in self.nodes:
            if node not in self._daemons:
                self.start_node(node)

    def _processes_on(self, node: str) -> list[int]:
        """Return the processes of jobs on a node, after those of Slurm that watch over them and would tell."""
        marks = {f"SLURM_CONF={self.conf}".encode(), f"SLURMD_NODENAME={node}".encode()}
        tasks, watchers = [], set()
        for folder in Path("/proc").iterdir():
            with suppress(OSError):  # it has ended, or is another user's
                if folder.name.isdigit() and marks <= set((folder / "environ").read_bytes().split(b"\0")):
                    tasks.append(int(folder.name))
                    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                    if Path("/proc", parent, "comm").read_text().startswith("slurmstepd"):
                        watchers.add(int(parent))
        return [*watchers, *tasks]

    def _spawn(self, program: str, *arguments: str, name: str = "") -> None:
        path = shutil.which(program, path=SEARCH_PATH)
        assert path is not None, f"{program} is not installed"
        with (self.folder / "log" / f"{program}.out").open("ab") as log:
            daemon = subprocess.Popen(
                [path, *arguments], env=self.env(os.environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                **self._identity(),
            )  # fmt: skip
        self._daemons[name or program] = daemon

    def _identity(self) -> dict[str, Any]:
        """Return what makes a new process one of the cluster's user."""
        them = pwd.getpwnam(self.user)
        return {} if them.pw_uid == os.getuid() else {"user": them.pw_uid, "group": them.pw_gid, "extra_groups": []}

    def _stop(self) -> None:
        """End the jobs first, so that no step outlives its slurmd, then the daemons in reverse order."""
        try:
            if len(self._daemons) > 1:
                self.end_jobs()
        finally:
            self._end_daemons()

    def end_jobs(self) -> None:
        """End every job, whatever state it is in."""
        wait_until(self._no_jobs_left, 30, lambda: f"jobs do not end:\n{self.run('squeue', check=False)}")

    def _no_jobs_left(self) -> bool:
        jobs = self.run("squeue", "-h", "-o", "%A", check=False).split()
        if jobs:  # again and again: a script that is being tested may requeue itself
            self.run("scancel", "--full", "--signal=KILL", *jobs, check=False)
            self.run("scancel", *jobs, check=False)
        return not jobs

    def _end_daemons(self) -> None:
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(10)
        self._daemons.clear()

    def _configuration(self) -> str:
        host = socket.gethostname().split(".")[0]
        control, *ports = _free_ports(1 + len(self.nodes))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={self.cpus} RealMemory=4000 State=UNKNOWN"
            for name, port in zip(self.nodes, ports, strict=True)
        )
        return CONFIGURATION.format(folder=self.folder, host=host, user=self.user, port=control, nodes=nodes)

    def _log_tails(self) -> str:
        logs = sorted((self.folder / "log").glob("*.*"))
        return "\n".join(f"--- {log.name}\n" + "\n".join(_text(log).splitlines()[-15:]) for log in logs)


@dataclass(frozen=True)
class Job:
    """A submitted job, or a task of an array: ``ARRAY_TASK`` is then its id."""

    cluster: Cluster
    id: str
    output: Path

    def field(self, name: str) -> str:
        """Return one field of ``scontrol show job``, such as JobState or Restarts."""
        record = self.cluster.run("scontrol", "show", "job", "-o", self.id)
        found = re.search(rf"\b{name}=(\S*)", record)
        assert found, f"no {name} in: {record}"
        return found[1]

    def lives(self) -> bool:
        """Return whether the job is waiting, running, or about to."""
        return self.field("JobState") not in FINAL

    def wait_for(self, state: str, seconds: float = 60) -> None:
        """Wait until the job is in ``state``; fail at once when it has ended in another one."""
        wait_until(lambda: self.field("JobState") in {state, *FINAL}, seconds, self.describe)
        assert self.field("JobState") == state, self.describe()

    def wait_for_line(self, text: str, seconds: float = 60) -> None:
        """Wait until the job has printed ``text``; fail at once when it ends without."""
        wait_until(lambda: text in self.printed() or not self.lives(), seconds, self.describe)
        assert text in self.printed(), f"never printed {text!r}: {self.describe()}"

    def signal_batch_shell(self, name: str) -> None:
        """Send a signal to the batch script alone, as ``#SBATCH --signal=B:USR1@300`` does."""
        self.cluster.run("scancel", "--batch", f"--signal={name}", self.id)

    def signal_steps(self, name: str) -> None:
        """Send a signal to every process of the job's steps, but not to the batch script."""
        self.cluster.run("scancel", f"--signal={name}", self.id)

    def cancel(self) -> None:
        """Cancel the job, as a user does."""
        self.cluster.run("scancel", self.id)

    def printed(self) -> str:
        """Return what the job has printed in all its attempts."""
        return _text(self.output)

    def describe(self) -> str:
        """Return everything worth reading when a test fails."""
        return f"{self.cluster.run('scontrol', 'show', 'job', self.id, check=False)}\n{self.printed()}"


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def give_to(user: str, folder: Path) -> None:
    """Make ``user`` the owner of a folder and of all that is in it."""
    them = pwd.getpwnam(user)
    if them.pw_uid != os.getuid():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, them.pw_uid, them.pw_gid, follow_symlinks=False)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:  # all at once, so that no two are the same
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("0.0.0.0", 0))
        return [each.getsockname()[1] for each in sockets]


CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/munge
CredType=cred/munge
# A requeued job starts again cred_expire + 1 seconds after it ended; 5 is the least that Slurm honours.
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MailProg=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
# Neither cgroups nor a database. linuxproc finds a step's processes by descent; pgid loses the ranks, which the
# launcher starts in sessions of their own.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
# Two nodes on one machine may claim more processors than it has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
KillWait=5
MessageTimeout=5
TCPTimeout=2
SlurmdTimeout=10
UnkillableStepTimeout=15
BatchStartTimeout=10
MinJobAge=7200
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=10 PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=20 PreemptMode=OFF
"""

"""Slurm: its programs, the job that this is, the time it has, and the notice it gets before its end."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gandist.doctor.figures import count, duration
from gandist.doctor.finding import Finding, fail, note, ok, warn
from gandist.runtime.machine import NOTICE_SECONDS
from gandist.runtime.place import Place

PROGRAMS = ("sbatch", "srun", "scontrol", "squeue")
ASK_SECONDS = 15.0
LITTLE_NOTICE_SECONDS = 60.0  # Slurm looks at the clock once a minute

Run = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Job:
    """The Slurm job that this process belongs to.

    Attributes:
        number: its id.
        nodes: machines it has.
        limit_seconds: from its start to its time limit, None where there is none, or nobody says.
        left_seconds: until its time limit.
        notice_seconds: how long before the end it is told to save; None where nobody says.
        requeues: whether Slurm may put it back into the queue; None where nobody says.

    """

    number: str
    nodes: int
    limit_seconds: float | None = None
    left_seconds: float | None = None
    notice_seconds: float | None = None
    requeues: bool | None = None


def run(command: Sequence[str]) -> str:
    """Return what a program prints.

    Raises:
        OSError: it is not there, fails or does not answer.

    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} gives no answer in {ASK_SECONDS:g} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"it ends with code {done.returncode}"])[0]
        raise OSError(f"{command[0]} fails: {said.removeprefix(f'{command[0]}: ').removeprefix('error: ')[:150]}")
    return done.stdout


def read_job(place: Place, runner: Run = run, now: Callable[[], float] = time.time) -> Job | None:
    """Return the job that this is a process of, as its environment says and, where that is silent, ``scontrol``."""
    number = place.environ.get("SLURM_JOB_ID")
    if not number:
        return None
    start, end = place.number("SLURM_JOB_START_TIME", 0), place.number("SLURM_JOB_END_TIME", 0)
    asked = _asked(number, runner)
    limit = float(end - start) if start and end else parse_time(asked.get("TimeLimit", ""))
    ran = parse_time(asked.get("RunTime", ""))
    left = end - now() if end else limit - ran if limit is not None and ran is not None else None
    notice = place.number(NOTICE_SECONDS, 0)
    return Job(
        number,
        nodes=place.number("SLURM_JOB_NUM_NODES", place.number("SLURM_NNODES", 1)),
        limit_seconds=limit,
        left_seconds=left,
        notice_seconds=float(notice) if notice else None,
        requeues=asked["Requeue"] == "1" if "Requeue" in asked else None,
    )


def _asked(number: str, runner: Run) -> dict[str, str]:
    try:
        text = runner(["scontrol", "show", "job", number, "--oneliner"])
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def parse_time(text: str) -> float | None:
    """Return the seconds of a time as Slurm writes it (``[days-]hours:minutes:seconds``), None for no limit."""
    matched = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if matched is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in matched.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def program_findings(which: Callable[[str], str | None] = shutil.which) -> list[Finding]:
    """Look for Slurm's programs."""
    missing = [name for name in PROGRAMS if which(name) is None]
    if len(missing) == len(PROGRAMS):
        return [ok("Slurm", "not on this machine; nothing here needs it")]
    if missing:
        return [warn("Slurm", f"{', '.join(missing)} not found", "Load the site's module for Slurm, or extend PATH.")]
    return [ok("Slurm", f"{', '.join(PROGRAMS)} are here")]


def controller_findings(
    job: Job | None, runner: Run = run, which: Callable[[str], str | None] = shutil.which
) -> list[Finding]:
    """Look whether the controller answers; outside of a job that matters only to who wants to submit one here."""
    if which("scontrol") is None:
        return []
    advice = "From this machine no job can be submitted now; ask who runs the cluster."
    try:
        said = " ".join(runner(["scontrol", "ping"]).split())[:150]
    except OSError as error:
        said = str(error)
    if "UP" in said.upper().split():
        return [ok("controller", "it answers")]
    return [note("controller", said, advice) if job is None else warn("controller", said, advice)]


def job_findings(job: Job | None, place: Place) -> list[Finding]:
    """Look at the job: its size, its time, its notice, whether it may be requeued."""
    if job is None:
        return [ok("job", "this is not a Slurm job")]
    cores = place.number("SLURM_CPUS_PER_TASK", 0)
    fact = f"{job.number} on {count(job.nodes, 'node')}" + (f", {count(cores, 'core')} for each task" if cores else "")
    if job.limit_seconds is None:
        fact += ", no time limit known"
    else:
        left = f", {duration(max(job.left_seconds, 0))} left" if job.left_seconds is not None else ""
        fact += f", {duration(job.limit_seconds)} long{left}"
    findings = [ok("job", fact, **({"limit_seconds": job.limit_seconds} if job.limit_seconds else {}))]
    if job.requeues is False:
        advice = "sbatch --requeue, or submit again by hand: the same command continues."
        findings.append(warn("requeue", "this job may not go back to the queue", advice))
    return findings + notice_findings(job) + spread_findings(job, place)


def notice_findings(job: Job) -> list[Finding]:
    """Look at how long before its end the job is told."""
    if job.limit_seconds is None:
        return []
    if job.notice_seconds is None:
        advice = "slurm/train.sbatch sees to it; in a script of your own: #SBATCH --signal=B:USR1@300, and "
        advice += f"export {NOTICE_SECONDS}=300"
        return [note("notice", "not known how long before the time limit this job is told to save", advice)]
    fact = f"told to save {duration(job.notice_seconds)} before the time limit"
    if job.notice_seconds >= job.limit_seconds:
        advice = "It would be told as it begins: a longer --time, or a shorter --signal=B:USR1@SECONDS."
        return [fail("notice", f"{fact} of {duration(job.limit_seconds)}", advice)]
    if job.notice_seconds < LITTLE_NOTICE_SECONDS:
        return [warn("notice", fact, "Slurm may come a minute late or early: --signal=B:USR1@300")]
    return [ok("notice", fact, notice_seconds=job.notice_seconds)]


def spread_findings(job: Job, place: Place) -> list[Finding]:
    """Look whether the ranks are spread over all nodes of the job."""
    if job.nodes > 1 and place.launched_world == 1 and "RANK" not in place.environ:
        advice = "docs/doctor.md shows how to launch the doctor on all of them."
        return [note("nodes", f"looked at {place.host} only, one of {job.nodes}", advice)]
    return []

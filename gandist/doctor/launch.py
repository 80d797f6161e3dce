"""What only all ranks together can tell: whether they are one run, one disk, one time; how fast they reduce.

Every function that takes ``ranks`` is called by all of them, in the same order, and returns its findings on rank 0.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gandist.doctor.figures import count, duration
from gandist.doctor.finding import Finding, fail, note, ok, warn
from gandist.doctor.network import reduction_findings
from gandist.runtime.distributed import Ranks
from gandist.runtime.files import write_text
from gandist.runtime.place import Place
from gandist.runtime.probe import ClockOffset, Reduction, backend_name, clock_offsets, transport_version

APPEAR_SECONDS = 20.0  # network file systems may keep what they know of a folder for some seconds
SLOW_APPEAR_SECONDS = 3.0
REPLACING_SECONDS = 0.5
CLOCKS_APART_SECONDS = 1.0


def tell(ranks: Ranks, what: Any) -> list[Any]:
    """Return what each rank has to tell, plain JSON, on rank 0; nothing on the others."""
    return [json.loads(line) for line in ranks.to_main([json.dumps(what)])]


def gather(ranks: Ranks, mine: Sequence[Finding], host: str) -> list[Finding]:
    """Return on rank 0 its own findings, and of the others' those that are worse, each once with who found it."""
    told = tell(ranks, {"host": host, "findings": [finding.plain() for finding in mine]})
    if not told:
        return []
    found: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    kept: dict[tuple[str, str, str], Finding] = {}
    for rank, one in enumerate(told):
        for plain in one["findings"]:
            finding = Finding(**plain)
            key = (finding.level, finding.check, finding.fact)
            if rank == 0 or finding.level in ("warn", "FAIL"):
                kept.setdefault(key, finding)
                found.setdefault(key, []).append((rank, one["host"]))
    everybody = len(told)
    return [
        finding if finding.level in ("ok", "note") or len(found[key]) == everybody else finding.at(_who(found[key]))
        for key, finding in kept.items()
    ]


def _who(places: Sequence[tuple[int, str]]) -> str:
    numbers = ", ".join(str(rank) for rank, _ in places[:8]) + (", ..." if len(places) > 8 else "")
    hosts = ", ".join(sorted({host for _, host in places})[:4])
    return f"rank{'s' if len(places) > 1 else ''} {numbers} on {hosts}"


def world_findings(ranks: Ranks, place: Place) -> list[Finding]:
    """Look how many ranks there are, and on which machines."""
    hosts = Counter(tell(ranks, place.host))
    if not hosts:
        return []
    if ranks.world == 1:
        return [ok("ranks", "one process")]
    spread = ", ".join(f"{number} on {host}" for host, number in list(hosts.items())[:8])
    fact = f"{ranks.world} ranks on {count(len(hosts), 'machine')}: {spread}" + (", ..." if len(hosts) > 8 else "")
    if len(set(hosts.values())) > 1:
        return [warn("ranks", fact, "Every machine should have as many: all wait for the fullest.")]
    if place.machines > len(hosts):
        # several "machines" of one name are containers or a rehearsal on one host
        return [note("ranks", f"{fact}, where the launcher speaks of {place.machines}")]
    return [ok("ranks", fact, ranks=ranks.world, machines=len(hosts))]


def agreement_findings(ranks: Ranks, mine: Mapping[str, str]) -> list[Finding]:
    """Look whether a few things, such as versions and the recipe, are the same on all ranks."""
    told: list[dict[str, str]] = tell(ranks, dict(mine))
    if ranks.world == 1 or not told:
        return []
    findings = []
    for name in told[0]:
        values = [one.get(name, "missing") for one in told]
        if len(set(values)) > 1:
            other = next(rank for rank, value in enumerate(values) if value != values[0])
            fact = f"{name} is {values[0]} on rank 0 and {values[other]} on rank {other}"
            advice = "Use one environment, one checkout and one recipe on all machines: on a disk that all of them see."
            findings.append(fail("same everywhere", fact, advice))
    return findings or [ok("same everywhere", ", ".join(told[0]))]


def clock_findings(ranks: Ranks, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Look how far the clocks of the ranks are apart."""
    offsets = clock_offsets(ranks, clock)
    if not offsets:
        return []
    worst = max(offsets, key=lambda offset: abs(offset.seconds))
    apart = abs(worst.seconds)
    figures = {"worst_offset_seconds": worst.seconds}
    if apart > CLOCKS_APART_SECONDS + worst.uncertainty:
        way = "ahead of" if worst.seconds > 0 else "behind"
        fact = f"that of rank {worst.rank} is {duration(apart)} {way} that of rank 0"
        advice = "Set both by NTP: logs come in a wrong order, and servers refuse requests with a wrong time."
        return [warn("clocks", fact, advice, **figures)]
    return [ok("clocks", f"{_within(offsets)} of rank 0's", **figures)]


def _within(offsets: Sequence[ClockOffset]) -> str:
    most = max(abs(one.seconds) + one.uncertainty for one in offsets)
    return f"all within {duration(max(most, 1e-4))}"


def bandwidth_findings(ranks: Ranks, measured: Sequence[Reduction]) -> list[Finding]:
    """Look at reductions over all ranks, made as gradients are reduced."""
    if ranks.control is None:
        return []
    between = f"of {ranks.world} ranks over {backend_name()} {transport_version()}".rstrip()
    return reduction_findings("all-reduce", between, measured)


# --- one disk ------------------------------------------------------------------------------------------------


def shared_folder_findings(ranks: Ranks, folder: Path, host: str) -> list[Finding]:
    """Look whether all ranks see what rank 0 writes in ``folder``, whole, soon, and locked where it is locked."""
    if ranks.control is None:
        return []
    secret = secrets.token_hex(16)
    if ranks.main:
        write_text(folder / "shared", secret)
    secret = ranks.from_main(secret)
    waited = _await_content(folder / "shared", secret)
    seen = tell(ranks, {"host": host, "seconds": waited})
    everywhere = not ranks.any(waited is None)
    findings = _appearance(seen, folder)
    if not everywhere:
        return findings
    findings += _replacing(ranks, folder / "replaced")
    return findings + _locking(ranks, folder / "locked")


def _await_content(path: Path, content: str) -> float | None:
    """Return the seconds until a file is there with this content; None if it does not come."""
    begin = time.monotonic()
    while (waited := time.monotonic() - begin) < APPEAR_SECONDS:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == content:
                return waited
        time.sleep(0.02)
    return None


def _appearance(seen: Sequence[Mapping[str, Any]], folder: Path) -> list[Finding]:
    if not seen:
        return []
    blind = sorted({f"rank {rank} on {one['host']}" for rank, one in enumerate(seen) if one["seconds"] is None})
    if blind:
        fact = f"{', '.join(blind[:6])} never saw a file that rank 0 wrote in {folder.parent}"
        return [fail("shared folder", fact, "Choose a --run.root on a disk that all machines see under the same path.")]
    slowest = max(float(one["seconds"]) for one in seen)
    fact = f"a file that rank 0 writes is seen by all ranks, the last one after {duration(slowest)}"
    if slowest > SLOW_APPEAR_SECONDS:
        advice = "A requeued job may not see the newest checkpoint at once: mount with a shorter attribute cache."
        return [warn("shared folder", fact, advice, seconds=slowest)]
    return [ok("shared folder", fact, seconds=slowest)]


def _replacing(ranks: Ranks, path: Path) -> list[Finding]:
    """Replace a file again and again on rank 0 while the others read it: each reading must be whole."""
    contents = {letter * 4096 for letter in "ab"}
    if ranks.main:
        write_text(path, "a" * 4096)
    ranks.barrier()
    end = time.monotonic() + REPLACING_SECONDS
    readings = torn = 0
    while time.monotonic() < end:
        readings += 1
        if ranks.main:
            _replace(path, "ab"[readings % 2] * 4096)
            continue
        try:
            torn += path.read_text(encoding="utf-8") not in contents
        except OSError:  # gone for a moment, or a stale handle
            torn += 1
    told = tell(ranks, [readings, torn])
    if not told:
        return []
    readings, torn = sum(one[0] for one in told[1:]), sum(one[1] for one in told[1:])
    if torn:
        fact = f"{torn:,} of {count(readings, 'reading')} of a file being replaced were not whole"
        advice = "Renaming is not atomic here: choose a --run.root on another file system."
        return [fail("replacing a file", fact, advice)]
    return [ok("replacing a file", f"whole in each of {count(readings, 'reading')} while it was replaced")]


def _replace(path: Path, content: str) -> None:
    """Replace a file without flushing it to the disk, which is not what is tried here and would take long."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)


def _locking(ranks: Ranks, path: Path) -> list[Finding]:
    """Hold a lock on rank 0 while the others try to get it."""
    if ranks.main:
        path.touch()
    ranks.barrier()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        held = not ranks.main or _lock(descriptor)
        ranks.barrier()
        got = not ranks.main and _lock(descriptor)
        told = tell(ranks, {"held": held, "got": got})
    finally:
        ranks.barrier()
        os.close(descriptor)
    if not told:
        return []
    guard = "A second job on the same run is then noticed later, by its name in lease.json."
    if not told[0]["held"]:
        return [note("locks", "this file system has none", guard)]
    if intruders := [rank for rank, one in enumerate(told) if one["got"]]:
        fact = f"rank {intruders[0]} got a lock that rank 0 holds: locks are not seen across machines"
        return [warn("locks", fact, f"{guard} Never start a run twice at the same time.")]
    return [ok("locks", "what rank 0 locks is refused to the others")]


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

"""Measuring the network between ranks: how fast they reduce, how far their clocks are apart.

Every function here is called by all ranks, in the same order. Alone on a laptop, :func:`try_pair` starts two processes
of its own: ``python -m gandist.runtime.probe RANK STORE`` is one of them.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from gandist.errors import MachineError
from gandist.runtime.distributed import Ranks

SIZES = (1 << 16, 1 << 20, 1 << 24)  # bytes: a bias, a small network, a bucket of DDP
LARGE = 1 << 26  # bytes: left out where it would take long
LARGE_SECONDS = 1.0
REPETITIONS = 5
CLOCK_TRIPS = 8


@dataclass(frozen=True)
class Reduction:
    """An all-reduce of so many bytes on each rank, and the median of the seconds it took."""

    bytes: int
    seconds: float
    correct: bool = True

    @property
    def bytes_per_second(self) -> float:
        """Return the algorithm bandwidth: bytes of the tensor by time, whatever travels for it."""
        return self.bytes / self.seconds


@dataclass(frozen=True)
class ClockOffset:
    """How far a rank's clock is ahead of rank 0's, give or take half of a message's round trip."""

    rank: int
    seconds: float
    uncertainty: float


def backend_name() -> str:
    """Return what carries gradients between ranks: nccl or gloo."""
    return str(dist.get_backend())


def transport_version() -> str:
    """Return the version of NCCL, where it carries gradients."""
    return ".".join(map(str, torch.cuda.nccl.version())) if backend_name() == "nccl" else ""


def measure_reductions(device: torch.device, world: int) -> list[Reduction]:
    """Return the time of an all-reduce for tensors of a few sizes, over the group that carries gradients."""
    found = [_reduce(size, device, world) for size in SIZES]
    predicted = torch.tensor(LARGE / found[-1].bytes_per_second * REPETITIONS, device=device)
    dist.all_reduce(predicted, op=dist.ReduceOp.MAX)  # all ranks choose alike
    if float(predicted) <= LARGE_SECONDS:
        found.append(_reduce(LARGE, device, world))
    return found


def _reduce(size: int, device: torch.device, world: int) -> Reduction:
    expected = world * (world - 1) / 2  # the sum of all ranks' numbers
    times = []
    correct = True
    for _ in range(REPETITIONS + 1):  # the first one sets up connections and is not counted
        tensor = torch.full((size // 4,), float(dist.get_rank()), device=device)
        _settle(device)
        begin = time.perf_counter()
        dist.all_reduce(tensor)
        _settle(device)
        times.append(time.perf_counter() - begin)
        correct = correct and bool((tensor == expected).all())
    return Reduction(size, statistics.median(times[1:]), correct)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock_offsets(ranks: Ranks, clock: Callable[[], float] = time.time) -> list[ClockOffset]:
    """Return on rank 0 how far each other rank's clock is ahead of its own; nothing on the other ranks.

    Rank 0 asks for the time and halves the round trip, as NTP does; the quickest of a few trips counts.
    """
    if ranks.control is None:
        return []
    return [offset for other in range(1, ranks.world) for offset in _compare_clocks(ranks, other, clock)]


def _compare_clocks(ranks: Ranks, other: int, clock: Callable[[], float]) -> list[ClockOffset]:
    if ranks.rank not in (0, other):
        return []
    message = torch.zeros(1, dtype=torch.float64)
    best: ClockOffset | None = None
    for _ in range(CLOCK_TRIPS):
        if ranks.rank == other:
            dist.recv(message, src=0, group=ranks.control)
            dist.send(torch.tensor([clock()], dtype=torch.float64), dst=0, group=ranks.control)
            continue
        asked = clock()
        dist.send(message, dst=other, group=ranks.control)
        dist.recv(message, src=other, group=ranks.control)
        heard = clock()
        offset = ClockOffset(other, float(message) - (asked + heard) / 2, (heard - asked) / 2)
        best = offset if best is None or offset.uncertainty < best.uncertainty else best
    return [best] if best is not None else []


# --- two processes of our own --------------------------------------------------------------------------------


def try_pair(seconds: float = 120.0, command: Sequence[str] = (sys.executable, "-m", __name__)) -> list[Reduction]:
    """Start two processes that reduce tensors over gloo on the loopback interface; return what rank 0 measured.

    Raises:
        MachineError: they did not reach each other.

    """
    with tempfile.TemporaryDirectory(prefix="gandist-doctor-") as folder:
        started: list[subprocess.Popen[str]] = []
        try:
            for rank in (0, 1):
                started.append(_start_one(command, rank, Path(folder)))
            printed = [process.communicate(timeout=seconds) for process in started]
        except subprocess.TimeoutExpired:
            raise MachineError(f"two processes on this machine did not reach each other in {seconds:g} s") from None
        finally:
            for process in started:
                process.kill()
                process.communicate()  # reaps it and closes its pipes
    for process, (_, errors) in zip(started, printed, strict=True):
        if process.returncode != 0:
            last = [line for line in errors.splitlines() if line.strip()][-1:] or ["it said nothing"]
            raise MachineError(f"one of two processes ended with code {process.returncode}: {last[0].strip()[:300]}")
    return [Reduction(**one) for one in json.loads(printed[0][0])]


def _start_one(command: Sequence[str], rank: int, folder: Path) -> subprocess.Popen[str]:
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environ = {name: value for name, value in os.environ.items() if name not in launcher}
    environ |= {"GLOO_SOCKET_IFNAME": loopback_name(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(rank), str(folder / "store")],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def loopback_name() -> str:
    """Return the name of the loopback interface."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name.startswith("lo")), "lo")


def main(rank: int, store: str) -> None:
    """Be one of two processes; rank 0 prints what it measured as JSON."""
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    measured = measure_reductions(torch.device("cpu"), 2)
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        print(json.dumps([asdict(one) for one in measured]))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

"""The machine a rank runs on: what it computes in, how many threads it takes, what it used."""

from __future__ import annotations

import math
import os
import platform
import resource
from pathlib import Path
from typing import Any, Literal

import torch

import gandist
from gandist.config import ExecutionConfig
from gandist.errors import MachineError

Precision = Literal["fp32", "bf16", "fp16"]


def choose_device(execution: ExecutionConfig) -> Literal["cpu", "cuda"]:
    """Return the kind of device to compute on.

    Raises:
        MachineError: a GPU was asked for where there is none.

    """
    available = torch.cuda.is_available()
    if execution.device == "cuda" and not available:
        raise MachineError(
            "execution.device: cuda was asked for, but torch sees no CUDA device here. Check the driver with "
            "nvidia-smi, or train on the CPU with --execution.device cpu."
        )
    return "cuda" if available and execution.device != "cpu" else "cpu"


def choose_precision(execution: ExecutionConfig, device: Literal["cpu", "cuda"]) -> Precision:
    """Return the number format: the one asked for, else the launcher's, else bf16 where the hardware computes in it.

    Raises:
        MachineError: fp16 was asked for on a CPU.

    """
    launched: dict[str, Precision] = {"bf16": "bf16", "fp16": "fp16"}
    asked = execution.precision
    wish = launched.get(os.environ.get("ACCELERATE_MIXED_PRECISION", "no")) if asked == "auto" else asked
    if wish == "fp16" and device == "cpu":
        raise MachineError("execution.precision: fp16 needs a GPU; on a CPU choose bf16, fp32 or auto.")
    if wish:
        return wish
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp32"
    return "bf16" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "fp32"


def cpu_flags() -> frozenset[str]:
    """Return the instruction set extensions of this machine's CPU, as Linux names them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


def local_ranks(world: int) -> int:
    """Return how many of the ranks run on each machine, as the launcher says; all of them where it says nothing."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world))


def set_threads(threads: int | None, device: Literal["cpu", "cuda"], world: int) -> None:
    """Give this rank ``threads`` CPU threads; on a CPU, its share of the machine's cores where that is None."""
    if threads is None and device == "cpu":
        threads = max(1, len(os.sched_getaffinity(0)) // local_ranks(world))
    if threads is not None:
        torch.set_num_threads(threads)


def require_determinism() -> None:
    """Make torch use only algorithms that repeat to the bit, and fail where there is none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def environment(device: torch.device, world: int, precision: Precision) -> dict[str, Any]:
    """Return what a run was made with, for the record."""
    return {
        "gandist": gandist.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "world_size": world,
        "precision": precision,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory this process has used: on the GPU where there is one, else resident in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def memory_figures(device: torch.device) -> str:
    """Return what this process used at most, and what there is."""
    peak = f"this process used up to {peak_memory_gib(device):.1f} GiB"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{peak} of {total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
    return f"{peak} of {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"


NOTICE_SECONDS = "GANDIST_NOTICE_SECONDS"
"""Environment variable in which a launch script says how long before the end a run is asked to save."""


def notice_seconds() -> float | None:
    """Return how much time a run has from the request to save until it is killed, if somebody said."""
    try:
        return float(os.environ[NOTICE_SECONDS])
    except (KeyError, ValueError):
        return None


def short_notice(save_seconds: float) -> str | None:
    """Return what to do if a save takes longer than the time between the request to save and the end."""
    notice = notice_seconds()
    if notice is None or save_seconds <= notice:
        return None
    return (
        f"A save takes {save_seconds:.0f} s, but this job is asked to save only {notice:g} s before its end: it may be "
        "killed in the middle, and fall back to the checkpoint before. Ask for more, for instance with "
        f"sbatch --signal=B:USR1@{math.ceil(save_seconds * 2 / 60) * 60}."
    )

"""GPUs, CPU cores, memory."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from gandist.config import ExecutionConfig
from gandist.doctor.figures import count, size
from gandist.doctor.finding import Finding, fail, note, ok, warn
from gandist.runtime.machine import cpu_flags
from gandist.runtime.place import Place

SMI_SECONDS = 20.0
LITTLE_MEMORY_BYTES = 2 << 30
LITTLE_SHARED_BYTES = 256 << 20  # docker gives 64 MiB unless it is asked for more
FEW_FILES = 1024
BUSY_SHARE = 0.1  # of a GPU's memory: more than a driver takes


@dataclass(frozen=True)
class Gpu:
    """One GPU that torch sees."""

    index: int
    name: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int


def gpus() -> list[Gpu]:
    """Return the GPUs that this process sees."""
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found.append(Gpu(index, properties.name, (properties.major, properties.minor), free, total))
    return found


def gpu_findings(found: list[Gpu], execution: ExecutionConfig, place: Place) -> list[Finding]:
    """Look at each GPU: what it is, whether somebody else is on it, whether there is one for each rank."""
    if not found:
        return _no_gpu(execution)
    findings = []
    for gpu in found:
        major, minor = gpu.capability
        formats = "computes in bf16" if major >= 8 else "no bf16: passes are fp32 unless fp16 is asked for"
        fact = f"{gpu.name}, compute capability {major}.{minor}, {formats}"
        fact += f"; {size(gpu.free_bytes)} of {size(gpu.total_bytes)} free"
        used = gpu.total_bytes - gpu.free_bytes
        if place.launched_world == 1 and used > BUSY_SHARE * gpu.total_bytes:
            advice = "nvidia-smi names who holds the rest; choose another one with CUDA_VISIBLE_DEVICES."
            findings.append(warn(f"GPU {gpu.index}", fact, advice, free_bytes=gpu.free_bytes))
        else:
            findings.append(ok(f"GPU {gpu.index}", fact, free_bytes=gpu.free_bytes, total_bytes=gpu.total_bytes))
    if execution.device != "cpu" and place.local_world > len(found):
        fact = f"{place.local_world} ranks on this machine, {count(len(found), 'GPU')}"
        findings.append(fail("GPUs", fact, f"Launch {len(found)} here: --num_processes counts the ranks of all nodes."))
    if len({gpu.name for gpu in found}) > 1:
        advice = "All ranks wait for the slowest; choose equal ones with CUDA_VISIBLE_DEVICES."
        findings.append(warn("GPUs", "they are of different kinds", advice))
    return findings


def _no_gpu(execution: ExecutionConfig) -> list[Finding]:
    if execution.device == "cuda":
        advice = "Check the driver with nvidia-smi, or train on the CPU with --execution.device cpu."
        return [fail("GPU", "execution.device is cuda, but torch sees none", advice)]
    driver = Path("/proc/driver/nvidia/version").is_file() or shutil.which("nvidia-smi") is not None
    if driver and execution.device == "auto":
        built = torch.version.cuda
        reason = f"torch is built for CUDA {built}" if built else "torch is built for the CPU"
        advice = (
            "Compare the driver's CUDA version in nvidia-smi with torch's, and look at CUDA_VISIBLE_DEVICES."
            if built
            else "Install a torch that is built for CUDA: see pytorch.org, Get started."
        )
        return [warn("GPU", f"a driver is here, but torch sees no GPU; {reason}", advice)]
    return [ok("GPU", "none: training is on the CPU")]


def driver_findings(seconds: float = SMI_SECONDS) -> list[Finding]:
    """Look at the driver's version, as nvidia-smi says."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        fact = f"nvidia-smi gives no answer in {seconds:g} s"
        return [fail("driver", fact, "A GPU of this machine hangs; ask for another node.")]
    if done.returncode != 0:
        said = " ".join((done.stdout + done.stderr).split())[:200]
        return [warn("driver", f"nvidia-smi fails: {said}", "The driver is not loaded, or does not fit its library.")]
    return [ok("driver", f"NVIDIA {', '.join(sorted(set(done.stdout.split())))}")]


# --- cores -------------------------------------------------------------------------------------------------


def core_findings(execution: ExecutionConfig, place: Place, on_gpu: bool) -> list[Finding]:
    """Compare the cores that this process may use with the threads and workers that a run starts on them."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    ranks = place.local_world
    threads = execution.threads or (torch.get_num_threads() if on_gpu else max(1, cores // ranks))
    fast = "computes in bf16" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "no bf16"
    fact = f"{count(cores, 'core')}, {fast}; {count(ranks, 'rank')} here with {count(threads, 'thread')}"
    fact += f" and {count(execution.workers, 'worker')} each"
    figures = {"cores": float(cores), "threads": float(threads * ranks)}
    if quota is not None and quota < 0.9 * cores and threads * ranks > quota + 0.5:
        advice = f"Threads would wait for each other: --execution.threads {max(1, int(quota / ranks))}"
        return [warn("CPU", f"{fact}, but the container gives only {quota:g} cores' time", advice, **figures)]
    if threads * ranks > cores:
        advice = f"Threads would wait for each other: --execution.threads {max(1, cores // ranks)}, or fewer ranks."
        return [warn("CPU", fact, advice, **figures)]
    if on_gpu and cores < ranks * (1 + execution.workers):
        advice = "Ask for more cores (Slurm: --cpus-per-task) or take fewer --execution.workers."
        return [warn("CPU", fact, advice, **figures)]
    return [ok("CPU", fact, **figures)]


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the CPU time that a container gives, in cores; None where it sets no limit."""
    limits = []
    for text in _cgroup_values("cpu.max", root, own):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _cgroup_values(name: str, root: Path, own: Path) -> list[str]:
    """Return what this process's control group and those above it say under a name (cgroups version 2)."""
    lines = own.read_text().splitlines() if own.is_file() else []
    path = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    folder, values = root / path, []
    while True:
        file = folder / name
        if file.is_file():
            values.append(file.read_text().strip())
        if folder == root or root not in folder.parents:
            return values
        folder = folder.parent


# --- memory ------------------------------------------------------------------------------------------------


def memory_findings(available: int | None, total: int | None, limit: int | None) -> list[Finding]:
    """Look at the memory that is free, and at the most that a container or Slurm gives."""
    if available is None or total is None:
        return [note("memory", "this system does not say how much is free")]
    fact = f"{size(available)} of {size(total)} free"
    if limit is not None and limit < total:
        fact += f"; this job or container may take {size(limit)}"
        available = min(available, limit)
    figures = {"available_bytes": float(available)}
    if available < LITTLE_MEMORY_BYTES:
        advice = "A run on it may be killed without a word: ask for more (Slurm: --mem), or end what fills it."
        return [warn("memory", fact, advice, **figures)]
    return [ok("memory", fact, **figures)]


def memory() -> tuple[int | None, int | None, int | None]:
    """Return the bytes of memory that are available, that are there, and that this control group may take."""
    info = Path("/proc/meminfo")
    lines = (line.split() for line in info.read_text().splitlines()) if info.is_file() else []
    known = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
    return known.get("MemAvailable"), known.get("MemTotal"), memory_limit()


def memory_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the memory that a container or a Slurm job may take; None where there is no limit."""
    return min((int(text) for text in _cgroup_values("memory.max", root, own) if text.isdigit()), default=None)


def shared_memory_findings(workers: int, folder: Path = Path("/dev/shm")) -> list[Finding]:
    """Look at the shared memory, through which workers hand over batches."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return [note("shared memory", f"{folder} is not here; another place is taken")]
    free = status.f_bavail * status.f_frsize
    fact = f"{folder} has {size(free)} free"
    if free < LITTLE_SHARED_BYTES and workers > 0:
        advice = "Give the container more (docker --shm-size=8g), or decode in the trainer: --execution.workers 0"
        return [warn("shared memory", fact, advice, free_bytes=free)]
    return [ok("shared memory", fact, free_bytes=free)]


def file_limit_findings() -> list[Finding]:
    """Look at the number of files that a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    fact = "no limit" if unlimited else f"at most {count(soft, 'open file')} a process"
    if not unlimited and soft < FEW_FILES:
        most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        return [warn("open files", fact, f"Shards and workers need more: ulimit -n {most} before the command.")]
    return [ok("open files", fact)]

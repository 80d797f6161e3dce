"""Software, devices and disks: each check without a fault and with one that is made."""

import fcntl
import os
import resource
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gandist.config import ExecutionConfig
from gandist.doctor import devices, software, storage
from gandist.doctor.devices import Gpu
from gandist.doctor.finding import Finding
from gandist.errors import MachineError
from gandist.runtime.place import Place

GIB = 1 << 30


def place(**environ: str) -> Place:
    return Place("here", environ)


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def execution(**knobs: object) -> ExecutionConfig:
    return ExecutionConfig.model_validate(knobs)


# --- software ------------------------------------------------------------------------------------------------


def test_the_software_of_the_test_run_is_in_order() -> None:
    found = software.interpreter() + software.torch_build() + software.libraries()
    assert "FAIL" not in levels(found)
    assert torch.__version__ in " ".join(finding.fact for finding in found)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = software.version
    monkeypatch.setattr(software, "version", lambda name: None if name == "webdataset" else real(name))
    (found,) = software.libraries()
    assert (found.level, found.fact) == ("FAIL", "missing: webdataset")


def test_a_missing_extra_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    real = software.version
    monkeypatch.setattr(software, "version", lambda name: None if name == "simplejpeg" else real(name))
    found = software.libraries()
    assert levels(found) == ["ok", "note"]
    assert "pip install 'gandist[fast]'" in found[1].advice


# --- GPUs ----------------------------------------------------------------------------------------------------


def a_gpu(index: int = 0, name: str = "H100", free: int = 79 * GIB, capability: tuple[int, int] = (9, 0)) -> Gpu:
    return Gpu(index, name, capability, free, 80 * GIB)


def test_a_gpu_is_told_with_its_memory_and_formats() -> None:
    (found,) = devices.gpu_findings([a_gpu()], execution(), place())
    assert found.level == "ok"
    assert found.fact == "H100, compute capability 9.0, computes in bf16; 79.0 GiB of 80.0 GiB free"
    (old,) = devices.gpu_findings([a_gpu(capability=(7, 5))], execution(), place())
    assert "no bf16" in old.fact


def test_a_gpu_that_somebody_else_fills_is_warned_of() -> None:
    (found,) = devices.gpu_findings([a_gpu(free=40 * GIB)], execution(), place())
    assert (found.level, "CUDA_VISIBLE_DEVICES" in found.advice) == ("warn", True)


def test_more_ranks_than_gpus_fail() -> None:
    found = devices.gpu_findings([a_gpu(0), a_gpu(1)], execution(), place(LOCAL_WORLD_SIZE="4", WORLD_SIZE="8"))
    assert levels(found) == ["ok", "ok", "FAIL"]
    assert found[-1].fact == "4 ranks on this machine, 2 GPUs"
    found = devices.gpu_findings([a_gpu(0), a_gpu(1)], execution(), place(LOCAL_WORLD_SIZE="2", WORLD_SIZE="8"))
    assert levels(found) == ["ok", "ok"]


def test_gpus_of_different_kinds_are_warned_of() -> None:
    found = devices.gpu_findings([a_gpu(0), a_gpu(1, "A100")], execution(), place())
    assert levels(found) == ["ok", "ok", "warn"]


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.shutil, "which", lambda _: None)
    assert levels(devices.gpu_findings([], execution(), place())) == ["ok"]
    assert levels(devices.gpu_findings([], execution(device="cuda"), place())) == ["FAIL"]
    monkeypatch.setattr(devices.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", None)
    (found,) = devices.gpu_findings([], execution(), place())
    assert (found.level, "torch is built for the CPU" in found.fact) == ("warn", True)
    assert levels(devices.gpu_findings([], execution(device="cpu"), place())) == ["ok"], "nobody asked for one"


@pytest.mark.parametrize(
    ("script", "level", "words"),
    [
        ("echo 580.1", "ok", "NVIDIA 580.1"),
        ("echo no driver is loaded >&2; exit 9", "warn", "no driver is loaded"),
        ("exec sleep 60", "FAIL", "no answer"),
    ],
)
def test_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, level: str, words: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (found,) = devices.driver_findings(seconds=1 if level == "FAIL" else 60)
    assert found.level == level
    assert words in found.fact


# --- cores and memory ----------------------------------------------------------------------------------------


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(devices, "cpu_quota", lambda: None)


@pytest.mark.usefixtures("eight_cores")
def test_threads_that_fit_the_cores() -> None:
    (found,) = devices.core_findings(execution(), place(WORLD_SIZE="2"), on_gpu=False)
    assert found.level == "ok"
    assert "2 ranks here with 4 threads" in found.fact


@pytest.mark.usefixtures("eight_cores")
def test_more_threads_than_cores_are_warned_of() -> None:
    (found,) = devices.core_findings(execution(threads=8), place(WORLD_SIZE="2"), on_gpu=False)
    assert (found.level, "--execution.threads 4" in found.advice) == ("warn", True)


@pytest.mark.usefixtures("eight_cores")
def test_a_container_that_gives_less_time_than_cores_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_quota", lambda: 2.0)
    (found,) = devices.core_findings(execution(), place(), on_gpu=False)
    assert (found.level, found.advice.endswith("--execution.threads 2")) == ("warn", True)
    assert levels(devices.core_findings(execution(threads=2), place(), on_gpu=False)) == ["ok"]


@pytest.mark.usefixtures("eight_cores")
def test_too_few_cores_for_the_workers_of_gpus_are_warned_of() -> None:
    many = place(WORLD_SIZE="8", LOCAL_WORLD_SIZE="8")
    assert levels(devices.core_findings(execution(workers=4, threads=1), many, on_gpu=True)) == ["warn"]
    assert levels(devices.core_findings(execution(workers=0, threads=1), many, on_gpu=True)) == ["ok"]


def test_limits_of_a_control_group_hold_from_the_top_down(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("12:cpu:/old\n0::/job/step\n")
    step = tmp_path / "root" / "job" / "step"
    step.mkdir(parents=True)
    (step / "cpu.max").write_text("max 100000\n")
    (step.parent / "cpu.max").write_text("250000 100000\n")
    (step / "memory.max").write_text("max\n")
    assert devices.cpu_quota(tmp_path / "root", own) == 2.5
    assert devices.memory_limit(tmp_path / "root", own) is None
    (step.parent / "memory.max").write_text(f"{4 * GIB}\n")
    assert devices.memory_limit(tmp_path / "root", own) == 4 * GIB
    assert devices.cpu_quota(tmp_path / "nowhere", tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("available", "limit", "level"), [(20, None, "ok"), (1, None, "warn"), (20, 1, "warn"), (20, 64, "ok")]
)
def test_memory(available: int, limit: int | None, level: str) -> None:
    limit_bytes = None if limit is None else limit * GIB
    assert levels(devices.memory_findings(available * GIB, 32 * GIB, limit_bytes)) == [level]


def test_this_machine_says_how_much_memory_it_has() -> None:
    available, total, _ = devices.memory()
    assert available is not None
    assert total is not None
    assert 0 < available < total


def disk(free: int, files: int = 100, free_files: int = 10) -> Any:
    return SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_blocks=1 << 30, f_files=files, f_favail=free_files)


def test_small_shared_memory_is_warned_of_where_there_are_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: disk(64 << 20))
    (found,) = devices.shared_memory_findings(workers=2)
    assert (found.level, "--shm-size" in found.advice) == ("warn", True)
    assert levels(devices.shared_memory_findings(workers=0)) == ["ok"]
    monkeypatch.setattr(os, "statvfs", lambda _: disk(8 * GIB))
    assert levels(devices.shared_memory_findings(workers=2)) == ["ok"]


def test_a_low_limit_of_open_files_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, level in ((256, "warn"), (1024, "ok"), (resource.RLIM_INFINITY, "ok")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, 4096))
        assert levels(devices.file_limit_findings()) == [level]


# --- disks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "level"), [(disk(GIB * 50), "ok"), (disk(1 << 20), "warn"), (disk(GIB * 50, free_files=0), "FAIL")]
)
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Any, level: str) -> None:
    monkeypatch.setattr(storage, "file_system", lambda _: "ext4")
    monkeypatch.setattr(os, "statvfs", lambda _: status)
    assert levels(storage.space_findings("run folder", tmp_path / "not" / "yet" / "there")) == [level]


def test_runs_in_memory_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system", lambda _: "tmpfs")
    assert levels(storage.space_findings("run folder", tmp_path)) == ["warn"]


def test_the_file_system_of_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"a / ext4 rw 0 0\nb {tmp_path} nfs4 rw 0 0\nc {tmp_path}x xfs rw 0 0\nbroken\n")
    (tmp_path / "deep").mkdir()
    assert storage.file_system(tmp_path / "deep", mounts) == "nfs4"
    assert storage.file_system(Path("/usr"), mounts) == "ext4"
    assert storage.file_system(Path("/usr"), tmp_path / "none") == ""


def test_a_run_folder_that_cannot_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    assert levels(storage.run_root_findings(file / "runs")) == ["FAIL"]
    monkeypatch.setattr(os, "access", lambda *_: False)
    (found,) = storage.run_root_findings(tmp_path / "runs")
    assert (found.level, "cannot be written" in found.fact) == ("FAIL", True)


def test_a_temporary_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.temporary_findings()[0].check == "temporary folder"

    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(storage.tempfile, "gettempdir", none)
    (found,) = storage.temporary_findings()
    assert (found.level, "TMPDIR" in found.advice) == ("FAIL", True)


def test_the_workspace_leaves_nothing_and_sweeps_only_what_is_abandoned(tmp_path: Path) -> None:
    root = tmp_path / "a" / "runs"

    def break_off() -> None:
        with storage.workspace(root) as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "file").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert list(tmp_path.iterdir()) == []
    root.mkdir(parents=True)
    abandoned = root / f"{storage.WORKSPACE_PREFIX}dead"
    abandoned.mkdir()
    (abandoned / "owner").touch()
    run = root / "run"
    run.mkdir()
    with storage.workspace(root) as living, storage.workspace(root) as other:
        assert sorted(root.iterdir()) == sorted([living, other, run]), "a doctor that lives keeps its folder"
    assert list(root.iterdir()) == [run]


def test_a_workspace_where_nothing_can_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"cannot be written .*--run\.root"), storage.workspace(tmp_path / "file"):
        pass


def test_writing_and_locks_of_this_disk(tmp_path: Path) -> None:
    assert levels(storage.writing_findings(tmp_path)) == ["ok", "ok"]


def test_a_disk_with_another_clock_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(storage.time, "time", lambda: real() - 90)
    found = storage.writing_findings(tmp_path)
    assert levels(found) == ["ok", "warn", "ok"]
    assert found[1].fact == "the disk's clock is 90 s ahead of this machine's"


def test_a_disk_without_locks_or_with_false_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    assert levels(storage.lock_findings(tmp_path)) == ["note"]
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert levels(storage.lock_findings(tmp_path)) == ["warn"]


def test_the_place_of_a_process() -> None:
    alone = Place(environ={})
    assert (alone.host, alone.rank, alone.launched_world, alone.local_world, alone.machines) == (
        socket.gethostname(), 0, 1, 1, 1,
    )  # fmt: skip
    launched = place(RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="4")
    assert (launched.rank, launched.local_rank, launched.launched_world, launched.machines) == (5, 1, 8, 2)
    assert place(SLURM_JOB_NUM_NODES="3").machines == 3
    assert place(GANDIST_LAUNCHED_WORLD="4", WORLD_SIZE="2").launched_world == 4

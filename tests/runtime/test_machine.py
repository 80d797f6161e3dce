"""What a rank computes on and in."""

import os

import pytest
import torch

import gandist
from gandist.config import ExecutionConfig
from gandist.errors import MachineError
from gandist.runtime import machine


def settings(**knobs: object) -> ExecutionConfig:
    return ExecutionConfig.model_validate(knobs)


@pytest.mark.parametrize(
    ("asked", "gpu", "chosen"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_device(monkeypatch: pytest.MonkeyPatch, asked: str, gpu: int, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpu))
    assert machine.choose_device(settings(device=asked)) == chosen


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match=r"execution\.device: cuda.*--execution\.device cpu"):
        machine.choose_device(settings(device="cuda"))


@pytest.mark.parametrize(
    ("flags", "launched", "chosen"),
    [
        ({"avx512_bf16"}, None, "bf16"),
        ({"amx_bf16", "sse"}, None, "bf16"),
        ({"avx2", "avx512f"}, None, "fp32"),
        (set(), None, "fp32"),
        ({"avx2"}, "bf16", "bf16"),
        ({"avx512_bf16"}, "no", "bf16"),
    ],
)
def test_precision_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], launched: str | None, chosen: str
) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launched is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    assert machine.choose_precision(settings(), "cpu") == chosen
    for asked in ("fp32", "bf16"):
        assert machine.choose_precision(settings(precision=asked), "cpu") == asked, "who asks gets it"


def test_fp16_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.choose_precision(settings(precision="fp16"), "cuda") == "fp16"
    with pytest.raises(MachineError, match="fp16 needs a GPU"):
        machine.choose_precision(settings(precision="fp16"), "cpu")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(MachineError, match="fp16 needs a GPU"):
        machine.choose_precision(settings(), "cpu")


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: str) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert machine.choose_precision(settings(), "cuda") == chosen


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    machine.set_threads(None, "cpu", world=1)
    machine.set_threads(None, "cpu", world=4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # of four ranks, two are on this machine
    machine.set_threads(None, "cpu", world=4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    machine.set_threads(None, "cpu", world=64)
    machine.set_threads(5, "cpu", world=4)
    machine.set_threads(3, "cuda", world=4)
    machine.set_threads(None, "cuda", world=4)
    assert given == [12, 3, 6, 1, 5, 3]


def test_the_record_of_what_a_run_was_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    record = machine.environment(torch.device("cpu"), 4, "bf16")
    assert record["gandist"] == gandist.__version__
    assert record["torch"] == torch.__version__
    assert (record["world_size"], record["precision"], record["slurm_job"]) == (4, "bf16", "12")


def test_peak_memory_is_in_gib() -> None:
    peak = machine.peak_memory_gib(torch.device("cpu"))
    assert 0.05 < peak < 64, "a process with torch loaded holds some hundred MiB"

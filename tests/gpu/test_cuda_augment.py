"""Augmentation on a GPU: what the CPU shows, without waiting, and the same each time where asked."""

from __future__ import annotations

import torch
from torch import Tensor

from gandist.adversarial.augment import PRESETS, Ada, Adaptive, DiffAugment, InstanceNoise, Pipeline
from gandist.models.noise import RowNoise

BATCH, SIZE = 8, 32


def pipeline(device: str, dtype: torch.dtype = torch.float32) -> Pipeline:
    where = torch.device(device)
    ada = Ada(PRESETS["bgcfnc"], Adaptive(0.6, 1, 500.0, 0.8, where), SIZE, 3, where, dtype)
    return Pipeline([DiffAugment(["colour", "translation", "cutout"]), ada, InstanceNoise(lambda _: 0.1)])


def images(device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return x.to(device, dtype).requires_grad_()


def play(augment: Pipeline, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is seen, and the gradient of a penalty on its gradient."""
    seen = augment(x, RowNoise(torch.Generator().manual_seed(2), BATCH, 0, BATCH), 0)
    (slope,) = torch.autograd.grad(seen.sin().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x)
    augment.observe(seen.detach().mean().sign(), BATCH)
    augment.statistics()
    return seen.detach(), second


def test_both_devices_show_the_same() -> None:
    """In fp64: in fp32 one pixel in a thousand, on the edge of what is cut or mirrored, rounds to the other side."""
    cuda, cpu = (play(pipeline(d, torch.float64), images(d, torch.float64)) for d in ("cuda", "cpu"))
    for ours, theirs in zip(cuda, cpu, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-6, atol=1e-6)


def test_nothing_waits_for_the_device() -> None:
    augment, x = pipeline("cuda"), images("cuda")
    play(augment, x)  # libraries are set up
    torch.cuda.set_sync_debug_mode("error")
    try:
        play(augment, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_same_each_time_where_asked() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        runs = [play(pipeline("cuda"), images("cuda")) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    for again in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(again, runs[0], strict=True))

"""Runs on a GPU: in every format, as on the CPU, to the bit where asked, and without waiting in the hot path."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from trainer_runs import digests, make_config, metrics
from trainer_runs import play as play_config

from gandist.config import Config, merge
from gandist.faults import skipped_steps
from gandist.trainer import Trainer

FEW = {"run": {"total_kimg": 0.128}, "tracking": {"every_kimg": 0.016}, "samples": {"every_kimg": 1000}}


def on_gpu(root: Path, precision: str, changes: dict[str, Any] | None = None) -> Config:
    """Return eight rounds of 16 images of a small DCGAN with R1, logged round by round."""
    base = {
        "model": {"arch": "dcgan", "dcgan": {"generator_channels": 16, "discriminator_channels": 16}},
        "data": {"resolution": 32, "channels": 3},
        "regularizer": {"r1": {"gamma": 1.0, "interval_steps": 2}},
        "execution": {"device": "cuda", "precision": precision, "channels_last": True},
    }
    return make_config(root, merge(merge(merge(FEW, base), {"checkpoint": {"every_kimg": 1000}}), changes or {}))


R1 = {"gamma": 1.0, "interval_steps": 1}
R3GAN = {
    "model": {
        "arch": "r3gan",
        "latent_dim": 16,
        "conditional": True,
        "r3gan": {"channel_base": 512, "channel_max": 32, "group_channels": 8, "class_dim": 8, "stage_blocks": 1},
    },
    "loss": {"relativistic": "pairs"},
    "regularizer": {"r1": R1, "r2": R1},
}
METHODS: dict[str, dict[str, Any]] = {
    "dcgan": {"regularizer": {"r1": {"gamma": 0.0}}},
    "dcgan, r1": {"regularizer": {"r1": R1}},
    "sngan": {
        "model": {"arch": "resnet", "conditional": True},
        "loss": {"kind": "hinge"},
        "update": {"d_steps": 2},
        "regularizer": {"r1": {"gamma": 0.0}},
    },
    "wgan-gp": {
        "model": {"arch": "resnet", "resnet": {"normalisation": "none"}},
        "loss": {"kind": "wasserstein"},
        "regularizer": {"r1": {"gamma": 0.0}, "gradient_penalty": {"weight": 10}},
    },
    "r3gan, ada": merge(R3GAN, {"augment": {"ada": {"pipe": "r3gan", "adaptive": False, "p": 0.5}}}),
    "r3gan, finite differences": merge(
        R3GAN, {"regularizer": {"r1": {"method": "finite_difference"}, "r2": {"method": "finite_difference"}}}
    ),
    "stylegan2, ada, path length": {
        "model": {
            "arch": "stylegan2",
            "latent_dim": 16,
            "stylegan2": {"style_dim": 16, "mapping_depth": 2, "channel_base": 512, "channel_max": 32},
        },
        "regularizer": {"r1": R1, "path_length": {"weight": 2, "interval_steps": 2}},
        "augment": {"ada": {"pipe": "bgc", "p": 0.5}},
    },
    "gat, finite differences": {
        "model": {
            "arch": "gat",
            "conditional": True,
            "latent_dim": 16,
            "gat": {"depth": 4, "width": 64, "head_width": 32, "patch": 4, "style_dim": 32, "projection_dim": 32},
        },
        "loss": {"relativistic": "pairs"},
        "regularizer": {"r1": {**R1, "method": "finite_difference"}, "r2": {**R1, "method": "finite_difference"}},
        "augment": {"diff": ["colour", "translation", "cutout"]},
    },
    "biggan": {
        "model": {
            "arch": "biggan",
            "conditional": True,
            "latent_dim": 20,
            "biggan": {"generator_channels": 8, "discriminator_channels": 8, "class_dim": 8},
        },
        "loss": {"kind": "hinge"},
        "regularizer": {"r1": {"gamma": 0.0}},
    },
}


def seat(config: Config) -> Trainer:
    """Return a trainer; Accelerate would keep the device and the format of the one before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Trainer(config)


def play(config: Config) -> Trainer:
    """Run a configuration to its end."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return play_config(config)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_trains_saves_and_stays_finite(method: str, precision: str, tmp_path: Path) -> None:
    trainer = play(on_gpu(tmp_path, precision, METHODS[method]))
    assert trainer.device.type == "cuda"
    assert trainer.precision == precision
    for row in metrics(trainer.folder):
        assert all(math.isfinite(value) for name, value in row.items() if name.startswith(("loss/", "penalty/")))
    networks = (trainer.game.generator.module, trainer.game.discriminator.module, trainer.averages.network)
    assert all(p.isfinite().all() and p.dtype == torch.float32 for n in networks for p in n.parameters())


def test_the_first_rounds_are_those_of_the_cpu(tmp_path: Path) -> None:
    """All draws are made on the CPU, so both devices see the same noise; TF32 would round more coarsely than this."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    cuda = metrics(play(on_gpu(tmp_path / "cuda", "fp32")).folder)
    cpu = metrics(play(on_gpu(tmp_path / "cpu", "fp32", {"execution": {"device": "cpu"}})).folder)
    for ours, theirs in zip(cuda[:3], cpu[:3], strict=True):
        for name in ("loss/d", "loss/g", "grad_norm/d"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3), (name, ours["images_seen"])


def test_continued_is_bitwise_the_straight_run(tmp_path: Path) -> None:
    changes = {"execution": {"deterministic": True}}
    try:
        straight = play(on_gpu(tmp_path / "straight", "bf16", changes))
        half = merge(changes, {"run": {"total_kimg": 0.064}})
        play(on_gpu(tmp_path / "halves", "bf16", half))
        continued = play(on_gpu(tmp_path / "halves", "bf16", changes))
        assert continued.resumed_at == 64
        assert digests(continued.folder) == digests(straight.folder)
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_penalty_in_bf16_is_close_to_that_in_fp32(tmp_path: Path) -> None:
    first = [metrics(play(on_gpu(tmp_path / p, p)).folder)[0] for p in ("fp32", "bf16")]
    (name,) = [name for name in first[0] if name.startswith("penalty/r1")]
    assert first[1][name] == pytest.approx(first[0][name], rel=0.05)
    assert first[1]["loss/d"] == pytest.approx(first[0]["loss/d"], rel=0.02)


def test_an_overflow_in_fp16_halves_the_scale_of_its_own_network_only(tmp_path: Path) -> None:
    trainer = seat(on_gpu(tmp_path, "fp16"))
    d, g = trainer.game.discriminator.scaler, trainer.game.generator.scaler
    assert d is not None
    assert g is not None
    assert d is not g
    reals = a_real_batch(trainer)
    trainer._play_round(reals)  # the scale is made on the device at its first use
    before = d.get_scale(), g.get_scale()
    weights = [p.detach().clone() for p in trainer.game.discriminator.module.parameters()]
    reals[0].x[0] = math.inf
    trainer._play_round(reals)
    assert d.get_scale() == before[0] / 2
    assert g.get_scale() == before[1]
    assert all(torch.equal(a, b) for a, b in zip(weights, trainer.game.discriminator.module.parameters(), strict=True))
    trainer._let_go_of_folder()


def a_real_batch(trainer: Trainer) -> list[Any]:
    stream = trainer._real_images()
    return [trainer._to_device(next(stream)) for _ in range(trainer.config.update.d_steps)]


@pytest.mark.parametrize("method", METHODS)
def test_a_round_does_not_wait_for_the_device(method: str, tmp_path: Path) -> None:
    """Nor does one whose steps are skipped: the guard decides on the device, and is asked later."""
    trainer = seat(on_gpu(tmp_path, "bf16", METHODS[method]))
    reals = a_real_batch(trainer)
    for _ in range(3):  # what is made at first use may wait
        trainer._play_round(reals)
    torch.cuda.synchronize()
    assert waits(trainer, reals) == []
    for real in reals:
        real.x[0] = math.nan
    before = [p.detach().clone() for p in trainer.game.discriminator.module.parameters()]
    assert waits(trainer, reals) == []
    assert skipped_steps(trainer.game)["d"].total == trainer.config.update.d_steps
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.game.discriminator.module.parameters(), strict=True))
    trainer._let_go_of_folder()


def waits(trainer: Trainer, reals: list[Any]) -> list[str]:
    """Play a round; return where it made the CPU wait for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer._play_round(reals)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message)]


def test_memory_and_device_are_written_down(tmp_path: Path) -> None:
    trainer = play(on_gpu(tmp_path, "bf16"))
    rows = [json.loads(line) for line in (trainer.folder / "metrics.jsonl").read_text().splitlines()]
    assert 0 < rows[-1]["memory/peak_gib"] < 8
    checkpoint = trainer.store.open(trainer.store.names()[-1])
    assert checkpoint.state["made_with"]["device"] == torch.cuda.get_device_name()

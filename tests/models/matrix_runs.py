"""Every architecture with few channels; and, as a program, three rounds of each, played by one of several ranks.

    python matrix_runs.py RANK WORLD FOLDER

All runs of a rank are played by one process, since starting one takes longer than a run. What a run raises is written
beside its folder.
"""

from __future__ import annotations

import gc
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState

from gandist.config import Config, dump, merge, parse
from gandist.models.build import ARCHITECTURES

NARROW = {"generator_channels": 4, "discriminator_channels": 4}
SMALL: dict[str, Any] = {
    "latent_dim": 12,
    "mlp": {"generator_widths": [8, 8], "discriminator_widths": [8, 8], "dropout": 0.2},
    "dcgan": {"generator_channels": 16, "discriminator_channels": 4},  # begins small: few ReLUs may all be off
    "resnet": {"generator_channels": 32, "discriminator_channels": 32},  # fewer are single channels at 128 px
    "biggan": {**NARROW, "class_dim": 3, "hierarchical": False, "attention_resolution": 16},
    "progressive": {"channel_base": 64, "channel_max": 6, "stable_kimg": 0.004, "fade_kimg": 0.008},
    "r3gan": {"channel_base": 64, "channel_max": 6, "group_channels": 2, "class_dim": 3, "stage_blocks": 1},
    "stylegan2": {"style_dim": 6, "mapping_depth": 2, "channel_max": 6, "class_mapping_depth": 2},
    "cips": {"widths": [6, 4], "fourier_features": 5, "position_features": 4},
    "gat": {
        "depth": 2, "width": 8, "head_width": 4, "style_dim": 6, "projection_dim": 5, "levels": 2, "patch": 8,
        "attention": "plain",
    },
}  # fmt: skip
"""Model sections of all architectures; one that is not in here has its own widths, and takes longer."""
ROUNDS, CLASSES = 3, 10
BATCHES = {32: 16, 64: 16, 128: 16}
"""Resolutions, and the images of a batch at each."""
CASES = [(arch, conditional, px) for px in BATCHES for arch in ARCHITECTURES for conditional in (False, True)]


def name_of(arch: str, conditional: bool, resolution: int) -> str:
    return f"{arch}-{'conditional' if conditional else 'unconditional'}-{resolution}"


def model_section(arch: str, conditional: bool) -> dict[str, Any]:
    return {"arch": arch, "conditional": conditional, **SMALL}


def recipe(root: Path, arch: str, conditional: bool, resolution: int, rounds: int) -> Config:
    """Return a run of so many rounds, which saves at its end.

    Adam's eps is far above rounding, so that a weight whose gradient is rounding alone stays where it is, instead of
    making full steps in a random direction.
    """
    batch = BATCHES[resolution]
    player = {"lr": 0.01 if resolution == 32 else 0.002, "eps": 1e-3, "beta1": 0.0}
    changes = {
        "run": {
            "name": name_of(arch, conditional, resolution),
            "root": str(root),
            "total_kimg": rounds * batch / 1000,
        },
        "data": {"shards": "glyphs", "resolution": resolution, "channels": 3},
        "model": model_section(arch, conditional),
        "optimizer": {"generator": player, "discriminator": player},
        "regularizer": {"r1": {"gamma": 0.1, "interval_steps": 2}},
        "update": {"batch_images": batch},
        "ema": {"halflife_kimg": 0.02},
        "samples": {"every_kimg": 100, "rows": 1, "columns": 2},
        "checkpoint": {"every_kimg": 100},
        "execution": {"workers": 0, "precision": "fp32", "device": "cpu", "threads": 1},
    }
    return parse(merge(dump(Config()), changes), "tests")


def play(root: Path, arch: str, conditional: bool, resolution: int, rounds: int = ROUNDS) -> None:
    from gandist.trainer import Trainer

    AcceleratorState._reset_state()
    config = recipe(root, arch, conditional, resolution, rounds)
    try:
        code = Trainer(config).train()
        assert code == 0, f"exit code {code}"
    except BaseException:
        (root / f"{config.name}.error").write_text(traceback.format_exc())
        if dist.is_initialized():
            raise  # the others cannot go on alone


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    for case in CASES:
        play(folder / "whole", *case)
        if world == 1:
            for rounds in (ROUNDS - 1, ROUNDS):
                play(folder / "in two", *case, rounds)
    gc.collect()  # gloo aborts when a reducer outlives it
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

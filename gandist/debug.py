"""``--debug``: the recipe made small, on one device, with every check on and everything said out loud."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gandist.config import Config, dump, merge, parse
from gandist.errors import ConfigError, RunError
from gandist.trainer import Trainer

ROUNDS = 12
BATCH_IMAGES = 16


def shrink(config: Config) -> Config:
    """Return the recipe as a run of a few small rounds in a folder of its own, without network or workers."""
    batch = min(config.update.batch_images, BATCH_IMAGES)
    round_kimg = batch * config.update.d_steps / 1000
    micro = config.execution.micro_images
    return parse(
        merge(
            dump(config),
            {
                "run": {"name": f"{config.name}-debug", "total_kimg": ROUNDS * round_kimg},
                "update": {"batch_images": batch},
                "samples": {"every_kimg": ROUNDS * round_kimg, "rows": 4, "columns": 4},
                "checkpoint": {"every_kimg": ROUNDS * round_kimg / 2},
                "tracking": {"every_kimg": round_kimg, "tensorboard": False, "wandb": {"mode": "disabled"}},
                "execution": {
                    "workers": 0,
                    "compile": False,
                    "micro_images": None if micro is None else min(micro, max(1, batch // 2)),
                },
            },
        ),
        "--debug",
    )


def train(config: Config, *, allow_pipe: bool = False) -> int:
    """Run the small recipe from nothing with every check on; return the exit code.

    Raises:
        ConfigError: several processes were launched.
        RunError: a network broke its contract, with the name of the layer where it did.

    """
    small = shrink(config)
    shutil.rmtree(small.folder, ignore_errors=True)
    trainer = Trainer(small, allow_pipe=allow_pipe)
    if trainer.ranks.world > 1:
        raise ConfigError("--debug runs in one process: launch it with `gandist train CONFIG --debug`.")
    say = _speaker()
    say(f"debug run of {ROUNDS} rounds of {small.update.batch_images} images in {small.folder}")
    say(f"device {trainer.device}, {trainer.precision}, {torch.get_num_threads()} threads, anomaly detection on")
    say(f"data: {trainer.images.samples or 'endless'} images, classes {list(trainer.images.class_names) or 'none'}")
    watch("generator", trainer.game.generator.module, say)
    watch("discriminator", trainer.game.discriminator.module, say)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Anomaly Detection has been enabled")  # it is what was asked for
        with torch.autograd.detect_anomaly(check_nan=True):
            code = trainer.train()
    again = Trainer(small, allow_pipe=allow_pipe)
    say(f"saved, read back at {again.clock.images_seen} images: a rerun would go on from there")
    return code


def watch(role: str, network: nn.Module, say: Callable[[str], None]) -> None:
    """Print the shapes of the network's first pass, layer by layer, and check every output of every layer."""
    count = sum(parameter.numel() for parameter in network.parameters())
    say(f"{role}: {count:,} parameters")
    seen: set[str] = set()

    def check(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            if name not in seen:
                seen.add(name)
                say(f"  {role}.{name or '(output)'}: {type(layer).__name__} -> {list(output.shape)} {output.dtype}")
            if not torch.isfinite(output).all():
                raise RunError(f"{role}.{name} ({type(layer).__name__}): its output is not finite.")
            if not name and role == "discriminator" and output.ndim != 1:
                raise RunError(f"{role}: logits have shape {list(output.shape)}; the contract is (batch,).")

        return hook

    for name, layer in network.named_modules():
        if not any(layer.children()) or not name:
            layer.register_forward_hook(check(name))


def _speaker() -> Callable[[str], None]:
    def say(line: str) -> None:
        print(f"[debug] {line}", file=sys.stderr, flush=True)

    return say

"""What makes a run the same run when it is continued: its folder, its settings, the state of its players."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gandist.adversarial.ema import Averages
from gandist.adversarial.game import Game
from gandist.adversarial.guard import first_not_finite
from gandist.adversarial.player import Player
from gandist.config import Config, differences
from gandist.errors import ConfigError, ResumeError, RunError
from gandist.faults import NotFiniteError
from gandist.runtime.checkpoint import Checkpoint, Part, load_module, load_optimizer, optimizer_tensors
from gandist.runtime.distributed import Ranks
from gandist.runtime.lease import LEASE_NAME


@dataclass(frozen=True)
class Insistence:
    """What the user insists on when a run is continued: knobs whose change is accepted, and a new data order."""

    accept: tuple[str, ...] = ()
    restart_data: bool = False


def check_folder(config: Config) -> None:
    """Refuse to run in a folder that holds something else than a run of gandist.

    Raises:
        ConfigError: the folder's files are not a run's.

    """
    folder = config.folder
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file is in the place of the run's folder. Choose another --run.name.")
    if not folder.is_dir() or (folder / "config.yaml").is_file():
        return
    expected = ("slurm-", "STOP", "wandb", "stacks", LEASE_NAME)
    strangers = [entry.name for entry in folder.iterdir() if not entry.name.startswith(expected)]
    if strangers:
        raise ConfigError(
            f"{folder}: holds {sorted(strangers)[0]!r} and is not a run of gandist. Choose another --run.name or "
            "--run.root."
        )


def check_settings(checkpoint: Checkpoint, config: Config, fingerprint: str, insistence: Insistence) -> list[str]:
    """Return what to say of settings that are not those of the checkpoint.

    Raises:
        ResumeError: with them it would be another run.

    """
    changed = differences(checkpoint.state["config"], config)
    refused = [d for d in changed if d.change == "refuse" and d.path not in insistence.accept]
    if refused:
        lines = "\n".join(f"  {difference}" for difference in refused)
        raise ResumeError(
            f"{config.folder}: this folder holds a run with other settings:\n{lines}\n"
            "Or start another run with --run.name NAME."
        )
    if checkpoint.state["data"]["fingerprint"] != fingerprint and not insistence.restart_data:
        raise ResumeError(
            f"data.shards: {config.data.shards} is not the data of {checkpoint.folder}: another index, order "
            "or seed. Point --data.shards at the data of the run, or insist with --restart-data."
        )
    return [f"Continuing with another setting: {each}" for each in changed if each.change != "continue"]


METHOD = "method"
"""The part of a checkpoint that holds what penalties, augmentation and the like carry from round to round."""

# --- the players as parts of a checkpoint --------------------------------------------------------------------


def player_parts(game: Game, averages: Averages, card: Mapping[str, str]) -> dict[str, Part]:
    """Return networks, averages, optimizers and what the method carries as parts of a checkpoint; ``card`` is G's."""
    g, d = game.generator, game.discriminator
    moments_g, moments_d = optimizer_tensors(g.optimizer, g.module), optimizer_tensors(d.optimizer, d.module)
    averaged = {name: network.state_dict() for name, network in averages.networks.items()}
    carried = {f"{name}/{key}": t for name, part in game.stateful.items() for key, t in part.state().items()}
    return {
        "generator": Part(g.module.state_dict(), card, _weights(g)),
        "discriminator": Part(d.module.state_dict(), None, _weights(d)),
        **{name: Part(tensors, card, tensors.keys()) for name, tensors in averaged.items()},
        "optimizer_g": Part(moments_g, None, moments_g.keys()),
        "optimizer_d": Part(moments_d, None, moments_d.keys()),
        **({METHOD: Part(carried, None)} if carried else {}),
    }


def _weights(player: Player) -> frozenset[str]:
    """Return the names of what only a step changes: buffers may change in every pass."""
    return frozenset(name for name, _ in player.module.named_parameters())


def scaler_states(game: Game) -> dict[str, dict[str, Any]]:
    """Return the state of each player's gradient scaler, where it has one."""
    return {name: player.scaler.state_dict() for name, player in game.players.items() if player.scaler}


def check_savable(
    ranks: Ranks, parts: Mapping[str, Part], fingerprint: str, images_seen: int, device: torch.device
) -> None:
    """Refuse to save what the ranks do not agree on, or what is not finite; on all ranks alike.

    Raises:
        RunError: a tensor, or the order of the data, is not the same on all ranks; the message names the first.
        NotFiniteError: a tensor holds NaN or infinity.

    """
    tensors = {f"{name}: {key}": t.to(device) for name, part in parts.items() for key, t in part.tensors.items()}
    order = torch.tensor(int(fingerprint[:15], 16), device=device)
    if different := ranks.first_difference({"the order of the data": order, **tensors}):
        raise RunError(
            f"At {images_seen / 1000:g} kimg the ranks no longer agree, first in {different}. Nothing of it was saved: "
            "the same command continues from the checkpoint before. If it happens again, a device or the network "
            "between them changes bits."
        )
    spoilt = first_not_finite(tensors)
    if ranks.any(spoilt is not None):
        raise NotFiniteError(
            f"At {images_seen / 1000:g} kimg numbers are not finite ({spoilt or 'on another rank'}); this was not "
            "saved."
        )


def guard_states(game: Game) -> dict[str, dict[str, int]]:
    """Return what each player's guard has counted."""
    return {name: player.guard.state() for name, player in game.players.items()}


def load_players(checkpoint: Checkpoint, game: Game, averages: Averages) -> None:
    """Put what :func:`player_parts`, :func:`scaler_states` and :func:`guard_states` returned back in its place.

    Raises:
        CheckpointError: a part does not fit the networks.

    """
    g, d = game.generator, game.discriminator
    modules = {"generator": g.module, "discriminator": d.module, **averages.networks}
    for part, module in modules.items():
        there = (checkpoint.folder / f"{part}.safetensors").is_file()
        source = part if there or part not in averages.added_later else "generator"
        load_module(module, checkpoint.tensors(source), f"{checkpoint.folder}/{source}.safetensors")
    for part, player in {"optimizer_g": g, "optimizer_d": d}.items():
        where = f"{checkpoint.folder}/{part}.safetensors"
        load_optimizer(player.optimizer, player.module, checkpoint.tensors(part), where)
    device = g.parameters[0].device
    saved = checkpoint.tensors(METHOD) if (checkpoint.folder / f"{METHOD}.safetensors").is_file() else {}
    for name, carrying in game.stateful.items():
        own = {key.removeprefix(f"{name}/"): t.to(device) for key, t in saved.items() if key.startswith(f"{name}/")}
        carrying.restore(own)
    for name, player in game.players.items():
        if player.scaler and name in checkpoint.state["scalers"]:
            player.scaler.load_state_dict(checkpoint.state["scalers"][name])
        if name in checkpoint.state.get("guards", {}):
            player.guard.restore(checkpoint.state["guards"][name], player.parameters[0].device)

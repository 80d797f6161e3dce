"""One of several ranks that play the cases of a group; and what they all ended with.

    python playing.py GROUP RANK WORLD FOLDER

The players are seated as the trainer seats them. The ranks meet over gloo; one rank alone is not wrapped.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from cases import BATCH, CASES, CLASSES, TINY, Case
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gandist.adversarial.game import Draws, Real
from gandist.adversarial.player import Player
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import STRATEGIES
from gandist.assembly import build_networks, open_accelerator, seat_players
from gandist.config import merge, parse
from gandist.continuity import player_parts
from gandist.runtime import rng
from gandist.runtime.distributed import Ranks

PARTS = ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d")
NO_STEPS = ("/step", "num_batches_tracked", "running_mean", "running_var")
"""Tensors that no step of an optimizer makes."""


@dataclass(frozen=True)
class Played:
    """What the ranks ended with: all tensors of each, what else each noted, and with which tensors all began."""

    tensors: list[dict[str, Tensor]]
    notes: list[dict[str, Any]]
    start: dict[str, Tensor]

    def distances(self, other: Played) -> dict[str, float]:
        """Return the relative distance of each of two games' tensors."""
        one, another = ({key: t.double() for key, t in game.tensors[0].items()} for game in (self, other))
        assert one.keys() == another.keys()
        return {key: float((t - another[key]).norm() / t.norm().clamp_min(1e-12)) for key, t in one.items()}

    def detour(self, other: Played, leaving_out: Callable[[str], bool] = lambda _: False) -> dict[str, float]:
        """Return how far apart two games' parts are, each as one long vector, as a share of the way the first went."""
        apart, way = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 1e-30)
        for key, t in self.tensors[0].items():
            part = key.partition(":")[0]
            if part not in PARTS or key.endswith(NO_STEPS) or leaving_out(key):
                continue
            apart[part] += float((t.double() - other.tensors[0][key].double()).square().sum())
            way[part] += float((t.double() - self.start.get(key, torch.zeros(()))).square().sum())
        return {part: (apart[part] / way[part]) ** 0.5 for part in PARTS}

    def ranks_differ(self) -> list[str]:
        """Return the tensors that are not the same to the bit on all ranks."""
        return [key for key, t in self.tensors[0].items() if not all(torch.equal(t, o[key]) for o in self.tensors[1:])]


def play(group: str, world: int, folder: Path) -> dict[str, Played]:
    """Let so many ranks play the cases of a group."""
    ranks = []
    for rank in range(world):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        if world > 1:
            env |= {
                "RANK": f"{rank}",
                "LOCAL_RANK": f"{rank}",
                "WORLD_SIZE": f"{world}",
                "LOCAL_WORLD_SIZE": f"{world}",
            }
        command = [sys.executable, "-W", "error", __file__, group, f"{rank}", f"{world}", f"{folder}"]
        log = (folder / f"{rank}.log").open("w")
        ranks.append((subprocess.Popen(command, env=env, stdout=log, stderr=log), log))
    try:
        codes = [process.wait(280) for process, _ in ranks]
    finally:
        for process, log in ranks:
            process.kill()
            log.close()
    assert codes == [0] * world, "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))
    return {case.name: _read(folder, index, world) for index, case in enumerate(CASES) if case.name.startswith(group)}


def _read(folder: Path, index: int, world: int) -> Played:
    files = [folder / f"{index}.{rank}" for rank in range(world)]
    notes = [json.loads(Path(f"{path}.json").read_text()) for path in files]
    return Played(
        [load_file(f"{p}.safetensors") for p in files], notes, load_file(folder / f"{index}.start.safetensors")
    )


# --- in each rank ----------------------------------------------------------------------------------------------


class Sent(TorchDispatchMode):
    """Counts the bytes handed over for reduction, by number format."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d" and "allreduce" in func.__name__:
            for tensor in (leaf for leaf in tree_leaves(args[0]) if isinstance(leaf, Tensor)):
                name = str(tensor.dtype).removeprefix("torch.")
                self.bytes[name] = self.bytes.get(name, 0) + tensor.nbytes
        return func(*args, **(kwargs or {}))


def main(group: str, rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    for index, case in enumerate(CASES):
        if case.name.startswith(group):
            game = Play(case, rank, world)
            if rank == 0:
                save_file(game.tensors(), folder / f"{index}.start.safetensors")
            (folder / f"{index}.{rank}.json").write_text(json.dumps(game.to_the_end()))
            save_file(game.tensors(), folder / f"{index}.{rank}.safetensors")
    gc.collect()  # gloo aborts when a reducer outlives it
    if world > 1:
        dist.destroy_process_group()


class Play:
    """One case, played by one of the ranks."""

    def __init__(self, case: Case, rank: int, world: int) -> None:
        AcceleratorState._reset_state()  # it would remember the number format of the case before
        self.case, self.rank, self.world = case, rank, world
        self.share = BATCH // world
        self.start = 0 if case.mistake == "noise" else rank * self.share
        accelerator = open_accelerator("cpu", case.precision)
        self.ranks = Ranks.join(rank, world)
        micro = self.share // case.passes if case.passes > 1 else None
        changes = merge(case.changes, {"execution": {"micro_images": micro}})
        self.config = parse(merge(TINY, changes), case.name)
        networks = build_networks(self.config, CLASSES, self.share)
        self.game, self.average = seat_players(self.config, networks, accelerator, case.precision, [3, 2, 1])
        for player in self.players:
            if case.scalers:
                player.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
            if case.mistake == "reduction":
                player.network = player.module

    @property
    def players(self) -> tuple[Player, Player]:
        return self.game.discriminator, self.game.generator

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all tensors of a checkpoint."""
        parts = player_parts(self.game, self.average, {}).items()
        return {f"{name}:{key}": t.contiguous().clone() for name, part in parts for key, t in part.tensors.items()}

    def to_the_end(self) -> dict[str, Any]:
        """Play all rounds; return what was noted round by round."""
        notes: dict[str, Any] = {"moved": [], "losses": [], "norms": [], "scales": []}
        for index in range(self.case.rounds):
            with Sent() as sent:
                played = self.round(index)
            notes["bytes"] = sent.bytes
            if not self.config.execution.sync_batch_norm:
                self.ranks.average_statistics(*(player.module for player in self.players), self.average.network)
            statistics = {name: self.ranks.mean(value).item() for name, value in played.statistics.items()}
            notes["moved"].append([played.discriminator_moved, played.generator_moved])
            notes["losses"].append([statistics["loss/d"], statistics["loss/g"]])
            notes["norms"].append([statistics["grad_norm/d"], statistics["grad_norm/g"]])
            notes["scales"].append([player.loss_scale for player in self.players])
        notes["parameters"] = sum(p.numel() for player in self.players for p in player.parameters)
        return notes

    def round(self, index: int) -> Round:
        draws = Draws(partial(rng.generator, 0, "round", index), BATCH, self.start)
        seen = BATCH * self.config.update.d_steps * (index + 1)
        played = Round(self.game, draws, index, seen)
        with self.overflow(index):
            play = STRATEGIES[self.config.update.strategy]
            play(played, [self.real(index, k) for k in range(self.config.update.d_steps)])
        if played.generator_moved:
            self.average.update(seen, BATCH)
        return played

    def real(self, index: int, step: int) -> Real:
        """Return this rank's share of the real images of a step."""
        draw, side = rng.generator(0, "real", index, step), self.config.data.resolution
        x = torch.rand(BATCH, 1, side, side, generator=draw) * 2 - 1
        c = torch.randint(CLASSES, (BATCH,), generator=draw)
        rows = slice(self.rank * self.share, (self.rank + 1) * self.share)
        if self.config.execution.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return Real(x[rows], c[rows] if self.config.model.conditional else None)

    @contextmanager
    def overflow(self, index: int) -> Iterator[None]:
        """Make a gradient of the case's network infinite on the last rank, in round 1."""
        if self.case.overflow is None or index != 1 or self.rank != self.world - 1:
            yield
            return
        weight = getattr(self.game, self.case.overflow).parameters[0]
        hook = weight.register_hook(lambda gradient: gradient * float("inf"))
        yield
        hook.remove()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

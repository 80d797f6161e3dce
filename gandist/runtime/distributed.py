"""Ranks: who we are, how all of us agree, how buffers become the same everywhere.

The ranks decide together over a group of their own on the CPU (gloo), so that agreeing never waits for a GPU.
Every function here is called by all ranks, in the same order; one process alone runs the same code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gandist.errors import GandistError, MachineError

LAUNCHED_WORLD = "GANDIST_LAUNCHED_WORLD"
"""Environment variable in which a launch script says how many ranks it started."""


T = TypeVar("T")


def patience(timeout_seconds: float) -> timedelta:
    """Return how long a rank waits for the others, where the watchdog gives a rank ``timeout_seconds``.

    It is longer, so that the watchdog speaks first: it knows where each rank stands.
    """
    return timedelta(seconds=1.5 * timeout_seconds)


def asked_for() -> dict[str, int]:
    """Return how many ranks the launcher was asked for, under the name of what says so.

    On a CPU `accelerate launch --num_processes 2` starts a single process and tells it nothing of a second one: only
    the launcher's own command line does, which Linux shows.
    """
    said = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", LAUNCHED_WORLD)}
    try:
        parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # no Linux, or the launcher has ended
        parent = []
    return {name: int(value) for name, value in {**said, **accelerate_flags(parent)}.items() if value.isdigit()}


def accelerate_flags(command: Sequence[str]) -> dict[str, str]:
    """Return ``--num_processes`` of a command line of `accelerate launch`, if it is one and has it."""
    programs = [word.rpartition("/")[2] for word in command]
    launches = {"accelerate-launch", "accelerate.commands.launch"} & set(programs)
    if not launches and ("accelerate", "launch") not in pairwise(programs):
        return {}
    for word, following in pairwise([*command, ""]):
        flag, _, value = word.replace("-", "_").partition("=")
        if flag == "__num_processes":
            return {"--num_processes": value or following}
    return {}


@dataclass(frozen=True)
class Ranks:
    """This process's place among the ranks, and the group in which they agree (None for one process)."""

    rank: int
    world: int
    control: dist.ProcessGroup | None

    @classmethod
    def join(cls, rank: int, world: int, timeout_seconds: float = 900.0) -> Ranks:
        """Open the control group, after checking that as many ranks run as were launched.

        Raises:
            MachineError: the launcher asked for another number of ranks than came up.

        """
        for name, asked in asked_for().items():
            if asked != world:
                raise MachineError(
                    f"{name}={asked} ranks were launched, but this process is one of {world}. The ranks did not find "
                    "each other: on CPUs launch with `accelerate launch --config_file launch/cpu.yaml`, on GPUs with "
                    "one of the other files in launch/."
                )
        if world == 1:
            return cls(0, 1, None)
        group = dist.new_group(backend="gloo", timeout=patience(timeout_seconds))
        assert isinstance(group, dist.ProcessGroup)
        return cls(rank, world, group)

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes files."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        if self.control is None:
            return flag
        vote = torch.tensor(int(flag))
        dist.all_reduce(vote, op=dist.ReduceOp.MAX, group=self.control)
        return bool(vote)

    def from_main(self, value: Any) -> Any:
        """Return rank 0's value on every rank; it must be plain JSON, so nothing is unpickled."""
        if self.control is None:
            return value
        payload = json.dumps(value).encode() if self.main else b""
        length = torch.tensor(len(payload))
        dist.broadcast(length, src=0, group=self.control)
        body = torch.frombuffer(bytearray(payload), dtype=torch.uint8) if payload else torch.empty(0, dtype=torch.uint8)
        if not self.main:
            body = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(body, src=0, group=self.control)
        return json.loads(bytes(body.tolist()))

    def on_main(self, action: Callable[[], T], error: type[GandistError]) -> T | None:
        """Return what ``action`` returns on rank 0, None elsewhere; its ``error`` is raised on all ranks alike."""
        result: T | None = None
        failure = None
        if self.main:
            try:
                result = action()
            except error as raised:
                failure = str(raised)
        failure = self.from_main(failure)
        if failure is not None:
            raise error(failure)
        return result

    def to_main(self, lines: Sequence[str]) -> list[str]:
        """Return the lines of all ranks on rank 0, in the order of ranks, and none on the others."""
        if self.control is None:
            return list(lines)
        body = torch.frombuffer(bytearray(json.dumps(list(lines)).encode()), dtype=torch.uint8)
        lengths = [torch.tensor(0) for _ in range(self.world)]
        dist.all_gather(lengths, torch.tensor(len(body)), group=self.control)
        padded = torch.zeros(int(max(lengths)), dtype=torch.uint8)
        padded[: len(body)] = body
        bodies = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(bodies, padded, group=self.control)
        if not self.main:
            return []
        texts = [bytes(b[: int(n)].tolist()) for b, n in zip(bodies, lengths, strict=True)]
        return [line for text in texts for line in json.loads(text)]

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks, reduced where the tensor lies."""
        if self.control is None:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world

    def first_difference(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Return the name of the first tensor that is not the same to the bit on all ranks, None if all are.

        Only the sums of the tensors' bits travel: a number for each tensor, in one reduction.
        """
        if self.control is None or not tensors:
            return None
        sums = torch.stack([bit_sum(tensor) for tensor in tensors.values()])
        ends = torch.stack([sums, -sums])
        dist.all_reduce(ends, op=dist.ReduceOp.MAX)
        differs = (ends[0] != -ends[1]).tolist()
        return next((name for name, different in zip(tensors, differs, strict=True) if different), None)

    def average_statistics(self, *networks: nn.Module) -> None:
        """Replace the running statistics of batch norms by their means over ranks.

        Where batch norms are not synchronised, each rank normalises by its own images, and only these buffers differ
        between ranks. One small reduction for all of them keeps ranks identical, whenever a checkpoint or a sample is
        taken.
        """
        if self.control is None:
            return
        buffers = [buffer for network in networks for buffer in running_statistics(network)]
        if not buffers:
            return
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(flat)
        flat /= self.world
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.any(False)


class _MeanOverRanks(torch.autograd.Function):
    """The mean over ranks as a node of the graph."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        """Return the mean; no rank's tensor is changed."""
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        """Return the derivative of the sum of all ranks' losses: every rank's loss depends on every rank's tensor."""
        mean: Tensor = _MeanOverRanks.apply(gradient)
        return mean


@torch.compiler.disable  # type: ignore[untyped-decorator]
def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over all ranks, which can be differentiated as often as needed.

    All ranks call it, and take the same derivatives in the same order.
    """
    mean: Tensor = _MeanOverRanks.apply(tensor)
    return mean


_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def bit_sum(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor's elements with their bits read as integers: exact, and the same in any order."""
    return tensor.detach().contiguous().view(_SAME_SIZE[tensor.element_size()]).sum(dtype=torch.int64)


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances of the network's plain batch norms."""
    kind = nn.modules.batchnorm._BatchNorm
    norms = [module for module in network.modules() if isinstance(module, kind)]
    return [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]

"""One of two ranks: tries everything that ranks do together and prints what it saw as one JSON object."""

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from gandist.errors import MachineError
from gandist.runtime.distributed import LAUNCHED_WORLD, Ranks, mean_over_ranks


def norm_with(value: float) -> nn.Module:
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(value)
    norm.running_var.fill_(10 * value)
    norm.num_batches_tracked.fill_(int(value))
    with torch.no_grad():
        norm.weight.fill_(value)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(norm))


def statistics(network: nn.Module) -> dict[str, Any]:
    return {name: value.tolist() for name, value in network.state_dict().items() if name.startswith("1.0.")}


def refuse() -> None:
    raise MachineError("no room")


def derivatives(rank: int) -> list[list[float]]:
    """Return y = mean of x^2 over ranks, the gradient of the ranks' losses y^2, and of that gradient's square."""
    x = torch.tensor([1.0 + rank], requires_grad=True)
    y = mean_over_ranks(x.square())
    (first,) = torch.autograd.grad(y.square(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square(), x)
    return [y.tolist(), first.tolist(), second.tolist()]


def main(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    ranks = Ranks.join(rank, 2, timeout_seconds=60)
    nested = {"text": "Zürich \x00", "list": [1, None, 2.5, True], "long": "x" * 100_000}
    first, second = norm_with(1.0 + rank), norm_with(5.0 + rank)
    seen: dict[str, Any] = {
        "main": ranks.main,
        "any": [ranks.any(flag) for flag in (False, rank == 0, rank == 1, True)],
        "from_main": [ranks.from_main(value if rank == 0 else "mine") for value in ("", None, 0, [], {})],
        "nested": ranks.from_main(nested if rank == 0 else None) == nested,
        "to_main": [ranks.to_main(lines) for lines in ([], ["Zürich"] * rank, [f"of {rank}", "x" * 1000 * rank])],
        "mean": ranks.mean(torch.tensor([1.0, 10.0]) * (1 + 2 * rank)).tolist(),
    }
    for name, action in {"fine": lambda: "done", "refused": refuse}.items():
        try:
            seen[f"on_main {name}"] = ranks.on_main(action, MachineError)
        except MachineError as error:
            seen[f"on_main {name}"] = f"refused: {error}"
    same = {"a": torch.arange(5.0), "b": torch.tensor([True, False]), "c": torch.ones(3, dtype=torch.bfloat16)}
    nearly = {**same, "d": torch.tensor([1.0, 2.0 + rank * 2**-22]), "e": torch.tensor(rank)}
    seen["difference"] = [ranks.first_difference(tensors) for tensors in ({}, same, nearly)]
    seen["derivatives"] = derivatives(rank)
    mine = torch.tensor([float(rank)])
    ranks.mean(mine)
    seen["mean leaves its argument"] = mine.tolist() == [float(rank)]
    ranks.average_statistics(first, nn.Linear(2, 2), second)
    seen["first"], seen["second"] = statistics(first), statistics(second)
    ranks.average_statistics(nn.Linear(2, 2))
    ranks.barrier()
    impatient = Ranks.join(rank, 2, timeout_seconds=1)
    if rank == 0:
        try:
            impatient.any(False)  # the other rank does not answer
        except RuntimeError as error:
            seen["waited in vain"] = str(error)
    ranks.barrier()
    os.environ[LAUNCHED_WORLD] = "4"
    try:
        Ranks.join(rank, 2)
    except MachineError as error:
        seen["error"] = str(error)
    print(json.dumps(seen))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

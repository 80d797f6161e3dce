"""Cases that two processes of this machine measure together, over gloo."""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.multiprocessing.spawn import spawn

from gandist.assembly import open_accelerator
from gandist.runtime.distributed import Ranks

WORLD = 2
C = TypeVar("C")


def measured_by_two(measure: Callable[[C, Accelerator, Ranks], dict[str, Any]], cases: Sequence[C]) -> list[Any]:
    """Call ``measure``, a function of a module, for every case on both ranks; return what the first one found."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # a profiler would tell each time that there is no GPU
        spawn(_rank, args=(folder, measure, list(cases)), nprocs=WORLD)
        found: list[Any] = json.loads((Path(folder) / "found.json").read_text())
    return found


def _rank(rank: int, folder: str, measure: Callable[[C, Accelerator, Ranks], Any], cases: Sequence[C]) -> None:
    torch.set_num_threads(1)
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {name: str(WORLD) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    accelerator = open_accelerator("cpu", "fp32")
    ranks = Ranks.join(rank, WORLD)
    found = [measure(case, accelerator, ranks) for case in cases]
    if ranks.main:
        (Path(folder) / "found.json").write_text(json.dumps(found))
    gc.collect()  # gloo aborts when a reducer outlives it
    dist.destroy_process_group()

"""One of two ranks: makes the checks that ranks make together, with made faults, and prints what rank 0 found."""

import fcntl
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from gandist.doctor import launch
from gandist.doctor.finding import Finding, fail, ok
from gandist.runtime.distributed import Ranks
from gandist.runtime.place import Place
from gandist.runtime.probe import measure_reductions

launch.APPEAR_SECONDS = 1.0  # for what never comes


def without_locks(_descriptor: int, _operation: int) -> None:
    """Grant every lock, as a file system does whose locks are not seen on other machines."""


def main(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    ranks = Ranks.join(rank, 2, timeout_seconds=120)
    host = f"n{rank}"
    apart = folder / f"apart{rank}"  # what is one place on two machines is two here
    apart.mkdir()
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    environ = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    found: dict[str, list[Finding]] = {
        "world": launch.world_findings(ranks, Place(host, environ)),
        "world on one": launch.world_findings(ranks, Place("n0", environ)),
        "same": launch.agreement_findings(ranks, {"torch": "2.9", "recipe": "aa"}),
        "different": launch.agreement_findings(ranks, {"torch": f"2.{9 + rank}", "recipe": "aa"}),
        "clocks": launch.clock_findings(ranks),
        "skewed": launch.clock_findings(ranks, lambda: time.time() - 90 * rank),
        "bandwidth": launch.bandwidth_findings(ranks, measure_reductions(torch.device("cpu"), 2)),
        "shared": launch.shared_folder_findings(ranks, shared, host),
        "not shared": launch.shared_folder_findings(ranks, apart, host),
    }
    real, fcntl.flock = fcntl.flock, without_locks
    found["false locks"] = launch.shared_folder_findings(ranks, shared, host)
    fcntl.flock = real
    replace, launch._replace = launch._replace, tear
    found["torn"] = launch.shared_folder_findings(ranks, shared, host)
    launch._replace = replace
    mine = [ok("disk", f"{rank} GiB"), *([fail("GPU", "none", "Buy one.")] * rank), fail("both", "no", "x")]
    found["gathered"] = launch.gather(ranks, mine, host)
    ranks.barrier()
    dist.destroy_process_group()
    print(json.dumps({name: [finding.plain() for finding in findings] for name, findings in found.items()}))


def tear(path: Path, content: str) -> None:
    """Replace a file in two steps, as no careful program does."""
    with path.open("w", encoding="utf-8") as file:
        file.write(content[:100])
        file.flush()
        os.fsync(file.fileno())
        file.write(content[100:])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

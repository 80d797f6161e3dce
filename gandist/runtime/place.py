"""Where a process finds itself: its host, its environment variables, and what a launcher said in them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from gandist.runtime.distributed import LAUNCHED_WORLD


@dataclass(frozen=True)
class Place:
    """This process among those that were launched with it."""

    host: str = field(default_factory=socket.gethostname)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def number(self, name: str, default: int) -> int:
        """Return an environment variable as a number that is not negative."""
        text = self.environ.get(name, "")
        return int(text) if text.isdigit() else default

    @property
    def rank(self) -> int:
        """Return the rank that the launcher gave."""
        return self.number("RANK", 0)

    @property
    def launched_world(self) -> int:
        """Return the number of ranks that were launched."""
        return self.number(LAUNCHED_WORLD, self.number("WORLD_SIZE", 1))

    @property
    def local_rank(self) -> int:
        """Return the rank among those of this machine."""
        return self.number("LOCAL_RANK", 0)

    @property
    def local_world(self) -> int:
        """Return the number of ranks on this machine."""
        return self.number("LOCAL_WORLD_SIZE", self.launched_world)

    @property
    def machines(self) -> int:
        """Return the number of machines, as a launcher or Slurm says."""
        launched = -(-self.launched_world // self.local_world) if self.local_world else 1
        return max(launched, self.number("SLURM_JOB_NUM_NODES", 1))

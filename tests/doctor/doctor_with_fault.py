"""``gandist doctor`` with a trainer that breaks on rank 1, as a machine may."""

import os
import sys

from gandist.cli import main
from gandist.trainer import Trainer


def broken(self: Trainer) -> int:
    raise RuntimeError("the GPU fell off the bus")


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        Trainer.train = broken
    sys.exit(main())

"""``gandist``, but one rank gets real images that are not finite: ``spoilt_images.py RANK FIRST LAST VERB ...``."""

from __future__ import annotations

import os
import sys
from typing import Any

from gandist.adversarial.game import Real
from gandist.cli import main
from gandist.trainer import Trainer


def spoil(rank: str, first: int, last: int) -> None:
    to_device = Trainer._to_device

    def moved(trainer: Trainer, *given: Any) -> Real:
        real = to_device(trainer, *given)
        if os.environ.get("RANK", "0") == rank and first <= trainer.clock.round_index <= last:
            real.x[0, 0, 0, 0] = float("nan")
        return real

    Trainer._to_device = moved  # type: ignore[method-assign]


if __name__ == "__main__":
    spoil(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.exit(main(sys.argv[4:]))

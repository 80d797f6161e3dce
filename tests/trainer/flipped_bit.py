"""``gandist``, but on rank 1 one bit of one weight changes after a round: ``flipped_bit.py PART ROUND VERB ...``."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from gandist.adversarial.round import Round
from gandist.cli import main
from gandist.trainer import Trainer


def flip(part: str, at: int) -> None:
    play = Trainer._play_round

    def played(trainer: Trainer, *given: Any, **named: Any) -> Round:
        done = play(trainer, *given, **named)
        if trainer.clock.round_index == at and os.environ["RANK"] == "1":
            game = trainer.game
            module = {"discriminator": game.discriminator.module, "ema": trainer.averages.network}[part]
            with torch.no_grad():
                next(module.parameters()).view(torch.int32).view(-1)[0] ^= (
                    1 << 16
                )  # a large change: small ones can round away again
        return done

    Trainer._play_round = played  # type: ignore[method-assign]


if __name__ == "__main__":
    flip(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))

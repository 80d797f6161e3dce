"""What a run does about numbers that are not finite and memory that does not suffice; the trainer calls it.

1. A step whose gradients are not finite is skipped, on all ranks (:mod:`gandist.adversarial.guard`).
2. When one network has skipped ``fault.skip_steps`` steps in a row, the run goes back to its last checkpoint and
   continues with new latents; real images keep their order.
3. After ``fault.rollbacks`` of these it ends, and says where it began. A checkpoint never holds such numbers.
"""

from __future__ import annotations

import torch

from gandist.adversarial.game import Game
from gandist.adversarial.guard import Skipped
from gandist.errors import GandistError, RunError
from gandist.runtime.contact import lost_contact
from gandist.runtime.machine import memory_figures

ROLES = {"d": "discriminator", "g": "generator"}
SCALE_STEPS = 20
"""Steps in a row that overflows may cost besides, under fp16: its loss scale of 65536 is halved 16 times to reach 1."""

WHAT_HELPS = (
    "What helps: a lower optimizer.*.lr, optimizer.*.clip_norm, more regularizer.r1.gamma, execution.precision fp32; "
    "`gandist train CONFIG --debug` checks every layer."
)


class NotFiniteError(RunError):
    """Numbers of the run are not finite, and skipping steps does not help."""


def skipped_steps(game: Game) -> dict[str, Skipped]:
    """Return what each player has skipped; waits for the device."""
    return {letter: player.guard.skipped() for letter, player in game.players.items()}


def over_limit(game: Game, limit_steps: int) -> str | None:
    """Return what is wrong if a player has skipped more steps in a row than the limit; waits for the device."""
    for letter, skipped in skipped_steps(game).items():
        scaled = game.players[letter].scaler is not None
        if skipped.streak >= limit_steps + (SCALE_STEPS if scaled else 0):
            where = f", first in {skipped.tensors[0]}" if skipped.tensors else ""
            return (
                f"The {ROLES[letter]}'s gradients have not been finite since round {skipped.since_round}{where}: "
                f"{skipped.streak} steps in a row were skipped."
            )
    return None


def explained(error: BaseException, game: Game, share_images: int, device: torch.device) -> BaseException:
    """Return an error that says in words what happened, where we know it, else the error itself."""
    if isinstance(error, GandistError):
        return error
    if ran_out_of_memory(error):
        return RunError(_memory_advice(error, game, share_images, device))
    if lost_contact(error):
        first_line = str(error).strip().split("\n", 1)[0]
        return RunError(
            f"This rank lost contact with the others ({first_line}). Another rank ended, whose message says why, or "
            "the network between them is cut. The same command continues from the last checkpoint."
        )
    return error


def ran_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory of the device or of the host could not be had."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _memory_advice(error: BaseException, game: Game, share_images: int, device: torch.device) -> str:
    first_line = str(error).strip().split("\n", 1)[0] or type(error).__name__
    in_pass = min(game.micro_images or share_images, share_images)
    ways = []
    if in_pass > 1 and not game.couples_batch:
        ways.append(f"--execution.micro_images {max(1, in_pass // 2)}, which changes nothing else in the result")
    ways.append("more ranks, which share the same batch")
    ways.append(f"a smaller --update.batch_images, now {share_images} on each rank")
    return (
        f"Out of memory on {device}: {memory_figures(device)}. One pass holds {in_pass} images. Try "
        f"{'; or '.join(ways)}. What exists is saved up to the last checkpoint. ({first_line})"
    )

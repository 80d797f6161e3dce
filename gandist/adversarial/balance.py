"""Who learns in the coming rounds: both networks, D alone, or G alone.

A game needs a D that knows a little more than G. Where D knows nothing, its gradient sends G nowhere; where it knows
everything, a loss that saturates sends none (Arjovsky & Bottou 2017, theorem 2.4). A fixed ratio of steps (``d_steps``,
``g_steps``) is the classic answer (Goodfellow et al. 2014, algorithm 1). Here the ratio follows what is measured: D's
*score* in a band. Below the band D learns alone, above it G does, within it both do.

==============  =========================================================  ===========================
kind            score                                                      at chance
==============  =========================================================  ===========================
``accuracy``    mean of D's accuracy on real images and on fakes            1/2
``loss``        minus D's loss                                             -2 log 2 (logistic losses)
==============  =========================================================  ===========================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gandist.adversarial.game import Moves

Kind = Literal["fixed", "accuracy", "loss"]

PARTS: dict[Kind, tuple[str, ...]] = {
    "fixed": (),
    "accuracy": ("accuracy/real", "accuracy/fake"),
    "loss": ("loss/d",),
}
"""The statistics of a round whose mean says how well D does."""

_DIGITS = 6  # to which a mean is rounded, so that the order in which ranks were added decides nothing


@dataclass(frozen=True)
class Band:
    """Where D's score should be, and for how long one network may be left alone.

    Args:
        low: below it D learns alone.
        high: above it G learns alone.
        margin: the score must be this far inside the band again before the other network joins in.
        longest_rounds: after so many rounds of one network both learn for an interval, whatever the score.

    """

    low: float
    high: float
    margin: float
    longest_rounds: int

    def next(self, score: float, moves: Moves, alone_rounds: int) -> Moves:
        """Return who learns next, after ``alone_rounds`` rounds in a row in which only one network did."""
        if moves != "both" and alone_rounds >= self.longest_rounds:
            return "both"
        if score < self.low + (self.margin if moves == "discriminator" else 0):
            return "discriminator"
        if score > self.high - (self.margin if moves == "generator" else 0):
            return "generator"
        return "both"


class Balance:
    """Watches the game and decides at every interval who learns in the next one.

    What is measured is summed where it lies and read once in an interval, as the mean over its rounds and over all
    ranks: so the ranks decide the same, and the device is waited for once. The kind ``fixed`` reads nothing.

    Args:
        kind: what the score is; ``fixed`` lets both networks learn in every round.
        band: where the score should be.
        interval_rounds: rounds from one decision to the next.

    """

    def __init__(self, kind: Kind, band: Band, interval_rounds: int) -> None:
        self.kind, self.band, self.interval_rounds = kind, band, interval_rounds
        self.moves: Moves = "both"
        self.score: float | None = None
        self.alone_rounds = 0  # in a row
        self._rounds = 0  # since the last decision
        self._sum: Tensor | None = None

    def observe(self, statistics: Mapping[str, Tensor]) -> None:
        """Hear what a round measured."""
        if self.kind == "fixed":
            return
        parts = torch.stack([statistics[name] for name in PARTS[self.kind]]).double()
        self._sum = parts.mean() if self._sum is None else self._sum + parts.mean()
        self._rounds += 1
        self.alone_rounds += self.moves != "both"

    @property
    def due(self) -> bool:
        """Whether an interval is over; equal on all ranks."""
        return self.kind != "fixed" and self._rounds >= self.interval_rounds

    def decide(self, mean: Callable[[Tensor], Tensor]) -> str | None:
        """Decide who learns next if an interval is over; waits for the device, and for all ranks.

        Args:
            mean: of a tensor over all ranks.

        Returns:
            what to say of it, where it is news.

        """
        if not self.due or self._sum is None:
            return None
        measured = round(float(mean(self._sum / self._rounds)), _DIGITS)
        self.score = -measured if self.kind == "loss" else measured
        before, alone = self.moves, self.alone_rounds
        self.moves = self.band.next(self.score, before, alone)
        self._rounds, self._sum = 0, None
        if self.moves == before:
            return None
        self.alone_rounds = 0
        return self._tell(before, measured, alone)

    def _tell(self, before: Moves, measured: float, alone: int) -> str:
        what, band = ("D's loss" if self.kind == "loss" else "D's accuracy"), self.band
        low, high = (-band.low, -band.high) if self.kind == "loss" else (band.low, band.high)
        below, above = ("above", "below") if self.kind == "loss" else ("below", "above")
        if self.moves == "discriminator":
            return f"Balance: D learns alone: {what} is {measured:.3g}, {below} {low:g}."
        if self.moves == "generator":
            return f"Balance: G learns alone: {what} is {measured:.3g}, {above} {high:g}."
        who = "D" if before == "discriminator" else "G"
        return f"Balance: both learn again after {alone} rounds of {who} alone: {what} is {measured:.3g}."

    def statistics(self) -> dict[str, float]:
        """Return the score that the last decision was made by, and who learns: 1 D alone, -1 G alone, 0 both."""
        if self.score is None:
            return {}
        alone: dict[Moves, float] = {"discriminator": 1.0, "generator": -1.0, "both": 0.0}
        return {"balance/score": self.score, "balance/alone": alone[self.moves]}

    def state(self, mean: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return what a checkpoint keeps, in JSON's types; all ranks take part in its ``mean``."""
        return {
            "kind": self.kind,
            "moves": self.moves,
            "score": self.score,
            "alone_rounds": self.alone_rounds,
            "rounds": self._rounds,
            "sum": None if self._sum is None else float(mean(self._sum)),
        }

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from what a checkpoint kept; one of another kind is forgotten."""
        if state["kind"] != self.kind:
            return
        self.moves, self.score, self.alone_rounds = state["moves"], state["score"], state["alone_rounds"]
        self._rounds = state["rounds"]
        total = state["sum"]
        self._sum = None if total is None else torch.tensor(total, dtype=torch.float64, device=device)

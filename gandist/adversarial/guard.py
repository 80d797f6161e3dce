"""Numbers that are not finite: seen on the device, kept out of the networks there, and counted for whoever asks.

A step whose gradients hold NaN or infinity must not be taken, and asking the device after each step whether they do
would make the host wait for it in every round. So the answer stays on the device: the optimizer reads it there. The
gradients are reduced over ranks before they are looked at, hence all ranks skip the same step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Skipped:
    """Steps of one network that were skipped.

    Attributes:
        total: since the run began.
        streak: in a row, up to the last step; 0 if that was taken.
        since_round: round of the first of the streak.
        tensors: names of the parameters whose gradients were not finite then.

    """

    total: int
    streak: int
    since_round: int
    tensors: Sequence[str]


class FiniteGuard:
    """Watches over the gradients and the running statistics of one network.

    Args:
        module: the bare network.

    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._names = [name for name, _ in module.named_parameters()]
        self._counts: Tensor | None = None  # total, streak, since_round; on the device of the gradients
        self._spoilt: Tensor | None = None
        self._statistics: Tensor | None = None

    def judge(self, norms: Float[Tensor, " tensors"], round_index: int) -> Bool[Tensor, ""]:
        """Take in the norms of a step's gradients; return whether the step must be skipped, on their device."""
        finite = norms.isfinite()
        skip = ~finite.all()
        if self._counts is None or self._spoilt is None:
            self._counts, self._spoilt = torch.zeros(3, dtype=torch.int64, device=norms.device), ~finite
        total, streak, since = self._counts
        begins = skip & (streak == 0)
        self._spoilt = torch.where(begins, ~finite, self._spoilt)
        self._counts = torch.stack([total + skip, (streak + 1) * skip, torch.where(begins, round_index, since)])
        return skip

    @torch.no_grad()
    def settle(self) -> None:
        """Put running statistics that a pass has spoilt back to what they were after the last round that did not."""
        statistics = [buffer for buffer in self._module.buffers() if buffer.is_floating_point()]
        if not statistics:
            return
        now = torch.cat([buffer.flatten() for buffer in statistics])
        finite, kept = now.isfinite().all(), self._statistics
        if kept is not None and not (finite.device.type == "cpu" and finite):  # asking a CPU costs nothing
            now = torch.where(finite, now, kept)
            for buffer, part in zip(statistics, now.split([b.numel() for b in statistics]), strict=True):
                buffer.copy_(part.view_as(buffer))
        self._statistics = now

    def skipped(self) -> Skipped:
        """Return what was skipped; waits for the device."""
        if self._counts is None or self._spoilt is None:
            return Skipped(0, 0, 0, ())
        total, streak, since = self._counts.tolist()
        named = zip(self._names, self._spoilt.tolist(), strict=True)
        return Skipped(total, streak, since, [name for name, spoilt in named if spoilt] if streak else ())

    def state(self) -> dict[str, int]:
        """Return what a checkpoint keeps."""
        known = self.skipped()
        return {"total": known.total, "streak": known.streak, "since_round": known.since_round}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from what a checkpoint kept; the statistics are those that the network then has."""
        counts = [state["total"], state["streak"], state["since_round"]]
        self._counts = torch.tensor(counts, dtype=torch.int64, device=device)
        self._spoilt = torch.zeros(len(self._names), dtype=torch.bool, device=device)
        self._statistics = None

    def forgive(self) -> None:
        """Begin to count the streak anew, after the run went back."""
        if self._counts is not None:
            self._counts = self._counts * torch.tensor([1, 0, 0], device=self._counts.device)
        self._statistics = None


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, None if all are finite; waits for the device."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floating:
        return None
    finite = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist()
    return next((name for name, good in zip(floating, finite, strict=True) if not good), None)

"""The rules of a game, from a configuration: plain values and functions of the images seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gandist.adversarial.regularizers import PENALTIES, Regularizer
from gandist.config import Config
from gandist.runtime.schedule import factor


def regularizers_of(config: Config) -> list[Regularizer]:
    """Return the penalties that are switched on, each with its weight over images seen."""
    r1 = config.regularizer.r1
    if r1.gamma == 0:
        return []

    def weight(images_seen: int) -> float:
        return r1.gamma * factor(r1.schedule, images_seen, config.run.total_kimg)

    return [Regularizer("r1", PENALTIES["r1"], weight, r1.interval_steps)]


def class_cdf(class_counts: Sequence[int]) -> Tensor:
    """Return P(class <= k) for every class k, from the number of images in each."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    return (counts.cumsum(0) / counts.sum()).float()

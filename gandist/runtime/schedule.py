"""Schedules and cadence, as functions of images seen, the one clock of a run."""

from __future__ import annotations

import math
from fractions import Fraction

from gandist.config import Schedule


def factor(schedule: Schedule, images_seen: int, total_kimg: float) -> float:
    """Return the factor that ``schedule`` puts on a value after ``images_seen`` images of a run of ``total_kimg``.

    With x the progress from begin to end of the decay, clipped to [0, 1]: linear is 1 + (final - 1) x, cosine is
    final + (1 - final) (1 + cos(pi x)) / 2 (Loshchilov & Hutter 2017, equation 5). Warm-up multiplies by
    images / warm-up, at most 1.
    """
    kimg = images_seen / 1000
    warm = min(1.0, kimg / schedule.warmup_kimg) if schedule.warmup_kimg else 1.0
    if schedule.shape == "constant":
        return warm
    end = schedule.end_kimg if schedule.end_kimg is not None else total_kimg
    length = end - schedule.begin_kimg
    progress = min(1.0, max(0.0, (kimg - schedule.begin_kimg) / length)) if length > 0 else float(kimg >= end)
    if schedule.shape == "linear":
        return warm * (1 + (schedule.final - 1) * progress)
    return warm * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2)


def crossed(every_kimg: float, before: int, after: int) -> bool:
    """Tell whether a multiple of ``every_kimg`` lies in the images (before, after]."""
    every_images = 1000 * Fraction(repr(every_kimg))  # the decimal that was written: 0.1 is not a binary fraction
    return after // every_images > before // every_images

"""How many modes of the ring samples cover, and how many of the samples are good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandist.data.ring import CENTRES, DEVIATION, MODES

NEAR = 3.0  # deviations from a centre within which a sample is of high quality, as in the literature
FAIR_SHARE = 0.25  # of a mode's fair share of the samples, in high quality, makes it covered


@dataclass(frozen=True)
class Count:
    """Modes covered, and the share of samples that are of high quality."""

    modes: int
    quality: float


def count(points: NDArray[np.float32]) -> Count:
    """Count the modes that points, shape (n, 2), cover.

    A point is of high quality within three deviations of a centre (98.9 % of the data are). A mode is covered by a
    quarter of an eighth of the points, if they are of high quality.
    """
    distances = np.linalg.norm(points[:, None] - CENTRES, axis=2)
    good = distances.min(axis=1) <= NEAR * DEVIATION
    each = np.bincount(distances.argmin(axis=1)[good], minlength=MODES)
    covered = each >= FAIR_SHARE * len(points) / MODES
    return Count(int(covered.sum()), float(good.mean()))

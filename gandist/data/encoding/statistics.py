"""Mean and standard deviation of each channel of latents, gathered as they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over places of latents, in fp64.

    Attributes:
        places: how many there are.
        mean: sum of the means, of each channel.
        square: sum of E[z^2] = mean^2 + exp(logvar), of each channel.

    """

    places: int
    mean: Doubles
    square: Doubles

    @classmethod
    def none(cls, channels: int) -> Sums:
        """Return the sums over nothing."""
        return cls(0, np.zeros(channels), np.zeros(channels))

    @classmethod
    def of(cls, moments: NDArray[np.float16]) -> Sums:
        """Return the sums over the moments of one image, shape (h, w, 2 * channels)."""
        mean, logvar = np.split(moments.astype(np.float64), 2, axis=2)
        square = mean**2 + np.exp(logvar)
        return cls(mean[..., 0].size, mean.sum(axis=(0, 1)), square.sum(axis=(0, 1)))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.places + other.places, self.mean + other.mean, self.square + other.square)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel of samples z.

        Var z = E[mean^2 + exp(logvar)] - E[mean]^2.
        """
        mean = self.mean / self.places
        std = np.sqrt(np.maximum(self.square / self.places - mean**2, 0))
        return tuple(mean.tolist()), tuple(std.tolist())

    def as_json(self) -> list[Any]:
        """Return what :meth:`read` reads, to the last bit."""
        return [self.places, self.mean.tolist(), self.square.tolist()]

    @classmethod
    def read(cls, entry: list[Any]) -> Sums:
        """Return sums that were written down."""
        places, mean, square = entry
        return cls(int(places), np.array(mean, dtype=np.float64), np.array(square, dtype=np.float64))

"""What was measured since the last log round; tensors stay on the device until they are asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Window:
    """Sums of statistics and of time over the rounds since it was made.

    The sums have double precision, in which adding a few thousand single-precision numbers is exact. So it does not
    matter to the last digit in which order rounds and ranks are added, nor whether a checkpoint lies between them.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._images = 0
        self._start = time.perf_counter()
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the context as spent waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def add(self, statistics: Mapping[str, Tensor], images: int) -> None:
        """Add the statistics of a round of ``images`` real images over all ranks."""
        self._images += images
        for name, value in statistics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.double()
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the mean of each statistic over the rounds that measured it and over ranks; waits for the device."""
        return {name: total / count for name, (total, count) in self.state(over_ranks).items()}

    def state(self, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, tuple[float, int]]:
        """Return each statistic's sum, averaged over ranks, and its count: what a checkpoint keeps."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        sums = over_ranks(torch.stack([self._sums[name] for name in names])).tolist()
        return {name: (total, self._counts[name]) for name, total in zip(names, sums, strict=True)}

    def restore(self, state: Mapping[str, tuple[float, int]], device: torch.device) -> None:
        """Continue from what a checkpoint kept."""
        for name, (total, count) in state.items():
            self._sums[name] = torch.tensor(total, dtype=torch.float64, device=device)
            self._counts[name] = count

    def speed(self) -> dict[str, float]:
        """Return images per second over all ranks, and the share of time spent waiting for data."""
        elapsed = time.perf_counter() - self._start
        return {
            "speed/images_per_second": self._images / elapsed,
            "speed/data_wait_share": self._waited / elapsed,
        }

"""Memory in which workers leave batches for the trainer, used again and again.

Torch hands every batch over in new shared memory, whose pages the kernel must first make in the worker and then map in
the trainer; at 256 px that takes a quarter of the time that decoding does. Here both map the same places once. A place
is free again when nothing of the batch is left in the trainer, however long it is kept there.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import weakref
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_OPEN: weakref.WeakValueDictionary[int, Shelf] = weakref.WeakValueDictionary()
"""The shelves that this process made, for batches that come back from workers as no more than a place."""

_keys = itertools.count()


@dataclass(frozen=True)
class Place:
    """Where on a shelf a batch lies, and its shape."""

    shelf: int
    number: int
    shape: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Return the batch where it lies; to be called once, in the process that made the shelf."""
        return _OPEN[self.shelf].take(self.number, self.shape)

    def pin_memory(self) -> Tensor:
        """Return a copy of the batch that a GPU can read directly; torch's loader asks for it by this name."""
        return self.tensor().pin_memory()


class Shelf:
    """Places of one size, shared by the process that makes them and the workers that it starts."""

    def __init__(self, places: int, place_bytes: int) -> None:
        self._key = next(_keys)
        self._place_bytes = -(-place_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = os.memfd_create("gandist-batches")  # memory without a name, so nothing can be left behind
        os.ftruncate(descriptor, places * self._place_bytes)
        self._map(descriptor)
        self._free = list(range(places))
        _OPEN[self._key] = self

    def find(self) -> int | None:
        """Return the number of a place that is now no longer free, the last used first; None if all are taken."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def room(self, number: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a place as an array."""
        size = math.prod(shape)
        return np.frombuffer(self._memory, dtype=np.uint8, count=size, offset=number * self._place_bytes).reshape(shape)

    def place(self, number: int, shape: tuple[int, ...]) -> Place:
        """Return what to send to the trainer when a place has been filled."""
        return Place(self._key, number, shape)

    def take(self, number: int, shape: tuple[int, ...]) -> Tensor:
        """Return the batch at a place, which is free again when the last tensor that shares its memory is gone."""
        array = self.room(number, shape)
        weakref.finalize(array, self._free.append, number).atexit = False
        return torch.from_numpy(array)

    def _map(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)
        weakref.finalize(self, os.close, descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {"key": self._key, "place_bytes": self._place_bytes, "descriptor": DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._key, self._place_bytes, self._free = state["key"], state["place_bytes"], []
        self._map(state["descriptor"].detach())

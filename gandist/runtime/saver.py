"""Saves in the background: training waits for a copy of the state, not for the disk.

1. The tensors are copied to memory of the host, which is kept from save to save.
2. A thread writes, hashes, flushes and publishes them (:class:`~gandist.runtime.checkpoint.CheckpointStore`).
3. One save is in flight at a time: the next one waits for it, so the memory for copies is needed once.

What went wrong in the background is told at the next call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gandist.errors import CheckpointError
from gandist.runtime.checkpoint import CheckpointStore, Part


class BackgroundSaver:
    """Writes the checkpoints of one run, one after the other, beside the training. Rank 0 has one.

    Attributes:
        blocked_seconds: how long the last save kept its caller.
        written_seconds: how long the last finished save took in all, on the disk at its end.

    """

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self.blocked_seconds = 0.0
        self.written_seconds = 0.0
        self._copies: dict[tuple[str, str], Tensor] = {}
        self._thread: threading.Thread | None = None
        self._problem: CheckpointError | None = None
        self._news = False

    def news(self) -> float | None:
        """Return how long a save took that has finished since this was last asked, None if none has."""
        fresh, self._news = self._news, False
        return self.written_seconds if fresh else None

    def save(self, images_seen: int, parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
        """Copy ``parts`` and begin to write them; what they refer to may change as soon as this returns.

        Raises:
            CheckpointError: the save before this one failed; this one was begun all the same.

        """
        begin = time.monotonic()
        problem = self._join()
        copies = self._copied(parts)
        self._thread = threading.Thread(
            target=self._write, args=(begin, images_seen, copies, state), name="save-checkpoint"
        )
        self._thread.start()
        self.blocked_seconds = time.monotonic() - begin
        if problem:
            raise problem

    def finish(self) -> None:
        """Wait until what was begun is on the disk.

        Raises:
            CheckpointError: it could not be written; earlier checkpoints are whole.

        """
        problem = self._join()
        if problem:
            raise problem

    def _join(self) -> CheckpointError | None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        problem, self._problem = self._problem, None
        return problem

    def _write(self, begin: float, images_seen: int, parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
        try:
            self.store.save(images_seen, parts, state)
            self.written_seconds = time.monotonic() - begin
            self._news = True
        except CheckpointError as error:
            self._problem = error
        except Exception as error:  # in a thread nobody else would hear of it
            self._problem = CheckpointError(f"The checkpoint at {images_seen} images was not written: {error!r}.")

    @torch.no_grad()
    def _copied(self, parts: Mapping[str, Part]) -> dict[str, Part]:
        """Return the parts with every tensor replaced by its copy on the host."""
        copied = {
            name: Part({key: self._copy((name, key), tensor) for key, tensor in part.tensors.items()}, part.header)
            for name, part in parts.items()
        }
        current = {(name, key) for name, part in copied.items() for key in part.tensors}
        self._copies = {place: copy for place, copy in self._copies.items() if place in current}
        if any(tensor.is_cuda for part in parts.values() for tensor in part.tensors.values()):
            torch.cuda.current_stream().synchronize()
        return copied

    def _copy(self, place: tuple[str, str], tensor: Tensor) -> Tensor:
        copy = self._copies.get(place)
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies[place] = copy
        return copy.copy_(tensor, non_blocking=tensor.is_cuda)

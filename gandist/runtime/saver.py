"""Saves in the background: training waits neither for the disk nor, as a rule, for the copy of its state.

1. What the next pass may change is copied to memory of the host at once; this memory is kept from save to save.
2. A thread copies the rest, which only steps of optimizers change, while the next pass computes. Whoever takes such a
   step calls :meth:`BackgroundSaver.copied` before. State on a GPU is copied at once and whole.
3. The thread writes, hashes, flushes and publishes (:class:`~gandist.runtime.checkpoint.CheckpointStore`).
4. One save is in flight at a time: the next one waits for it, so the memory for copies is needed once.

What went wrong in the background is told at the next call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gandist.errors import CheckpointError
from gandist.runtime.checkpoint import CheckpointStore, Part


class BackgroundSaver:
    """Writes the checkpoints of one run, one after the other, beside the training. Rank 0 has one.

    Attributes:
        blocked_seconds: how long the last save has kept its caller, in :meth:`save` and :meth:`copied` together.
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
        self._all_copied = threading.Event()
        self._all_copied.set()

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
        copies, later = self._copies_of(parts)
        self._all_copied.clear()
        self._thread = threading.Thread(
            target=self._write, args=(begin, images_seen, copies, later, state), name="save-checkpoint"
        )
        self._thread.start()
        self.blocked_seconds = time.monotonic() - begin
        if problem:
            raise problem

    def copied(self) -> None:
        """Wait until nothing of what is being saved is needed any more; called before steady tensors change."""
        if not self._all_copied.is_set():
            begin = time.monotonic()
            self._all_copied.wait()
            self.blocked_seconds += time.monotonic() - begin

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

    def _write(
        self,
        begin: float,
        images_seen: int,
        parts: Mapping[str, Part],
        later: Sequence[tuple[Tensor, Tensor]],
        state: Mapping[str, Any],
    ) -> None:
        try:
            self._copy_the_rest(later)
            self.store.save(images_seen, parts, state)
            self.written_seconds = time.monotonic() - begin
            self._news = True
        except CheckpointError as error:
            self._problem = error
        except Exception as error:  # in a thread nobody else would hear of it
            self._problem = CheckpointError(f"The checkpoint at {images_seen} images was not written: {error!r}.")

    @torch.no_grad()
    def _copy_the_rest(self, later: Sequence[tuple[Tensor, Tensor]]) -> None:
        try:
            for copy, tensor in later:
                copy.copy_(tensor)
        finally:
            self._all_copied.set()

    @torch.no_grad()
    def _copies_of(self, parts: Mapping[str, Part]) -> tuple[dict[str, Part], list[tuple[Tensor, Tensor]]]:
        """Return the parts with a copy on the host for every tensor, and the copies that are still to fill."""
        copied: dict[str, Part] = {}
        later: list[tuple[Tensor, Tensor]] = []
        for name, part in parts.items():
            tensors = {key: self._room((name, key), tensor) for key, tensor in part.tensors.items()}
            for key, tensor in part.tensors.items():
                if key in part.steady and not tensor.is_cuda:
                    later.append((tensors[key], tensor))
                else:
                    tensors[key].copy_(tensor, non_blocking=tensor.is_cuda)
            copied[name] = Part(tensors, part.header)
        current = {(name, key) for name, part in copied.items() for key in part.tensors}
        self._copies = {place: copy for place, copy in self._copies.items() if place in current}
        if any(tensor.is_cuda for part in parts.values() for tensor in part.tensors.values()):
            torch.cuda.current_stream().synchronize()
        return copied, later

    def _room(self, place: tuple[str, str], tensor: Tensor) -> Tensor:
        """Return memory of the host for a tensor, the same as for the last save where that fits."""
        copy = self._copies.get(place)
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies[place] = copy
        return copy

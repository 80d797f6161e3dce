"""What a piece of work computes and holds, counted operation by operation: the same on every machine."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class _Operations(TorchDispatchMode):
    """Adds up floating point operations, also inside of derivatives of derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


class _Live(TorchDispatchMode):
    """Adds up the bytes of all storages that operations have made and that are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage(), before)
        return out

    def _take(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key = storage._cdata
        if id(storage) in before or key in self._known:
            return
        self._known.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, storage.nbytes())

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def operations(work: Callable[[], object]) -> int:
    """Return the floating point operations of the work, a product and its sum being two."""
    with _Operations() as counter:
        work()
    total: int = counter.total
    return total


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes that the work holds at once, beside what was there before it."""
    with _Live() as live:
        work()
    peak: int = live.peak
    return peak

"""Errors of a collective operation that mean: the ranks lost each other."""

from __future__ import annotations

import torch.distributed as dist

_WORDS = (
    "gloo/transport",
    "Connection closed by peer",
    "Connection reset by peer",
    "Socket Timeout",
    "NCCL",
)


def lost_contact(error: BaseException) -> bool:
    """Tell whether the error comes from a peer that ended, or from the network to it; gloo has no type of its own."""
    if isinstance(error, dist.DistError):  # type: ignore[attr-defined, unused-ignore]
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)

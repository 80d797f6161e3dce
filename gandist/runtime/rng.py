"""Keyed randomness: every draw of a run is a pure function of the seed and of what it is for.

No generator lives longer than one use and no random state is ever saved. A draw is named by words such as
``("round", 120, "step0.z")``; the same words give the same numbers on every rank, after every resume.
"""

from __future__ import annotations

import hashlib

import torch


def key(seed: int, *words: str | int) -> int:
    """Return a 63-bit number that depends on the seed and on every word, and on nothing else."""
    text = repr((seed, *words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *words: str | int) -> torch.Generator:
    """Return a CPU generator seeded by :func:`key`: the same numbers whatever device they are used on."""
    return torch.Generator().manual_seed(key(seed, *words))

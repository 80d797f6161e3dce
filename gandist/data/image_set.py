"""What a run asks of its real images: the image at any position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gandist.data.order import Ints
from gandist.latents.space import LatentSpace

Images = NDArray[np.uint8]
Numbers = Literal["uint8", "float16", "float32"]


class Report(NamedTuple):
    """What went wrong in reading and was made good: counts of bad samples and shards, and words for a person."""

    bad_images: int = 0
    notes: tuple[str, ...] = ()
    damaged_shards: int = 0


@dataclass(frozen=True)
class Reading:
    """How the ranks of a run read a set.

    Attributes:
        batch_images: size of the global batch.
        rank: of this process.
        world: number of ranks.
        local_world: ranks on each node.
        start: position of the first global batch.
        ahead_batches: batches that may be read before the first of them is used.

    """

    batch_images: int
    rank: int
    world: int
    local_world: int
    start: int
    ahead_batches: int


class Follower:
    """Is told how far a run has come, so that it can get ready what comes next; this one has nothing to do.

    It works while its context is open.
    """

    def passed(self, position: int) -> None:
        """Hear that the global batch at ``position`` was delivered."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class ImageSet(ABC):
    """Images at all positions of a run.

    Attributes:
        resolution: height and width in pixels.
        channels: 1 or 3 of a picture; any number of other data.
        numbers: what an image is made of. Bytes are mapped to [-1, 1] for the networks. Numbers of another kind are
            taken as they are; they travel as their bytes, so many for each channel.
        latents: what the numbers mean where they are moments of an autoencoder's latents; None for other images.
        class_names: one for each label 0, 1, ...; empty for images without labels.
        class_counts: images of each class; ones for an endless set, whose classes are equally likely.
        samples: images in an epoch; None for an endless set.
        fingerprint: equal for two sets only if they hold the same image at every position.

    """

    resolution: int
    channels: int
    numbers: Numbers = "uint8"
    latents: LatentSpace | None = None
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    samples: int | None
    fingerprint: str

    @abstractmethod
    def read(self, positions: Ints, out: Images | None = None) -> tuple[Images, Ints]:
        """Return the images and labels (-1 for none) at ``positions``: shapes (n, H, W, ``pixel_bytes``) and (n,).

        The images are written to ``out``, of their shape and in one piece, where it is given.

        Raises:
            DataError: an image cannot be read or decoded; the message names its shard and byte.

        """

    @property
    def pixel_bytes(self) -> int:
        """Return the bytes of one place of an image, over all channels."""
        return self.channels * np.dtype(self.numbers).itemsize

    def _room(self, count: int, out: Images | None) -> Images:
        """Return where to put so many images."""
        shape = (count, self.resolution, self.resolution, self.pixel_bytes)
        return np.empty(shape, dtype=np.uint8) if out is None else out

    def report(self) -> Report:
        """Return what happened in this process since the last call."""
        return Report()

    def remarks(self, reading: Reading) -> tuple[str, ...]:  # noqa: ARG002 - most sets have nothing to say
        """Return what a person should know before a run reads this set.

        Raises:
            ConfigError: this machine cannot read it in this way.

        """
        return ()

    def follower(self, reading: Reading) -> Follower:  # noqa: ARG002 - most sets have nothing to get ready
        """Return what gets ready the images that a rank reads next."""
        return Follower()

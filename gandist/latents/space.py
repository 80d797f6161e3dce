"""What the numbers of latents mean: whose they are, and how they become about standard normal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LatentSpace:
    """The latents of one autoencoder over one set of images.

    An encoder gives a normal distribution for each place, by its mean and the logarithm of its variance
    (Kingma & Welling 2014, equation 9). Training sees a sample of it, whitened: each channel over the whole set has
    about mean 0 and variance 1.

    Attributes:
        autoencoder: a folder or the name of a repository, where its weights were read.
        sha256: digest of the weights, which tells them from other ones of the same name.
        channels: of a latent; moments have twice as many, the means first.
        factor: pixels in each direction that one place of a latent stands for.
        mean: of each channel, over all places of all images.
        std: standard deviation of each channel, that of the encoder's own distribution included.
        scaling: factor that the autoencoder's makers bring its latents to about unit variance with; for the record,
            as whitening does it channel by channel.

    """

    autoencoder: str
    sha256: str
    channels: int
    factor: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scaling: float

    def as_json(self) -> dict[str, Any]:
        """Return what :meth:`read` reads."""
        return asdict(self)

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> LatentSpace:
        """Return the space that was written down; an entry that is none is a ValueError, KeyError or TypeError."""
        space = cls(
            autoencoder=str(entry["autoencoder"]),
            sha256=str(entry["sha256"]),
            channels=int(entry["channels"]),
            factor=int(entry["factor"]),
            mean=tuple(float(value) for value in entry["mean"]),
            std=tuple(float(value) for value in entry["std"]),
            scaling=float(entry["scaling"]),
        )
        finite = all(abs(value) < float("inf") for value in (*space.mean, *space.std))
        if not (finite and len(space.mean) == len(space.std) == space.channels > 0 and min(space.std) > 0):
            raise ValueError("it needs one finite mean and one std above 0 for each channel")
        return space

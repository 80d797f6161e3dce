"""How what a generator makes becomes a picture: as it is, through a decoder, or by three channels of latents."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gandist.errors import ConfigError
from gandist.latents.autoencoder import Autoencoder, open_autoencoder
from gandist.latents.space import LatentSpace
from gandist.latents.whitening import Whitening

Show = Callable[[Tensor], Tensor]
"""Images of G, (batch, channels, height, width), to pictures in [-1, 1] of 1 or 3 channels, or points."""

_DEVIATIONS = 3  # of a whitened channel, that span from black to white


def as_they_are(x: Tensor) -> Tensor:
    """Return images that are pictures already."""
    return x


def three_channels(x: Tensor) -> Tensor:
    """Return the first three channels of whitened latents as red, green and blue; the first as grey if there are two.

    No picture of what they stand for, but it shows where something is and whether all look alike.
    """
    return x[:, : 3 if x.shape[1] >= 3 else 1] / _DEVIATIONS


class Decoded:
    """Pictures of whitened latents, by their autoencoder's decoder."""

    def __init__(self, autoencoder: Autoencoder, space: LatentSpace, device: torch.device) -> None:
        self._autoencoder, self._whitening = autoencoder, Whitening(space, device)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the pictures."""
        return self._autoencoder.decode(self._whitening.unwhiten(x.float()))


def show_by(space: LatentSpace | None, decoder: str | None, device: torch.device) -> Show:
    """Return how images of a space are shown.

    Args:
        space: whose latents they are; None for images that are pictures.
        decoder: folder or repository of the autoencoder; None to show three channels.
        device: where the images are.

    Raises:
        ConfigError: a decoder is named for pictures.
        DataError: there is no such autoencoder, or it is not the one that the latents come from.
        MachineError: diffusers is not installed.

    """
    if space is None:
        if decoder is not None:
            raise ConfigError(f"{decoder}: these images are pictures already, which need no decoder; leave it out.")
        return as_they_are
    if decoder is None:
        return three_channels
    return Decoded(open_autoencoder(decoder, device, sha256=space.sha256), space, device)

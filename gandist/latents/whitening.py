"""Latents as networks learn them: sampled, and of about mean 0 and variance 1 in each channel."""

from __future__ import annotations

import torch
from torch import Tensor

from gandist.latents.space import LatentSpace


class Whitening:
    """Brings latents (batch, channels, height, width) of one space to about mean 0 and variance 1, and back.

    Args:
        space: whose statistics are taken.
        device: where the latents are.

    """

    def __init__(self, space: LatentSpace, device: torch.device) -> None:
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            for values in (space.mean, space.std)
        )

    def sample(self, moments: Tensor, noise: Tensor) -> Tensor:
        """Return whitened samples mean + exp(logvar / 2) * noise of moments (batch, 2 * channels, height, width).

        This is the reparametrisation of Kingma & Welling (2014), equation 10.
        """
        mean, logvar = moments.chunk(2, dim=1)
        return self.whiten(mean + torch.exp(0.5 * logvar) * noise)

    def whiten(self, latents: Tensor) -> Tensor:
        """Return an encoder's latents as networks learn them."""
        return (latents - self.mean) / self.std

    def unwhiten(self, x: Tensor) -> Tensor:
        """Return what :meth:`whiten` was given: latents as the decoder takes them."""
        return x * self.std + self.mean

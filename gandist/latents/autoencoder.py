"""A frozen autoencoder: pixels to moments of latents, and latents to pixels.

The weights are read from safetensors files alone, in a folder or a repository of the Hugging Face hub that the user
names; a checkpoint that would have to be unpickled is refused.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gandist.errors import DataError, MachineError

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Autoencoder(Protocol):
    """What turns pictures in [-1, 1], (batch, 3, height, width), into moments of latents, and latents into pictures.

    Attributes:
        name: the folder or the repository that it was read from.
        sha256: digest of its weights.
        channels: of a latent.
        scaling: the factor that its makers bring latents to about unit variance with.

    """

    name: str
    sha256: str
    channels: int
    scaling: float

    def encode(self, pictures: Tensor) -> Tensor:
        """Return moments (batch, 2 * channels, h, w): means, then logarithms of variances."""

    def decode(self, latents: Tensor) -> Tensor:
        """Return the pictures of latents (batch, channels, h, w)."""


class KlAutoencoder:
    """The variational autoencoder of latent diffusion (Rombach et al. 2022, appendix G), frozen, as diffusers has it.

    Args:
        network: an AutoencoderKL of diffusers, whose types are not known before it is loaded.
        name: where it came from.
        device: where it is to be.

    """

    def __init__(self, network: Any, name: str, device: torch.device) -> None:
        self.sha256 = digest(network)
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device
        self.name = name
        self.channels = int(network.config.latent_channels)
        self.scaling = float(network.config.scaling_factor)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Return moments (batch, 2 * channels, h, w): means, then logarithms of variances, as diffusers bounds them."""
        posterior = self._network.encode(pictures.to(self._device)).latent_dist
        return torch.cat([posterior.mean, posterior.logvar], dim=1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the pictures of latents (batch, channels, h, w)."""
        pictures: Tensor = self._network.decode(latents.to(self._device)).sample
        return pictures


def open_autoencoder(name: str, device: torch.device, *, sha256: str | None = None) -> KlAutoencoder:
    """Return the autoencoder in a folder, or in a repository of the hub, which is downloaded once.

    Args:
        name: a folder as diffusers writes it, or OWNER/REPOSITORY.
        device: where it is to be.
        sha256: the digest that its weights must have, if not None.

    Raises:
        MachineError: diffusers is not installed.
        DataError: there is no such autoencoder, it would have to be unpickled, or it is another one.

    """
    folder = Path(name).expanduser()
    local = folder.is_dir()
    if not local and (not _HUB_NAME.fullmatch(name) or folder.parent.is_dir()):
        raise DataError(f"{name}: there is no such folder, and it is no OWNER/REPOSITORY of the hub either.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries that it would like to have, too
            from diffusers import AutoencoderKL
    except ImportError:
        raise MachineError("Autoencoders need the extra 'latent': pip install 'gandist[latent]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what its own libraries will change
            network = AutoencoderKL.from_pretrained(
                str(folder) if local else name, use_safetensors=True, local_files_only=local, torch_dtype=torch.float32
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{name}: is no AutoencoderKL that can be read ({first}). It needs config.json and "
            "diffusion_pytorch_model.safetensors; other formats of weights are not read."
        ) from None
    if network.config.in_channels != 3:
        raise DataError(f"{name}: encodes images of {network.config.in_channels} channels, not RGB.")
    found = KlAutoencoder(network, name, device)
    if sha256 not in (None, found.sha256):
        raise DataError(
            f"{name}: is not the autoencoder that the latents come from: its weights have the SHA-256 "
            f"{found.sha256[:16]}..., theirs had {str(sha256)[:16]}.... Name the one that 'gandist encode' was given "
            "(--data.decoder in training, --decoder in gandist sample)."
        )
    return found


def digest(network: nn.Module) -> str:
    """Return the SHA-256 of every weight's name, shape and numbers, whatever file they were read from."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()

"""Pictures from a generator: fixed latents, one grid, and generators read from files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from gandist.config import ModelConfig
from gandist.errors import CheckpointError, ConfigError, did_you_mean
from gandist.latents.pictures import Show, as_they_are
from gandist.latents.space import LatentSpace
from gandist.models.build import build
from gandist.models.contract import AnyResolution, Generator, ImageShape, StyleGenerator, follow
from gandist.models.styles import truncated
from gandist.runtime import rng
from gandist.runtime.checkpoint import load_module, read_weights
from gandist.runtime.files import publish

GENERATOR_FORMAT = "gandist-generator"


@dataclass(frozen=True)
class GeneratorCard:
    """What a weights file says of itself: enough to build the network without a recipe, and to show what it makes."""

    model: ModelConfig
    image: ImageShape
    class_names: tuple[str, ...]
    images_seen: int
    latents: LatentSpace | None = None

    def header(self) -> dict[str, str]:
        """Return the card as the header of a safetensors file: one entry, so that equal files are equal bytes."""
        card: dict[str, Any] = {
            "format": GENERATOR_FORMAT,
            "version": 1,
            "model": self.model.model_dump(mode="json"),
            "resolution": self.image.resolution,
            "channels": self.image.channels,
            "class_names": self.class_names,
            "images_seen": self.images_seen,
        }
        if self.latents is not None:
            card["latents"] = self.latents.as_json()
        return {"gandist": json.dumps(card, ensure_ascii=False)}

    @classmethod
    def read(cls, header: Mapping[str, str], where: Path) -> GeneratorCard:
        """Return the card in a file's header.

        Raises:
            CheckpointError: the file is not a generator that gandist wrote.

        """
        try:
            card = json.loads(header.get("gandist", "null"))
            if not isinstance(card, dict) or card["format"] != GENERATOR_FORMAT:
                raise CheckpointError(f"{where}: not a generator of gandist: its header names no architecture.")
            return cls(
                ModelConfig.model_validate(card["model"]),
                ImageShape(int(card["resolution"]), int(card["channels"])),
                tuple(card["class_names"]),
                int(card["images_seen"]),
                LatentSpace.read(card["latents"]) if "latents" in card else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: its header cannot be read ({error}).") from None


def find_weights(source: Path) -> Path:
    """Return the averaged generator's file of a run folder, a checkpoint folder, or the file itself.

    Raises:
        ConfigError: there is nothing to sample from.

    """
    if source.is_file():
        return source
    if not source.exists():
        raise ConfigError(f"{source}: no such run, checkpoint or file.")
    latest = source / "checkpoints" / "latest"
    folder = source / "checkpoints" / latest.read_text().strip() if latest.is_file() else source
    weights = folder / "ema.safetensors"
    if not weights.is_file():
        raise ConfigError(
            f"{source}: no ema.safetensors in it. Name a run folder that has saved a checkpoint, a checkpoint folder, "
            "or a .safetensors file."
        )
    return weights


def load_generator(weights: Path) -> tuple[Generator, GeneratorCard]:
    """Return the generator in a weights file, in evaluation mode, and its card.

    Raises:
        CheckpointError: the file is damaged or not a generator.

    """
    tensors, header = read_weights(weights)
    card = GeneratorCard.read(header, weights)
    networks = build(card.model, card.image, len(card.class_names), seed=0)
    load_module(networks.generator, tensors, str(weights))
    follow(networks.generator, card.images_seen)
    return networks.generator.eval().requires_grad_(False), card


def pick_class(card: GeneratorCard, label: str) -> int:
    """Return the number of a class given by name or number.

    Raises:
        ConfigError: the generator has no classes, or not this one.

    """
    if not card.model.conditional:
        raise ConfigError("--class: this generator is not conditional; it draws every class at random.")
    if label in card.class_names:
        return card.class_names.index(label)
    if label.isdigit() and int(label) < len(card.class_names):
        return int(label)
    names = ", ".join(card.class_names)
    raise ConfigError(f"--class {label}: no such class.{did_you_mean(label, card.class_names)} There are: {names}.")


def fixed_latents(
    latent_dim: int, classes: int, rows: int, columns: int, seed: int
) -> tuple[Float[Tensor, "images latent"], Int[Tensor, " images"]]:
    """Return latents and classes of a grid, row by row: row r shows class r, counted round.

    The latent of the n-th image depends on the seed and n alone, so a larger grid extends a smaller one.
    """
    count = rows * columns
    z = torch.stack([torch.randn(latent_dim, generator=rng.generator(seed, "sample", n)) for n in range(count)])
    c = torch.arange(count).div(columns, rounding_mode="floor") % max(classes, 1)
    return z, c


@torch.no_grad()
def draw(
    generator: Generator,
    z: Float[Tensor, "images latent"],
    c: Int[Tensor, " images"],
    pass_images: int = 64,
    truncation: float = 1.0,
    cutoff: int | None = None,
    show: Show = as_they_are,
) -> UInt8[Tensor, "images channels height width"]:
    """Return 8-bit images on the CPU, made a few at a time by a generator in evaluation mode.

    Args:
        generator: in evaluation mode.
        z: latents.
        c: classes, which an unconditional generator does not look at.
        pass_images: most images in one pass.
        truncation: psi of :func:`gandist.models.styles.truncated`; 1 leaves the styles as they are.
        cutoff: how many layers are truncated, from the first; all when left out.
        show: what makes pictures of the images.

    Raises:
        ConfigError: the generator has no styles that could be truncated, or not so many.

    """
    device = next(generator.parameters()).device
    z, c = z.to(device), c.to(device)
    if cutoff is not None and truncation == 1:
        raise ConfigError(f"--cutoff {cutoff}: says which styles are truncated; give --truncation too, such as 0.7.")
    w = None if truncation == 1 else _truncated_styles(generator, z, c, truncation, cutoff)
    passes = [slice(i, i + pass_images) for i in range(0, len(z), pass_images)]
    if w is None:
        made = (generator(z[rows], c[rows]) for rows in passes)
    else:
        assert isinstance(generator, StyleGenerator)
        made = (generator.synthesize(w[rows]) for rows in passes)
    return torch.cat([to_uint8(show(images)).cpu() for images in made])


def _truncated_styles(generator: Generator, z: Tensor, c: Tensor, psi: float, cutoff: int | None) -> Tensor:
    if not isinstance(generator, StyleGenerator):
        raise ConfigError("--truncation: this generator makes images straight from latents, not from styles. Leave it.")
    w = generator.styles(z, c)
    if cutoff is not None and cutoff > w.shape[1]:
        raise ConfigError(f"--cutoff {cutoff}: this generator's images are made from {w.shape[1]} styles.")
    classes, place = c.unique(return_inverse=True)
    means = torch.stack([mean_styles(generator, z.shape[1], k) for k in classes])
    return truncated(w, means[place], psi, cutoff)


@torch.no_grad()
def mean_styles(
    generator: StyleGenerator, latent_dim: int, c: Int[Tensor, ""], latents: int = 10_000
) -> Float[Tensor, "layers style"]:
    """Return the average styles of a class over so many latents, which are the same in every call."""
    draws = rng.generator(0, "mean style")
    total: Tensor | float = 0.0
    for _ in range(latents // 1000):
        z = torch.randn(1000, latent_dim, generator=draws).to(c.device)
        total = total + generator.styles(z, c.expand(1000)).mean(dim=0)
    assert isinstance(total, Tensor)
    return total / (latents // 1000)


def at_resolution(generator: Generator, card: GeneratorCard, resolution: int) -> None:
    """Let the images that follow have another resolution.

    Raises:
        ConfigError: the generator draws at its own alone.

    """
    if isinstance(generator, AnyResolution):
        generator.draw_at(resolution)
    elif resolution != card.image.resolution:
        raise ConfigError(
            f"--resolution {resolution}: a generator of kind {card.model.arch} draws images of "
            f"{card.image.resolution} px, as it was trained. Of any resolution are those of cips."
        )


def to_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Map [-1, 1] to 0 .. 255, rounding to the nearest; values outside are clipped."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def save_grid(images: UInt8[Tensor, "images channels height width"], columns: int, path: Path) -> None:
    """Write the images as one PNG, ``columns`` to a row, small ones enlarged by whole factors."""
    from PIL import Image
    from torchvision.utils import make_grid

    factor = max(1, 64 // images.shape[-1])
    large = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    grid = make_grid(large, nrow=columns, padding=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as partial:
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(partial, format="PNG")

"""From a model section to two networks: the table of architectures."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gandist.config import ModelConfig
from gandist.errors import ConfigError, did_you_mean
from gandist.models import biggan, cips, dcgan, gat, mlp, progressive, r3gan, resnet, stylegan2
from gandist.models.contract import ImageShape, Networks
from gandist.models.initialise import REDRAWN, initialise

ARCHITECTURES: dict[str, Callable[[ModelConfig, ImageShape, int], Networks]] = {
    "mlp": mlp.build,
    "dcgan": dcgan.build,
    "resnet": resnet.build,
    "stylegan2": stylegan2.build,
    "cips": cips.build,
    "biggan": biggan.build,
    "progressive": progressive.build,
    "r3gan": r3gan.build,
    "gat": gat.build,
}


def build(model: ModelConfig, image: ImageShape, classes: int, seed: int) -> Networks:
    """Return freshly initialised networks, a pure function of the arguments.

    Args:
        model: which architecture, and its knobs.
        image: what G draws and D sees.
        classes: number of classes of the data, 0 if it has no labels.
        seed: of the initial weights; torch's global random state is left as it was.

    Raises:
        ConfigError: the architecture cannot do the resolution or begin otherwise, or wants classes where the data has
            none.

    """
    if model.conditional and classes < 1:
        raise ConfigError(
            "model.conditional is on, but the data has no classes. Prepare the images from a folder with one "
            "subfolder per class, or set --model.conditional False."
        )
    if model.arch not in ARCHITECTURES:
        near = did_you_mean(model.arch, ARCHITECTURES)
        raise ConfigError(f"model.arch {model.arch}: no such network.{near} There are: {', '.join(ARCHITECTURES)}.")
    if model.initialisation != "own" and model.arch not in REDRAWN:
        raise ConfigError(
            f"model.initialisation: {model.arch} counts on first weights of the size that its paper gives them. "
            f"Leave it at 'own'; others are for {', '.join(REDRAWN)}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = ARCHITECTURES[model.arch](model, image, classes if model.conditional else 0)
        if model.initialisation != "own":
            initialise(networks.generator, model.initialisation)
            initialise(networks.discriminator, model.initialisation)
    return networks


def stacked(model: ModelConfig) -> int:
    """Return how many stages of each image G gives out in training and D takes, stacked on the channels."""
    return model.gat.levels if model.arch == "gat" else 1

"""Every architecture, with and without classes: it builds, every parameter learns, it trains, resumes and samples.

A new row of ARCHITECTURES is tried here without further words; its small widths belong into matrix_runs.py.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from matrix_runs import CASES, CLASSES, ROUNDS, SMALL, model_section, name_of, recipe

from gandist.cli import main
from gandist.config import ModelConfig
from gandist.errors import ConfigError
from gandist.evaluation.sample import draw, fixed_latents, load_generator
from gandist.models.build import ARCHITECTURES, build
from gandist.models.contract import Growing, ImageShape, Networks, follow
from gandist.models.layers import couples_batch
from gandist.models.noise import RowNoise, random_layers, seed_layers
from gandist.runtime import rng

pytestmark = pytest.mark.long

BOTH = pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
NAMES = [name_of(*case) for case in CASES]
ROUNDING, KINK = 1e-4, 0.03
"""Bounds on how far apart runs of one and of two ranks may end, as a share of the way that training took them.

Behind a batch norm an activation within rounding of zero may fall to either side of a ReLU, which moves gradients.
"""
LARGE_ROUNDING, LARGE_KINK = 3e-3, 0.3
"""The same for G above 32 px: behind so many narrow layers its gradient is small, and rounding a larger share of it."""
IMAGES, TRIES = 12, 8


# --- gradients ---------------------------------------------------------------------------------------------------


def moments(networks: Networks) -> Iterator[int]:
    """Yield numbers of images seen at which the networks are looked at; those that grow have many shapes."""
    if not isinstance(networks.generator, Growing):
        yield from range(TRIES)
        return
    last = 10_000_000
    for images_seen in range(0, 1000, 3):
        yield images_seen
        if networks.generator.stage(images_seen) == networks.generator.stage(last):
            break
    yield last


def learn(networks: Networks, images_seen: int, c: Tensor | None) -> Iterator[tuple[str, Tensor | None]]:
    """Yield the gradients of a number in which all logits have a part, of networks a little beside their beginning.

    Beside it, since papers let the last layer of a branch begin at zero, which hides those before it.
    """
    draw = torch.Generator().manual_seed(images_seen)
    both = {"generator": networks.generator, "discriminator": networks.discriminator}
    for network in both.values():
        follow(network, images_seen)
        network.zero_grad()
        seed_layers(random_layers(network), RowNoise(draw, IMAGES, 0, IMAGES))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=draw)
    z = torch.randn(IMAGES, SMALL["latent_dim"], generator=draw)
    logits = networks.discriminator(networks.generator(z, c), c)
    (logits * torch.linspace(-1, 2, IMAGES)).sum().backward()
    for role, network in both.items():
        for name, parameter in network.named_parameters():
            yield f"{role}.{name}", parameter.grad


@BOTH
@pytest.mark.parametrize("resolution", [32, 64, 128])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_parameter_has_a_finite_gradient_that_is_not_zero(arch: str, resolution: int, conditional: bool) -> None:
    """Somewhere, that is: of a network that grows, once the parameter has joined."""
    model = ModelConfig.model_validate(model_section(arch, conditional))
    try:
        networks = build(model, ImageShape(resolution, 3), CLASSES, seed=2)
    except ConfigError as error:
        if resolution == 32:
            raise
        pytest.skip(str(error))
    c = torch.arange(IMAGES) % CLASSES if conditional else None
    dead: set[str] | None = None
    for images_seen in moments(networks):
        still = set()
        for name, gradient in learn(networks, images_seen, c):
            assert gradient is not None, name
            assert gradient.isfinite().all(), name
            if not gradient.any():
                still.add(name)
        dead = still if dead is None else dead & still
        if not dead:
            break
    assert dead == set()


# --- runs --------------------------------------------------------------------------------------------------------


Played = Callable[[int], Path]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Return the folder of the runs that so many ranks have played; they are started once."""
    known: dict[int, Path] = {}

    def by(world: int) -> Path:
        if world not in known:
            known[world] = tmp_path_factory.mktemp(f"ranks{world}")
            start(world, known[world])
        return known[world]

    return by


def start(world: int, folder: Path) -> None:
    for name in ("whole", "in two"):
        (folder / name).mkdir()
    program = str(Path(__file__).parent / "matrix_runs.py")
    ranks = []
    for rank in range(world):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        if world > 1:
            env |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{world}"}
            env |= {"LOCAL_WORLD_SIZE": f"{world}"}
        log = (folder / f"{rank}.log").open("w")
        command = [sys.executable, "-W", "error", program, f"{rank}", f"{world}", f"{folder}"]
        ranks.append((subprocess.Popen(command, env=env, stdout=log, stderr=log), log))
    try:
        for process, _ in ranks:
            process.wait(900)
    finally:
        for process, log in ranks:
            process.kill()
            log.close()


def newest(folder: Path, name: str) -> Path:
    """Return the checkpoint at the end of a run."""
    error = folder / f"{name}.error"
    assert not error.exists(), error.read_text()
    checkpoints = folder / name / "checkpoints"
    assert checkpoints.is_dir(), "\n".join(log.read_text()[-3000:] for log in sorted(folder.parent.glob("*.log")))
    return checkpoints / (checkpoints / "latest").read_text().strip()


def detour(one: Path, other: Path, start: nn.Module) -> dict[str, float]:
    """Return how far apart two runs' networks are, each as one long vector, as a share of the way the first went."""
    found = {}
    for part in ("generator", "discriminator", "ema"):
        a, b = (load_file(folder / f"{part}.safetensors") for folder in (one, other))
        first = dict(start[part].named_parameters())
        names = [name for name in a if name in first]
        apart = sum((a[name] - b[name]).double().square().sum() for name in names)
        way = sum((a[name] - first[name].detach()).double().square().sum() for name in names)
        found[part] = float(apart / way) ** 0.5
    return found


def beginning(arch: str, conditional: bool, resolution: int) -> nn.ModuleDict:
    config = recipe(Path("unused"), arch, conditional, resolution, ROUNDS)
    networks = build(config.model, ImageShape(resolution, 3), CLASSES, rng.key(config.run.seed, "weights"))
    parts = {"generator": networks.generator, "discriminator": networks.discriminator, "ema": networks.generator}
    return nn.ModuleDict(parts)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_end_as_one_does(played: Played, name: str) -> None:
    arch, kind, resolution = name.split("-")
    one, two = (newest(played(world) / "whole", name) for world in (1, 2))
    first = beginning(arch, kind == "conditional", int(resolution))
    apart = detour(one, two, first)
    kinks = bool(couples_batch(first))
    bounds = dict.fromkeys(apart, KINK if kinks else ROUNDING)
    if resolution != "32":
        bounds |= dict.fromkeys(("generator", "ema"), LARGE_KINK if kinks else LARGE_ROUNDING)
    assert all(apart[part] < bounds[part] for part in apart), apart


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_a_run_in_two_parts_is_the_same_to_the_bit(played: Played, name: str) -> None:
    whole, parts = (newest(played(1) / kind, name) for kind in ("whole", "in two"))
    events = (played(1) / "in two" / name / "events.log").read_text()
    assert "ontinu" in events, "it was continued, not begun anew"
    files = sorted(path.name for path in whole.glob("*.safetensors"))
    assert {"generator.safetensors", "discriminator.safetensors", "ema.safetensors"} < set(files)
    assert files == sorted(path.name for path in parts.glob("*.safetensors"))
    for file in files:
        digests = [hashlib.sha256((folder / file).read_bytes()).hexdigest() for folder in (whole, parts)]
        assert digests[0] == digests[1], file


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_it_samples_from_its_inference_file(played: Played, name: str, tmp_path: Path) -> None:
    weights = newest(played(1) / "whole", name) / "ema.safetensors"
    words = ["sample", str(weights), "--out", str(tmp_path / "grid.png"), "--rows", "2", "--columns", "2"]
    assert main([*words, *(["--class", "3"] if "-conditional-" in name else [])]) == 0
    picture, side = np.asarray(Image.open(tmp_path / "grid.png")), int(name.rpartition("-")[2])
    shown_side, enlarged = max(64, side), max(1, 64 // side)
    assert picture.shape == (2 * (shown_side + 2) + 2, 2 * (shown_side + 2) + 2, 3)
    generator, card = load_generator(weights)
    z, _ = fixed_latents(card.model.latent_dim, 0, 2, 2, seed=0)
    c = torch.full((4,), 3)
    shown = draw(generator, z, c)[3].permute(1, 2, 0).numpy()
    last = slice(shown_side + 4, 2 * shown_side + 4, enlarged)
    assert np.array_equal(picture[last, last], shown), "of the file, small images enlarged"
    images = generator(z, c)
    assert images.isfinite().all()
    assert (images[0] - images[1]).abs().max() > 1e-5, "not one image for all latents"

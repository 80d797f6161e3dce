"""``gandist sample`` from networks of styles: truncation, and images of any resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from trainer_runs import make_config, play

from gandist.cli import main
from gandist.errors import ConfigError
from gandist.evaluation.sample import at_resolution, draw, fixed_latents, load_generator, mean_styles
from gandist.models.contract import StyleGenerator

CIPS = {
    "run": {"total_kimg": 0.016},
    "model": {
        "arch": "cips",
        "conditional": True,
        "stylegan2": {"style_dim": 6, "mapping_depth": 2, "channel_max": 4, "mapping_lr_multiplier": 1.0},
        "cips": {"widths": [6], "fourier_features": 5, "position_features": 4},
    },
    "ema": {"halflife_kimg": 0.01},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play(make_config(tmp_path_factory.mktemp("styles"), CIPS)).folder


def opened(run: Path) -> tuple[StyleGenerator, Tensor, Tensor]:
    generator, card = load_generator(next(run.glob("checkpoints/*/ema.safetensors")))
    assert isinstance(generator, StyleGenerator)
    return generator, *fixed_latents(card.model.latent_dim, 10, 3, 4, seed=0)


def test_truncation_goes_to_the_mean_of_the_class(run: Path) -> None:
    generator, z, c = opened(run)
    w = generator.styles(z, c)
    spread = [draw(generator, z, c, truncation=psi).float() for psi in (1.0, 0.5, 0.0)]
    assert torch.equal(spread[0], draw(generator, z, c))
    assert not torch.equal(spread[0], spread[1])
    rows = spread[2].unflatten(0, (3, 4))
    assert torch.equal(rows[:, :1].expand_as(rows), rows), "without any spread a class has one image"
    assert not torch.equal(rows[0, 0], rows[1, 0])
    mean = mean_styles(generator, z.shape[1], torch.tensor(1))
    assert torch.equal(mean, mean_styles(generator, z.shape[1], torch.tensor(1))), "of the same latents each time"
    other = torch.randn(4000, z.shape[1], generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(
        mean, generator.styles(other, torch.ones(4000, dtype=torch.long)).mean(dim=0), rtol=0, atol=0.1
    )
    half = generator.synthesize(torch.stack([mean + (row - mean) / 2 for row in w[4:8]]))
    assert (draw(generator, z[4:8], c[4:8], truncation=0.5) - (half * 127.5 + 127.5).clamp(0, 255)).abs().max() <= 1


def test_cutoff(run: Path) -> None:
    generator, z, c = opened(run)
    layers = generator.styles(z, c).shape[1]
    whole = draw(generator, z, c, truncation=0.2)
    assert torch.equal(draw(generator, z, c, truncation=0.2, cutoff=layers), whole)
    assert not torch.equal(draw(generator, z, c, truncation=0.2, cutoff=1), whole)
    with pytest.raises(ConfigError, match=f"--cutoff {layers + 1}: .* {layers} styles"):
        draw(generator, z, c, truncation=0.2, cutoff=layers + 1)
    with pytest.raises(ConfigError, match=r"--cutoff 1: .* --truncation too"):
        draw(generator, z, c, cutoff=1)


def test_the_verb(run: Path, tmp_path: Path) -> None:
    """The run's images have 8 px; those of 64 px are not enlarged for the grid."""
    pictures = []
    for name, flags in {"plain": [], "near": ["--truncation", "0.3"], "fine": ["--resolution", "64"]}.items():
        out = tmp_path / f"{name}.png"
        assert main(["sample", str(run), "--out", str(out), "--rows", "1", "--columns", "2", *flags]) == 0
        pictures.append(np.asarray(Image.open(out)))
    plain, near, fine = pictures
    assert plain.shape == near.shape == fine.shape == (68, 134, 3)
    assert not np.array_equal(plain, near)
    blocks = [len({picture[y, x].tobytes() for y in range(2, 10) for x in range(2, 10)}) for picture in (plain, fine)]
    assert blocks[0] == 1
    assert blocks[1] > 1
    with pytest.raises(SystemExit):
        main(["sample", str(run), "--truncation", "nan"])


def test_what_other_generators_cannot_do(tmp_path: Path) -> None:
    folder = play(make_config(tmp_path, {"run": {"total_kimg": 0.016}})).folder
    generator, card = load_generator(next(folder.glob("checkpoints/*/ema.safetensors")))
    z, c = fixed_latents(card.model.latent_dim, 0, 1, 2, seed=0)
    with pytest.raises(ConfigError, match=r"--truncation: .*not from styles"):
        draw(generator, z, c, truncation=0.5)
    at_resolution(generator, card, 8)
    with pytest.raises(ConfigError, match=r"--resolution 16: .* mlp .* 8 px"):
        at_resolution(generator, card, 16)

"""Points on a ring: what they are, and how they reach a network."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gandist.config import DataConfig
from gandist.data import ring
from gandist.data.images import open_images
from gandist.data.loader import batches
from gandist.data.ring_images import RingImages
from gandist.errors import ConfigError
from gandist.evaluation import scatter
from gandist.evaluation.scatter import save_picture

POINTS: dict[str, Any] = {"shards": "ring", "resolution": 1, "channels": 2}


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20), st.integers(0, 2**32))
def test_a_point_does_not_depend_on_its_batch(indices: list[int], seed: int) -> None:
    points, modes = ring.draw(np.array(indices, dtype=np.int64), seed=seed)
    for at, index in enumerate(indices):
        point, mode = ring.draw(np.array([index], dtype=np.int64), seed=seed)
        assert (point[0] == points[at]).all()
        assert mode[0] == modes[at]


def test_the_points_never_change() -> None:
    points, modes = ring.draw(np.arange(64), seed=0)
    assert hashlib.sha256(points.tobytes() + modes.tobytes()).hexdigest()[:16] == "08372f88a8c90572"


def test_eight_round_gaussians_on_a_circle() -> None:
    count = 80_000
    points, modes = ring.draw(np.arange(count), seed=3)
    assert (np.abs(np.bincount(modes, minlength=8) - count / 8) < 5 * math.sqrt(count / 8)).all()
    angles = np.arange(8) * math.pi / 4
    centres = 0.8 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert np.allclose(ring.CENTRES, centres, atol=1e-7)
    noise = (points - centres[modes]) / 0.008
    for mode in range(8):
        own = noise[modes == mode]
        assert np.abs(own.mean(0)).max() < 5 / math.sqrt(len(own))
    assert np.abs(noise.std(0) - 1).max() < 0.01
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.015
    assert abs((noise**4).mean() - 2.9) < 0.1, "3 for a normal number, less 1.2 / 12 for the sum of twelve"
    radii = np.linalg.norm(noise, axis=1)
    assert abs((radii <= 3).mean() - (1 - math.exp(-4.5))) < 0.003, "the share within three deviations of a Gaussian"
    assert np.abs(points).max() < 1


def test_seeds_draw_different_points() -> None:
    assert not (ring.draw(np.arange(50), seed=0)[0] == ring.draw(np.arange(50), seed=1)[0]).any()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_points_reach_the_network_as_they_are(workers: int) -> None:
    images = open_images(DataConfig(**POINTS), seed=5)
    how = {"pin_memory": False, "hflip": False, "seed": 5, "prefetch_batches": 1}
    batch = next(batches(images, batch_images=6, rank=1, world=2, start=12, workers=workers, **how))  # type: ignore[arg-type]
    expected, modes = ring.draw(np.arange(15, 18), seed=5)
    assert batch.images.shape == (3, 1, 1, 8)
    assert torch.equal(batch.images.view(torch.float32).flatten(1), torch.from_numpy(expected))
    assert batch.labels.tolist() == modes.tolist()


def test_sets_of_other_seeds_are_other_data() -> None:
    one, two, again = (RingImages(DataConfig(**POINTS), seed).fingerprint for seed in (0, 1, 0))
    assert one == again != two


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resolution": 8}, "data.resolution is 8.*--data.resolution 1"),
        ({"channels": 3}, "data.channels is 3.*--data.channels 2"),
        ({"classes": [0, 1]}, "data.classes is 0 1.*--data.classes null"),
        ({"hflip": True}, "data.hflip is True.*--data.hflip false"),
    ],
)
def test_what_points_do_not_have(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_images(DataConfig(**{**POINTS, **change}), seed=0)


def test_pictures_are_not_points() -> None:
    with pytest.raises(ConfigError, match=r"data\.resolution 1: pictures have at least 4 px"):
        open_images(DataConfig(shards="glyphs", resolution=1), seed=0)


def test_a_scatter_plot(tmp_path: Path) -> None:
    """The right and the upper mode, the upper one ten times."""
    points = torch.tensor([[230, 128], *[[128, 230]] * 10], dtype=torch.uint8)[:, :, None, None]
    save_picture(points, 3, tmp_path / "points.png")
    with Image.open(tmp_path / "points.png") as file:
        picture = np.asarray(file)
    assert picture.shape == (512, 512)
    marks = {(int(x) // 2, 255 - int(y) // 2): int(picture[y, x]) for y, x in np.argwhere(picture < 255)}
    assert marks == {(230, 128): 102, (128, 230): 0}


def test_images_remain_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(scatter, "save_grid", lambda *given: asked.append(given))
    for shape in ((3, 1, 1), (1, 1, 1), (2, 4, 4)):
        images = torch.zeros(4, *shape, dtype=torch.uint8)
        save_picture(images, 2, tmp_path / "grid.png")
        assert asked.pop() == (images, 2, tmp_path / "grid.png")

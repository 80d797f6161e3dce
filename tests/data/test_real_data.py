"""The real data sets, where they are there."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from pictures import opened
from PIL import Image

from gandist.data.making.idx import read_pair
from gandist.data.making.prepare import prepare
from gandist.data.making.sources import FASHION_CLASSES

pytestmark = pytest.mark.realdata


def test_fashion_mnist(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "fashion-mnist"
    summary = prepare(f"fashion-mnist:{folder}:test", tmp_path / "s", resolution=32, channels=1, max_images=400)
    assert summary.images == 400
    assert tuple(summary.class_counts) == FASHION_CLASSES
    assert min(summary.class_counts.values()) > 20
    images = opened(tmp_path / "s", resolution=32, channels=1)
    pixels, labels = images.read(np.arange(400))
    assert not pixels[:, :2].any()
    assert not pixels[:, -2:].any()
    originals, classes = read_pair(folder, "test")
    known = {image.tobytes(): int(label) for image, label in zip(originals, classes, strict=True)}
    assert [known[p[2:-2, 2:-2, 0].tobytes()] for p in pixels] == labels.tolist()


def test_cifar10(real_data: Path, tmp_path: Path) -> None:
    zips = [real_data / "cifar10" / f"train-{n}.zip" for n in range(2)]
    summary = prepare(",".join(map(str, zips)), tmp_path / "s", resolution=32, max_images=300)
    assert summary.images == 300
    assert list(summary.class_counts)[:3] == ["airplane", "automobile", "bird"]
    images = opened(tmp_path / "s", resolution=32)
    pixels, labels = images.read(np.arange(300))
    written = {(p.tobytes(), images.class_names[label]) for p, label in zip(pixels, labels.tolist(), strict=True)}
    assert len(written) == 300
    found = 0
    for path in zips:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist()[::50]:
                with archive.open(name) as file, Image.open(file) as image:
                    found += (np.asarray(image.convert("RGB")).tobytes(), name.partition("/")[0]) in written
    assert found > 0
    expected = 1000 * 300 / 50_000  # every fiftieth of 50,000 was looked at, 300 were taken
    assert abs(found - expected) <= 8

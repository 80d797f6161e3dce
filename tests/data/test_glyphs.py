import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gandist.data import glyphs

TEN = tuple(range(10))


def drawn(indices: list[int], **options: object) -> tuple[np.ndarray, np.ndarray]:
    defaults = {"seed": 0, "resolution": 16, "channels": 3, "classes": TEN}
    return glyphs.draw(np.array(indices, dtype=np.int64), **{**defaults, **options})  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20), st.integers(0, 2**32))
def test_a_sample_does_not_depend_on_its_batch(indices: list[int], seed: int) -> None:
    images, labels = drawn(indices, seed=seed)
    for at, index in enumerate(indices):
        image, label = drawn([index], seed=seed)
        assert (image[0] == images[at]).all()
        assert label[0] == labels[at]


def test_large_batches_are_drawn_in_parts_without_a_seam() -> None:
    images, labels = drawn(list(range(600)), resolution=32)
    again, labels_again = drawn(list(range(500, 520)), resolution=32)
    assert (images[500:520] == again).all()
    assert (labels[500:520] == labels_again).all()


@pytest.mark.parametrize(("channels", "expected"), [(1, "7f8817504494227c"), (3, "232790d9a43c0d97")])
def test_the_pictures_never_change(channels: int, expected: str) -> None:
    images, labels = drawn(list(range(64)), resolution=32, channels=channels)
    assert images.shape == (64, 32, 32, channels)
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16] == expected


@pytest.mark.parametrize("resolution", [16, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_digits_can_be_told_apart(resolution: int, channels: int) -> None:
    """The nearest class mean of the ink's shape names most digits: they are distinct and labelled right."""
    images, labels = drawn(list(range(1500)), resolution=resolution, channels=channels)
    grey = images.astype(np.float32).mean(3).reshape(len(images), -1)
    corner = grey[:, :1]
    ink = np.abs(grey - corner) / np.abs(grey - corner).max(1, keepdims=True)
    means = np.stack([ink[:1000][labels[:1000] == digit].mean(0) for digit in TEN])
    nearest = ((ink[1000:, None] - means) ** 2).sum(2).argmin(1)
    assert (nearest == labels[1000:]).mean() > 0.55, "by chance it would be 0.1"


def test_ink_and_paper_stand_out_everywhere() -> None:
    images, _ = drawn(list(range(500)), resolution=32, channels=1)
    spread = images.reshape(500, -1).astype(int)
    assert (spread.max(1) - spread.min(1)).min() > 80


def test_digits_stay_inside_the_picture() -> None:
    images, _ = drawn(list(range(2000)), resolution=32, channels=1)
    frame = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1).astype(int)
    cut = (np.abs(frame[..., 0] - np.median(frame[..., 0], 1, keepdims=True)) > 40).sum(1)
    assert (cut > 3).mean() < 0.02


def test_labels_count_through_the_chosen_classes() -> None:
    indices = list(range(2000))
    images, labels = drawn(indices, classes=(3, 7))
    assert sorted(set(labels.tolist())) == [0, 1]
    assert abs(int(labels.sum()) - 1000) < 100
    only_seven, _ = drawn(indices, classes=(7,))
    assert (only_seven[labels == 1] == images[labels == 1]).all()
    assert not (only_seven[labels == 0] == images[labels == 0]).all(axis=(1, 2, 3)).any()
    assert (glyphs.draw_labels(np.array(indices), seed=0, count=2) == labels).all()


def test_seeds_and_indices_draw_different_pictures() -> None:
    first, second = drawn(list(range(50)))[0], drawn(list(range(50)), seed=1)[0]
    assert len({image.tobytes() for image in (*first, *second)}) == 100

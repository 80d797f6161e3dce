"""Streams of whole shards: what they promise at any number of ranks and workers."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import CLASSES, SIDE, members, name_of, names, npy, opened, taken, write_shards, write_tar
from webdataset.tariterators import group_by_keys, tar_file_expander

from gandist.config import DataConfig
from gandist.data.images import open_images
from gandist.data.stream.images import StreamedImages, is_stream
from gandist.data.stream.shards import ahead, shard_order
from gandist.errors import ConfigError, DataError, MachineError

ALL = {(shard, place) for shard in range(8) for place in range(6)}


# --- the order of the shards -----------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 1000), st.integers(1, 60), st.integers(1, 4))
def test_consumers_share_every_pass(shards: int, seed: int, start: int, consumers: int, passes: int) -> None:
    """Laid side by side the consumers read the passes one after another, each shard once in each pass."""
    turns = -(-shards * passes // consumers)
    shares = [
        list(itertools.islice(shard_order(shards, seed=seed, start=start, consumer=j, consumers=consumers), turns))
        for j in range(consumers)
    ]
    joined = [share[turn] for turn in range(turns) for share in shares][: shards * passes]
    for number in range(passes):
        assert sorted(joined[number * shards : (number + 1) * shards]) == list(range(shards))


def test_passes_seeds_and_starts_differ() -> None:
    def first(count: int, seed: int = 0, start: int = 0) -> list[int]:
        return list(itertools.islice(shard_order(100, seed=seed, start=start, consumer=0, consumers=1), count))

    orders = [first(100), first(200)[100:], first(100, seed=1), first(100, start=64)]
    assert first(100) == orders[0]
    assert len({tuple(order) for order in orders}) == 4


# --- batches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 0), (4, 0), (2, 1), (1, 2), (2, 2), (4, 2)])
def test_a_pass_holds_every_image_once_over_ranks_and_workers(shards: Path, world: int, workers: int) -> None:
    """Eight shards of six images are two global batches of 3 images for each of 8 consumers."""
    images = opened(shards / "*.tar")
    count = 16 // world
    found = [taken(images, 2 * count, 3 * world, rank=rank, world=world, workers=workers) for rank in range(world)]
    for half in (slice(0, count), slice(count, 2 * count)):
        seen = [name for share in found for name in names(share[half])]
        assert Counter(seen) == Counter(ALL)
    for share in found:
        assert [batch.position for batch in share] == [3 * world * number for number in range(2 * count)]
        assert not any(batch.notes or batch.bad_images or batch.damaged_shards for batch in share)


@pytest.mark.parametrize("workers", [0, 2])
def test_fewer_shards_than_consumers(tmp_path: Path, workers: int) -> None:
    write_shards(tmp_path, 2, 6)
    images = opened(tmp_path / "*.tar")
    for rank in range(2):
        seen = names(taken(images, 12, 6, rank=rank, world=2, workers=workers))
        assert set(seen) <= ALL
        assert len(seen) == 36


def test_a_seed_decides(shards: Path) -> None:
    knobs = {"stream": {"shuffle_images": 20}}
    first, again, other = (names(taken(opened(shards / "*.tar", seed, **knobs), 6)) for seed in (0, 0, 1))
    assert first == again != other


def test_the_buffer_mixes_shards_and_is_shared_out(shards: Path) -> None:
    """An image leaves at most one buffer behind its turn; with eight consumers a buffer is an eighth."""
    apart = names(taken(opened(shards / "*.tar"), 8))
    assert [len({shard for shard, _ in apart[at : at + 6]}) for at in range(0, 48, 6)] == [1] * 8
    mixed = names(taken(opened(shards / "*.tar", stream={"shuffle_images": 24}), 8))
    assert np.mean([len({shard for shard, _ in mixed[at : at + 6]}) for at in range(0, 48, 6)]) > 2
    part = names(taken(opened(shards / "*.tar", stream={"shuffle_images": 8}), 4, 48, rank=3, world=8))
    assert [len({shard for shard, _ in part[at : at + 6]}) for at in range(0, 24, 6)] == [1] * 4


def test_a_stream_that_begins_elsewhere_begins_otherwise(shards: Path) -> None:
    images = opened(shards / "*.tar")
    begin, later = taken(images, 8), taken(images, 8, start=48)
    assert names(begin) != names(later)
    assert Counter(names(later)) == Counter(ALL), "each new stream begins with a whole pass"
    assert [batch.position for batch in later] == [48 + 6 * number for number in range(8)]
    assert names(later) == names(taken(images, 8, start=48))


@pytest.mark.parametrize("workers", [0, 2])
def test_about_half_are_mirrored_by_seed_and_position(shards: Path, workers: int) -> None:
    def flips(seed: int) -> list[bool]:
        found = taken(opened(shards / "*.tar"), 40, hflip=True, seed=seed, workers=workers)
        return [name_of(pixels)[2] for batch in found for pixels in batch.images.numpy()]

    one = flips(0)
    assert 90 < sum(one) < 150
    assert one == flips(0) != flips(1)


def test_the_same_samples_as_webdataset_itself(shards: Path) -> None:
    theirs: Counter[tuple[bytes, int]] = Counter()
    for path in sorted(shards.glob("*.tar")):
        with path.open("rb") as file:
            for sample in group_by_keys(tar_file_expander([{"url": str(path), "stream": file}])):
                theirs[sample["npy"], int(sample["cls"])] += 1
    (batch,) = taken(opened(shards / "*.tar"), 1, 48)
    ours = Counter((npy(p), label) for p, label in zip(batch.images.numpy(), batch.labels.tolist(), strict=True))
    assert ours == theirs
    assert ours.total() == 48


# --- what is named, and how ------------------------------------------------------------------------------------


def test_what_is_a_stream() -> None:
    for text in (
        "a/{000..099}.tar",
        "https://h/{0..9}.tar",
        "s3://b/x.tar",
        "a/*.tar",
        "pipe:cat x",
        "https://h/0.tar?s=1",
    ):
        assert is_stream(text), text
    for text in ("glyphs", "folder", "https://h/set", "s3://b/set/", "x.tar.gz"):
        assert not is_stream(text), text


def test_braces_stars_and_single_files(shards: Path) -> None:
    assert len(opened(f"{shards}/{{002..005}}.tar").shards) == 4
    assert len(opened(f"{shards}/00{{1,7}}.tar").shards) == 2
    assert len(opened(f"{shards}/*.tar").shards) == 8
    seen = names(taken(opened(f"{shards}/{{002..003}}.tar"), 2))
    assert Counter(seen) == Counter((shard, place) for shard in (2, 3) for place in range(6))
    assert {shard for shard, _ in names(taken(opened(shards / "005.tar"), 1))} == {5}


def test_open_images_opens_streams_and_names_both_ways(shards: Path) -> None:
    data = DataConfig(shards=f"{shards}/*.tar", resolution=SIDE, channels=1)
    images = open_images(data, 0)
    assert isinstance(images, StreamedImages)
    assert (images.resolution, images.channels, images.samples) == (SIDE, 1, None)
    assert (images.class_names, images.class_counts) == ((), ())
    with pytest.raises(DataError, match=r"gandist index .*--data.shards '.*/\*.tar'"):
        open_images(DataConfig(shards=str(shards)), 0)


@pytest.mark.parametrize("text", ["s3x://b/{0..9}.tar", "a::b.tar", "${HOME}/x.tar", "http://example.org/{0..9}.tar"])
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        opened(text)


def test_labels_and_classes(shards: Path, tmp_path: Path) -> None:
    assert opened(f"{shards}/*.tar").class_names == tuple(map(str, range(CLASSES)))
    assert opened(f"{shards}/*.tar").class_counts == (1,) * CLASSES
    (batch,) = taken(opened(f"{shards}/*.tar", stream={"label": "none", "class_count": 0}), 1)
    assert batch.labels.tolist() == [-1] * 6
    few = opened(f"{shards}/*.tar", classes=[7, 3])
    assert few.class_names == ("3", "7")
    (batch,) = taken(few, 1, 100)
    painted = [name_of(pixels)[1] for pixels in batch.images.numpy()]
    assert set(painted) == {3, 7}
    assert [{3: 0, 7: 1}[label] for label in painted] == batch.labels.tolist()
    assert not batch.bad_images, "an image of another class is no bad image"

    content = {name.replace("cls", "json"): b'{"id": %s}' % data if "cls" in name else data
               for name, data in members(1, range(6)).items()}  # fmt: skip
    write_tar(tmp_path / "json.tar", content)
    assert {shard for shard, _ in names(taken(opened(tmp_path / "json.tar", stream={"label": "json:id"}), 2))} == {1}


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ({"label": "none"}, "class_count is 10"),
        ({"class_count": 0}, "label is cls and class_count is 0"),
        ({"label": "folder"}, "gandist index"),
        ({"label": "json"}, "json:label"),
    ],
)
def test_knobs_that_do_not_fit(shards: Path, stream: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        opened(f"{shards}/*.tar", stream=stream)


def test_a_fingerprint_follows_the_shards_and_not_their_folder(shards: Path, tmp_path: Path) -> None:
    write_shards(tmp_path, 8, 1)
    same = opened(f"{shards}/*.tar").fingerprint
    assert opened(f"{tmp_path}/*.tar").fingerprint == same
    others = [
        opened(f"{shards}/*.tar", 1),
        opened(f"{shards}/00[0-6].tar"),
        opened(f"{shards}/*.tar", classes=[1]),
        opened(f"{shards}/*.tar", stream={"label": "none", "class_count": 0}),
    ]
    assert len({same, *(other.fingerprint for other in others)}) == 5


# --- fetching ahead --------------------------------------------------------------------------------------------


def test_one_is_made_while_another_is_used() -> None:
    made: list[int] = []

    def maker(number: int) -> int:
        made.append(number)
        return number

    items = ahead((lambda n=n: maker(n)) for n in range(5))  # type: ignore[misc]
    assert [next(items), next(items)] == [0, 1]
    assert set(made) <= {0, 1, 2}
    assert [*items] == [2, 3, 4]
    assert made == [0, 1, 2, 3, 4]
    assert [*ahead(iter(()))] == []


def test_an_error_comes_in_its_turn() -> None:
    def broken() -> int:
        raise MachineError("no room")

    items = ahead(iter([lambda: 1, broken]))
    assert next(items) == 1
    with pytest.raises(MachineError, match="no room"):
        next(items)

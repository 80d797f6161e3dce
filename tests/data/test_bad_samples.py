"""Images that cannot be decoded in the middle of a run: who takes their place, who counts them, when it is too many."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pictures import opened
from test_loader import joined, taken

from gandist.data.image_set import Report
from gandist.data.shards.index import Index
from gandist.data.shards.index_files import read_index
from gandist.errors import DataError


def damage(shards: Path, *samples: int) -> Index:
    """Make these samples undecodable, by their number in the index."""
    index = read_index(shards)
    shard_of = np.repeat(np.arange(len(index.shards)), index.counts)
    for sample in samples:
        with (shards / index.shards[shard_of[sample]].url).open("r+b") as file:
            file.seek(int(index.offset[sample]))
            file.write(b"\x00")
    return index


def by_number(shards: Path, **knobs: object) -> list[tuple[bytes, int]]:
    """What each sample gives, in the order of the index: its pixels and label."""
    images = opened(shards, **knobs)
    samples = images._order.locate(np.arange(images.samples))  # type: ignore[attr-defined]
    pixels, labels = images.read(np.arange(images.samples))
    found = {int(s): (p.tobytes(), int(label)) for s, p, label in zip(samples, pixels, labels, strict=True)}
    return [found[number] for number in range(images.samples)]


BAD = (0, 7, 8, 13, 27, 52)  # the shards are 0-13, 14-27, 28-41, 42-52


def test_the_next_image_of_the_shard_takes_the_place_and_brings_its_label(shards: Path, shards_copy: Path) -> None:
    good = by_number(shards)
    damage(shards_copy, *BAD)
    found = by_number(shards_copy, bad_images=0.2)
    stand_in = {0: 1, 7: 9, 8: 9, 13: 1, 27: 14, 52: 42}
    assert found == [good[stand_in.get(number, number)] for number in range(53)]


def test_a_filtered_set_takes_the_next_of_its_own(shards: Path, shards_copy: Path) -> None:
    index = read_index(shards)
    chosen = np.flatnonzero(index.label != 1)
    good = by_number(shards, classes=(0, 2))
    bad = [0, 5, len(chosen) - 1]
    damage(shards_copy, *(int(chosen[number]) for number in bad))
    found = by_number(shards_copy, classes=(0, 2), bad_images=0.1)
    shard = np.searchsorted(np.cumsum(index.counts), chosen, side="right")
    for number in range(len(chosen)):
        mates = [n for n in np.flatnonzero(shard == shard[number]).tolist() if n not in bad]
        expected = number if number not in bad else next((n for n in mates if n > number), mates[0])
        assert found[number] == good[expected]


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_agree_on_it(shards_copy: Path, workers: int) -> None:
    damage(shards_copy, *BAD)
    images = opened(shards_copy, bad_images=0.2)
    whole = joined(taken(images, 5, start=31, hflip=True))
    for world in (1, 2, 3, 4, 8) if workers == 0 else (2,):
        shares = [taken(images, 5, start=31, hflip=True, rank=r, world=world, workers=workers) for r in range(world)]
        assert joined([share[step] for step in range(5) for share in shares]) == whole


def test_each_is_counted_once_and_the_first_few_are_named(shards_copy: Path) -> None:
    damage(shards_copy, *BAD, 30)
    images = opened(shards_copy, bad_images=0.15)
    for _ in range(2):
        images.read(np.arange(53))
    count, notes, _ = images.report()
    assert count == 7
    assert len(notes) == 5, "the others are only counted"
    assert all(note.startswith(str(shards_copy)) and ": byte " in note for note in notes)
    assert "The next image of the shard takes its place." in notes[0]
    assert "only counted" in notes[-1]
    assert "only counted" not in notes[0]
    images.read(np.arange(53, 106))
    assert images.report() == Report(0, ())


def test_batches_carry_the_count_and_the_notes(shards_copy: Path) -> None:
    damage(shards_copy, 3, 4)
    for workers in (0, 1):
        got = taken(opened(shards_copy, bad_images=0.1), 6, workers=workers)
        assert sum(batch.bad_images for batch in got) == 2
        assert len([note for batch in got for note in batch.notes]) == 2
        assert all(isinstance(batch.notes, tuple) for batch in got)


@pytest.mark.parametrize(("share", "allowed"), [(0, 0), (0.0001, 0), (0.0188, 0), (0.0189, 1), (2 / 53, 2), (0.05, 2)])
def test_the_bound_is_a_share_of_the_set_rounded_down(shards_copy: Path, share: float, allowed: int) -> None:
    damage(shards_copy, *range(3, 3 + allowed))
    opened(shards_copy, bad_images=share).read(np.arange(106))
    damage(shards_copy, 20)
    with pytest.raises(DataError) as caught:
        opened(shards_copy, bad_images=share).read(np.arange(53))
    assert f"{allowed} of 53" in str(caught.value) or (allowed == 0 and "no such image in 53" in str(caught.value))


@pytest.mark.parametrize("workers", [0, 1])
def test_one_too_many_ends_the_stream(shards_copy: Path, workers: int) -> None:
    damage(shards_copy, *BAD)
    with pytest.raises(DataError, match=r"shard-00000\d\.tar: byte \d+: .*2 of 53 that data\.bad_images allows"):
        taken(opened(shards_copy, bad_images=0.04), 5, workers=workers)


def test_a_shard_without_any_good_image_is_an_error(shards_copy: Path) -> None:
    damage(shards_copy, *range(14, 28))
    with pytest.raises(DataError, match=r"shard-000001\.tar: none of its images can be decoded"):
        opened(shards_copy, bad_images=1).read(np.arange(53))


def test_bytes_that_cannot_be_read_are_never_replaced(shards_copy: Path) -> None:
    images = opened(shards_copy, bad_images=1)
    images.read(np.arange(53))
    shard = shards_copy / "shard-000003.tar"
    os.truncate(shard, 2048)
    with pytest.raises(DataError, match=r"shard-000003\.tar: ends at byte"):
        images.read(np.arange(53))
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-000003\.tar: cannot be read"):
        pickle.loads(pickle.dumps(images)).read(np.arange(53))  # noqa: S301 - how a worker gets it

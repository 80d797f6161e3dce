"""Batches: what no number of ranks, workers or restarts may change, and how workers come and go."""

import contextlib
import gc
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import opened

from gandist.data.image_set import ImageSet
from gandist.data.loader import Batch, Parcel, batches, check_divides, warm_up
from gandist.data.order import coins
from gandist.data.shelf import Shelf
from gandist.errors import ConfigError, DataError, MachineError, RunError


def begin(images: ImageSet, batch_images: int = 24, **options: object) -> Iterator[Batch]:
    defaults = {
        "rank": 0, "world": 1, "start": 0, "workers": 0, "prefetch_batches": 2, "pin_memory": False, "hflip": False,
        "seed": 0,
    }  # fmt: skip
    return batches(images, batch_images=batch_images, **{**defaults, **options})  # type: ignore[arg-type]


def taken(images: ImageSet, count: int, batch_images: int = 24, **options: object) -> list[Batch]:
    stream = begin(images, batch_images, **options)
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()  # type: ignore[attr-defined]


def joined(parts: list[Batch]) -> tuple[bytes, list[int]]:
    return torch.cat([part.images for part in parts]).numpy().tobytes(), torch.cat([p.labels for p in parts]).tolist()


ALL_RANKS = [(world, rank) for world in (1, 2, 3, 4, 8) for rank in range(world)]
SOME_RANKS = [(1, 0), (2, 1), (3, 2), (4, 1), (8, 7)]


def check_shares(shards: Path, start: int, workers: int, ranks: list[tuple[int, int]], **knobs: object) -> None:
    """Five batches of 24 from a set of 53, so that epochs end inside batches."""
    images = opened(shards, **knobs)
    whole = taken(images, 5, start=start, hflip=True)
    assert [batch.position for batch in whole] == [start + 24 * step for step in range(5)]
    for world, rank in ranks:
        share = taken(images, 5, start=start, hflip=True, rank=rank, world=world, workers=workers)
        size = 24 // world
        for mine, all_of_it in zip(share, whole, strict=True):
            part = slice(rank * size, (rank + 1) * size)
            assert mine.position == all_of_it.position
            assert torch.equal(mine.images, all_of_it.images[part]), f"rank {rank} of {world}"
            assert torch.equal(mine.labels, all_of_it.labels[part])


@given(st.integers(0, 10**7), st.sampled_from([{}, {"lanes": 3, "stripe": 8}, {"classes": (0, 2)}, {"chunk": 1 << 31}]))
@settings(max_examples=15)
def test_ranks_change_nothing(shards: Path, start: int, knobs: dict[str, object]) -> None:
    check_shares(shards, start, 0, ALL_RANKS, **knobs)


@pytest.mark.parametrize(("workers", "start"), [(1, 31), (2, 9_999_991)])
def test_workers_change_nothing(shards: Path, workers: int, start: int) -> None:
    check_shares(shards, start, workers, SOME_RANKS)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_ranks_and_workers_together_change_nothing(shards: Path, workers: int) -> None:
    for start in np.random.default_rng(workers).integers(0, 10**7, 3).tolist():
        check_shares(shards, start, workers, ALL_RANKS)


@given(st.integers(0, 300), st.integers(1, 12), st.integers(1, 3), st.integers(1, 12), st.sampled_from([1, 2, 3, 4]))
@settings(max_examples=30)
def test_going_on_is_the_same_at_any_batch_and_world(
    shards: Path, start: int, batch: int, steps: int, next_batch: int, world: int
) -> None:
    images = opened(shards)
    stop = start + batch * steps
    before = taken(images, steps, batch, start=start, hflip=True)
    size = next_batch * world
    after = [
        [taken(images, 2, size, start=stop, hflip=True, world=world, rank=rank)[step] for rank in range(world)]
        for step in range(2)
    ]
    total = batch * steps + 2 * size
    straight = taken(images, total, 1, start=start, hflip=True)
    assert joined(straight) == joined([*before, *(part for step in after for part in step)])


def test_going_on_is_the_same_with_other_workers(shards: Path) -> None:
    images = opened(shards)
    straight = taken(images, 12, 8, hflip=True)
    parts, at = [], 0
    for workers, batch, steps in ((1, 8, 3), (0, 4, 4), (2, 16, 2), (1, 24, 1)):
        parts += taken(images, steps, batch, start=at, hflip=True, workers=workers)
        at += batch * steps
    assert at == 96
    assert joined(parts) == joined(straight)


def test_a_batch_may_be_larger_than_the_set(shards: Path) -> None:
    (batch,) = taken(opened(shards), 1, 53 * 3 + 7)
    counts = np.unique(batch.images.reshape(len(batch.images), -1).numpy(), axis=0, return_counts=True)[1]
    assert sorted(counts.tolist()) == [3] * 46 + [4] * 7


def test_types_and_shapes(shards: Path) -> None:
    (batch,) = taken(opened(shards), 1, 6, world=3, rank=1)
    assert (batch.images.shape, batch.images.dtype) == ((2, 8, 8, 3), torch.uint8)
    assert (batch.labels.shape, batch.labels.dtype) == ((2,), torch.int64)


def test_flips_are_drawn_by_position(shards: Path) -> None:
    images = opened(shards)
    plain, _ = joined(taken(images, 10))
    flipped, _ = joined(taken(images, 10, hflip=True))
    plain, flipped = (np.frombuffer(x, dtype=np.uint8).reshape(240, 8, 8, 3) for x in (plain, flipped))
    expected = coins(np.arange(240), 0, "hflip")
    assert 90 < expected.sum() < 150
    assert (flipped[expected] == plain[expected, :, ::-1]).all()
    assert (flipped[~expected] == plain[~expected]).all()
    other, _ = joined(taken(images, 10, hflip=True, seed=1))
    assert other != flipped.tobytes()


@pytest.mark.parametrize(
    ("batch", "world", "ways"),
    [
        (64, 3, "--update.batch_images 63 or 66, or run on 1, 2, 4, 8 ranks"),
        (64, 6, "--update.batch_images 60 or 66, or run on 1, 2, 4, 8 ranks"),
        (1, 4, "--update.batch_images 4, or run on 1 ranks"),
        (7, 8, "--update.batch_images 8, or run on 1, 7 ranks"),
    ],
)
def test_a_batch_that_cannot_be_shared_names_ways_out(shards: Path, batch: int, world: int, ways: str) -> None:
    with pytest.raises(ConfigError) as caught:
        begin(opened(shards), batch, world=world)
    assert ways in str(caught.value)
    for size in (s for s in range(1, 130) if s % world == 0):
        check_divides(size, world)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_the_users_error_in_plain_words(shards_copy: Path, workers: int) -> None:
    images = opened(shards_copy)
    shard = shards_copy / "shard-000000.tar"
    raw = shard.read_bytes()
    shard.write_bytes(raw.replace(b"NUMPY", b"NUNPY"))
    with pytest.raises(DataError) as caught:
        taken(images, 5, workers=workers)
    assert str(caught.value).startswith(f"{shard}: byte ")
    assert "Traceback" not in str(caught.value)


def test_too_little_shared_memory_is_said_before_it_crashes(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    with pytest.raises(MachineError, match=r"/dev/shm has 0 MiB free.*--shm-size"):
        begin(opened(f"{shards}/shard-{{000000..000003}}.tar"), workers=1)  # type: ignore[arg-type]
    for workers in (0, 1):
        assert len(taken(opened(shards), 1, workers=workers)) == 1, "an indexed set needs none"


# --- the shelf -----------------------------------------------------------------------------------------------


def test_a_batch_stays_as_it_is_while_anything_of_it_is_kept(shards: Path) -> None:
    """The last view of a batch keeps its place from being used again; kept batches outnumber the places."""
    images = opened(shards)
    expected = taken(images, 80)
    stream = begin(images, workers=2)
    kept = [batch.images[3:].permute(0, 3, 1, 2) if step % 2 else batch for step, batch in zip(range(80), stream)]  # noqa: B905
    stream.close()  # type: ignore[attr-defined]
    for step, (part, whole) in enumerate(zip(kept, expected, strict=True)):
        if isinstance(part, torch.Tensor):
            assert torch.equal(part, whole.images[3:].permute(0, 3, 1, 2)), step
        else:
            assert torch.equal(part.images, whole.images), step


def test_places_are_used_again(shards: Path) -> None:
    stream = begin(opened(shards), workers=1)
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    places = {next(stream).images.data_ptr() for _ in range(60)}
    assert len(places) <= 5, "one for each batch under way and two in turn here"
    assert len(os.listdir("/proc/self/fd")) <= files + 1  # noqa: PTH208


def test_nothing_of_a_shelf_is_left(shards: Path) -> None:
    taken(opened(shards), 2, workers=1)
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        taken(opened(shards), 2, workers=1)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files  # noqa: PTH208


def test_a_shelf_gives_each_place_to_one_batch_at_a_time() -> None:
    shelf = Shelf(2, 5000)
    numbers = [shelf.find(), shelf.find()]
    assert shelf.find() is None
    assert sorted(n for n in numbers if n is not None) == [0, 1]
    for number in (0, 1):
        shelf.room(number, (5000,))[:] = number + 1
    batch = shelf.place(1, (50, 100)).tensor()
    assert (batch.shape, batch.unique().tolist()) == ((50, 100), [2])
    part = batch[0]
    del batch
    assert shelf.find() is None
    del part
    assert shelf.find() == 1


def test_a_pinned_batch_frees_its_place_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own pass over what comes from a worker; pinning is copying, for want of a GPU."""
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    shelf = Shelf(1, 8)
    assert shelf.find() == 0
    shelf.room(0, (8,))[:] = range(8)
    parcel = pin_memory(Parcel(shelf.place(0, (2, 4)), np.arange(2), 24, 1, ("word",)))  # type: ignore[no-untyped-call]
    assert shelf.find() == 0
    assert isinstance(parcel, Parcel)
    assert isinstance(parcel.images, torch.Tensor)
    assert parcel.images.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert (parcel.position, parcel.bad_images, list(parcel.notes)) == (24, 1, ["word"])


# --- processes ---------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """All live descendants of a process."""
    below = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                below += [int(entry.name), *children(int(entry.name))]
    return below


def await_that(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


PLAY = """
import sys, itertools, signal
from gandist.config import DataConfig
from gandist.data.images import open_images
from gandist.data.loader import batches

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, lambda number, frame: print("signal", number, flush=True))
    images = open_images(DataConfig(shards=sys.argv[1], resolution=8), 0)
    stream = batches(images, batch_images=8, rank=0, world=1, start=0, workers=2, prefetch_batches=2,
                     pin_memory=False, hflip=False, seed=0)
    for number, batch in enumerate(stream):
        print("batch", number, flush=True)
        if sys.stdin.readline().strip() == "end":
            break
    print("ended", flush=True)
"""


class Player:
    """A process in a group of its own that reads batches with two workers, one for each line it is sent."""

    def __init__(self, shards: Path, script: Path) -> None:
        script.write_text(PLAY)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), str(shards)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True, bufsize=1,
        )  # fmt: skip

    def hears(self, expected: str) -> None:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready, f"waited for {expected!r}"
        assert self.process.stdout.readline().strip() == expected

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def player(shards: Path, tmp_path: Path) -> Iterator[Player]:
    player = Player(shards, tmp_path / "play.py")
    yield player
    player.kill()


def test_workers_live_through_signals_and_end_with_the_trainer(player: Player) -> None:
    """Signals to the whole group are for the trainer alone; batches go on; at the end nothing is left or complains."""
    player.hears("batch 0")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        os.killpg(player.process.pid, number)
        player.hears(f"signal {int(number)}")
    for number in range(1, 30):
        player.say("")
        player.hears(f"batch {number}")
    family = children(player.process.pid)
    assert len(family) >= 3, "a server and two workers"
    player.say("end")
    player.hears("ended")
    _, complaints = player.process.communicate(timeout=30)
    assert (player.process.returncode, complaints) == (0, "")
    await_that(lambda: not any(map(alive, family)))


def test_workers_end_when_the_trainer_is_killed(player: Player) -> None:
    player.hears("batch 0")
    family = children(player.process.pid)
    assert len(family) >= 3
    player.process.kill()
    await_that(lambda: not any(map(alive, family)))


def kill_worker(before: set[int]) -> None:
    worker = max(set(children(os.getpid())) - before)
    os.kill(worker, signal.SIGKILL)
    await_that(lambda: not alive(worker))


def test_a_dead_worker_costs_no_image(shards: Path) -> None:
    before = set(children(os.getpid()))
    stream = begin(opened(shards), workers=1)
    found = [next(stream)]
    kill_worker(before)
    found += itertools.islice(stream, 11)
    assert joined(found) == joined(taken(opened(shards), 12))
    (note,) = [note for batch in found for note in batch.notes]
    assert "A process that reads images died" in note
    assert note.endswith("New ones go on where it was.")


@pytest.mark.long
def test_workers_that_die_again_and_again_are_an_error(shards: Path) -> None:
    before = set(children(os.getpid()))
    stream = begin(opened(shards), workers=1)
    next(stream)
    for _ in range(3):
        kill_worker(before)
        while not any("died" in note for note in next(stream).notes):  # batches that were ready come first
            pass
    kill_worker(before)
    with pytest.raises(RunError, match="ran out of memory"):
        list(itertools.islice(stream, 100))


def test_warming_up_changes_nothing_but_the_start(shards: Path) -> None:
    warm_up()
    assert joined(taken(opened(shards), 3, workers=1)) == joined(taken(opened(shards), 3))


def test_an_abandoned_stream_leaves_no_worker(shards: Path) -> None:
    stream = begin(opened(shards), workers=1)
    next(stream)
    server_and_worker = children(os.getpid())
    del stream
    await_that(lambda: len(children(os.getpid())) < len(server_and_worker))

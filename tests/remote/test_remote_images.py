"""A set from afar is the same images as on this machine, bit for bit, whatever the server does."""

import fcntl
import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from fault_server import Fault, FaultServer, await_that
from reading import taken, taken_from

from gandist.config import CacheConfig, DataConfig
from gandist.data.image_set import Reading
from gandist.data.images import open_images
from gandist.data.remote import room, window
from gandist.data.remote.images import RemoteImages
from gandist.data.remote.live import live_bytes
from gandist.errors import ConfigError, DataError, MachineError

FAULTS = [
    Fault(after=5_000),
    Fault(status=503),
    Fault(after=1),
    Fault(whole=True, after=100),
    Fault(after=12_000),
    Fault(status=429, headers=(("Retry-After", "0"),)),
    Fault(after=0),
]


def reading(**changes: int) -> Reading:
    defaults = {"batch_images": 24, "rank": 0, "world": 1, "local_world": 1, "start": 0, "ahead_batches": 2}
    return Reading(**{**defaults, **changes})


def asked_for(server: FaultServer) -> Counter[str]:
    return Counter(path for path, _ in server.asked if path.endswith(".tar"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2])
def test_a_faulty_server_changes_no_bit(
    world: int, workers: int, shards: Path, served: FaultServer, tmp_path: Path
) -> None:
    served.faults = list(FAULTS)
    cache = CacheConfig(dir=tmp_path / "cache")
    for rank in range(world):
        local = taken({"shards": str(shards)}, rank=rank, world=world)
        remote = taken({"shards": f"{served.url}/set"}, cache, rank=rank, world=world, workers=workers)
        assert remote == local
    assert not served.faults
    total = sum(path.stat().st_size for path in shards.glob("*.tar"))
    assert served.sent_bytes - index_bytes(shards) * world <= total + 5_100, "one body of 100 bytes began anew"


def index_bytes(shards: Path) -> int:
    return sum((shards / name).stat().st_size for name in ("index.json", "index.safetensors"))


def test_without_faults_every_byte_comes_once(shards: Path, served: FaultServer, tmp_path: Path) -> None:
    cache = CacheConfig(dir=tmp_path / "cache")
    data = {"shards": f"{served.url}/set"}
    assert taken(data, cache) == taken({"shards": str(shards)})
    assert set(asked_for(served).values()) == {1}
    assert served.sent_bytes == index_bytes(shards) + sum(path.stat().st_size for path in shards.glob("*.tar"))
    taken(data, cache)
    assert set(asked_for(served).values()) == {1}, "the second run reads the cache"


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("workers", [0, 2])
def test_the_arrays_of_a_large_index_are_a_file_in_the_cache(
    workers: int, shards: Path, served: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped by every process instead of sent to it, and not to be evicted while a run may still map it."""
    monkeypatch.setattr("gandist.data.images._IN_MEMORY_BYTES", 0)
    cache = CacheConfig(dir=tmp_path / "cache")
    data = {"shards": f"{served.url}/set"}
    assert taken(data, cache, workers=workers) == taken({"shards": str(shards)})
    images = open_images(DataConfig(resolution=8, **data), 5, cache)
    (kept,) = (tmp_path / "cache").glob("*-index.safetensors")
    assert isinstance(images, RemoteImages)
    assert images._columns._path == kept
    with kept.open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        del images
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_small_cache_holds_its_bound_and_fetches_each_shard_once_an_epoch(
    workers: int, small_shards: Path, served: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for just what the order needs at once, over four epochs."""
    served.files = {f"/set/{path.name}": path.read_bytes() for path in small_shards.iterdir() if path.is_file()}
    data = {"shards": f"{served.url}/set", "chunk": 1 << 31, "lanes": 2, "block": 8}
    probe = open_images(DataConfig(resolution=8, **data), 5, CacheConfig(dir=tmp_path / "probe"))
    needed = live_bytes(probe.shards_at, probe.shard_bytes, 120, reading(batch_images=6, ahead_batches=workers * 2 + 1))
    assert needed < 0.6 * probe.shard_bytes.sum()
    peaks: list[int] = []
    make_room = room.make_room

    def watched(*given: object, **named: object) -> bool:
        within = make_room(*given, **named)  # type: ignore[arg-type]
        with room.locked(tmp_path / "cache" / room.ROOM_LOCK):
            peaks.append(sum(entry.bytes for entry in room.entries(tmp_path / "cache")))
        return within

    monkeypatch.setattr(room, "make_room", watched)
    cache = CacheConfig(dir=tmp_path / "cache", gb=needed / 1e9)
    local = {**data, "shards": str(small_shards)}
    assert taken(data, cache, workers=workers, count=80, batch=6) == taken(local, count=80, batch=6)
    assert peaks
    assert max(peaks) <= needed
    assert sum(asked_for(served).values()) <= 5 * 30, "four epochs, and what is read ahead of the fifth"


def test_the_index_may_be_here_and_the_shards_elsewhere(shards: Path, served: FaultServer, tmp_path: Path) -> None:
    here = tmp_path / "index"
    here.mkdir()
    for name in ("index.json", "index.safetensors"):
        shutil.copy(shards / name, here)
    local = taken({"shards": str(shards)})
    cache = CacheConfig(dir=tmp_path / "cache")
    assert taken({"shards": str(here), "root": f"{served.url}/set"}, cache) == local
    assert taken({"shards": str(here), "root": str(shards)}) == local
    assert taken({"shards": f"{served.url}/set", "root": str(shards)}, cache) == local
    with pytest.raises(DataError, match="cannot be read"):
        taken({"shards": str(here)})


def test_the_fingerprint_says_nothing_of_the_place(shards: Path, served: FaultServer, tmp_path: Path) -> None:
    """So that a run may go on with another copy of its data."""
    cache = CacheConfig(dir=tmp_path / "cache")
    remote = open_images(DataConfig(shards=f"{served.url}/set", resolution=8), 0, cache)
    assert remote.fingerprint == open_images(DataConfig(shards=str(shards), resolution=8), 0).fingerprint


def test_a_missing_set_is_named(served: FaultServer, tmp_path: Path) -> None:
    cache = CacheConfig(dir=tmp_path / "cache")
    with pytest.raises(
        DataError, match=r"/nowhere/index.json: there is no such file \(404 .*must be a folder that holds"
    ):
        open_images(DataConfig(shards=f"{served.url}/nowhere"), 0, cache)
    with pytest.raises(DataError, match=r"data\.resolution is 32"):
        open_images(DataConfig(shards=f"{served.url}/set"), 0, cache)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_shard_is_the_users_error_in_plain_words(
    workers: int, shards: Path, served: FaultServer, tmp_path: Path
) -> None:
    del served.files["/set/shard-000003.tar"]
    with pytest.raises(DataError) as caught:
        taken({"shards": f"{served.url}/set"}, CacheConfig(dir=tmp_path / "cache"), workers=workers)
    assert str(caught.value) == f"{served.url}/set/shard-000003.tar: there is no such file (404 Not Found)."


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_machine_lacks_is_said_in_plain_words(workers: int, served: FaultServer, tmp_path: Path) -> None:
    images = open_images(DataConfig(shards=f"{served.url}/set", resolution=8), 5, CacheConfig(dir=tmp_path / "cache"))
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(MachineError) as caught:
        taken_from(images, workers=workers)
    assert str(caught.value).startswith(f"{tmp_path}/cache: others may write there")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("url", ["pipe:cat x", "-", "s3:/bucket", "x::s3://b/p", "https://${HOST}/p", "ftp://h/p"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        open_images(DataConfig(shards=url), 0)
    if url != "s3:/bucket":
        assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("url", ["../0.tar", "/etc/0.tar", "https://evil.org/0.tar", "s3:x/0.tar", "a/../../0.tar"])
def test_an_index_names_nothing_outside_its_place(url: str, served: FaultServer, tmp_path: Path) -> None:
    content = json.loads(served.files["/set/index.json"])
    content["shards"][0]["url"] = url
    served.files["/set/index.json"] = json.dumps(content).encode()
    with pytest.raises(DataError, match="is not a path inside"):
        open_images(DataConfig(shards=f"{served.url}/set", resolution=8), 0, CacheConfig(dir=tmp_path / "cache"))


# --- before a run ------------------------------------------------------------------------------------------


def test_a_cache_too_small_for_the_order_is_refused_with_figures(
    shards: Path, served: FaultServer, tmp_path: Path
) -> None:
    size = max(path.stat().st_size for path in shards.glob("*.tar"))
    cache = CacheConfig(dir=tmp_path / "cache", gb=6 * size / 1e9)
    small = open_images(DataConfig(shards=f"{served.url}/set", resolution=8, chunk=1), 5, cache)
    with pytest.raises(ConfigError) as caught:
        small.remarks(reading())
    assert "--data.chunk 2147483648 --data.lanes 8" in str(caught.value)
    assert f"can hold {6 * size / 1e9:.3g} GB" in str(caught.value)
    assert f"needs {8 * size / 1e9:.3g} GB at once" in str(caught.value)
    whole = open_images(DataConfig(shards=f"{served.url}/set", resolution=8, chunk=1 << 31, block=15), 5, cache)
    assert whole.remarks(reading(batch_images=8)) == ()
    assert asked_for(served) == {}, "nothing was fetched for that"


def test_several_nodes_are_told_of_lanes(served: FaultServer, tmp_path: Path) -> None:
    images = open_images(DataConfig(shards=f"{served.url}/set", resolution=8), 5, CacheConfig(dir=tmp_path / "cache"))
    (note,) = images.remarks(reading(world=2))
    assert "2 nodes" in note
    assert images.remarks(reading(world=2, local_world=2)) == ()


# --- getting ready -----------------------------------------------------------------------------------------


def test_shards_arrive_before_they_are_read(shards: Path, served: FaultServer, tmp_path: Path) -> None:
    images = open_images(DataConfig(shards=f"{served.url}/set", resolution=8), 5, CacheConfig(dir=tmp_path / "cache"))
    assert isinstance(images, RemoteImages)
    with images.follower(reading()):
        await_that(lambda: len(asked_for(served)) == 8, "all shards, as there is room")
        await_that(lambda: all(not entry.missing_bytes for entry in room.entries(tmp_path / "cache")), "their ends")


def test_a_run_that_ends_leaves_no_thread_and_no_lease(served: FaultServer, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    taken({"shards": f"{served.url}/set"}, CacheConfig(dir=tmp_path / "cache"), count=1)
    ours = [t for t in threading.enumerate() if t not in before and t.name.startswith(("shards-ahead", "fetch-"))]
    await_that(lambda: not any(thread.is_alive() for thread in ours), "the threads to end")
    for entry in room.entries(tmp_path / "cache"):
        assert room.remove(entry), "nobody holds it"


def test_a_program_ends_while_a_download_hangs(served: FaultServer, tmp_path: Path) -> None:
    served.faults = [Fault(), *[Fault(after=0, stall=True)] * 50]
    script = (
        "import sys\nfrom pathlib import Path\nfrom gandist.config import CacheConfig, DataConfig\n"
        "from gandist.data.image_set import Reading\nfrom gandist.data.images import open_images\n"
        "if __name__ == '__main__':\n"
        "    cache = CacheConfig(dir=Path(sys.argv[2]))\n"
        "    images = open_images(DataConfig(shards=sys.argv[1], resolution=8), 5, cache)\n"
        "    images.follower(Reading(24, 0, 1, 1, 0, 2)).__enter__()\n"
        "    sys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, f"{served.url}/set", str(tmp_path / "cache")],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    await_that(lambda: len(asked_for(served)) > window.FETCHERS, "the fetchers to hang")
    _, complaints = process.communicate("\n", timeout=10)
    assert (process.returncode, complaints) == (0, "")

"""Makes the helpers of this folder importable; a small set of shards, and a server that misbehaves."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "trainer"))

from fault_server import BODY, FaultServer
from s3_store import running, store  # noqa: F401
from trainer_runs import launch  # noqa: F401

from gandist.data.making.prepare import prepare
from gandist.data.remote import https, retry, room
from gandist.data.remote.cache import Cache


def below(prefix: str, folder: Path) -> dict[str, bytes]:
    return {f"{prefix}/{path.name}": path.read_bytes() for path in folder.iterdir() if path.is_file()}


def noise(tmp_path_factory: pytest.TempPathFactory, shard_images: int) -> Path:
    """Prepare 120 noise images of 8x8 px in three classes as raw RGB."""
    photos = tmp_path_factory.mktemp("photos")
    draws = np.random.default_rng(1)
    for number in range(120):
        folder = photos / "abc"[number % 3]
        folder.mkdir(exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    destination = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(str(photos), destination, resolution=8, shard_images=shard_images, workers=0)
    return destination


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images in eight shards; not to be changed."""
    return noise(tmp_path_factory, 15)


@pytest.fixture(scope="session")
def small_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in thirty shards; not to be changed."""
    return noise(tmp_path_factory, 4)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """Serves /x.tar, a body of 40 kB."""
    with FaultServer({"/x.tar": BODY}).running() as server:
        yield server


@pytest.fixture
def served(shards: Path) -> Iterator[FaultServer]:
    """Serves the shards and their index below /set."""
    with FaultServer(below("/set", shards)).running() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", None)


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long: for a silent server, between attempts, for a lock."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(https, "STALL_SECONDS", 0.15)
    monkeypatch.setattr(https, "CONNECT_SECONDS", 5.0)
    monkeypatch.setattr(room, "_POLL_SECONDS", 0.005)

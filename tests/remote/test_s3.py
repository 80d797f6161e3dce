"""Sets in an object store: the real S3 protocol, spoken by s3fs, served on this machine by moto."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from reading import taken
from s3_store import KEY, Store

from gandist.config import CacheConfig, DataConfig
from gandist.data.images import open_images
from gandist.data.remote import object_store, retry
from gandist.data.remote.address import expand
from gandist.data.remote.cache import Cache
from gandist.data.remote.part import TransientError
from gandist.errors import ConfigError, DataError, MachineError


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_in_s3_is_the_same_images(workers: int, store: Store, shards: Path, tmp_path: Path) -> None:
    data = {"shards": "s3://bucket/sets/small"}
    remote = taken(data, CacheConfig(dir=tmp_path / "cache"), workers=workers)
    assert remote == taken({"shards": str(shards)})
    names = {f"/bucket/sets/small/{path.name}" for path in shards.glob("*.tar")}
    assert store.gets() == dict.fromkeys(names, 1), "one request for each shard"
    assert not any(method == "HEAD" and path.endswith(".tar") for method, path, _ in store.asked)


def test_six_readers_make_one_request(store: Store, shards: Path, tmp_path: Path) -> None:
    shard = min(shards.glob("*.tar"))
    script = (
        "import sys\nfrom pathlib import Path\nfrom gandist.data.remote.cache import Cache\n"
        "with Cache(Path(sys.argv[1]), None).lease(sys.argv[2], size=int(sys.argv[3])) as lease:\n"
        "    print(lease.path.stat().st_size)\n"
    )
    url, size = f"s3://bucket/sets/small/{shard.name}", shard.stat().st_size
    command = [sys.executable, "-c", script, str(tmp_path / "cache"), url, str(size)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert [reader.communicate(timeout=60)[0].strip() for reader in readers] == [str(size)] * 6
    assert sum(store.gets().values()) == 1


def test_large_shards_come_in_pieces(
    store: Store, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PIECE_BYTES", 10_000)
    shard = min(shards.glob("*.tar"))
    size = shard.stat().st_size
    url = f"s3://bucket/sets/small/{shard.name}"
    store.broken = 1
    with Cache(tmp_path / "cache", None).lease(url, size=size) as lease:
        assert lease.path.read_bytes() == shard.read_bytes()
    ranges = [wanted for method, path, wanted in store.asked if method == "GET"]
    assert sorted(set(ranges)) == sorted(f"bytes={n}-{min(n + 10_000, size + 1) - 1}" for n in range(0, size, 10_000))


def test_a_lost_piece_is_asked_for_again(
    store: Store, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own attempts, with a driver that makes none."""
    monkeypatch.setattr(object_store, "PIECE_BYTES", 10_000)
    shard = min(shards.glob("*.tar"))
    size, calls = shard.stat().st_size, []
    real = object_store._call

    def unlucky(url: str, driver: Any, call: Any, *given: Any, **named: Any) -> Any:
        if "start" in named:
            calls.append(named["start"])
            if len(calls) in (1, 3, 4):
                raise TransientError("the cable is out")
        return real(url, driver, call, *given, **named)

    monkeypatch.setattr(object_store, "_call", unlucky)
    with Cache(tmp_path / "cache", None).lease(f"s3://bucket/sets/small/{shard.name}", size=size) as lease:
        assert lease.path.read_bytes() == shard.read_bytes()
    starts = list(range(0, size, 10_000))
    assert calls == [0, 0, 10_000, 10_000, *starts[1:]]


def test_a_shard_that_changed_is_refused(store: Store, shards: Path, tmp_path: Path) -> None:
    shard = min(shards.glob("*.tar"))
    size, url = shard.stat().st_size, f"s3://bucket/sets/small/{shard.name}"
    for wrong in (size - 1, size + 1):
        with pytest.raises(DataError, match=f"has {size} bytes, the index recorded {wrong}: the shard changed"):
            Cache(tmp_path / "cache", None).lease(url, size=wrong, sha256="0" * 64)
    with pytest.raises(DataError, match="arrived twice"):
        Cache(tmp_path / "cache", None).lease(url, size=size, sha256="0" * 64)


def test_lists(store: Store, shards: Path) -> None:
    urls = [f"s3://bucket/sets/small/{path.name}" for path in sorted(shards.glob("*.tar"))]
    assert expand(["s3://bucket/sets/small"]) == urls
    assert expand(["s3://bucket/sets"]) == urls
    assert expand(["s3://bucket/sets/small/shard-00000[01].tar"]) == urls[:2]
    assert expand(["s3://bucket/sets/*/*.tar"]) == urls
    assert expand(["s3://bucket/sets/small/shard-{000000..000002}.tar"]) == urls[:3]
    with pytest.raises(DataError):
        expand(["s3://bucket/nothing"])


# --- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["s3://nobucket/sets/small", "s3://bucket/nothing"])
def test_what_is_not_there_is_named(url: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{url}/index.json: there is no such file, or no such bucket"):
        open_images(DataConfig(shards=url), 0, CacheConfig(dir=tmp_path / "cache"))
    assert len(store.asked) < 8


def test_a_wrong_key_is_said_with_where_keys_come_from(store: Store, tmp_path: Path) -> None:
    store.refusing = True
    with pytest.raises(DataError) as caught:
        open_images(DataConfig(shards="s3://bucket/sets/small"), 0, CacheConfig(dir=tmp_path / "cache"))
    assert "s3://bucket/sets/small/index.json: the store does not let us read it" in str(caught.value)
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(store.asked) < 12, "the driver asks a few times by itself"


def test_no_credentials_are_said_at_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(DataError, match="Credentials come from the environment: AWS_ACCESS_KEY_ID"):
        open_images(DataConfig(shards="s3://bucket/sets/small"), 0, CacheConfig(dir=tmp_path / "cache"))


@pytest.mark.parametrize(
    ("url", "package"), [("gs://b/p", "gandist[gs]"), ("az://b/p", "pip install adlfs"), ("abfs://b/p", "adlfs")]
)
def test_a_missing_driver_is_named(url: str, package: str, tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        open_images(DataConfig(shards=url), 0, CacheConfig(dir=tmp_path / "cache"))
    assert package in str(caught.value)


def test_a_driver_that_always_fails_ends_the_attempts(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def failing(*_: object, **__: object) -> None:
        calls.append(1)
        raise OSError("https://bucket/x?X-Amz-Signature=SECRET timed out")

    monkeypatch.setattr(object_store, "_open", lambda url: (type("Driver", (), {"cat_file": failing}), "path"))
    with pytest.raises(DataError, match="https://bucket/x timed out") as caught:
        Cache(tmp_path / "cache", None).lease("s3://bucket/x.tar", size=10, sha256="0" * 64)
    assert len(calls) == retry.TRIES_IN_A_ROW
    assert "SECRET" not in str(caught.value)


def test_keys_do_not_belong_in_urls(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Credentials come from the environment") as caught:
        open_images(DataConfig(shards="s3://key:SECRET@bucket/p"), 0, CacheConfig(dir=tmp_path / "cache"))
    assert "SECRET" not in str(caught.value)

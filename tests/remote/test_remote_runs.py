"""Whole runs on shards from afar end with the weights of a run on local files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fault_server import Fault, FaultServer
from s3_store import KEY, Store
from trainer_runs import Launch, digests, make_config, play

from gandist.errors import ConfigError
from gandist.trainer import Trainer

FAULTS = [Fault(after=5_000), Fault(status=503), Fault(after=1), Fault(whole=True, after=100), Fault(after=12_000)]


def changes(shards: str, folder: Path | None = None, **execution: Any) -> dict[str, Any]:
    cache = {"dir": str(folder)} if folder else {}
    return {"data": {"shards": shards, "channels": 3}, "execution": {**execution, "cache": cache}}


@pytest.fixture
def local(shards: Path, tmp_path: Path) -> dict[str, str]:
    return digests(play(make_config(tmp_path / "local", changes(str(shards)))).folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_from_a_faulty_server(workers: int, local: dict[str, str], served: FaultServer, tmp_path: Path) -> None:
    served.faults = list(FAULTS)
    settings = changes(f"{served.url}/set", tmp_path / "cache", workers=workers)
    remote = play(make_config(tmp_path / "remote", settings))
    assert digests(remote.folder) == local
    assert not served.faults


def test_from_s3(local: dict[str, str], store: Store, tmp_path: Path) -> None:
    remote = play(make_config(tmp_path / "remote", changes("s3://bucket/sets/small", tmp_path / "cache", workers=1)))
    assert digests(remote.folder) == local
    assert set(store.gets().values()) == {1}
    written = "".join(path.read_text(errors="replace") for path in remote.folder.rglob("*") if path.is_file())
    assert KEY not in written


@pytest.mark.long
def test_two_ranks_share_the_cache(shards: Path, served: FaultServer, tmp_path: Path, launch: Launch) -> None:
    ended = []
    for name, place in (("here", str(shards)), ("afar", f"{served.url}/set")):
        config = make_config(tmp_path / name, changes(place, tmp_path / "cache", workers=1))
        ranks = launch(config, world=2)
        assert ranks.wait() == [0, 0], ranks.output()
        ended.append(digests(config.folder))
    assert ended[0] == ended[1]
    shard_requests = [path for path, _ in served.asked if path.endswith(".tar")]
    assert len(shard_requests) == len(set(shard_requests)) == 8


def test_a_cache_too_small_stops_the_run_before_it_writes_anything(served: FaultServer, tmp_path: Path) -> None:
    settings = changes(f"{served.url}/set", tmp_path / "cache")
    settings["execution"]["cache"]["gb"] = 1e-4
    config = make_config(tmp_path / "remote", settings)
    with pytest.raises(ConfigError, match=r"execution\.cache: .* can hold 0\.0001 GB"):
        Trainer(config)
    assert not config.folder.exists()


def test_several_nodes_read_of_lanes_in_the_log(
    served: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank, which believes to be one of two on two nodes when it asks what to say."""
    config = make_config(tmp_path / "remote", changes(f"{served.url}/set", tmp_path / "cache"))
    monkeypatch.setattr("gandist.feed.describe_reading", _two_nodes)
    trainer = play(config)
    assert "2 nodes with a cache each will fetch every shard" in (trainer.folder / "events.log").read_text()


def _two_nodes(batch_images: int, rank: int, world: int, *, start: int, ahead_batches: int) -> Any:
    from gandist.data.image_set import Reading

    return Reading(batch_images, rank, 2, 1, start, ahead_batches)

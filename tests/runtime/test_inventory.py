"""The list of a run's checkpoints tells the truth, and clearing up never takes the last whole one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gandist.cli import main
from gandist.errors import EXIT_FAILED, EXIT_USER_ERROR, CheckpointError, ConfigError
from gandist.runtime.checkpoint import CheckpointStore, Part
from gandist.runtime.inventory import checkpoint_folder, entries, prune, table

Make = Callable[[int], dict[str, Part]]


@pytest.fixture
def store(tmp_path: Path, parts: Make) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "run" / "checkpoints", keep=9)
    for images in (1000, 2500, 40_000):
        store.save(images, parts(images), {})
    return store


def damage(folder: Path) -> None:
    path = folder / "generator.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def test_the_list_names_what_is_there(store: CheckpointStore) -> None:
    folder = checkpoint_folder(store.folder.parent)
    assert folder == checkpoint_folder(store.folder)
    found = entries(folder, verify=False)
    assert [(entry.images_seen, entry.latest) for entry in found] == [(1000, False), (2500, False), (40_000, True)]
    on_disk = sum(path.stat().st_size for path in (folder / "000001000").iterdir())
    assert found[0].bytes == on_disk
    damage(folder / "000002500")
    assert [entry.problem is None for entry in entries(folder, verify=True)] == [True, False, True]
    shown = table(entries(folder, verify=True), verified=True).splitlines()
    assert "2.5 kimg" in shown[1]
    assert "DAMAGED" in shown[1]
    assert shown[2].endswith("whole  latest")
    assert table([], verified=True) == "no checkpoints"


def test_the_newest_whole_ones_stay(store: CheckpointStore) -> None:
    damage(store.folder / "000040000")
    removed = prune(store.folder, keep=1)
    assert [entry.name for entry in removed] == ["000001000", "000040000"]
    assert store.names() == ["000002500"]
    assert sorted(path.name for path in store.folder.iterdir()) == ["000002500", "latest"]
    assert (store.folder / "latest").read_text() == "000002500\n"


def test_the_best_one_is_marked_and_stays(store: CheckpointStore, parts: Make) -> None:
    store.save(50_000, parts(5), {"best": {"images_seen": 2500}})
    assert [entry.best for entry in entries(store.folder, verify=False)] == [False, True, False, False]
    assert "best" in table(entries(store.folder, verify=False), verified=False).splitlines()[1]
    prune(store.folder, keep=1)
    assert store.names() == ["000002500", "000050000"]
    assert (store.folder.parent / "best" / "manifest.json").is_file()


def test_nothing_goes_where_nothing_is_whole(store: CheckpointStore) -> None:
    for name in store.names():
        damage(store.folder / name)
    with pytest.raises(CheckpointError, match="none of the 3"):
        prune(store.folder, keep=1)
    assert len(store.names()) == 3


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run folder"):
        checkpoint_folder(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match="no checkpoints yet"):
        checkpoint_folder(tmp_path)


def test_the_verb_lists_checks_and_clears_up(store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(store.folder.parent)
    assert main(["checkpoints", run]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    damage(store.folder / "000001000")
    assert main(["checkpoints", run]) == 0, "only --verify reads the bytes"
    assert main(["checkpoints", run, "--verify"]) == EXIT_FAILED
    assert "DAMAGED" in capsys.readouterr().out
    assert main(["checkpoints", run, "--prune", "1", "--verify"]) == 0
    said = capsys.readouterr().out
    assert "removed 000001000, which was damaged" in said
    assert store.names() == ["000040000"]
    assert main(["checkpoints", run + "/nowhere"]) == EXIT_USER_ERROR


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    steps=st.lists(st.integers(1, 400), min_size=1, max_size=12),
    keep=st.integers(1, 4),
    every=st.integers(50, 1000),
)
def test_milestones_stay_for_ever(
    tmp_path_factory: pytest.TempPathFactory, parts: Make, steps: list[int], keep: int, every: int
) -> None:
    """Whatever was saved and dropped meanwhile, the first checkpoint of each interval and the newest ones are there."""
    store = CheckpointStore(tmp_path_factory.mktemp("milestones"), keep, keep_every_images=every)
    images, saved = 0, []
    for step in steps:
        images += step
        saved.append(images)
        store.save(images, {}, {})
    first = {n // every: n for n in reversed(saved)}
    expected = {n for interval, n in first.items() if interval > 0} | set(saved[-keep:])
    assert [int(name) for name in store.names()] == sorted(expected)

"""A save in the background: the state as it was when the save was asked for, and no failure unheard."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from gandist.errors import CheckpointError
from gandist.runtime.checkpoint import CheckpointStore, Part
from gandist.runtime.saver import BackgroundSaver


class HeldStore(CheckpointStore):
    """A store whose writing waits for leave, and can be told to fail."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, keep=9)
        self.leave = threading.Event()
        self.begun: list[int] = []
        self.error: Exception | None = None

    def save(self, images_seen: int, parts: Mapping[str, Part], state: Mapping[str, Any]) -> Path:
        self.begun.append(images_seen)
        assert self.leave.wait(30)
        if self.error is not None:
            raise self.error
        return super().save(images_seen, parts, state)


@pytest.fixture
def store(tmp_path: Path) -> HeldStore:
    return HeldStore(tmp_path / "checkpoints")


class Unreadable(torch.Tensor):
    """A tensor whose content cannot be had, as that of a device that is gone."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.copy_:
            raise RuntimeError("cannot be read")
        return super().__torch_function__(func, types, args, kwargs or {})


def weights(store: CheckpointStore, name: str) -> torch.Tensor:
    return store.open(name).tensors("generator")["weight"]


def test_what_changes_after_the_call_is_not_saved(store: HeldStore) -> None:
    weight = torch.arange(6.0)
    saver = BackgroundSaver(store)
    saver.save(100, {"generator": Part({"weight": weight}, {"card": "c"})}, {"round_index": 3})
    weight.zero_()
    store.leave.set()
    saver.finish()
    assert weights(store, "000000100").tolist() == [0, 1, 2, 3, 4, 5]
    assert store.open("000000100").state["round_index"] == 3


def test_what_only_a_step_changes_is_copied_while_the_caller_computes(store: HeldStore) -> None:
    weight, statistic, begun, leave = torch.arange(6.0), torch.ones(2), threading.Event(), threading.Event()
    saver = BackgroundSaver(store)
    copy_the_rest = saver._copy_the_rest

    def held(later: Any) -> None:
        begun.set()
        assert leave.wait(30)
        copy_the_rest(later)

    saver._copy_the_rest = held  # type: ignore[method-assign]
    saver.copied()  # nothing is being saved: returns
    saver.save(100, {"generator": Part({"weight": weight, "statistic": statistic}, None, ["weight"])}, {})
    assert begun.wait(30)
    statistic.zero_()  # as the next pass may do at once
    waiting = threading.Thread(target=saver.copied)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive(), "the weights are not copied yet: no step may change them"
    leave.set()
    waiting.join(30)
    assert saver.blocked_seconds > 0.1, "what the caller waited is counted"
    weight.zero_()
    store.leave.set()
    saver.finish()
    saved = store.open("000000100").tensors("generator")
    assert saved["weight"].tolist() == [0, 1, 2, 3, 4, 5]
    assert saved["statistic"].tolist() == [1, 1]


def test_a_copy_that_fails_lets_training_go_on_and_is_told(store: HeldStore) -> None:
    saver = BackgroundSaver(store)
    saver.save(100, {"generator": Part({"weight": torch.zeros(3)}, None, ["weight"])}, {})
    store.leave.set()
    saver.finish()
    saver.save(200, {"generator": Part({"weight": Unreadable()}, None, ["weight"])}, {})
    saver.copied()
    with pytest.raises(CheckpointError, match="cannot be read"):
        saver.finish()


def test_the_caller_does_not_wait_for_the_disk_but_the_next_save_does(store: HeldStore) -> None:
    weight = torch.zeros(4)
    saver = BackgroundSaver(store)
    saver.save(100, {"generator": Part({"weight": weight})}, {})  # returns although nothing may be written yet
    weight.fill_(1)
    second = threading.Thread(target=saver.save, args=(200, {"generator": Part({"weight": weight})}, {}))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "one save is in flight at a time: the copies of the first are still being written"
    store.leave.set()
    second.join(30)
    saver.finish()
    assert store.begun == [100, 200]
    assert (weights(store, "000000100") == 0).all()
    assert (weights(store, "000000200") == 1).all()


@pytest.mark.parametrize("error", [CheckpointError("disk full"), ZeroDivisionError("a bug")])
def test_a_failure_is_told_at_the_next_save_which_is_begun(store: HeldStore, error: Exception) -> None:
    parts = {"generator": Part({"weight": torch.zeros(4)})}
    saver = BackgroundSaver(store)
    store.leave.set()
    store.error = error
    saver.save(100, parts, {})
    saver._thread.join()  # type: ignore[union-attr]
    store.error = None
    with pytest.raises(CheckpointError, match=r"disk full|a bug"):
        saver.save(200, parts, {})
    saver.finish()
    assert store.names() == ["000000200"]
    saver.finish()


def test_a_failure_is_told_at_the_end(store: HeldStore) -> None:
    saver = BackgroundSaver(store)
    store.leave.set()
    store.error = CheckpointError("disk full")
    saver.save(100, {"generator": Part({"weight": torch.zeros(4)})}, {})
    with pytest.raises(CheckpointError, match="disk full"):
        saver.finish()


def test_copies_are_kept_and_follow_what_is_saved(store: HeldStore) -> None:
    """The host's memory is taken once; a state that grows, such as an optimizer's after its first step, is followed."""
    store.leave.set()
    saver = BackgroundSaver(store)
    saver.save(1, {"a": Part({"x": torch.zeros(3)}), "b": Part({"x": torch.ones(2)})}, {})
    saver.finish()
    first = dict(saver._copies)
    saver.save(2, {"a": Part({"x": torch.ones(3), "y": torch.ones(5)}), "b": Part({"x": torch.ones(4)})}, {})
    saver.finish()
    assert saver._copies["a", "x"] is first["a", "x"]
    assert {place: tuple(copy.shape) for place, copy in saver._copies.items()} == {
        ("a", "x"): (3,), ("a", "y"): (5,), ("b", "x"): (4,),
    }  # fmt: skip
    saver.save(3, {"a": Part({"x": torch.ones(3)})}, {})
    saver.finish()
    assert saver._copies.keys() == {("a", "x")}

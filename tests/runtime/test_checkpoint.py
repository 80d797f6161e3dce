"""What is saved comes back to the bit; what is damaged is never used."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gandist.errors import CheckpointError
from gandist.runtime import checkpoint as checkpoint_module
from gandist.runtime.checkpoint import (
    Checkpoint,
    CheckpointStore,
    Part,
    load_module,
    load_optimizer,
    open_checkpoint,
    optimizer_tensors,
    read_weights,
)

Make = Callable[[int], dict[str, Part]]


def holds(checkpoint: Checkpoint, parts: dict[str, Part]) -> bool:
    """Tell whether a checkpoint holds these parts, to the bit."""
    for name, part in parts.items():
        tensors = checkpoint.tensors(name)
        if tensors.keys() != part.tensors.keys():
            return False
        if not all(torch.equal(tensors[key], tensor) for key, tensor in part.tensors.items()):
            return False
    return True


def ignore(message: str) -> None:
    """Take a warning that a test does not ask about."""


# --- there and back --------------------------------------------------------------------------------------------


def test_parts_state_and_headers_come_back(tmp_path: Path, parts: Make) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=3)
    folder = store.save(12_345, parts(1), {"round_index": 7, "config": {"note": "Zürich"}})
    assert folder == tmp_path / "checkpoints" / "000012345"
    checkpoint = store.newest(ignore)
    assert checkpoint is not None
    assert checkpoint.images_seen == 12_345
    assert checkpoint.state["round_index"] == 7
    assert checkpoint.state["config"] == {"note": "Zürich"}
    assert holds(checkpoint, parts(1))
    assert read_weights(folder / "generator.safetensors")[1]["number"] == "1"
    assert store.open("000012345").state == checkpoint.state
    assert sorted(path.name for path in folder.iterdir()) == [
        "generator.safetensors", "manifest.json", "optimizer_g.safetensors", "state.json",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_every_kind_of_number_and_layout_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.arange(24).reshape(2, 3, 2, 2).to(dtype)
    tensors = {
        "plain": whole,
        "channels last": whole.to(memory_format=torch.channels_last),
        "a view": whole[:, 1],
        "empty": whole[:0],
        "scalar": torch.tensor(1).to(dtype),
    }
    store = CheckpointStore(tmp_path, keep=1)
    store.save(1, {"part": Part(tensors)}, {})
    checkpoint = store.newest(ignore)
    assert checkpoint is not None
    loaded = checkpoint.tensors("part")
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor)


def network_and_optimizer(seed: int, kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 1))
    if kind == "sgd":
        return network, torch.optim.SGD(network.parameters(), lr=0.1)
    return network, torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.5, 0.9), fused=kind == "fused adam")


def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    network(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["adam", "fused adam", "sgd"])
@pytest.mark.parametrize("steps", [0, 3])
def test_training_goes_on_to_the_bit(tmp_path: Path, kind: str, steps: int) -> None:
    network, optimizer = network_and_optimizer(1, kind)
    for k in range(steps):
        step(network, optimizer, k)
    store = CheckpointStore(tmp_path, keep=1)
    store.save(9, {"net": Part(network.state_dict()), "opt": Part(optimizer_tensors(optimizer, network))}, {})

    again, other = network_and_optimizer(2, kind)
    step(again, other, 77)  # a state of its own, which must be gone afterwards
    checkpoint = store.newest(ignore)
    assert checkpoint is not None
    load_module(again, checkpoint.tensors("net"), "net")
    load_optimizer(other, again, checkpoint.tensors("opt"), "opt")
    for k in range(10, 14):
        step(network, optimizer, k)
        step(again, other, k)
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_loading_writes_into_the_tensors_that_others_hold() -> None:
    """Averages, DDP and optimizers hold references to the parameters."""
    network, optimizer = network_and_optimizer(1, "adam")
    held = [p.data_ptr() for p in network.parameters()]
    other, _ = network_and_optimizer(2, "adam")
    load_module(network, other.state_dict(), "net")
    load_optimizer(optimizer, network, {}, "opt")
    assert [p.data_ptr() for p in network.parameters()] == held


# --- what does not fit -------------------------------------------------------------------------------------------


def test_other_networks_are_refused() -> None:
    network, _ = network_and_optimizer(1, "sgd")
    good = {name: value.clone() for name, value in network.state_dict().items()}
    before = {name: value.clone() for name, value in good.items()}
    wrong = {
        "lacks": {name: value + 1 for name, value in good.items() if name != "0.bias"},
        "extra": {**{name: value + 1 for name, value in good.items()}, "9.weight": torch.zeros(1)},
        "shape": {**{name: value + 1 for name, value in good.items()}, "3.weight": torch.zeros(1, 13)},
    }
    named = {"lacks": r"file.*lacks \['0\.bias'\]", "extra": r"file.*\['9\.weight'\]", "shape": r"3\.weight.*\[1, 13\]"}
    for fault, tensors in wrong.items():
        with pytest.raises(CheckpointError, match=named[fault]):
            load_module(network, tensors, "file")
        assert all(torch.equal(network.state_dict()[name], before[name]) for name in before), "nothing was touched"


@pytest.mark.parametrize("key", ["9.weight/exp_avg", "exp_avg", "/exp_avg", "0.weight.exp_avg"])
def test_optimizer_state_of_unknown_parameters_is_refused(key: str) -> None:
    network, optimizer = network_and_optimizer(1, "adam")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_optimizer(optimizer, network, {key: torch.zeros(3, 2, 3, 3)}, "file")


def test_optimizer_state_of_another_shape_is_refused_and_the_old_kept() -> None:
    network, optimizer = network_and_optimizer(1, "adam")
    step(network, optimizer, 0)
    before = {name: value.clone() for name, value in optimizer_tensors(optimizer, network).items()}
    saved = {**{name: value + 1 for name, value in before.items()}, "0.weight/exp_avg": torch.zeros(3, 2, 3, 4)}
    with pytest.raises(CheckpointError, match=r"file: 0\.weight/exp_avg"):
        load_optimizer(optimizer, network, saved, "file")
    after = optimizer_tensors(optimizer, network)
    assert all(torch.equal(after[name], value) for name, value in before.items())


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, parts: Make) -> Path:
    return CheckpointStore(tmp_path / "saved", keep=2).save(5, parts(5), {"round_index": 3})


FILES = ["generator.safetensors", "optimizer_g.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_found_wherever_it_is(saved: Path, parts: Make, name: str, place: float, flip: int) -> None:
    path = saved / name
    content = path.read_bytes()
    changed = bytearray(content)
    changed[int(place * len(content))] ^= flip
    path.write_bytes(bytes(changed))
    try:
        checkpoint = open_checkpoint(saved)
    except CheckpointError:
        pass
    else:  # one white space for another between the words of the manifest
        assert name == "manifest.json"
        assert json.loads(changed) == json.loads(content)
        assert holds(checkpoint, parts(5))
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_found(saved: Path, name: str, place: float) -> None:
    path = saved / name
    content = path.read_bytes()
    kept = int(place * len(content))
    if name.endswith(".json"):
        kept = min(kept, len(content.rstrip()) - 1)  # the line's end says nothing
    path.write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=rf"{name}: (cannot be read|{kept} bytes, {len(content)} were written)"):
        open_checkpoint(saved)
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_missing_and_grown_files_are_found(saved: Path, name: str) -> None:
    path = saved / name
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(saved)
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: missing"):
        open_checkpoint(saved)
    path.mkdir()
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(saved)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    changed = change(manifest)
    path.write_text(json.dumps(manifest if changed is None else changed))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format="another-checkpoint"),
        lambda m: m.update(version=2),
        lambda m: m.update(version="1"),
        lambda m: m.pop("files"),
        lambda m: m.update(files=["state.json"]),
        lambda m: m.update(files={}),
        lambda m: m["files"].pop("state.json"),
        lambda m: m["files"]["state.json"].pop("bytes"),
        lambda m: m["files"]["state.json"].pop("sha256"),
        lambda m: m["files"].update({"state.json": None}),
        lambda m: m["files"].update({"state.json": 12}),
        lambda m: [m],
        lambda m: "manifest",
        lambda m: {},
    ],
)
def test_a_foreign_or_mangled_manifest_is_refused(saved: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=str(saved)):
        open_checkpoint(saved)


@pytest.mark.parametrize("name", ["../outside", "sub/../state.json", "/etc/hostname", "..", ".", "", "sub/inside"])
def test_a_manifest_cannot_point_out_of_its_folder(saved: Path, name: str) -> None:
    (saved.parent / "outside").write_text("x")
    (saved / "sub").mkdir()
    (saved / "sub" / "inside").write_text("x")
    target = saved / name
    content = target.read_bytes() if target.is_file() else b"x"
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite(saved, lambda m: m["files"].update({name: entry}))
    with pytest.raises(CheckpointError):
        open_checkpoint(saved)


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for content in (b"", b"\x80\x04\x95 a pickle", b"\xff" * 64, (2**60).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=str(path)):
            read_weights(path)
    with pytest.raises(CheckpointError, match="absent"):
        read_weights(tmp_path / "absent")


# --- a run's checkpoints -----------------------------------------------------------------------------------------


def damage(folder: Path) -> None:
    path = folder / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, parts: Make) -> None:
    store = CheckpointStore(tmp_path, keep=5)
    for position in (100, 200, 300):
        store.save(position, parts(position), {})
    damage(tmp_path / "000000300")
    warnings: list[str] = []
    checkpoint = store.newest(warnings.append)
    assert checkpoint is not None
    assert checkpoint.images_seen == 200
    assert holds(checkpoint, parts(200))
    assert len(warnings) == 1
    assert "000000300/generator.safetensors" in warnings[0]
    assert (tmp_path / "000000300").is_dir(), "nothing is thrown away"


def test_none_whole_is_an_error_and_none_at_all_is_not(tmp_path: Path, parts: Make) -> None:
    store = CheckpointStore(tmp_path / "run", keep=5)
    assert store.newest(ignore) is None
    for position in (100, 200):
        damage(store.save(position, parts(position), {}))
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoint\(s\) is whole"):
        store.newest(ignore)


def test_the_newest_are_kept_by_number_not_by_name(tmp_path: Path, parts: Make) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for position in (999_999_999, 1_000_000_000, 10_000_000_000):  # the last two are longer than nine digits
        store.save(position, parts(1), {})
        assert (tmp_path / "latest").read_text() == f"{position:09d}\n"
    assert store.names() == ["1000000000", "10000000000"]
    newest = store.newest(ignore)
    assert newest is not None
    assert newest.images_seen == 10_000_000_000
    assert not list(tmp_path.glob(".*"))


def test_a_position_may_be_saved_again(tmp_path: Path, parts: Make) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    store.save(100, parts(1), {})
    store.save(100, parts(2), {})
    newest = store.newest(ignore)
    assert newest is not None
    assert holds(newest, parts(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000100", "latest"]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_checkpoint_never_pushes_out_a_whole_one(tmp_path: Path, parts: Make, keep: int) -> None:
    """A run that fell back to 100 and stops at 150 still has the damaged 200 before it."""
    store = CheckpointStore(tmp_path, keep)
    CheckpointStore(tmp_path, 2).save(100, parts(100), {})
    CheckpointStore(tmp_path, 2).save(200, parts(200), {})
    damage(tmp_path / "000000200")
    store.save(150, parts(150), {})
    newest = store.newest(ignore)
    assert newest is not None
    assert newest.images_seen == 150
    store.save(250, parts(250), {})
    assert store.names() == ["000000200", "000000250"][-keep:]


def test_leftovers_are_swept_and_a_replaced_checkpoint_is_put_back(tmp_path: Path, parts: Make) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    store.save(100, parts(100), {})
    store.save(200, parts(200), {})
    (tmp_path / "000000200").rename(tmp_path / ".000000200.replaced.part")  # killed before its successor came
    shutil.copytree(tmp_path / "000000100", tmp_path / ".000000100.replaced.part")  # killed after its successor came
    (tmp_path / ".000000300.4711.part").mkdir()
    (tmp_path / ".000000300.4711.part" / "generator.safetensors").write_bytes(b"half")
    (tmp_path / ".000000050.dropped.part").mkdir()
    (tmp_path / ".latest.4711.part").write_text("000000300\n")
    newest = store.newest(ignore)
    assert newest is not None
    assert newest.images_seen == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000100", "000000200", "latest"]


def test_a_link_that_was_never_put_in_place_is_swept(tmp_path: Path, parts: Make) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    store.save(100, parts(1), {"best": {"images_seen": 100}})
    (tmp_path / ".best.123.part").symlink_to("checkpoints/000000100")
    store.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "checkpoints"]


def test_a_save_sweeps_up_after_one_that_failed(tmp_path: Path, parts: Make) -> None:
    """Within one session nobody looks for the newest checkpoint in between."""
    store = CheckpointStore(tmp_path, keep=3)
    store.save(100, parts(100), {})
    (tmp_path / "000000100").rename(tmp_path / ".000000100.replaced.part")
    (tmp_path / ".000000200.4711.part").mkdir()
    store.save(200, parts(200), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000100", "000000200", "latest"]


def test_other_files_in_the_folder_are_no_checkpoints(tmp_path: Path, parts: Make) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    (tmp_path / "best").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    store.save(100, parts(100), {})
    store.save(200, parts(200), {})
    assert store.names() == ["000000200"]
    assert (tmp_path / "best").is_dir()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_tensors_on_the_way_to_the_disk_are_not_changed(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(3))
    held: dict[str, Tensor] = {"weight": weight}
    CheckpointStore(tmp_path, keep=1).save(1, {"part": Part(held)}, {})
    assert held["weight"] is weight
    assert weight.requires_grad


def test_what_a_shared_file_system_shows_late_is_waited_for(
    tmp_path: Path, parts: Callable[[int], dict[str, Part]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 has published it; on another node the folder, and then one of its files, is not there yet."""
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    whole = store.save(100, parts(1), {"number": 1})
    hidden, file = tmp_path / "hidden", whole / "generator.safetensors"
    file.rename(hidden)
    whole.rename(tmp_path / "late")
    looked: list[float] = []

    def appear(seconds: float) -> None:
        looked.append(seconds)
        if len(looked) == 2:
            (tmp_path / "late").rename(whole)
        if len(looked) == 4:
            hidden.rename(file)

    monkeypatch.setattr(checkpoint_module.time, "sleep", appear)
    assert store.open("000000100").state["number"] == 1
    assert len(looked) == 4
    monkeypatch.setattr(checkpoint_module, "VISIBLE_SECONDS", -1.0)
    with pytest.raises(CheckpointError, match="missing"):
        store.open("000000200")

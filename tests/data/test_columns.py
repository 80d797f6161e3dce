"""The arrays of an index: mapped, not copied; light to send; never those of another file."""

import json
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pictures import opened

from gandist.data.shards import columns
from gandist.data.shards.columns import Arrays, Columns, parse, pieces
from gandist.data.shards.index import Index, Shard, keep
from gandist.data.shards.index_files import INDEX_NAME, TENSORS_NAME, load_index, read_index, write_index
from gandist.errors import DataError

DIGEST = "1498329558b2473295bc840993c53e2f4f1c45fec1614f269984d5509f2b8dbe"


def index_of(samples: int, shards: int = 10) -> Index:
    each = samples // shards
    return Index(
        shards=tuple(Shard(f"a{k}.tar", 10**6, each, None) for k in range(shards)),
        resolution=8,
        channels=3,
        image_ext=("npy",),
        class_names=("a", "b", "é"),
        source="s",
        label_source="cls",
        transform={},
        rejected=(),
        offset=np.arange(samples, dtype=np.int64) * 700 % 10**6 // 2,
        size=np.full(samples, 320, np.int32),
        label=(np.arange(samples) % 3).astype(np.int32),
    )


def test_digests_never_change() -> None:
    index = index_of(1000)
    index.offset[:] = np.arange(1000) * 700
    assert index.digest == DIGEST, "every run in progress would refuse its own data"


def test_from_a_file_and_from_bytes_it_is_the_same(shards: Path) -> None:
    mapped = read_index(shards)
    held = load_index((shards / INDEX_NAME).read_bytes(), (shards / TENSORS_NAME).read_bytes(), "afar")
    assert mapped.digest == held.digest
    for name in Arrays._fields:
        assert (getattr(mapped, name) == getattr(held, name)).all()
        assert not getattr(mapped, name).flags.writeable
    for index in (mapped, held):
        copy = pickle.loads(pickle.dumps(index.columns))  # noqa: S301 - how a worker gets it
        assert (copy.arrays().offset == index.offset).all()


def test_what_travels_to_a_worker_does_not_grow_with_the_set(tmp_path: Path) -> None:
    sizes = []
    for samples in (1000, 200_000):
        folder = tmp_path / str(samples)
        folder.mkdir()
        index = index_of(samples)
        write_index(index, folder)
        for shard in index.shards:
            (folder / shard.url).touch()
            with (folder / shard.url).open("r+b") as file:
                file.truncate(shard.bytes)
        for classes in (None, (0, 2)):
            images = opened(folder, classes=classes)
            images._in_index(np.arange(9))  # type: ignore[attr-defined]
            images._order.locate(np.arange(9))  # type: ignore[attr-defined]
            sizes.append(len(pickle.dumps(images)))
    assert max(sizes) < min(sizes) + 1000, sizes


def test_opening_a_set_copies_nothing(tmp_path: Path) -> None:
    index = index_of(2_000_000)
    write_index(index, tmp_path)
    tracemalloc.start()
    try:
        mapped = load_index((tmp_path / INDEX_NAME).read_bytes(), tmp_path / TENSORS_NAME, "here")
        kept = keep(mapped, None)
        assert mapped.digest == index.digest
        assert kept.class_counts == index.class_counts
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 200_000, "16 bytes a sample would be 32 MB"


def test_passes_over_a_set_are_cut_into_pieces(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, filtered = opened(shards), opened(shards, classes=(0, 2))
    expected = [images.read(np.arange(31))[0].tobytes() for images in (plain, filtered)]
    monkeypatch.setattr(columns, "_PIECE", 5)
    assert [p.start for p in pieces(12)] == [0, 5, 10]
    again = [opened(shards), opened(shards, classes=(0, 2))]
    assert [images.class_counts for images in again] == [plain.class_counts, filtered.class_counts]
    assert [images.read(np.arange(31))[0].tobytes() for images in again] == expected


def test_another_file_in_its_place_is_noticed(shards_copy: Path, tmp_path: Path) -> None:
    images = opened(shards_copy)
    sent = pickle.dumps(images)
    path = shards_copy / TENSORS_NAME
    images.read(np.arange(3))
    shutil.copy(path, tmp_path / "other")
    path.unlink()
    with pytest.raises(DataError, match=r"index\.safetensors: cannot be read"):
        pickle.loads(sent).read(np.arange(3))  # noqa: S301
    (tmp_path / "other").rename(path)
    with pytest.raises(DataError, match="was replaced since this run started"):
        pickle.loads(sent).read(np.arange(3))  # noqa: S301
    images.read(np.arange(3))


def tensors(header: object, body: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


FINE = {
    "offset": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]},
    "size": {"dtype": "I32", "shape": [2], "data_offsets": [16, 24]},
    "label": {"dtype": "I32", "shape": [2], "data_offsets": [24, 32]},
}


def changed(**label: object) -> dict[str, object]:
    return FINE | {"label": FINE["label"] | label}


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "not a safetensors file"),
        (b"\xff" * 8, "not a safetensors file"),
        (tensors(b"{"), "not a safetensors file"),
        (tensors(b"[" * 60_000), "not a safetensors file"),
        (tensors(b" " * 70_000), "not a safetensors file"),
        (tensors([]), "lacks the array 'offset'"),
        (tensors(FINE | {"label": 3}), "lacks the array 'label'"),
        (tensors(changed(dtype="I64")), "'label' is I64"),
        (tensors(changed(shape=[2, 1])), "of shape [2, 1]"),
        (tensors(changed(shape=[True])), "of shape [True]"),
        (tensors(changed(shape=[-2])), "of shape [-2]"),
        (tensors(changed(data_offsets=[24, 33])), "cannot lie at [24, 33]"),
        (tensors(changed(data_offsets=[60, 68])), "cannot lie at [60, 68]"),
        (tensors(changed(data_offsets=[-8, 0])), "cannot lie at [-8, 0]"),
        (tensors(changed(data_offsets="ab")), "cannot lie at ab"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(raw: bytes, complaint: str) -> None:
    assert parse(tensors(FINE), "here").label.tolist() == [0, 0]
    with pytest.raises(DataError) as caught:
        parse(raw, "here")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("here: ")


def test_only_some_of_very_many_shards_are_looked_at(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    monkeypatch.setattr("gandist.data.shards.index_files._SHARDS_LOOKED_AT", 2)
    monkeypatch.setattr("gandist.data.shards.index_files._check_shard", lambda path, shard: looked.append(path))
    read_index(shards)
    assert [path.name for path in looked] == ["shard-000000.tar", "shard-000002.tar"]


def test_columns_in_memory_travel_whole() -> None:
    arrays = Arrays(np.arange(3), np.arange(3, dtype=np.int32), np.zeros(3, dtype=np.int32))
    assert pickle.loads(pickle.dumps(Columns(arrays))).arrays().offset.tolist() == [0, 1, 2]  # noqa: S301

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from pictures import everything_under, opened
from safetensors.numpy import load_file, save

from gandist.data.shards.index import keep
from gandist.data.shards.index_files import INDEX_NAME, TENSORS_NAME, read_index, write_index
from gandist.errors import DataError


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_agrees_with_webdatasets_own_reading(shards: Path) -> None:
    index = read_index(shards)
    urls = [str(shards / shard.url) for shard in index.shards]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False))
    gc.collect()
    assert len(theirs) == index.samples == 53
    shard_of = np.repeat(np.arange(len(urls)), index.counts)
    for number, sample in enumerate(theirs):
        raw = Path(urls[shard_of[number]]).read_bytes()
        start = int(index.offset[number])
        assert raw[start : start + int(index.size[number])] == sample["npy"]
        assert int(sample["cls"]) == index.label[number]
        assert sample["__key__"] == f"{number:09d}"


def test_what_is_written_is_read(shards: Path, tmp_path: Path) -> None:
    index = read_index(shards)
    for shard in index.shards:
        (tmp_path / shard.url).hardlink_to(shards / shard.url)
    write_index(index, tmp_path)
    again = read_index(tmp_path)
    assert again.digest == index.digest
    assert (again.shards, again.class_names, again.transform) == (index.shards, index.class_names, index.transform)
    assert (again.label == index.label).all()
    assert index.class_counts == (20, 22, 11)
    assert everything_under(tmp_path)[INDEX_NAME] == (shards / INDEX_NAME).read_bytes()


def change(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(fields)


def shard_field(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["shards"][1].update(fields)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (change(format="other"), "is not an index of gandist"),
        (change(version=2), "has version 2, this gandist reads version 1"),
        (change(samples=52), "its shards hold 53 samples, it says 52"),
        (change(samples=-1), "'samples' is '-1' where a int belongs"),
        (change(samples=True), "'samples' is 'True'"),
        (change(resolution="8"), "'resolution' is '8' where a int belongs"),
        (change(resolution=0), "'resolution' is 0"),
        (change(channels=2), "'channels' is 2, not 1 or 3"),
        (change(class_names=["cat"]), "labels run from 0 to 2, with 1 classes"),
        (change(class_names=[1, 2, 3]), "'class_names' contains 1"),
        (change(image_ext=["pyd"]), "'image_ext' is ('pyd',)"),
        (change(shards={}), "'shards' is '{}' where a list belongs"),
        (change(shards=["a.tar"]), "'shards' contains 'a.tar'"),
        (change(tensors_sha256="0" * 64), "is damaged or belongs to another index"),
        (shard_field(url="../x.tar"), "'../x.tar' is not a path inside"),
        (shard_field(url="a/../../x.tar"), "'a/../../x.tar' is not a path inside"),
        (shard_field(url="/etc/passwd"), "'/etc/passwd' is not a path inside"),
        (shard_field(url="pipe:cat x"), "'pipe:cat x' is not a path inside"),
        (shard_field(url="https://example.org/a.tar"), "is not a path inside"),
        (shard_field(url=""), "'' is not a path inside"),
        (shard_field(url="gone.tar"), "gone.tar: the index lists this shard, but it cannot be read"),
        (shard_field(bytes=10240), "lies outside its shard"),
        (shard_field(bytes=1 << 40), "the shard changed since it was indexed"),
        (shard_field(samples=1), "its shards hold 40 samples, it says 53"),
        (shard_field(sha256=5), "'sha256' is '5'"),
    ],
)
def test_a_wrong_description_is_refused(
    shards_copy: Path, edit: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    path = shards_copy / INDEX_NAME
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    before = everything_under(shards_copy)
    with pytest.raises(DataError) as caught:
        opened(shards_copy)
    assert complaint in str(caught.value)
    assert str(shards_copy) in str(caught.value)
    assert everything_under(shards_copy) == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is damaged, not JSON"),
        (b'{"format": "gandist-ind', "is damaged, not JSON"),
        (b"\xff\xfe", "is damaged, not JSON"),
        (b"[" * 100_000, "is damaged, not JSON"),
        (b"[]", "is not an index of gandist"),
    ],
)
def test_a_damaged_description_is_refused(shards_copy: Path, content: bytes, complaint: str) -> None:
    (shards_copy / INDEX_NAME).write_bytes(content)
    with pytest.raises(DataError) as caught:
        opened(shards_copy)
    assert complaint in str(caught.value)


def test_every_damaged_byte_of_the_arrays_is_noticed(shards_copy: Path) -> None:
    path = shards_copy / TENSORS_NAME
    raw = path.read_bytes()
    for at in range(0, len(raw), 41):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(DataError, match="SHA-256"):
            opened(shards_copy)
    path.write_bytes(raw[:-1])
    with pytest.raises(DataError, match="SHA-256"):
        opened(shards_copy)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        opened(shards_copy)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda arrays: arrays.pop("label"), "lacks the array 'label'"),
        (lambda arrays: arrays.update(label=arrays["label"].astype(np.float32)), "'label' is F32"),
        (lambda arrays: arrays.update(size=arrays["size"].reshape(1, -1)), "of shape [1, 53]"),
        (lambda arrays: arrays.update(size=arrays["size"][1:]), "its arrays have"),
        (lambda arrays: arrays.update(label=arrays["label"] - 2), "labels run from -2 to 0"),
        (lambda arrays: arrays.update(offset=arrays["offset"] - 10**6), "sample 0 lies outside its shard"),
        (lambda arrays: arrays.update(size=arrays["size"] * 0), "sample 0 lies outside its shard"),
        (lambda arrays: arrays.update(offset=arrays["offset"] + 2**62), "sample 0 lies outside its shard"),
    ],
)
def test_wrong_arrays_are_refused(shards_copy: Path, edit: Callable[[dict[str, Any]], None], complaint: str) -> None:
    import hashlib

    arrays = load_file(shards_copy / TENSORS_NAME)
    edit(arrays)
    raw = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    (shards_copy / TENSORS_NAME).write_bytes(raw)
    content = json.loads((shards_copy / INDEX_NAME).read_text())
    (shards_copy / INDEX_NAME).write_text(json.dumps(content | {"tensors_sha256": hashlib.sha256(raw).hexdigest()}))
    with pytest.raises(DataError) as caught:
        opened(shards_copy)
    assert complaint in str(caught.value)


def test_what_is_not_there_is_named(shards_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder.*gandist prepare SOURCE"):
        opened(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no index\.json"):
        opened(tmp_path / "empty")
    with pytest.raises(DataError, match="is a file"):
        opened(shards_copy / INDEX_NAME)
    (shards_copy / INDEX_NAME).unlink()
    with pytest.raises(DataError, match=r"holds tar files but no index\.json"):
        opened(shards_copy)


def test_a_changed_or_missing_shard_is_named(shards_copy: Path) -> None:
    shard = shards_copy / "shard-000002.tar"
    os.truncate(shard, shard.stat().st_size - 512)
    with pytest.raises(DataError, match=r"shard-000002\.tar: has \d+ bytes, the index recorded"):
        opened(shards_copy)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-000002\.tar: the index lists this shard"):
        opened(shards_copy)


def test_the_filter_keeps_exactly_its_classes(shards: Path) -> None:
    index = read_index(shards)
    kept = keep(index, (2, 0, 2))
    assert kept.class_names == ("cat", "emu")
    assert kept.class_counts == (20, 11)
    samples = kept.samples(index.label)
    assert int(kept.counts.sum()) == len(samples) == 31
    assert (index.label[samples] == np.array([0, 2])[kept.labels(index.label[samples])]).all()
    shard = np.searchsorted(np.cumsum(index.counts), samples, side="right")
    assert np.bincount(shard, minlength=4).tolist() == kept.counts.tolist()
    everything = keep(index, None)
    assert everything.samples(index.label).tolist() == list(range(53))
    assert (everything.labels(index.label) == index.label).all()


def test_the_filter_names_what_it_lacks(shards: Path) -> None:
    index = read_index(shards)
    with pytest.raises(DataError, match=r"names \[3, 7\], but the classes are 0 to 2 \(0 = cat, 1 = dog, 2 = emu\)"):
        keep(index, (7, 1, 3))
    with pytest.raises(DataError, match="is empty"):
        keep(index, ())

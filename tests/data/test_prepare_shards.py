"""Shards that somebody else made as a source: labels in their samples, images of any size, names of any kind."""

import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from pictures import everything_under, opened, picture, png, tar_of
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_iterator

from gandist.data.making.pixels import Recipe, make
from gandist.data.making.prepare import Summary, prepare
from gandist.data.making.shard_file import ShardFile
from gandist.data.shards.index_files import read_index
from gandist.data.shards.scan import samples
from gandist.errors import ConfigError, DataError


def prepared(source: Path | str, destination: Path, **options: Any) -> Summary:
    return prepare(str(source), destination, **{"resolution": 8, "workers": 0, **options})


def jpeg(size: tuple[int, int], seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(size, seed=seed).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def written(folder: Path, shards: Iterable[Iterable[Mapping[str, Any]]]) -> Path:
    """Write shards with WebDataset's own writer."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(shards):
        with webdataset.TarWriter(str(folder / f"{number:05d}.tar")) as shard:
            for sample in content:
                shard.write(sample)
    return folder


def as_webdataset_reads(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        return list(group_by_keys({**member, "__url__": ""} for member in tar_file_iterator(file)))


SIZES = [(8, 8), (20, 9), (9, 31), (64, 48)]


@pytest.fixture
def with_cls(tmp_path: Path) -> Path:
    """Two shards of images of mixed sizes, numbered alike in each, with class numbers 0, 1 and 3."""
    return written(tmp_path / "cls", [
        [{"__key__": f"{i:04d}", "jpg": jpeg(SIZES[i % 4], 10 * shard + i), "cls": [0, 1, 3][i % 3]} for i in range(9)]
        for shard in range(2)
    ])  # fmt: skip


def test_class_numbers_in_the_samples(tmp_path: Path, with_cls: Path) -> None:
    summary = prepared(with_cls, tmp_path / "d")
    assert summary.class_counts == {"0": 6, "1": 6, "2": 0, "3": 6}, "a number keeps its meaning"
    assert summary.source == "00000.tar, 00001.tar"
    assert "sizes in the source: 8x8 to 64x48 px, the median" in str(summary)
    index = read_index(tmp_path / "d")
    recipe = Recipe(8, 3, "crop", "lanczos", "npy", 95, False)
    expected = set()
    for number in range(2):
        for sample in as_webdataset_reads(with_cls / f"{number:05d}.tar"):
            image = Image.open(io.BytesIO(sample["jpg"]))
            made = make(_Bytes(sample["jpg"]), recipe)  # type: ignore[arg-type]
            assert isinstance(made, bytes), image.size
            expected.add((made, int(sample["cls"])))
    raw = (tmp_path / "d" / "shard-000000.tar").read_bytes()
    found = {
        (raw[at : at + size], label)
        for at, size, label in zip(index.offset.tolist(), index.size.tolist(), index.label.tolist(), strict=True)
    }
    assert found == expected
    assert len(found) == 18


class _Bytes:
    """An image in memory."""

    def __init__(self, content: bytes) -> None:
        self.read = lambda: content


@pytest.mark.parametrize("pattern", ["{00000..00001}.tar", "0000*.tar", "{00000,00001}.tar", "00000.tar,{d}/00001.tar"])
def test_patterns_name_shards(tmp_path: Path, with_cls: Path, pattern: str) -> None:
    prepared(f"{with_cls}/{pattern.replace('{d}', str(with_cls))}", tmp_path / "pattern")
    prepared(with_cls, tmp_path / "folder")
    assert everything_under(tmp_path / "pattern") == everything_under(tmp_path / "folder")


def test_labels_may_be_left_out(tmp_path: Path, with_cls: Path) -> None:
    assert prepared(with_cls, tmp_path / "d", label="none").class_counts == {}
    assert prepared("glyphs:5", tmp_path / "g", label="none").class_counts == {}


def img2dataset(folder: Path) -> Path:
    """Shards and their companions as img2dataset writes them: jpg, txt and json in a sample; parquet beside."""
    written(folder, [[
        {
            "__key__": f"{shard:05d}{i:04d}", "jpg": jpeg((12 + i, 10), i), "txt": f"a caption {i}",
            "json": {"key": f"{i}", "label": ["dog", "cat"][i % 2], "number": i % 2, "width": 12 + i},
        } for i in range(6)
    ] for shard in range(2)])  # fmt: skip
    for shard in range(2):
        (folder / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        (folder / f"{shard:05d}_stats.json").write_text("{}")
    return folder


def test_what_img2dataset_writes(tmp_path: Path) -> None:
    source = img2dataset(tmp_path / "laion")
    plain = prepared(source, tmp_path / "plain")
    assert (plain.images, plain.class_counts) == (12, {})
    assert plain.skipped == {".parquet files": 2, ".json files": 2 + 12, ".txt files": 12}
    named = prepared(source, tmp_path / "named", label="json:label")
    assert named.class_counts == {"cat": 6, "dog": 6}
    assert named.skipped == {".parquet files": 2, ".json files": 2}
    assert prepared(source, tmp_path / "numbered", label="json:number").class_counts == {"0": 6, "1": 6}
    assert prepared(source, tmp_path / "one", label="json:label", classes=["cat"]).class_counts == {"cat": 6}


def test_own_shards_can_be_prepared_again(tmp_path: Path, photos: Path) -> None:
    for format in ("npy", "png"):
        first, second = tmp_path / f"{format}1", tmp_path / f"{format}2"
        prepared(photos, first, format=format)
        again = prepared(first, second, resolution=4)
        assert again.class_counts == {"cat": 20, "dog": 22, "emu": 11}, "the names come from the index"
        assert opened(second, resolution=4).class_names == ("cat", "dog", "emu")
    prepared("glyphs:9", tmp_path / "u", label="none")
    assert prepared(tmp_path / "u", tmp_path / "v", resolution=4).class_counts == {}


def test_folders_inside_shards(tmp_path: Path) -> None:
    for label, expected in [("auto", {"a": 2, "b": 1}), ("folder", {"x": 1, "y": 2}), ("none", {})]:
        members = {"a/x/1.png": png(1), "a/y/2.png": png(2), "b/y/3.png": png(3)}
        path = tar_of(tmp_path / "t.tar", members)
        assert prepared(path, tmp_path / label, label=label).class_counts == expected


def test_a_sample_without_a_label_is_rejected_and_one_without_an_image_skipped(tmp_path: Path) -> None:
    members = {"1.png": png(1), "1.cls": b"0", "2.png": png(2), "2.cls": b"x", "3.cls": b"1", "4.png": png(4)}
    path = tar_of(tmp_path / "t.tar", members)
    with pytest.raises(DataError, match=r"2 of 3 images cannot be used(.|\n)*2\.png: has b'x' as its cls"):
        prepared(path, tmp_path / "d")
    summary = prepared(path, tmp_path / "d", max_rejected=2)
    assert summary.reasons == {"without a label": 2}
    assert summary.skipped == {"samples without an image": 1}
    assert "2 rejected: 2 without a label" in str(summary)


def test_several_images_in_a_sample_must_be_chosen_from(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "t.tar", {"1.jpg": jpeg((9, 9), 1), "1.png": png(2), "1.cls": b"0"})
    with pytest.raises(DataError, match=r"'1' has several images \(jpg, png\)\. Say which to take: --image jpg"):
        prepared(path, tmp_path / "d")
    prepared(path, tmp_path / "d", image="png")
    assert opened(tmp_path / "d").read(np.arange(1))[0][0].tolist() == np.asarray(picture(seed=2)).tolist()


@pytest.mark.parametrize(
    ("label", "kind", "complaint"),
    [
        ("json:labl", DataError, r"Not one label can be read with --label json:labl(.|\n)*Did you mean 'label'"),
        ("json", ConfigError, "say which key of the JSON"),
        ("cls", DataError, "Not one label can be read with --label cls"),
        ("a b", ConfigError, "is no source of labels"),
    ],
)
def test_labels_that_cannot_be_are_refused(tmp_path: Path, label: str, kind: type[Exception], complaint: str) -> None:
    source = img2dataset(tmp_path / "s")
    with pytest.raises(kind, match=complaint):
        prepared(source, tmp_path / "d", label=label)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_other_refusals(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(DataError, match=r"--label cls is for the samples in \.tar shards"):
        prepared(photos, tmp_path / "d", label="cls")
    with pytest.raises(ConfigError, match="glyphs has labels of its own"):
        prepared("glyphs:3", tmp_path / "d", label="cls")
    with pytest.raises(DataError, match="gandist index"):
        prepared("https://example.org/{000..009}.tar", tmp_path / "d")
    with pytest.raises(DataError, match="no shard"):
        prepared(f"{tmp_path}/*.tar", tmp_path / "d")
    mixed = tar_of(
        tmp_path / "m.tar", {"1.png": png(1), "1.json": b'{"l": 1}', "2.png": png(2), "2.json": b'{"l": "a"}'}
    )
    with pytest.raises(DataError, match="some labels are numbers and some are names"):
        prepared(mixed, tmp_path / "d", label="json:l")
    torn = tar_of(tmp_path / "t.tar", {"1.png": png(1), "1.cls": b"1", "2.png": png(2), "1.json": b"{}"})
    with pytest.raises(DataError, match="stands apart"):
        prepared(torn, tmp_path / "d")
    os.truncate(mixed, 900)
    with pytest.raises(DataError, match="damaged at byte"):
        prepared(mixed, tmp_path / "d", label="json:l")


# --- the shards that prepare writes ---------------------------------------------------------------------------


def test_webdataset_reads_what_is_written(tmp_path: Path) -> None:
    images = [os.urandom(size) for size in (1, 511, 512, 513, 70_000)]
    shard = ShardFile(tmp_path / "s.tar", "png")
    for number, image in enumerate(images):
        shard.add(number + 999_999_990, image, number - 1)
    shard.close()
    found = as_webdataset_reads(tmp_path / "s.tar")
    assert [sample["png"] for sample in found] == images
    assert [sample.get("cls") for sample in found] == [None, b"0", b"1", b"2", b"3"]
    assert [sample["__key__"] for sample in found] == [str(number + 999_999_990) for number in range(5)]
    raw = (tmp_path / "s.tar").read_bytes()
    assert [raw[at : at + size] for at, size in zip(shard.offsets, shard.sizes, strict=True)] == images
    assert len(raw) == shard.bytes
    assert len(raw) % 10240 == 0
    assert [fields["png"].offset for _, fields in samples(tmp_path / "s.tar")] == shard.offsets


# --- held-out images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("validation", "held_out"), [(1, 1), (10, 10), (0.2, 11), (0.001, 1), (52, 52)])
def test_a_held_out_part(tmp_path: Path, photos: Path, validation: float, held_out: int) -> None:
    summary = prepared(photos, tmp_path / "d", validation=validation)
    prepared(photos, tmp_path / "whole")
    assert summary.parts == {"train": 53 - held_out, "validation": held_out}
    assert f"--data.shards {tmp_path}/d/train " in f"{summary.next_command} "
    parts = {name: contents(tmp_path / "d" / name) for name in ("train", "validation")}
    assert not set(parts["train"]) & set(parts["validation"])
    assert sorted(parts["train"] + parts["validation"]) == sorted(contents(tmp_path / "whole"))
    for name in parts:
        folder = tmp_path / "d" / name
        index = read_index(folder)
        assert index.class_names == ("cat", "dog", "emu"), "the same names and numbers in both"
        assert f"{name} part" in index.source
        assert (folder / "preview.png").is_file()
    assert {path.name for path in (tmp_path / "d").iterdir()} == {"train", "validation"}


def contents(folder: Path) -> list[tuple[bytes, int]]:
    index, found = read_index(folder), []
    shard = np.repeat(np.arange(len(index.shards)), index.counts)
    raw = [(folder / each.url).read_bytes() for each in index.shards]
    for number, at, size, label in zip(shard, index.offset, index.size, index.label, strict=True):
        found.append((raw[number][at : at + size], int(label)))
    return found


def test_the_held_out_part_depends_on_the_seed_and_not_on_the_number_of_images(tmp_path: Path, photos: Path) -> None:
    for name, options in {"a": {}, "b": {"max_images": 30}, "c": {"seed": 1}}.items():
        prepared(photos, tmp_path / name, validation=9, **options)
    a, b, c = (sorted(contents(tmp_path / name / "validation")) for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("validation", [0, -1, 1.5, float("nan"), float("inf"), 53, 100])
def test_held_out_parts_that_cannot_be(tmp_path: Path, photos: Path, validation: float) -> None:
    with pytest.raises(ConfigError, match="--validation"):
        prepared(photos, tmp_path / "d", validation=validation)
    assert list(tmp_path.iterdir()) == []


def test_rejected_images_are_named_in_their_part(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for number in range(40):
        picture(seed=number).save(tmp_path / "s" / f"{number}.png")
    for number in range(10):
        (tmp_path / "s" / f"bad{number}.png").write_text("x")
    prepared(tmp_path / "s", tmp_path / "d", validation=0.5, max_rejected=10)
    indexes = [read_index(tmp_path / "d" / name) for name in ("train", "validation")]
    assert [index.samples + len(index.rejected) for index in indexes] == [25, 25]
    assert len({entry["name"] for index in indexes for entry in index.rejected}) == 10


# --- every way of making square --------------------------------------------------------------------------------


def test_only_square_images(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name, size in {"right": (8, 8), "large": (16, 16), "wide": (9, 8), "small": (4, 4)}.items():
        picture(size).save(tmp_path / "s" / f"{name}.png")
    with pytest.raises(DataError, match=r"wide\.png: 9x8 px, not square(.|\n)*made so by --fit crop or --fit pad"):
        prepared(tmp_path / "s", tmp_path / "d", fit="reject")
    summary = prepared(tmp_path / "s", tmp_path / "d", fit="reject", max_rejected=2)
    assert summary.images == 2
    assert summary.reasons == {"not square": 1, "too small": 1}
    assert read_index(tmp_path / "d").transform["fit"] == "reject"


@pytest.mark.parametrize("fit", ["crop", "pad", "reject"])
@pytest.mark.parametrize("resample", ["lanczos", "box"])
def test_the_way_is_recorded(tmp_path: Path, photos: Path, fit: str, resample: str) -> None:
    prepared(photos, tmp_path / "d", fit=fit, resample=resample, resolution=4)
    transform = read_index(tmp_path / "d").transform
    assert (transform["fit"], transform["resample"]) == (fit, resample)


@pytest.mark.parametrize(("resolution", "expected"), [(64, "npy"), (65, "png")])
def test_small_images_are_raw(tmp_path: Path, resolution: int, expected: str) -> None:
    prepared("glyphs:2", tmp_path / "d", resolution=resolution)
    assert read_index(tmp_path / "d").image_ext == (expected,)


def test_json_beside_is_no_label_by_itself(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "t.tar", {"1.png": png(1), "1.json": json.dumps({"cls": 3}).encode()})
    assert prepared(path, tmp_path / "d").class_counts == {}

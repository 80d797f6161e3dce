"""Shards of every writer are read alike, and as webdataset itself reads them."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import png, tar_of
from writers import WRITERS, Sample, as_webdataset_reads

from gandist.data.shards.index import Index
from gandist.data.shards.index_files import load_index
from gandist.data.shards.scan import samples
from gandist.data.survey.survey import survey
from gandist.errors import DataError


def index_in(folder: Path) -> Index:
    return load_index((folder / "index.json").read_bytes(), folder / "index.safetensors", "index")


def indexed(folder: Path, **options: object) -> Index:
    """The index of the shards in a folder, as it is read again from its files."""
    out = folder.with_name(f"{folder.name} index")
    survey([str(folder)], out=out, workers=0, **options)  # type: ignore[arg-type]
    return index_in(out)


def content(folder: Path, index: Index) -> list[tuple[bytes, int]]:
    """The bytes and the label of every image, in the order of the index."""
    shard = np.repeat(np.arange(len(index.shards)), index.counts)
    raw = [(folder / each.url).read_bytes() for each in index.shards]
    places = zip(shard, index.offset.tolist(), index.size.tolist(), index.label.tolist(), strict=True)
    return [(raw[number][offset : offset + size], label) for number, offset, size, label in places]


def numbered(count: int, prefix: str = "") -> list[Sample]:
    return [(f"{prefix}{n:06d}", {"png": png(n), "cls": str(n % 3).encode()}) for n in range(count)]


LONG = {
    "short": "",
    "a folder": "train/",
    "over 100 bytes": "photographs/" * 9,
    "over 256 bytes": "photographs/" * 25,
    "unicode": "фотографии/猫/",
    "unicode over 100 bytes": "фотографии/" * 8,
}


@pytest.mark.parametrize(
    ("writer", "length"),
    [(w, length) for w in WRITERS for length in LONG if "ustar" not in w or length != "over 256 bytes"],
)
def test_every_writer_is_read_alike(tmp_path: Path, writer: str, length: str) -> None:
    given = numbered(7, LONG[length])
    (tmp_path / "s").mkdir()
    WRITERS[writer](tmp_path / "s" / "a.tar", given)
    index = indexed(tmp_path / "s")
    assert content(tmp_path / "s", index) == [(fields["png"], int(fields["cls"])) for _, fields in given]
    assert (index.label_source, index.class_names, index.image_ext) == ("cls", ("0", "1", "2"), ("png",))
    assert index.rejected == ()
    theirs = as_webdataset_reads(tmp_path / "s" / "a.tar")
    assert [(key.removeprefix("./"), fields) for key, fields in theirs] == given
    assert [key for key, _ in samples(tmp_path / "s" / "a.tar")] == [key for key, _ in theirs]


stems = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/.\n\r", exclude_categories=("Cs", "Cc")), max_size=9
)
stems = st.sampled_from(["a", "B", "", "é"]) | stems
fields = st.lists(st.sampled_from(["png", "PNG", "cls", "", "v1"]) | stems, max_size=3).map(".".join)
names = (
    st.tuples(st.lists(st.sampled_from(["a", "b.c", ".d", "__e__", "é", "_f"]), max_size=2), stems, fields)
    .map(lambda parts: "/".join([*parts[0], f"{parts[1]}.{parts[2]}"]))
    .filter(lambda name: "/." not in name)
)


@given(
    st.lists(st.tuples(names, st.binary(max_size=700)), max_size=8, unique_by=lambda member: member[0].lower()),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@settings(max_examples=200)
def test_any_names_are_grouped_as_webdataset_does(
    tmp_path_factory: pytest.TempPathFactory, content: list[tuple[str, bytes]], kind: int
) -> None:
    """But for samples that it tears in two. Hidden files in folders, samples called like the folder to it, are none."""
    path = tar_of(tmp_path_factory.mktemp("any") / "a.tar", dict(content), format=kind)
    theirs = as_webdataset_reads(path)
    keys = [key for key, _ in theirs]
    if len(set(keys)) < len(keys):
        with pytest.raises(DataError, match="stands apart"):
            list(samples(path))
        return
    raw = path.read_bytes()
    ours = [(k, {f: raw[m.offset : m.offset + m.size] for f, m in fields.items()}) for k, fields in samples(path)]
    assert ours == theirs


def test_a_larger_set_agrees_sample_by_sample(tmp_path: Path) -> None:
    folder = tmp_path / "big"
    folder.mkdir()
    for number, writer in enumerate(WRITERS.values()):
        writer(folder / f"{number:03d}.tar", numbered(300, f"{number}/"))
    index = indexed(folder)
    theirs = [fields for shard in sorted(folder.iterdir()) for _, fields in as_webdataset_reads(shard)]
    assert content(folder, index) == [(fields["png"], int(fields["cls"])) for fields in theirs]
    assert index.samples == len(theirs) == 300 * len(WRITERS)


def downloaded(count: int, first: int = 0) -> list[Sample]:
    """What img2dataset writes: an image, its caption, and all that is known of it."""

    def about(n: int) -> bytes:
        known = {
            "key": f"{n:09d}",
            "status": "success",
            "label": ["cat", "dog", "emu"][n % 3],
            "similarity": float("nan"),
        }
        return json.dumps({**known, "class": n % 4, "caption": None, "exif": {"a": [1, {"b": []}]}}).encode()

    return [(f"{n:09d}", {"jpg": png(n), "txt": b"a photo", "json": about(n)}) for n in range(first, first + count)]


def downloaded_shards(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        WRITERS["webdataset TarWriter"](folder / f"{number:05d}.tar", downloaded(10, 10 * number))
        (folder / f"{number:05d}_stats.json").write_text("{}")
        (folder / f"{number:05d}.parquet").write_bytes(b"PAR1")
    return folder


def test_sets_of_img2dataset(tmp_path: Path) -> None:
    folder = downloaded_shards(tmp_path / "laion")
    plain = indexed(folder)
    assert (plain.samples, plain.class_names, plain.label_source) == (30, (), None)
    assert [body for body, _ in content(folder, plain)] == [png(n) for n in range(30)]
    (tmp_path / "laion index").rename(tmp_path / "first")
    named = indexed(folder, label="json:label")
    assert (named.class_names, named.label_source) == (("cat", "dog", "emu"), "json:label")
    assert named.label.tolist() == [n % 3 for n in range(30)]
    (tmp_path / "laion index").rename(tmp_path / "second")
    counted = indexed(folder, label="json:class")
    assert (counted.class_names, counted.label.tolist()) == (("0", "1", "2", "3"), [n % 4 for n in range(30)])


def test_class_folders(tmp_path: Path) -> None:
    """Tars made by hand: the folder is the class, 10 comes after 9, and loose or single folders are none."""
    (tmp_path / "s").mkdir()
    for number, classes in enumerate((["10", "9"], ["2", "10"])):
        given = [(f"data/{name}/{n}", {"png": png(n)}) for name in classes for n in range(4)]
        WRITERS["tar with ./ and folders"](tmp_path / "s" / f"{number}.tar", given)
    index = indexed(tmp_path / "s")
    assert (index.label_source, index.class_names) == ("folder", ("2", "9", "10"))
    assert index.label.tolist() == [2] * 4 + [1] * 4 + [0] * 4 + [2] * 4
    for name, keys in {"one": ["a/1", "a/2"], "loose": ["a/1", "b/1", "2"], "none": ["1", "./2"]}.items():
        (tmp_path / name).mkdir()
        tar_of(tmp_path / name / "a.tar", {f"{key}.png": png() for key in keys})
        assert indexed(tmp_path / name).class_names == (), name
    with pytest.raises(DataError, match=r"sample '2' lies in no folder, so it has no class name; --label none"):
        survey([str(tmp_path / "loose")], out=tmp_path / "x", label="folder", workers=0)
    (tmp_path / "one index").rename(tmp_path / "before")
    assert indexed(tmp_path / "one", label="folder").class_names == ("a",)


def test_what_is_no_sample_is_counted(tmp_path: Path) -> None:
    """A description of the shard is a sample without image; what Finder and folders like __x__ leave is none at all."""
    (tmp_path / "s").mkdir()
    extra = {
        "__meta__.json": b"{}",
        "__x__/1.png": png(),
        ".DS_Store": b"",
        "a/._0.png": b"",
        "README": b"",
        "b.pkl": b"",
    }
    tar_of(tmp_path / "s" / "a.tar", {"0.png": png(5), "0.cls": b"0", **extra, "1.png": png(6), "1.CLS": b" 1\n"})
    summary = survey([str(tmp_path / "s")], out=tmp_path / "i", workers=0)
    assert summary.index.samples == 2
    assert summary.index.label.tolist() == [0, 1]
    assert summary.imageless == (2, ("__meta__", "b"))
    assert summary.skipped == {".json members": 1, ".pkl members": 1, "files that belong to no sample": 4}
    text = str(summary)
    assert "2 samples without image, skipped: '__meta__', 'b'" in text
    assert "4 files that belong to no sample" in text


def test_dots_in_names_and_the_choice_of_an_image(tmp_path: Path) -> None:
    """WebDataset cuts a name at its first dot, so what follows is the field."""
    (tmp_path / "s").mkdir()
    tar_of(tmp_path / "s" / "a.tar", {"b.c/0.v1.png": png(1), "b.c/0.input.cls": b"", "d/1.v2.png": png(2)})
    index = indexed(tmp_path / "s", label="none")
    assert [body for body, _ in content(tmp_path / "s", index)] == [png(1), png(2)]
    assert index.image_ext == ("png",)
    two = {"0.input.png": png(1), "0.target.png": png(2), "0.txt": b"", "1.target.png": png(4), "1.input.png": png(3)}
    (tmp_path / "two").mkdir()
    tar_of(tmp_path / "two" / "a.tar", two)
    with pytest.raises(
        DataError, match=r"sample '0' has several images: input\.png, target\.png\. Choose.*--image input"
    ):
        indexed(tmp_path / "two")
    index = indexed(tmp_path / "two", image="Target.PNG")
    assert [body for body, _ in content(tmp_path / "two", index)] == [png(2), png(4)]


def test_the_order_of_the_words_is_the_order_of_the_shards(tmp_path: Path) -> None:
    paths: Sequence[Path] = [tmp_path / "b" / "1.tar", tmp_path / "a" / "2.tar"]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        tar_of(path, {"0.png": png(number)})
    summary = survey([str(path) for path in paths], workers=0)
    assert (summary.lot.root, summary.lot.out) == (str(tmp_path), tmp_path)
    assert [shard.url for shard in index_in(tmp_path).shards] == ["b/1.tar", "a/2.tar"]
    with pytest.raises(DataError, match=r"a/2\.tar: is named 2 times"):
        survey([*map(str, paths), str(tmp_path / "a")], out=tmp_path / "x", workers=0)

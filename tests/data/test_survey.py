"""``gandist index``: what it decides, what it refuses and in which words, and that nothing is left behind."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import damage, labelled, refused, shards_of, surveyed
from pictures import everything_under, opened, picture, png
from PIL import Image

from gandist.data.shards.index_files import TENSORS_NAME, read_index
from gandist.data.survey.probe import Question, probe
from gandist.errors import ConfigError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# --- what is decided ---------------------------------------------------------------------------------------


def test_what_is_indexed_is_read_in_order_and_trained_on(three: Path) -> None:
    before = everything_under(three)
    summary = surveyed(three)
    assert {name: body for name, body in everything_under(three).items() if name.endswith(".tar")} == before
    images = opened(three)
    assert (images.samples, images.class_names, images.class_counts) == (15, ("0", "1", "2"), (5, 5, 5))
    pixels, labels = images.read(np.arange(15))
    expected = {(np.asarray(picture(seed=n)).tobytes(), n % 3) for n in range(15)}
    assert {(image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)} == expected
    text = str(summary)
    assert f"{three}: 15 images of 8x8x3 in 3 shard(s)" in text
    assert "3 classes from cls: 0 5, 1 5, 2 5" in text
    assert text.endswith(f"next: gandist train --data.shards {three} --data.resolution 8 --data.channels 3")


def test_processes_find_what_one_finds(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = surveyed(three, out=tmp_path / "one").index
    monkeypatch.setattr("gandist.data.survey.sweep._WORTH_A_POOL_BYTES", 1)
    two = surveyed(three, out=tmp_path / "two", workers=2).index
    assert everything_under(tmp_path / "one") == everything_under(tmp_path / "two")
    assert one.digest == two.digest
    (three / "001.tar").write_bytes(b"")
    (three / "002.tar").write_bytes(b"x")
    assert "2 of 3 shard(s) cannot be indexed" in refused(three, out=tmp_path / "three index", workers=2)


def test_an_index_is_never_replaced(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    surveyed(three)
    before = everything_under(three)
    assert "the index was there already, and is the same" in str(surveyed(three))
    assert "holds another index, and nothing is ever overwritten" in refused(three, label="none")
    (three / TENSORS_NAME).unlink()
    assert "holds another index" in refused(three)
    (three / TENSORS_NAME).write_bytes(before[TENSORS_NAME])
    assert everything_under(three) == before


def test_an_index_apart_names_the_root(three: Path, tmp_path: Path) -> None:
    three.chmod(0o555)
    try:
        summary = surveyed(three, out=tmp_path / "my index")
    finally:
        three.chmod(0o755)
    assert summary.next_command == (
        f"gandist train --data.shards '{tmp_path}/my index' --data.root {three} --data.resolution 8 --data.channels 3"
    )
    assert opened(tmp_path / "my index", root=str(three)).samples == 15


def test_a_folder_that_cannot_be_written_asks_for_another(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, as which tests often run, may write everywhere
    with pytest.raises(ConfigError, match=r"nothing can be written there\. Say where the index should go: --out"):
        surveyed(three)


def test_grey_and_coloured_images(tmp_path: Path) -> None:
    grey = {f"{n}.png": encoded(picture(channels=1, seed=n)) for n in range(3)}
    assert surveyed(shards_of(tmp_path / "grey", grey)).index.channels == 1
    others = {"3.png": encoded(picture(seed=9).quantize(8)), "4.jpeg": encoded(picture(seed=8), "JPEG")}
    mixed = {**grey, "2b.png": encoded(picture(seed=7).convert("1")), **others}
    index = surveyed(shards_of(tmp_path / "mixed", mixed), verify=True).index
    assert (index.channels, index.image_ext, index.samples) == (3, ("jpeg", "png"), 6)
    assert opened(tmp_path / "mixed").read(np.arange(6))[0].shape == (6, 8, 8, 3)
    raw = {f"{n}.npy": npy(np.full((8, 8, 1), n, dtype=np.uint8)) for n in range(3)}
    assert surveyed(shards_of(tmp_path / "raw", raw)).index.channels == 1
    assert "raw arrays of one channel" in refused(shards_of(tmp_path / "both", {**raw, "9.png": png()}))
    one = {**{f"{n}.npy": npy(np.asarray(picture(seed=n))) for n in range(2)}, "2.npy": raw["2.npy"]}
    assert "is a raw array with 1 channels, the first has 3" in refused(shards_of(tmp_path / "one", one))


UNFIT = {
    "rgba": (encoded(picture(channels=4)), "is transparent (RGBA)"),
    "palette": (encoded(picture().quantize(8), transparency=0), "is transparent (P)"),
    "cmyk": (encoded(picture().convert("CMYK"), "JPEG"), "is CMYK, neither RGB nor grey"),
    "deep": (encoded(Image.fromarray(np.zeros((8, 8), np.uint16))), "is I;16, neither RGB nor grey"),
    "large": (png(0, (9, 8)), "is 9x8 px, not 8x8"),
    "empty": (b"", "is empty"),
    "text": (b"hello" * 5000, "is no JPEG, PNG or WebP image"),
    "gif": (encoded(picture(), "GIF"), "is no JPEG, PNG or WebP image"),
    "array": (npy(np.zeros((8, 8, 3), np.float32)), "is float32 of shape (8, 8, 3)"),
    "flat": (npy(np.zeros((8, 8), np.uint8)), "is uint8 of shape (8, 8)"),
    "short": (npy(np.zeros((8, 8, 3), np.uint8))[:-1], "is a raw array of 319 bytes where its header promises 320"),
    "object": (b"\x93NUMPY\x01\x00\xff\xff{", "is a raw array that cannot be read"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_image_is_named_and_can_be_left_out(tmp_path: Path, name: str) -> None:
    body, why = UNFIT[name]
    folder = shards_of(tmp_path / "s", labelled(3), {"bad.png": body, "bad.cls": b"0", **labelled(2, 3)})
    message = refused(folder)
    assert "1 of 6 images cannot be trained on as they lie; 0 may be rejected. No index was written." in message
    assert f"001.tar: byte 512: 'bad' {why}" in message
    assert "gandist prepare SHARDS DESTINATION --resolution 8" in message
    assert "--max-rejected 1" in message
    summary = surveyed(folder, max_rejected=1)
    assert f"001.tar: 'bad' {why}" in str(summary)
    index = read_index(folder)
    assert index.samples == 5
    assert index.rejected[0]["shard"] == "001.tar"
    assert index.rejected[0]["key"] == "bad"
    assert str(index.rejected[0]["why"]).startswith(why)


def test_camera_notes_before_the_picture_do_not_hide_it(tmp_path: Path) -> None:
    noted = encoded(picture(), "JPEG", comment=b"x" * 40_000)
    assert surveyed(shards_of(tmp_path / "s", {"0.jpg": noted, "1.jpg": noted})).index.samples == 2


def test_many_unfit_images_are_counted_by_reason(tmp_path: Path) -> None:
    sizes = {f"a{n:03d}.png": png(n, (8 + n, 8)) for n in range(40)}
    folder = shards_of(tmp_path / "s", sizes, {f"b{n}.png": UNFIT["rgba"][0] for n in range(7)})
    message = refused(folder, max_rejected=3)
    assert "46 of 47 images cannot be trained on as they lie; 3 may be rejected" in message
    assert message.count("000.tar: byte") == 10
    assert "By reason: 39 another size, 7 transparent." in message
    found = probe(folder / "000.tar", "a", "a", Question(None, "none", False, 8, 3, False, False, rejected_kept=5))
    assert (len(found.rejected), found.kinds.total()) == (5, 39), "a worker remembers a few, however many there are"
    assert surveyed(folder, max_rejected=46).index.samples == 1
    assert len(read_index(folder).rejected) == 46


def test_the_first_image_decides_the_size_unless_told(tmp_path: Path) -> None:
    folder = shards_of(tmp_path / "s", {"0.png": png(0, (12, 9))}, {"1.png": png(1), "2.png": png(2)})
    message = refused(folder)
    assert "000.tar: byte 512: '0': the first image is 12x9 px, not square" in message
    assert "gandist prepare SHARDS DESTINATION --resolution R" in message
    assert surveyed(folder, resolution=8, max_rejected=1).index.resolution == 8
    assert "2x2 px, outside 4 to 4096" in refused(shards_of(tmp_path / "tiny", {"0.png": png(0, (2, 2))}))


def test_decoding_finds_what_headers_hide(tmp_path: Path) -> None:
    whole = encoded(picture((64, 64)))
    damaged = whole[:4000] + bytes(len(whole) - 4000)
    folder = shards_of(tmp_path / "s", {"0.png": whole, "1.png": damaged})
    assert surveyed(folder, out=tmp_path / "a").index.samples == 2
    assert "'1' cannot be decoded" in refused(folder, out=tmp_path / "b", verify=True)
    index = surveyed(folder, out=tmp_path / "b", verify=True, max_rejected=1).index
    assert index.samples == 1
    assert "cannot be decoded" in index.rejected[0]["why"]


# --- labels ------------------------------------------------------------------------------------------------


def test_names_for_numbers(three: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nemu\nfox\n")
    index = surveyed(three, class_names=names).index
    assert (index.class_names, index.class_counts) == (("cat", "dog", "emu", "fox"), (5, 5, 5, 0))
    for text, complaint in (
        ("cat\ndog\n", "holds 2 names, but there are labels up to 2"),
        ("cat\ndog\ncat\n", "'cat' is in line 1 and in line 3"),
        ("cat\n\ndog\n", "line 2 is '', which is no name"),
        ("", "holds 0 bytes where one name a line belongs"),
        ("c\udcff", "is not a text in UTF-8"),
    ):
        names.write_bytes(text.encode(errors="surrogateescape"))
        assert complaint in refused(three, ConfigError, class_names=names, out=tmp_path / "x")
    assert "cannot be read" in refused(three, ConfigError, class_names=tmp_path / "none.txt", out=tmp_path / "x")
    names.write_text("a\n")
    assert "the images get no labels" in refused(
        three, ConfigError, class_names=names, label="none", out=tmp_path / "x"
    )


def test_names_for_folders_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    folder = shards_of(tmp_path / "s", {"cat/0.png": png(0), "ape/1.png": png(1)}, {"dog/2.png": png(2)})
    assert surveyed(folder, out=tmp_path / "a").index.class_names == ("ape", "cat", "dog")
    names = tmp_path / "names.txt"
    names.write_text("dog\ncat\nape\n")
    index = surveyed(folder, out=tmp_path / "b", class_names=names).index
    assert (index.class_names, index.label.tolist()) == (("dog", "cat", "ape"), [1, 2, 0])
    names.write_text("dog\ncats\nape\n")
    message = refused(folder, ConfigError, out=tmp_path / "c", class_names=names)
    assert "--class-names lacks 'cat'. Did you mean 'cats'?" in message


@pytest.mark.parametrize(
    ("label", "members", "complaint"),
    [
        ("cls", {"a.png": png()}, "sample 'a' has no cls member, only 'png'; --label none goes without labels"),
        ("cls", {"a.png": png(), "a.cls": b"cat"}, "has b'cat' as its cls, where a class number belongs"),
        ("cls", {"a.png": png(), "a.cls": b"-1"}, "has b'-1' as its cls"),
        ("cls", {"a.png": png(), "a.cls": b"9" * 100_000}, "as its cls, where a class number belongs"),
        ("cls", {"a.png": png(), "a.cls": "\u0663".encode()}, "where a class number belongs"),
        ("cls", {"a.png": png(), "a.cls": b"1048576"}, "has 1048576 as its cls; class numbers run from 0 to 1048575"),
        ("json:label", {"a.png": png(), "a.json": b"{}"}, "has no 'label' in its json, which has nothing"),
        ("json:labl", {"a.png": png(), "a.json": b'{"label": 1}'}, "which has 'label'. Did you mean 'label'?"),
        ("json:a", {"a.png": png(), "a.json": b"[1]"}, "is a list, not an object with keys"),
        ("json:a", {"a.png": png(), "a.json": b'{"a": 1.5}'}, "has 1.5 under 'a' in its json"),
        ("json:a", {"a.png": png(), "a.json": b'{"a": true}'}, "has True under 'a'"),
        ("json:a", {"a.png": png(), "a.json": b'{"a": null}'}, "has None under 'a'"),
        ("json:a", {"a.png": png(), "a.json": b'{"a": [[1]]}'}, "has a list under 'a'"),
        ("json:a", {"a.png": png(), "a.json": b'{"a": "  "}'}, "a class name of 1 to 200 letters belongs"),
        ("json:a", {"a.png": png(), "a.json": b'{"a": %s}' % (b"9" * 5000)}, "has inf under 'a'"),
        ("json:a", {"a.png": png(), "a.json": b"[" * 200_000}, "nested too deeply"),
        ("json:a", {"a.png": png(), "a.json": b'{"a":' * 100_000}, "nested too deeply"),
        ("json:a", {"a.png": png(), "a.json": b'{"b": "%s", "a": 1}' % (b"x" * (1 << 20))}, "limit of 1048576"),
        ("json:a", {"a.png": png(), "a.json": b"\xff\xfe{"}, "json member that cannot be read"),
        ("folder", {"a.png": png()}, "lies in no folder"),
        ("json:a", {"a.png": png(), "a.json": b'{"a": 1}', "b.png": png(), "b.json": b'{"a": "c"}'}, "cannot be mixed"),
        ("auto", {"a.png": png(), "b.png": png(), "b.cls": b"1"}, "Choose --label cls or --label none"),
        ("auto", {"a.png": png(), "a.cls": b"1", "b.png": png()}, "sample 'b' has no cls member"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_are_refused(
    tmp_path: Path, label: str, members: dict[str, bytes], complaint: str
) -> None:
    assert complaint in refused(shards_of(tmp_path / "s", members), label=label)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"label": "json"}, "say which key of the JSON holds the label"),
        ({"label": "no ne"}, "is no source of labels. Did you mean 'none'?"),
        ({"image": "gif"}, "--image gif: is no kind of image"),
        ({"image": "input.wepb"}, "Did you mean 'webp'?"),
        ({"resolution": 2}, "--resolution 2: must be from 4 to 4096"),
        ({"max_rejected": -1}, "--max-rejected -1: must be at least 0"),
        ({"workers": -1}, "--workers -1: must be from 0"),
        ({"out": Path("/dev/null/x")}, "is a file, not a folder"),
    ],
)
def test_wrong_options_are_refused(three: Path, options: dict[str, Any], complaint: str) -> None:
    assert complaint in refused(three, ConfigError, **options)


# --- damage ------------------------------------------------------------------------------------------------


def test_every_damaged_shard_is_named(three: Path) -> None:
    damage(three)
    message = refused(three)
    assert "2 of 3 shard(s) cannot be indexed; no index was written." in message
    assert f"{three}/000.tar: damaged at byte 4608: member '0002.png' lacks its last" in message
    assert f"{three}/002.tar: damaged at byte 4096: the header's checksum is wrong" in message
    assert "--salvage" in message


def test_of_many_damaged_shards_twenty_are_shown(tmp_path: Path) -> None:
    folder = shards_of(tmp_path / "s", *({f"{n}.png": png(n)} for n in range(30)))
    for path in sorted(folder.iterdir())[3:]:
        os.truncate(path, 600)
    message = refused(folder)
    assert "27 of 30 shard(s) cannot be indexed" in message
    assert message.count("damaged at byte") == 20
    assert "and 7 more" in message


def test_salvage_takes_the_beginning_and_says_so(three: Path) -> None:
    damage(three)
    summary = surveyed(three, salvage=True)
    assert [shard.samples for shard in read_index(three).shards] == [1, 5, 1]
    assert str(summary).count("SALVAGED, the rest of the shard is lost") == 2
    assert "000.tar: damaged at byte 4608" in str(summary)
    kept = read_index(three).rejected
    assert [(entry["shard"], entry["key"]) for entry in kept] == [("000.tar", ""), ("002.tar", "")]
    assert "damaged at byte 4096" in kept[1]["why"]
    assert opened(three).samples == 7


def test_salvage_is_for_damage_alone(tmp_path: Path) -> None:
    twice = [("0.png", png(0)), ("1.png", png(1)), ("0.cls", b"1")]
    path = shards_of(tmp_path / "s", {}) / "000.tar"
    with tarfile.open(path, "w") as archive:
        for name, body in twice:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    message = refused(tmp_path / "s", salvage=True)
    assert "member '0.cls' stands apart from the other members of its sample" in message


def test_empty_shards_hold_nothing(tmp_path: Path) -> None:
    folder = shards_of(tmp_path / "s", {}, {"0.png": png()}, {})
    assert surveyed(folder).index.counts.tolist() == [0, 1, 0]
    assert opened(folder).samples == 1
    assert "no image that can be used was found in 1 shard(s)" in refused(shards_of(tmp_path / "e", {}))
    assert "They hold 1 .txt" in refused(shards_of(tmp_path / "t", {"a.txt": b""}))
    assert "under the field 'jpg' (--image)" in refused(shards_of(tmp_path / "j", {"a.png": png()}), image="jpg")

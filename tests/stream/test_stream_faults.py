"""Damaged shards, bad images and hostile members: counted, told, bounded, and never a wrong label."""

from __future__ import annotations

import gzip
import http.server
import io
import itertools
import lzma
import os
import pickle
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streams import image, label_of, members, names, npy, opened, taken, write_shards, write_tar

from gandist.data.stream.samples import Damage, Sample, SampleReader
from gandist.data.stream.tally import JUDGED_SHARDS, TOLERATED_IMAGES, Tally
from gandist.errors import DataError


def read_whole(path: Path) -> list[object]:
    return list(SampleReader("cls", 10, None).read(0, path))


# --- damaged shards --------------------------------------------------------------------------------------------


def test_a_shard_cut_anywhere_gives_nothing(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", members(1, range(3))).read_bytes()
    cut = tmp_path / "cut.tar"
    content_bytes = len(whole.rstrip(b"\0")) + 512
    for length in range(0, content_bytes, 97):
        cut.write_bytes(whole[:length])
        (found,) = read_whole(cut)
        assert isinstance(found, Damage), f"cut at {length}"
        assert "byte" in found.why


def test_a_flipped_byte_of_a_header_gives_nothing(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "whole.tar", members(1, range(2)))
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        headers = [member.offset for member in archive]
    flipped = tmp_path / "flipped.tar"
    for header, at in itertools.product(headers, range(0, 512, 3)):
        flipped.write_bytes(whole[: header + at] + bytes([whole[header + at] ^ 0x08]) + whole[header + at + 1 :])
        found = read_whole(flipped)
        if not isinstance(found[0], Damage):  # the checksum field has bytes of no meaning, a blank for instance
            assert 148 <= at < 156
            assert [item.label for item in found if isinstance(item, Sample)] == [label_of(1, 0), label_of(1, 1)]
        else:
            assert len(found) == 1


def test_neighbours_of_damaged_shards_keep_their_labels(tmp_path: Path) -> None:
    """Shards end within a sample whose key the next one has too: where halves are put together, labels go wrong."""
    write_shards(tmp_path, 40, 3)
    for shard in (7, 23):
        path = tmp_path / f"{shard:03d}.tar"
        path.write_bytes(path.read_bytes()[: 512 + 1024])  # a whole image; its label is gone
    images = opened(f"{tmp_path}/*.tar")
    found = taken(images, 38, 3)
    assert {shard for shard, _ in names(found)} == set(range(40)) - {7, 23}
    notes = [note for batch in found for note in batch.notes]
    assert sum(batch.damaged_shards for batch in found) == 2
    for shard in (7, 23):
        (note,) = [note for note in notes if f"{tmp_path}/{shard:03d}.tar" in note]
        assert note.startswith("Damaged shard: ")
        assert "byte 1536" in note
    again = taken(images, 38 * 3, 3)
    assert sum(batch.damaged_shards for batch in again) == 6
    assert len([note for batch in again for note in batch.notes]) == 2, "each is told once"


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_damaged_shards_end_the_run(tmp_path: Path, workers: int) -> None:
    write_shards(tmp_path, 20, 3)
    for shard in range(5):
        (tmp_path / f"{shard:03d}.tar").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"00[0-4]\.tar: .*It is damaged shard \d+ of \d+ .*at most 1 in 10"):
        taken(opened(f"{tmp_path}/*.tar"), 20, 3, workers=workers)


def test_one_damaged_shard_of_many_does_not(tmp_path: Path) -> None:
    write_shards(tmp_path, 20, 3)
    (tmp_path / "004.tar").unlink()
    (tmp_path / "004.tar").write_bytes(b"")
    assert len(taken(opened(f"{tmp_path}/*.tar"), 100, 3)) == 100


def test_a_shard_that_goes_away_is_damaged(tmp_path: Path) -> None:
    write_shards(tmp_path, 20, 3)
    images = opened(f"{tmp_path}/*.tar")
    (tmp_path / "011.tar").unlink()
    found = taken(images, 19, 3)
    assert sum(batch.damaged_shards for batch in found) == 1


def test_all_damaged_is_said_at_once(tmp_path: Path) -> None:
    write_shards(tmp_path, 2, 3)
    for path in tmp_path.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="damaged shard 2 of 2"):
        taken(opened(f"{tmp_path}/*.tar"), 1)


def test_shards_without_images_end_the_run(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", {})
    with pytest.raises(DataError, match="3 shards, one after another, hold no image"):
        taken(opened(f"{tmp_path}/*.tar"), 1)
    write_shards(tmp_path, 3, 1)
    with pytest.raises(DataError, match=r"data\.classes"):
        taken(opened(f"{tmp_path}/00*.tar", classes=[9]), 1)


# --- bad images ------------------------------------------------------------------------------------------------


def spoilt(tmp_path: Path, changes: dict[str, bytes], shards: int = 20) -> Path:
    """Shards of six images, the first with other members in the place of its own."""
    write_shards(tmp_path, shards, 6)
    write_tar(tmp_path / "000.tar", members(0, range(6)) | changes)
    return tmp_path


def large_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"0002.npy": b"no image"}, "sample '0002' is unfit: the image cannot be decoded"),
        ({"0002.npy": npy(np.zeros((8, 8, 1), dtype=np.uint8))}, "'0002'.*8, 8"),
        ({"0002.npy": large_png()}, "8x8"),
        ({"0002.cls": b"10"}, "sample '0002' has label 10, where data.stream.class_count is 10"),
        ({"0002.cls": b"9" * 5000}, "where a class number belongs"),
        ({"0002.cls": b"cat"}, "where a class number belongs"),
        ({"0002.png": b"second"}, None),  # apart from its sample: the shard is damaged
        ({"0009.cls": b"1"}, "sample '0009' has no image, only cls"),
        ({"0009.npy": npy(image(0, 5))}, "sample '0009' has no cls member"),
        ({"0009.cls": b"1", "0009.npy": b"", "0009.png": b""}, r"has 2 images \(npy, png\)"),
    ],
)
def test_a_bad_image_is_replaced_counted_and_told(tmp_path: Path, changes: dict[str, bytes], words: str | None) -> None:
    found = taken(opened(f"{spoilt(tmp_path, changes)}/*.tar"), 21, 6)  # one pass and the first of the next
    assert len(names(found)) == 21 * 6
    told = [note for batch in found for note in batch.notes]
    if words is None:
        assert sum(batch.damaged_shards for batch in found) >= 1
        assert "000.tar" in told[0]
        return
    assert sum(batch.bad_images for batch in found) == 1
    (note,) = told
    assert note.startswith(f"Bad image: {tmp_path}/000.tar: ")
    assert re.search(words, note)


def test_bad_images_are_bounded_by_their_share(tmp_path: Path) -> None:
    """Of 20 shards one has 6 bad images: 5 in 100."""
    spoilt(tmp_path, {f"{place:04d}.npy": b"" for place in range(6)})
    assert len(taken(opened(f"{tmp_path}/*.tar", bad_images=0.15), 200)) == 200
    with pytest.raises(DataError, match=r"It is bad image \d+ of \d+; --data.bad_images 0.0001"):
        taken(opened(f"{tmp_path}/*.tar"), 200)
    with pytest.raises(DataError, match="It is bad image 1 of"):
        taken(opened(f"{tmp_path}/*.tar", bad_images=0), 200)


def test_images_of_another_size_throughout_are_said_at_once(tmp_path: Path) -> None:
    write_shards(tmp_path, 3, 6)
    with pytest.raises(DataError, match=f"bad image {TOLERATED_IMAGES + 1} of {TOLERATED_IMAGES + 1}"):
        taken(opened(f"{tmp_path}/*.tar", resolution=8), 1)


def test_a_tally_tells_a_few_and_counts_all() -> None:
    tally = Tally(1000, 1.0)
    for number in range(30):
        tally.good_image()
        tally.bad_image("shard", f"{number}\n\x1b[31m", "is unfit")
    images, notes, shards = tally.report()
    assert (images, shards) == (30, 0)
    assert len(notes) == 6
    assert notes[-1] == "More bad images are not told one by one; data/bad_images counts them."
    assert not any("\n" in note or "\x1b" in note for note in notes)
    assert tally.report() == (0, (), 0)


def test_damage_is_judged_by_its_share() -> None:
    tally = Tally(1000, 0.0)
    for _ in range(10 * JUDGED_SHARDS):
        tally.read_shard(1)
    for number in range(11):
        tally.damaged_shard(f"s{number}", "cut")
    with pytest.raises(DataError, match="12 of 112"):
        tally.damaged_shard("s11", "cut")


# --- hostile members -------------------------------------------------------------------------------------------


class Canary:
    """What unpickling would do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


def test_pickled_members_are_left_alone(tmp_path: Path) -> None:
    bomb = pickle.dumps(Canary(tmp_path / "canary"))
    content: dict[str, bytes] = {}
    for name, data in members(2, range(6)).items():
        content[name] = data
        if name.endswith("cls"):
            content |= {name.replace("cls", ext): bomb for ext in ("pyd", "pkl", "pickle", "pth", "ten", "npz")}
    write_tar(tmp_path / "0.tar", content)
    found = names(taken(opened(tmp_path / "0.tar"), 3))
    assert set(found) == {(2, place) for place in range(6)}
    objects = np.empty(1, dtype=object)
    objects[0] = Canary(tmp_path / "canary")
    buffer = io.BytesIO()
    np.save(buffer, objects, allow_pickle=True)
    write_tar(tmp_path / "0.tar", members(2, range(6)) | {"0003.npy": buffer.getvalue()})
    found = taken(opened(tmp_path / "0.tar"), 1, 5)
    assert (2, 3) not in names(found)
    assert not (tmp_path / "canary").exists()
    pickle.loads(bomb)  # noqa: S301
    assert (tmp_path / "canary").exists(), "the canary sings when it is unpickled"


def test_other_archives_are_refused(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "0.tar", members(0, range(6))).read_bytes()
    for squeezed, name in ((gzip.compress(plain), "gzip"), (lzma.compress(plain), "xz")):
        (tmp_path / "0.tar").write_bytes(squeezed)
        with pytest.raises(DataError, match=name):
            taken(opened(tmp_path / "0.tar"), 1)
    header = bytearray(plain[:512])
    header[156:157] = b"S"  # a sparse file
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "0.tar").write_bytes(bytes(header) + plain[512:])
    with pytest.raises(DataError, match="sparse"):
        taken(opened(tmp_path / "0.tar"), 1)


def test_names_that_lead_elsewhere_write_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    content = {f"../../{name}": data for name, data in members(0, range(3)).items()}
    write_tar(inside / "0.tar", content | {f"/tmp/{n}": d for n, d in members(0, range(3, 6)).items()})
    assert len(names(taken(opened(inside / "0.tar"), 1))) == 6
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar", "inside"]


# --- shards from afar ------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A folder of 20 shards, one of them missing, behind a web server of this machine."""
    write_shards(tmp_path, 20, 3)
    (tmp_path / "013.tar").unlink()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: object, **more: object) -> None:
            super().__init__(*given, directory=str(tmp_path), **more)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_web_server(served: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = taken(opened(f"{served}/{{000..019}}.tar?secret=1"), 19, 3, workers=workers)
    assert {shard for shard, _ in names(found)} == set(range(20)) - {13}
    (note,) = [note for batch in found for note in batch.notes]
    assert f"{served}/013.tar" in note
    assert "secret" not in note

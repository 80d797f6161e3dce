import gzip
import io
import os
import random
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import png, tar_of

from gandist.data.shards import tar
from gandist.data.shards.scan import samples, scan
from gandist.errors import DataError

name = st.text(st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1, max_size=30)


@given(
    st.dictionaries(st.lists(name, min_size=1, max_size=8).map("/".join), st.binary(max_size=1500), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_agrees_with_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, bytes], kind: int
) -> None:
    path = tar_of(tmp_path_factory.mktemp("tar") / "a.tar", members, format=kind)
    with tarfile.open(path) as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive]
    found = list(tar.walk(path))
    assert [(m.name, m.offset, m.size) for m in found] == expected
    content = path.read_bytes()
    assert [content[m.offset : m.offset + m.size] for m in found] == list(members.values())


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_folders(tmp_path: Path, kind: int) -> None:
    long = "folder/" * 20 + "x" * 90 + ".png"
    tar_of(tmp_path / "a.tar", {long: b"1", "b.png": b"22"}, format=kind)
    assert [(m.name, m.size) for m in tar.walk(tmp_path / "a.tar")] == [(long, 1), ("b.png", 2)]
    (tmp_path / "d" / "e").mkdir(parents=True)
    with tarfile.open(tmp_path / "b.tar", "w", format=kind) as archive:
        archive.add(tmp_path / "d", "d")
    assert [(m.name.rstrip("/"), m.kind) for m in tar.walk(tmp_path / "b.tar")] == [("d", "folder"), ("d/e", "folder")]


def shard(tmp_path: Path) -> Path:
    members = {}
    for number in range(6):
        members |= {f"{number:06d}.cls": str(number % 3).encode(), f"{number:06d}.png": png(number)}
    return tar_of(tmp_path / "s.tar", members, format=tarfile.USTAR_FORMAT)


def content_of(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    raw = path.read_bytes()
    return [(k, {f: raw[m.offset : m.offset + m.size] for f, m in fields.items()}) for k, fields in samples(path)]


def test_a_cut_is_never_a_shorter_shard(tmp_path: Path) -> None:
    path = shard(tmp_path)
    raw, whole = path.read_bytes(), content_of(path)
    complete = 0
    for cut in range(0, len(raw), 37):
        path.write_bytes(raw[:cut])
        with suppress(DataError):
            assert content_of(path) == whole, f"cut at {cut}: silently different"
            complete += 1
    assert 0 < complete < len(raw) / 37 / 2, "only the padding after the end marker may be missing"


def test_a_flipped_header_byte_is_never_another_shard(tmp_path: Path) -> None:
    path = shard(tmp_path)
    raw, whole = path.read_bytes(), content_of(path)
    headers = [m.offset - 512 for m in tar.walk(path)]
    generator, harmless = random.Random(0), 0
    for header in headers:
        for at in range(header, header + 512, 3):
            flipped = bytearray(raw)
            flipped[at] ^= 1 << generator.randrange(8)
            path.write_bytes(flipped)
            with suppress(DataError):
                assert content_of(path) == whole, f"byte {at}: silently different"
                harmless += 1
    assert harmless < len(headers) * 512 / 3 / 50, "hardly any byte of a header is without meaning"


def packed(*members: tarfile.TarInfo, end: bytes = bytes(1024), kind: int = tarfile.GNU_FORMAT) -> bytes:
    data = b""
    for member in members:
        body = b"x" * member.size if member.isreg() and member.size < 1 << 20 else b""
        data += member.tobuf(kind) + body + bytes(-len(body) % 512)
    return data + end


def info(name: str = "a.png", size: int = 0, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    for key, value in fields.items():
        setattr(member, key, value)
    return member


WHOLE = packed(info(size=3))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"too short", "is empty or shorter"),
        (WHOLE[:1024], "byte 1024: the file ends without an end marker"),
        (WHOLE[:1100], "byte 1024: the file ends in the middle of a header"),
        (WHOLE[:1536], "byte 1536: the end marker"),
        (WHOLE[:514], "lacks its last 1 bytes"),
        (WHOLE[:900], "inside a member's padding"),
        (WHOLE + b"\0" * 600 + b"x", "byte 2648: there is data after the end marker"),
        (WHOLE + WHOLE, "byte 2048: there is data after the end marker"),
        (packed(info(type=tarfile.GNUTYPE_SPARSE)), "is a sparse file"),
        (packed(info(type=b"7")), "unknown type b'7'"),
        (packed(info(size=65 << 20)), "claims 68157440 bytes, the limit is 67108864"),
        (packed(info(pax_headers={"size": "3"}), kind=tarfile.PAX_FORMAT), "pax header with 'size'"),
        (packed(info(pax_headers={"GNU.sparse.major": "1"}), kind=tarfile.PAX_FORMAT), "'GNU.sparse.major'"),
        (packed(info(name="n" * 4097)), "extended header of 4098 bytes"),
        (packed(info(name="n" * 4097), kind=tarfile.PAX_FORMAT), "a name of 4097 bytes"),
        (gzip.compress(WHOLE * 20), "is a gzip file"),
        (b"BZh9" + b"x" * 600, "is a bzip2 file"),
        (b"\xfd7zXZ\0" + b"x" * 600, "is a xz file"),
        (b"PK\3\4" + b"x" * 600, "is a zip file"),
        (b"garbage " * 200, "damaged at byte 0"),
        (info(name="n" * 200).tobuf(tarfile.GNU_FORMAT)[:1024] + bytes(1024), "announces another member"),
    ],
)
def test_what_is_not_a_whole_plain_tar_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(tar.walk(path))
    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        list(tar.walk(tmp_path / "none.tar"))


def test_links_and_devices_are_members_that_no_shard_may_have(tmp_path: Path) -> None:
    path = tmp_path / "l.tar"
    path.write_bytes(packed(info(type=tarfile.SYMTYPE, linkname="/etc/passwd"), info("p", type=tarfile.FIFOTYPE)))
    assert [m.kind for m in tar.walk(path)] == ["link", "special"]
    with pytest.raises(DataError, match=r"'a\.png' is a link"):
        list(samples(path))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([("a.png", b"1"), ("a.cls", b"0"), ("b.png", b"1"), ("b.cls", b"1"), ("a.cls", b"0")], "stands apart"),
        ([("a.png", b"1"), ("a.png", b"1")], "is there twice"),
        ([("a.cls", b"0")], "sample 'a' has no png member"),
        ([("a.png", b"1")], "sample 'a' has no label"),
        ([("a.png", b"1"), ("a.cls", b"3")], "holds b'3', not a class number from 0 to 2"),
        ([("a.png", b"1"), ("a.cls", b"-1")], "not a class number"),
        ([("a.png", b"1"), ("a.cls", b"cat")], "not a class number"),
        ([("a.png", b"1"), ("a.cls", b"9" * 5000)], "not a class number"),
        ([("a.png", b"1"), ("a.cls", "\u0663".encode())], "not a class number"),
    ],
)
def test_samples_that_are_not_whole_are_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], complaint: str
) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for member, content in members:
            archive.addfile(info(member, len(content)), io.BytesIO(content))
    with pytest.raises(DataError) as caught:
        scan(tmp_path, "s.tar", image_ext="png", classes=3)
    assert complaint in str(caught.value)


def test_a_huge_name_takes_no_time(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "n.tar", {"a" * 4000: b"", "." * 4000: b"", "a/" * 1000: b""}, format=tarfile.PAX_FORMAT)
    assert list(samples(path)) == []


def test_a_named_pipe_in_place_of_a_shard_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.tar")
    with pytest.raises(DataError, match="not a regular file"):
        list(tar.walk(tmp_path / "p.tar"))

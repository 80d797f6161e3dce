"""Shards made to hurt whoever reads them: refused in words, with little memory and time, and no code of theirs runs."""

import gzip
import json
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from pictures import png, tar_of

from gandist.data.survey.survey import survey
from gandist.errors import DataError

GROWTH_MIB = 48
SECONDS = 10.0

CHILD = """
import json, sys, time
from pathlib import Path
from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from gandist.data.survey.survey import survey
from gandist.errors import DataError
def used():  # the most so far of this program alone; getrusage counts what it was forked from
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
before = used()
try:
    said = str(survey([sys.argv[1]], out=Path(sys.argv[1] + " index"), label=sys.argv[2], workers=0, max_rejected=1))
except DataError as error:
    said = f"refused: {error}"
print(json.dumps([said, used() - before, time.process_time()]))
"""


def header(name: str, size: int = 0, kind: bytes = b"0", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def block(body: bytes) -> bytes:
    return body + bytes(-len(body) % 512)


END = bytes(1024)
PLAIN = header("0.png", len(png())) + block(png())


def long_pax(record: bytes, kind: bytes = b"x") -> bytes:
    return header("x", len(record), kind) + block(record)


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    return str(length + (len(str(length)) > len(str(len(rest))))).encode() + rest


def records(count: int) -> bytes:
    return b"".join(pax_record(b"k", b"") for _ in range(count))


REFUSED = {
    "sparse": (header("a.png", 512, b"S") + block(b"x") + END, "is a sparse file"),
    "a sparse map": (long_pax(pax_record(b"GNU.sparse.realsize", b"536870912")) + PLAIN + END, "GNU.sparse.realsize"),
    "a key that is no text": (long_pax(pax_record(b"GNU.sparse.\xff\xfe", b"1")) + PLAIN + END, r"GNU.sparse.\xff\xfe"),
    "a size of its own": (long_pax(pax_record(b"size", b"1")) + PLAIN + END, "pax header with 'size'"),
    "a path for all": (long_pax(pax_record(b"path", b"1.png"), kind=b"g") + PLAIN + END, "a pax header with 'path'"),
    "1 TiB": (header("a.png", 1 << 40) + b"x" * 5000, "claims 1099511627776 bytes, the limit is 67108864"),
    "60 MiB": (header("a.png", 60 << 20) + b"x" * 5000, "lacks its last"),
    "a name of 1 MiB": (long_pax(pax_record(b"path", b"a" * 1_000_000)) + PLAIN + END, "a name of 1000000 bytes"),
    "a header of 2 MiB": (long_pax(bytes(2 << 20)) + PLAIN + END, "an extended header of 2097152 bytes"),
    "twice": (PLAIN + PLAIN + END, "member '0.png' is there twice"),
    "a link": (header("a.png", 0, b"2", linkname="/etc/passwd") + END, "'a.png' is a link"),
    "a hard link": (header("a.png", 0, b"1", linkname="0.png") + END, "'a.png' is a link"),
    "a device": (header("a.png", 0, b"3") + END, "'a.png' is a special"),
    "a folder with content": (header("a/", 512, b"5") + block(b"x") + END, "is a folder, yet claims 512 bytes"),
    "glued": (PLAIN + END + PLAIN + END, "there is data after the end marker"),
    "escapes": (PLAIN + header("\x1b[2Ja\nb.png", 0, b"2") + END, r"'\x1b[2Ja\nb.png' is a link"),
}
READ = {
    "many records": long_pax(records(170_000)) + PLAIN + END,
    "many headers": long_pax(records(4000)) * 40 + PLAIN + END,
    "a name of dots": header("." * 90) + PLAIN + END,
    "many kinds": b"".join(header(f"0.k{n}") for n in range(20_000)) + PLAIN + END,
}
LABELS = {
    "digits": ("cls", b"9" * (5 << 20), "where a class number belongs"),
    "deep": ("json:a", b'{"a":' + b"[" * 1_000_000, "nested too deeply"),
    "deep and closed": ("json:a", b'{"a":' + b"[" * 300_000 + b"]" * 300_000 + b"}", "nested too deeply"),
    "wide": ("json:b", b'{"a":[' + b"[]," * 300_000 + b"1]}", "has no 'b' in its json"),
    "huge": ("json:a", b'{"a":"' + b"x" * (50 << 20) + b'"}', "above the limit"),
    "a long number": ("json:a", b'{"a":' + b"9" * 1_000_000 + b"}", "has inf under 'a'"),
    "many keys": ("json:b", json.dumps({f"\x1b{n}": n for n in range(30_000)}).encode(), r"which has '\x1b0'"),
}


def child(folder: Path, label: str = "auto") -> str:
    """What is said of the shard, by a process that needed little memory and time."""
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), label],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    said, growth, seconds = json.loads(run.stdout)
    assert growth < GROWTH_MIB, f"{growth:.0f} MiB more than at the start"
    assert seconds < SECONDS, f"computed for {seconds:.1f} s"
    assert len(said) < 4000
    assert said.replace("\n", "").isprintable(), "control characters of strangers never reach the terminal"
    return str(said)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_tar_is_refused(tmp_path: Path, name: str) -> None:
    content, complaint = REFUSED[name]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.tar").write_bytes(content)
    said = child(tmp_path / "s")
    assert said.startswith("refused: ")
    assert complaint in said
    assert not (tmp_path / "s index").exists()


@pytest.mark.parametrize("kind", ["gzip", "xz"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, kind: str) -> None:
    (tmp_path / "s").mkdir()
    opener = gzip.open if kind == "gzip" else lzma.open
    with opener(tmp_path / "s" / "a.tar", "wb", **({"compresslevel": 1} if kind == "gzip" else {"preset": 0})) as file:  # type: ignore[operator]
        for _ in range(256):
            file.write(bytes(1 << 20))
    assert f"a.tar: is a {kind} file, not an uncompressed tar; unpack it first" in child(tmp_path / "s")


@pytest.mark.parametrize("name", READ)
def test_what_is_only_odd_takes_no_time(tmp_path: Path, name: str) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.tar").write_bytes(READ[name])
    assert ": 1 images of 8x8x3" in child(tmp_path / "s")


def test_many_kinds_are_counted_together(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.tar").write_bytes(READ["many kinds"])
    skipped = survey([str(tmp_path / "s")], workers=0).skipped
    assert len(skipped) <= 101
    assert sum(skipped.values()) == 20_000


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_bounded_before_they_are_understood(tmp_path: Path, name: str) -> None:
    label, content, complaint = LABELS[name]
    (tmp_path / "s").mkdir()
    tar_of(tmp_path / "s" / "a.tar", {"0.png": png(), f"0.{label.partition(':')[0]}": content})
    said = child(tmp_path / "s", label)
    assert said.startswith("refused: ")
    assert complaint in said


class Hurt:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("hurt",)


def test_members_that_are_code_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = pickle.dumps(Hurt())
    kinds = ("pyd", "pkl", "pickle", "pth", "pt", "joblib")
    (tmp_path / "s").mkdir()
    array = (
        b"\x93NUMPY\x01\x00"
        + b"v\x00"
        + str({"descr": "|O", "fortran_order": False, "shape": (1,)}).encode().ljust(118)
    )
    members = {"0.png": png(), "1.npy": array + code, **{f"0.{kind}": code for kind in kinds}}
    tar_of(tmp_path / "s" / "a.tar", dict(sorted(members.items())))
    summary = survey([str(tmp_path / "s")], workers=0, verify=True, max_rejected=1)
    assert summary.index.samples == 1
    assert summary.skipped == {f".{kind} members": 1 for kind in kinds}
    assert "1 .pth members" in str(summary)
    assert "is object of shape (1,)" in summary.index.rejected[0]["why"]
    assert not (tmp_path / "hurt").exists()
    pickle.loads(code)  # noqa: S301 - it would have
    assert (tmp_path / "hurt").exists()


def test_an_image_bomb_is_measured_and_not_decoded(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
    (tmp_path / "s").mkdir()
    tar_of(tmp_path / "s" / "a.tar", {"0.png": png(), "1.png": bomb})
    assert "'1' is 12000x12000 px, not 8x8" in child(tmp_path / "s")


def test_names_cannot_leave_the_folder_or_the_screen(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    names = ["../../etc/x.png", "/etc/y.png", "a\x1b[31m\u202e/z.png", "\udcff/w.png"]
    tar_of(tmp_path / "s" / "a.tar", {name: png(n) for n, name in enumerate(names)}, format=tarfile.GNU_FORMAT)
    before = set(tmp_path.rglob("*"))
    said = child(tmp_path / "s", "none")
    assert ": 4 images" in said
    assert {path.name for path in set(tmp_path.rglob("*")) - before} == {"s index", "index.json", "index.safetensors"}
    said = str(survey([str(tmp_path / "s")], out=tmp_path / "f", label="folder", workers=0))
    assert r"\x1b[31m\u202e" in said
    assert r"\udcff" in said
    with pytest.raises(DataError, match="holds another index"):
        survey([str(tmp_path / "s")], out=tmp_path / "f", label="none", workers=0)

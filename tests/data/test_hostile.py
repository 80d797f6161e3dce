"""Hostile shards, indexes and recipes at the front doors: refused in words, no code run, little memory used.

Each row of THREATS makes files such as a stranger could send and says what the verbs must do with them. Every verb runs
as a process of its own, so that its peak memory can be read and nothing of it is ours.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pictures import png, tar_of

from gandist.cli import main
from gandist.data.making.prepare import prepare
from gandist.errors import EXIT_USER_ERROR

MEMORY_MARGIN_MIB = 150  # over what a harmless shard takes; each bomb is larger
TRAIN = (
    "train", "--debug", "--data.resolution", "8", "--model.arch", "mlp", "--execution.device", "cpu",
    "--execution.precision", "fp32", "--model.mlp.generator_widths", "8", "--model.mlp.discriminator_widths", "8",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    code: int
    said: str
    peak_mib: float


def run(folder: Path, *words: str) -> Outcome:
    """Run one verb in ``folder``, as a user would, and read its peak memory."""
    command = [sys.executable, "-m", "gandist.cli", *words]
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env=os.environ | {"CANARY": "1"})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        return Outcome(process.returncode, said.read(), usage.ru_maxrss / 1024)


class Canary:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch canary",)


def good(count: int = 12, start: int = 0) -> dict[str, bytes]:
    names: dict[str, bytes] = {}
    for number in range(start, start + count):
        names |= {f"{number:04d}.png": png(number), f"{number:04d}.cls": str(number % 2).encode()}
    return names


# --- what strangers send -------------------------------------------------------------------------------------


def pickles(folder: Path) -> None:
    sample = {
        "0000.pyd": pickle.dumps(Canary()),
        "0000.pkl": pickle.dumps(Canary()),
        "0000.pth": pickle.dumps(Canary()),
    }
    tar_of(folder / "x.tar", {**good(1), **sample, **good(11, start=1)})


def pickled_npy(folder: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Canary()], dtype=object), allow_pickle=True)
    tar_of(folder / "x.tar", {f"{n:04d}.npy": buffer.getvalue() for n in range(12)})


def sparse(folder: Path) -> None:
    info = tarfile.TarInfo("0000.png")
    info.size, info.type = 512, tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 0)
    header[483:495] = b"%011o\0" % (512 << 20)
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 0x20)
    (folder / "x.tar").write_bytes(bytes(header) + bytes(512 + 1024))


def xz_bomb(folder: Path) -> None:
    (folder / "x.tar").write_bytes(lzma.compress(bytes(256 << 20), preset=0))


def huge_member(folder: Path) -> None:
    info = tarfile.TarInfo("0000.png")
    info.size = 1 << 40
    (folder / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(5 << 10))


def long_name(folder: Path) -> None:
    with tarfile.open(folder / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a" * 900_000)
        archive.addfile(info, io.BytesIO())


def links(folder: Path) -> None:
    with tarfile.open(folder / "x.tar", "w") as archive:
        info = tarfile.TarInfo("0000.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)


def duplicates(folder: Path) -> None:
    with tarfile.open(folder / "x.tar", "w") as archive:
        for name, content in [*good(6).items(), *good(1).items()]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def image_bomb(folder: Path) -> None:
    """A PNG of 30,000 x 30,000 black pixels in under a megabyte: 2.7 GB once decoded."""
    side = 30_000
    row = zlib.compress(bytes((3 * side + 1) * 64), 9)  # only the header is ever to be read
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", row), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    tar_of(folder / "x.tar", {**good(11), "0099.png": b"\x89PNG\r\n\x1a\n" + body, "0099.cls": b"0"})


def long_label(folder: Path) -> None:
    tar_of(folder / "x.tar", {**good(11), "0099.png": png(99), "0099.cls": b"9" * 5000})


def deep_json(folder: Path) -> None:
    tar_of(folder / "x.tar", {"0000.png": png(0), "0000.json": b'{"label":' + b"[" * 200_000})


BOMBS = ("xz bomb", "image bomb")
THREATS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    # what makes it, and what `gandist index` says of it; None where it is harmless and used without it
    "pickled members": (pickles, None),
    "pickled npy": (pickled_npy, "npy"),
    "sparse member": (sparse, "sparse"),
    "xz bomb": (xz_bomb, "xz"),
    "member of 1 TiB": (huge_member, "limit"),
    "name of 900 kB": (long_name, "name|limit"),
    "link": (links, "link"),
    "key twice": (duplicates, "stands apart|twice"),
    "image bomb": (image_bomb, "900000000 pixels"),
    "label of 5,000 digits": (long_label, "class number"),
}


def index(folder: Path) -> Outcome:
    return run(folder, "index", "x.tar", "--verify", "--workers", "1")


def make_shards(folder: Path) -> Outcome:
    return run(folder, "prepare", "x.tar", "out", "--resolution", "8", "--workers", "0")


def stream(folder: Path) -> Outcome:
    return run(folder, *TRAIN, "--data.shards", "x.tar", "--execution.workers", "0")


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The peak memory of each verb on a shard without harm."""
    folder = tmp_path_factory.mktemp("harmless")
    tar_of(folder / "x.tar", good())
    peaks = {}
    for verb in (index, make_shards, stream):
        outcome = verb(folder)
        assert outcome.code == 0, outcome.said
        peaks[verb.__name__] = outcome.peak_mib
    return peaks


@pytest.mark.parametrize("threat", THREATS)
def test_index_refuses_it(tmp_path: Path, threat: str, harmless: dict[str, float]) -> None:
    make, complaint = THREATS[threat]
    make(tmp_path)
    outcome = index(tmp_path)
    assert not (tmp_path / "canary").exists()
    assert outcome.peak_mib < harmless["index"] + MEMORY_MARGIN_MIB, outcome
    assert "Traceback" not in outcome.said
    if complaint is None:
        assert outcome.code == 0, outcome.said
        assert (tmp_path / "index.json").is_file()
    else:
        assert outcome.code == 2, outcome.said
        assert re.search(complaint, outcome.said), outcome.said
        assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize("threat", THREATS)
def test_prepare_uses_none_of_it(tmp_path: Path, threat: str, harmless: dict[str, float]) -> None:
    THREATS[threat][0](tmp_path)
    outcome = make_shards(tmp_path)
    assert not (tmp_path / "canary").exists()
    assert outcome.code == (0 if threat == "pickled members" else 2), outcome.said
    assert outcome.peak_mib < harmless["make_shards"] + MEMORY_MARGIN_MIB, outcome
    assert "Traceback" not in outcome.said


@pytest.mark.parametrize("threat", ["pickled members", *(pytest.param(t, marks=pytest.mark.long) for t in BOMBS)])
def test_a_stream_uses_none_of_it(tmp_path: Path, threat: str, harmless: dict[str, float]) -> None:
    THREATS[threat][0](tmp_path)
    outcome = stream(tmp_path)
    assert not (tmp_path / "canary").exists()
    assert outcome.code == (0 if threat == "pickled members" else 2), outcome.said
    assert outcome.peak_mib < harmless["stream"] + MEMORY_MARGIN_MIB, outcome
    assert "Traceback" not in outcome.said


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    deep_json(tmp_path)
    outcome = run(tmp_path, "index", "x.tar", "--label", "json:label")
    assert outcome.code == 2
    assert "json" in outcome.said
    assert "Traceback" not in outcome.said


def test_names_are_never_paths(tmp_path: Path) -> None:
    """Neither an absolute name nor one that climbs out writes anything, and no name reaches the terminal as it is."""
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    names = ["../../climbed", "/tmp/gandist-absolute", "\x1b[2Jcleared"]
    tar_of(inside / "x.tar", {f"{name}{n}.png": png(n) for n, name in enumerate(names)})
    before = set(tmp_path.rglob("*"))
    outcome = run(inside, "index", "x.tar", "--resolution", "9")
    assert outcome.code == 2
    assert "\x1b" not in outcome.said
    assert set(tmp_path.rglob("*")) - before == {inside / "said.txt"}
    assert not list(Path("/tmp").glob("gandist-absolute*"))


# --- recipes and indexes -----------------------------------------------------------------------------------------


def refused(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a verb in this process, which must refuse; return what it says."""
    capsys.readouterr()
    assert main(list(words)) == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert not Path("canary").exists()
    assert not Path("runs").exists()
    return said


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("knob", ["shards", "root"])
@pytest.mark.parametrize(
    "place",
    ["pipe:touch canary", "pipe:touch canary {0..3}", "-", "x::y.tar", "${HOME}/a.tar", "ftp://host/a.tar",
     "http://example.org/set", "https://user:secret@example.org/set"],
)  # fmt: skip
def test_a_recipe_runs_nothing_and_reads_nowhere_else(
    here: Path, knob: str, place: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(str(photos), here / "index", resolution=8, workers=0)
    data = {"shards": "index", "resolution": 8, knob: place}
    recipe = {"data": data, "model": {"arch": "mlp"}, "execution": {"device": "cpu", "precision": "fp32"}}
    (here / "recipe.yaml").write_text(json.dumps(recipe))
    said = refused(["train", "recipe.yaml"], capsys)
    assert "secret" not in said
    assert place.split("@")[-1].split(" ")[0].split("{")[0] in said


@pytest.mark.parametrize("url", ["../outside.tar", "/etc/passwd", "pipe:touch canary", "https://evil.org/x.tar", "\0"])
def test_an_index_names_no_place_but_its_own(here: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    tar_of(here / "outside.tar", good())
    (here / "set").mkdir()
    tar_of(here / "set" / "x.tar", good())
    assert main(["index", "set", "--workers", "0"]) == 0
    path = here / "set" / "index.json"
    content = json.loads(path.read_text())
    content["shards"][0]["url"] = url
    path.write_text(json.dumps(content))
    assert "inside" in refused([*TRAIN, "--data.shards", "set"], capsys)


def test_a_shard_that_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    shard = tar_of(tmp_path / "set" / "x.tar", good())
    assert run(tmp_path, "index", "set").code == 0
    raw = bytearray(shard.read_bytes())
    raw[600] ^= 1  # same size: only the digest can tell
    shard.write_bytes(raw)
    verify = run(tmp_path, "index", "set", "--verify")
    assert verify.code == 2, verify.said
    assert "x.tar" in verify.said
    shard.write_bytes(raw + bytes(512))
    outcome = run(tmp_path, *TRAIN, "--data.shards", "set")
    assert outcome.code == 2
    assert "the shard changed since it was indexed" in outcome.said

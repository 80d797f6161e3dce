"""A shard that is cut anywhere, or has any byte of a header changed: an error or the same index, never another one.

The sweeps print what they counted, for whoever reads the log of a test run.
"""

import io
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pictures import png
from writers import WRITERS, Sample

from gandist.data.shards import tar
from gandist.data.survey.probe import Findings, Question, probe
from gandist.errors import DataError

QUICK = ["webdataset TarWriter", "tarfile gnu"]
SAMPLES: list[Sample] = [(f"c{n}/{n:03d}", {"png": png(n, (4, 4)), "cls": str(n).encode()}) for n in range(2)]
LONG_NAMES: list[Sample] = [(f"{'folder/' * 16}{key}", fields) for key, fields in SAMPLES]
FLIPS = (0x01, 0x10, 0x80, 0xFF)


def each_writer(*without: str) -> pytest.MarkDecorator:
    names = [name for name in WRITERS if name not in without]
    return pytest.mark.parametrize(
        "writer", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in names]
    )


Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints past the capture of pytest, so that the counts are in the log."""

    def out(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end=" ", flush=True)

    return out


def looked_through(path: Path, *, salvage: bool = False, label: str = "cls") -> Findings:
    question = Question(None, label, False, 4, 3, verify=False, salvage=salvage, rejected_kept=9)
    return probe(path, path.name, path.name, question)


def told(found: Findings) -> tuple[object, ...]:
    """All that an index would hold of a shard, and what would be said of it."""
    arrays = (found.offset.tolist(), found.size.tolist(), found.label.tolist())
    return (*arrays, found.names, found.rejected, found.imageless, found.skipped)


@dataclass
class Shard:
    """A shard on disk that can be damaged and mended; ``path`` is changed, ``raw`` is how it was."""

    path: Path
    raw: bytes

    def cuts(self) -> Iterator[int]:
        """Cut it at every byte, from the last to the first."""
        for length in range(len(self.raw) - 1, -1, -1):
            os.truncate(self.path, length)
            yield length
        self.path.write_bytes(self.raw)

    def flips(self, places: list[int]) -> Iterator[tuple[int, int]]:
        """Change the bits of every pattern at every place, one after the other."""
        with self.path.open("r+b", buffering=0) as file:
            for at in places:
                for pattern in FLIPS:
                    os.pwrite(file.fileno(), bytes([self.raw[at] ^ pattern]), at)
                    yield at, pattern
                os.pwrite(file.fileno(), self.raw[at : at + 1], at)


def written(tmp_path: Path, writer: str, samples: list[Sample]) -> Shard:
    path = tmp_path / "a.tar"
    WRITERS[writer](path, samples)
    return Shard(path, path.read_bytes())


def blocks(raw: bytes) -> Iterator[tuple[int, int, bool]]:
    """The headers of a shard, each with the length of what follows it and whether that belongs to a header."""
    at = 0
    while raw[at : at + 512] != bytes(512):
        size = int(raw[at + 124 : at + 136].strip(b" \0"), 8)
        yield at, size, raw[at + 156 : at + 157] in (b"x", b"g", b"L", b"K")
        at += 512 - -size // 512 * 512


def read_by_tarfile(raw: bytes) -> list[tuple[str, int]] | None:
    """What Python's tarfile finds, or None where it notices the damage."""
    try:
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            return [(member.name, archive.extractfile(member) is not None and member.size) for member in archive]
    except (tarfile.TarError, EOFError, OSError):
        return None


@each_writer()
def test_a_cut_is_an_error_or_changes_nothing(tmp_path: Path, writer: str, say: Say) -> None:
    shard = written(tmp_path, writer, SAMPLES)
    whole, whole_to_tarfile = told(looked_through(shard.path)), read_by_tarfile(shard.raw)
    counts, unnoticed = Counter[str](), 0
    for length in shard.cuts():
        unnoticed += read_by_tarfile(shard.raw[:length]) not in (None, whole_to_tarfile)
        try:
            found = looked_through(shard.path)
        except tar.DamageError:
            counts["errors"] += 1
            continue
        assert told(found) == whole, f"cut at {length}: silently different"
        assert not any(shard.raw[length:]), f"cut at {length}: something was lost"
        counts["identical"] += 1
    end = len(shard.raw.rstrip(b"\0"))
    assert counts["errors"] >= end
    assert counts.total() == len(shard.raw)
    say(f"cut, {writer}: {len(shard.raw):,} places, {counts['errors']:,} errors, {counts['identical']:,} identical")
    say(f"     (Python's tarfile reads less without a word at {unnoticed:,})")


@each_writer()
def test_a_flipped_header_byte_is_an_error_or_changes_nothing(tmp_path: Path, writer: str, say: Say) -> None:
    shard = written(tmp_path, writer, SAMPLES)
    whole, whole_to_tarfile = told(looked_through(shard.path)), read_by_tarfile(shard.raw)
    places = [at + byte for at, _, _ in blocks(shard.raw) for byte in range(512)]
    counts, unnoticed = Counter[str](), 0
    for at, pattern in shard.flips(places):
        try:
            found = looked_through(shard.path)
        except DataError:
            counts["errors"] += 1
            if pattern == FLIPS[0]:
                damaged = shard.raw[:at] + bytes([shard.raw[at] ^ pattern]) + shard.raw[at + 1 :]
                unnoticed += read_by_tarfile(damaged) not in (None, whole_to_tarfile)
            continue
        assert told(found) == whole, f"byte {at} ^ {pattern:#x}: silently different"
        counts["identical"] += 1
    assert counts["errors"] > 50 * counts["identical"], "hardly any byte of a header is without meaning"
    assert counts.total() == len(places) * len(FLIPS)
    say(f"flip, {writer}: {counts.total():,} tries, {counts['errors']:,} errors, {counts['identical']:,} identical")
    say(f"     (Python's tarfile reads less, or other names, without a word at {unnoticed:,} of {len(places):,})")


@each_writer("tarfile ustar", "tar ustar")  # these have no long names
def test_long_names_lie_outside_the_checksums(tmp_path: Path, writer: str, say: Say) -> None:
    """A tar file has no checksum over the bodies of extended headers: a changed name is noticed by what it tears.

    Every sample here has two members, so no renaming goes unseen.
    """
    shard = written(tmp_path, writer, LONG_NAMES)
    whole = told(looked_through(shard.path))
    places = [
        at + 512 + byte for at, size, extended in blocks(shard.raw) if extended for byte in range(-(-size // 512) * 512)
    ]
    counts = Counter[str]()
    for at, pattern in shard.flips(places):
        try:
            found = looked_through(shard.path)
        except DataError:
            counts["errors"] += 1
            continue
        if told(found) == whole:
            counts["identical"] += 1
            continue
        assert found.imageless or found.skipped, f"byte {at} ^ {pattern:#x}: silently different"
        counts["reported"] += 1
    assert min(counts.values()) > 10
    say(
        f"flip in the body of long names, {writer}: {counts.total():,} tries, {counts['errors']:,} errors, "
        f"{counts['identical']:,} identical, {counts['reported']:,} reported as samples without image"
    )


@pytest.mark.parametrize("writer", QUICK)
def test_what_is_salvaged_is_always_the_beginning(tmp_path: Path, writer: str, say: Say) -> None:
    """At every cut, and with the sample that was in progress left out."""
    shard = written(tmp_path, writer, SAMPLES)
    whole = looked_through(shard.path)
    ends = [max(m.offset + m.size for m in tar.walk(shard.path) if m.name.startswith(key)) for key, _ in SAMPLES]
    counts = Counter[int]()
    for length in shard.cuts():
        found = looked_through(shard.path, salvage=True)
        kept = len(found.offset)
        assert found.offset.tolist() == whole.offset[:kept].tolist()
        assert found.size.tolist() == whole.size[:kept].tolist()
        assert found.label.tolist() == whole.label[:kept].tolist()
        assert found.imageless == ()
        assert found.shard.bytes == length
        assert kept <= sum(length >= end for end in ends), f"cut at {length}: more than is there"
        if found.salvaged is None:
            assert kept == len(SAMPLES)
        else:
            assert "damaged at byte" in found.salvaged
        counts[kept] += 1
    assert set(counts) == {0, 1, 2}
    say(f"salvage, {writer}: " + ", ".join(f"{n} samples at {count:,} cuts" for n, count in sorted(counts.items())))


def test_zeros_in_place_of_the_rest_are_no_end(tmp_path: Path) -> None:
    """What a crash leaves of a file whose length was written before its content."""
    shard = written(tmp_path, "tarfile gnu", SAMPLES)
    shard.path.write_bytes(shard.raw[:2048] + bytes(4 << 20))
    with pytest.raises(DataError, match=r"4\d{6} zeros follow the end marker, as after a crash"):
        looked_through(shard.path)
    shard.path.write_bytes(shard.raw + bytes(1 << 19))
    assert len(looked_through(shard.path).offset) == 2

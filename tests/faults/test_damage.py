"""Every region of a real checkpoint, flipped or cut: it is found, and the one before is used, on all ranks."""

import json
import os
import random
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from trainer_runs import Launch, digests, make_config, metrics, play

from gandist.errors import EXIT_DONE, CheckpointError
from gandist.runtime.checkpoint import CheckpointStore, open_checkpoint

FILES = [
    "discriminator.safetensors", "ema.safetensors", "generator.safetensors", "optimizer_d.safetensors",
    "optimizer_g.safetensors", "state.json", "manifest.json",
]  # fmt: skip
OLDER, NEWEST = "000000240", "000000320"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that has saved several checkpoints."""
    return play(make_config(tmp_path_factory.mktemp("run"))).folder


@dataclass
class Victim:
    """A copy of the run's checkpoints, to be damaged and mended again."""

    folder: Path

    def __post_init__(self) -> None:
        self.newest = self.folder / NEWEST
        self.store = CheckpointStore(self.folder, keep=3)

    def found(self) -> tuple[int, list[str]]:
        """Return which checkpoint is used, and what was said."""
        said: list[str] = []
        checkpoint = self.store.newest(said.append)
        assert checkpoint is not None
        return checkpoint.images_seen, said

    def falls_back(self) -> str:
        """Return what was said when the one before was used; fail if the damaged one was."""
        position, said = self.found()
        assert position == int(OLDER), f"the damaged checkpoint was used; said: {said}"
        assert len(said) == 1
        assert str(self.newest) in said[0]
        assert "Falling back to the checkpoint before it." in said[0]
        return said[0]


@pytest.fixture
def victim(run: Path, tmp_path: Path) -> Victim:
    return Victim(shutil.copytree(run / "checkpoints", tmp_path / "checkpoints"))


def test_the_files_are_all_there_are(victim: Victim) -> None:
    assert sorted(path.name for path in victim.newest.iterdir()) == sorted(FILES)
    assert victim.found() == (int(NEWEST), [])


# --- flips and cuts -----------------------------------------------------------------------------------------------


def regions(size: int, count: int, draw: random.Random) -> Iterator[int]:
    """Yield a random place in each of ``count`` regions of equal length, so that no region is left out."""
    for number in range(count):
        yield min(size - 1, int((number + draw.random()) * size / count))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("samples", [25, pytest.param(1000, marks=pytest.mark.long)])
def test_a_flipped_bit_is_found_in_every_region(victim: Victim, name: str, samples: int) -> None:
    seed = secrets.randbelow(1 << 32)
    draw = random.Random(seed)
    path = victim.newest / name
    content = path.read_bytes()
    for at in regions(len(content), samples, draw):
        damaged = bytearray(content)
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            pytest.fail(f"seed {seed}: a bit of byte {at} of {name}: {open_checkpoint(victim.newest)}")
    victim.falls_back()
    path.write_bytes(content)
    assert victim.found() == (int(NEWEST), [])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("samples", [25, pytest.param(500, marks=pytest.mark.long)])
def test_a_cut_is_found_in_every_region(victim: Victim, name: str, samples: int) -> None:
    """To less, and filled up with zeros to the old length, as some file systems do after a power cut."""
    seed = secrets.randbelow(1 << 32)
    path = victim.newest / name
    content = path.read_bytes()
    said = len(content.rstrip()) if name.endswith(".json") else len(content)  # what follows a document says nothing
    for kept in regions(said, samples, random.Random(seed)):
        for left in (content[:kept], content[:kept] + bytes(len(content) - kept)):
            if left.rstrip(b"\0") == content.rstrip(b"\0"):
                continue  # it ended with zeros
            path.write_bytes(left)
            with pytest.raises(CheckpointError):
                pytest.fail(f"seed {seed}: {name} cut at {kept}: {open_checkpoint(victim.newest)}")
    assert victim.falls_back()


@pytest.mark.parametrize("content", [b"", b"000000240\n", b"000009999\n", b"\xff\xfe../..", bytes(100_000)])
def test_what_latest_says_is_never_believed_and_put_right(victim: Victim, content: bytes) -> None:
    """It is there for people and scripts; the trainer looks at the checkpoints themselves."""
    latest = victim.folder / "latest"
    latest.write_bytes(content)
    assert victim.found() == (int(NEWEST), [])
    assert latest.read_text() == f"{NEWEST}\n"
    latest.unlink()
    assert victim.found() == (int(NEWEST), [])
    assert latest.read_text() == f"{NEWEST}\n"
    (victim.newest / "state.json").unlink()
    victim.falls_back()
    assert latest.read_text() == f"{OLDER}\n"


# --- other ways to be wrong ---------------------------------------------------------------------------------------


def swap(folder: Path) -> None:
    (folder / "ema.safetensors").rename(folder / "old")
    (folder / "generator.safetensors").rename(folder / "ema.safetensors")
    (folder / "old").rename(folder / "generator.safetensors")


def from_the_one_before(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copy(folder.parent / OLDER / name, folder / name) and None


def zero_the_tail(folder: Path) -> None:
    path = folder / "optimizer_d.safetensors"
    path.write_bytes(path.read_bytes()[:-64] + bytes(64))


def link(target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "ema.safetensors").unlink()
        (folder / "ema.safetensors").symlink_to(target)

    return change


def folder_in_its_place(folder: Path) -> None:
    (folder / "state.json").unlink()
    (folder / "state.json").mkdir()


def says(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "manifest.json").write_text(text) and None


def lists(name: str, entry: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = entry
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


def pipe(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


WAYS: dict[str, Callable[[Path], None]] = {
    "two files swapped": swap,
    "a file of the one before": from_the_one_before("generator.safetensors"),
    "the state of the one before": from_the_one_before("state.json"),
    "the manifest of the one before": from_the_one_before("manifest.json"),
    "a tail of zeros": zero_the_tail,
    "a file is missing": lambda folder: (folder / "ema.safetensors").unlink(),
    "the manifest is missing": lambda folder: (folder / "manifest.json").unlink(),
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()] and None,
    "a file that is a folder": folder_in_its_place,
    "a link to nowhere": link("absent"),
    "a link to itself": link("ema.safetensors"),
    "a link to another file": link("generator.safetensors"),
    "a link to a device without end": link("/dev/zero"),
    "a file not to be read": lambda folder: lists("secret", {"bytes": 0, "sha256": ""})(folder),
    "JSON nested too deep": says("[" * 200_000),
    "a name too long": lists("x" * 5000, {"bytes": 1, "sha256": ""}),
    "a name that is no text": lists("\ud800", {"bytes": 1, "sha256": ""}),
    "a manifest that is a pipe": pipe,
    "a manifest of a gigabyte": lambda folder: os.truncate(folder / "manifest.json", 1 << 30),  # no byte on the disk
    "a name with a zero": lists("a\0b", {"bytes": 1, "sha256": ""}),
    "a number without end": says('{"format": ' + "9" * 100_000 + "}"),
    "a length that is no number": lists("state.json", {"bytes": "many", "sha256": None}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_that_is_wrong_in_another_way(victim: Victim, way: str) -> None:
    WAYS[way](victim.newest)
    said = victim.falls_back()
    said.encode()  # it goes into a log


def test_what_a_manifest_does_not_list_is_never_read(victim: Victim) -> None:
    (victim.newest / "extra.safetensors").write_bytes(b"\xff" * 64)
    assert victim.found() == (int(NEWEST), [])


# --- all ranks ----------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", ["generator.safetensors", "manifest.json"])
def test_two_ranks_use_the_one_before_and_say_so(name: str, tmp_path: Path, launch: Launch) -> None:
    config = make_config(tmp_path, {"checkpoint": {"every_kimg": 0.064}})  # at a row of the metrics
    assert launch(config, world=2).wait() == [EXIT_DONE] * 2
    whole, rows = digests(config.folder), metrics(config.folder)
    path = config.folder / "checkpoints" / NEWEST / name
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)

    again = launch(config, world=2)
    assert again.wait() == [EXIT_DONE] * 2, again.output()
    events = (config.folder / "events.log").read_text()
    assert f"{path.parent}" in events
    assert "Falling back to the checkpoint before it." in events
    assert f"Continuing at 0.256 kimg from {config.folder}/checkpoints/000000256" in events
    assert digests(config.folder) == whole, "a rank that had taken the damaged one would have ended elsewhere"
    assert metrics(config.folder) == rows

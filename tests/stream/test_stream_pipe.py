"""Shards from commands: only where the user says so, whole or not at all, and nothing is left behind."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from pathlib import Path

import pytest
from streams import names, opened, taken, write_shards
from trainer_runs import TINY

import gandist
from gandist.cli import main
from gandist.config import Config, leaves
from gandist.data.stream.pipe import expand_pipe, pipe_shown, spool
from gandist.errors import EXIT_USER_ERROR, ConfigError, DataError, MachineError

PACKAGE = Path(gandist.__file__).parent


# --- who may run a command -------------------------------------------------------------------------------------


def test_a_command_needs_the_users_word(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(ConfigError, match="--allow-pipe"):
        opened(f"pipe:touch {canary}")
    assert not canary.exists()


@pytest.mark.parametrize("where", ["recipe", "flag"])
def test_a_hostile_recipe_touches_no_file(tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    canary = tmp_path / "canary"
    hostile = f"pipe:touch {canary}"
    content = {**TINY, "run": {"root": str(tmp_path / "runs")}}
    content["data"] = {**TINY["data"], "shards": hostile if where == "recipe" else "glyphs"}
    recipe = tmp_path / "hostile.yaml"
    recipe.write_text(json.dumps(content))
    flags = ["--data.shards", hostile] if where == "flag" else []
    assert main(["train", str(recipe), *flags]) == EXIT_USER_ERROR
    assert "--allow-pipe" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.yaml"]


@pytest.mark.parametrize("section", ["data", "execution", "run"])
@pytest.mark.parametrize("name", ["allow_pipe", "allow-pipe", "pipe"])
def test_no_knob_allows_it(tmp_path: Path, section: str, name: str) -> None:
    named = [leaf.path for leaf in leaves(Config()) if "pipe" in leaf.path]
    assert named == ["augment.ada.pipe"], "which is a choice of transforms; a source of shards has none"
    sections = [path for path in (PACKAGE / "config").glob("*.py") if path.name != "augment.py"]
    assert not any("pipe" in path.read_text() for path in sections)
    recipe = tmp_path / "hostile.yaml"
    recipe.write_text(json.dumps({section: {name: True}}))
    assert main(["train", str(recipe)]) == EXIT_USER_ERROR


def test_the_flag_is_the_only_way() -> None:
    """Whoever passes the permission on has it from the command line; nothing switches it on by itself."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "allow_pipe=True" not in text, path
        assert "allow_pipe: bool = True" not in text, path
        if "--allow-pipe" in text:
            inside = path.relative_to(PACKAGE).as_posix()  # the flag, and the message that names it
            assert inside in ("cli.py", "data/stream/images.py")
        if "shell=True" in text:
            assert path.relative_to(PACKAGE).as_posix() == "data/stream/pipe.py"


# --- commands that work ----------------------------------------------------------------------------------------


def test_commands_that_work(shards: Path, tmp_path: Path) -> None:
    images = opened(f"pipe:cat {shards}/{{000..003}}.tar", allow_pipe=True)
    seen = names(taken(images, 4))
    assert Counter(seen) == Counter((shard, place) for shard in range(4) for place in range(6))
    assert Counter(names(taken(images, 4, workers=1))) == Counter(seen)


def test_only_ranges_of_numbers_are_expanded() -> None:
    assert expand_pipe("pipe:cat {8..10}.tar") == [f"pipe:cat {n}.tar" for n in (8, 9, 10)]
    assert expand_pipe("pipe:cat {a,b} {01..02}/{0..1}")[1] == "pipe:cat {a,b} 01/1"
    for text in ("pipe:awk '{print}' ${HOME}/x", r"pipe:printf 'a\nb' {x..y}"):
        assert expand_pipe(text) == [text]
    for text in ("pipe:", "pipe:  ", "pipe:cat {9..1}", "pipe:cat {0..9999999}"):
        with pytest.raises(ConfigError):
            expand_pipe(text)


def test_a_command_is_shown_in_one_line() -> None:
    assert pipe_shown("pipe:a\n  b\tc") == "pipe:a b c"
    assert len(pipe_shown("pipe:" + "x" * 1000)) == 200


# --- commands that do not ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("head -c 700 {shard}; echo out of luck >&2; exit 3", "ended with status 3, saying 'out of luck'"),
        ("cat {shard}; exit 1", "ended with status 1$"),
        ("cat {shard}; kill -9 $$", "killed by signal 9"),
        ("no-such-command-here", "ended with status 127"),
    ],
)
def test_a_command_that_fails_gives_nothing(shards: Path, tmp_path: Path, command: str, words: str) -> None:
    text = "pipe:" + command.replace("{shard}", shlex.quote(str(shards / "000.tar")))
    with pytest.raises(DataError, match=words.rstrip("$")) as caught:
        spool(text, tmp_path)
    assert str(caught.value).startswith("pipe:")
    assert not list(tmp_path.iterdir())


def gone(pid_file: Path) -> bool:
    pid = int(pid_file.read_text())
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.parametrize("writes", ["head -c 700 {shard}", "true"])
def test_a_command_that_hangs_is_ended_with_all_it_started(shards: Path, tmp_path: Path, writes: str) -> None:
    pid_file, folder = tmp_path / "pid", tmp_path / "spool"
    writes = writes.replace("{shard}", str(shards / "000.tar"))
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"wrote nothing for 0\.5 seconds"):
        spool(f"pipe:{writes}; sh -c 'echo $$ > {pid_file}; exec sleep 100'; true", folder, stall_seconds=0.5)
    assert time.monotonic() - begun < 20
    deadline = time.monotonic() + 10
    while not gone(pid_file):
        assert time.monotonic() < deadline
    assert not list(folder.iterdir())


def test_a_command_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="closed its output but did not end"):
        spool("pipe:exec >&-; sleep 100", tmp_path, stall_seconds=0.3)


def test_a_command_that_writes_too_much_is_ended(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 100000 bytes"):
        spool("pipe:yes", tmp_path, limit_bytes=100_000)


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"--execution\.cache\.dir"):
        spool("pipe:echo x", tmp_path / "file")


def test_the_output_is_gone_when_it_is_closed(shards: Path, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    spooled = spool(f"pipe:cat {shards}/000.tar", tmp_path)
    assert spooled.path.read_bytes() == (shards / "000.tar").read_bytes()
    assert not list(tmp_path.iterdir()), "it has no name that a killed process could leave behind"
    spooled.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_one_failing_command_of_many_is_a_damaged_shard(tmp_path: Path) -> None:
    write_shards(tmp_path, 20, 3)
    (tmp_path / "013.tar").unlink()
    found = taken(opened(f"pipe:cat {tmp_path}/{{000..019}}.tar", allow_pipe=True), 19, 3)
    assert {shard for shard, _ in names(found)} == set(range(20)) - {13}
    assert sum(batch.damaged_shards for batch in found) == 1
    (note,) = [note for batch in found for note in batch.notes]
    assert note.startswith(f"Damaged shard: pipe:cat {tmp_path}/013.tar: the command ended with status 1")

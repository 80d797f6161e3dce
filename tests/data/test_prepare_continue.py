"""A prepare that ended before its time, by whatever cause, goes on, and its result is as if nothing had happened."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pictures import everything_under, fill, picture

from gandist.data.making.prepare import Summary, prepare
from gandist.data.making.publish import published
from gandist.errors import DataError, MachineError

OPTIONS: dict[str, Any] = {"resolution": 8, "workers": 0, "shard_images": 7, "validation": 12, "max_rejected": 2}

CHILD = """
import os, resource, signal, sys
from pathlib import Path
from gandist.data.making import shard_file
from gandist.data.making.prepare import prepare

source, destination, what, at, workers = sys.argv[1:6]
options = {"resolution": 8, "shard_images": 7, "validation": 12, "max_rejected": 2, "workers": int(workers)}
if int(workers):
    from gandist.data.making import write
    write._WORTH_A_POOL = write._TASK_IMAGES = 1
shard_file._CHUNK_BYTES = 1000
seen = 0

def hook(event, arguments):
    global seen
    if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
        return
    if ".partial-" not in str(arguments[0]):
        return
    if what == "count" or what == "kill":
        seen += 1
        if seen == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
    elif str(arguments[0]).endswith("train/shard-000003.tar") and not seen:
        seen = 1
        if what == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        else:
            print("here", flush=True)
            signal.pause()

if __name__ == "__main__":
    sys.addaudithook(hook)
    try:
        prepare(source, Path(destination), **options)
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
    finally:
        print(seen, flush=True)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images, two of which cannot be used."""
    folder = fill(tmp_path_factory.mktemp("source"), {"cat": 30, "dog": 28})
    (folder / "cat" / "page.png").write_text("<html>")
    picture((3, 9)).save(folder / "dog" / "small.png")
    return folder


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    destination = tmp_path_factory.mktemp("expected") / "d"
    prepare(str(source), destination, **OPTIONS)
    return everything_under(destination)


def child(source: Path, destination: Path, what: str, at: int = 0, workers: int = 0) -> subprocess.Popen[str]:
    script = destination.parent.parent / "child.py"
    script.write_text(CHILD)
    destination.parent.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(script), str(source), str(destination), what, str(at), str(workers)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def go_on(source: Path, destination: Path) -> Summary:
    """Give the same command again; whatever else there was is gone afterwards."""
    summary = prepare(str(source), destination, **OPTIONS)
    assert sorted(path.name for path in destination.parent.iterdir()) == [destination.name]
    return summary


def killed_at(source: Path, destination: Path, moments: list[int]) -> bool:
    """Kill one run after the other, each at its moment; return whether one ended by itself."""
    for at in moments:
        process = child(source, destination, "kill", at)
        out, err = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), (out, err)
        if process.returncode == 0:
            return True
        assert not destination.exists() or everything_under(destination)
    return False


@pytest.mark.parametrize("moments", [[1], [9], [14], [22, 17], [40, 2]])
def test_killed_and_gone_on(tmp_path: Path, source: Path, expected: dict[str, bytes], moments: list[int]) -> None:
    destination = tmp_path / "out" / "d"
    assert not killed_at(source, destination, moments)
    go_on(source, destination)
    assert everything_under(destination) == expected


@pytest.mark.long
def test_killed_at_every_moment(tmp_path: Path, source: Path, expected: dict[str, bytes]) -> None:
    """At every file that is opened, renamed or removed, from the first to the last."""
    for at in range(1, 1000):
        destination = tmp_path / f"{at}" / "d"
        if killed_at(source, destination, [at]):
            assert at > 40
            break
        if not destination.exists():  # it is there already if only the sweeping up is left
            go_on(source, destination)
        assert everything_under(destination) == expected, at


def at_shard_three(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n", process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_by_a_signal(tmp_path: Path, source: Path, expected: dict[str, bytes], number: int) -> None:
    destination = tmp_path / "out" / "d"
    process = child(source, destination, "wait", workers=2)
    at_shard_three(process)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert not destination.exists()
    if number == signal.SIGINT:
        assert "interrupted. What is finished is kept: the same command goes on from there." in err
    (partial,) = destination.parent.glob(".partial-*")
    before = {path: path.stat().st_mtime_ns for path in partial.rglob("shard-00000[0-2].tar")}
    summary = go_on(source, destination)
    assert summary.continued in (14, 21), "the third may not have been brought to the disk"
    assert f"continued: {summary.continued} images were there already" in str(summary)
    now = {path: destination / path.relative_to(partial / "set") for path in before}
    kept = [path for path, when in before.items() if now[path].stat().st_mtime_ns == when]
    assert len(kept) >= 2, "finished shards are taken as they are"
    assert everything_under(destination) == expected


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path, source: Path, expected: dict[str, bytes]) -> None:
    destination = tmp_path / "out" / "d"
    process = child(source, destination, "full")
    _, err = process.communicate(timeout=60)
    assert "MachineError" in err
    assert "a file reached the size limit that is set for this process" in err
    assert "What is finished is kept: the same command goes on from there" in err
    assert not list(destination.parent.rglob("shard-000003.tar")), "what is half written gives its space back"
    assert go_on(source, destination).continued >= 14
    assert everything_under(destination) == expected


def test_two_at_once(tmp_path: Path, source: Path, expected: dict[str, bytes]) -> None:
    """The second is refused, and the first is not disturbed."""
    destination = tmp_path / "out" / "d"
    process = child(source, destination, "wait")
    at_shard_three(process)
    with pytest.raises(DataError, match="another process is making it just now"):
        prepare(str(source), destination, **OPTIONS)
    assert prepare(str(source), destination.parent / "other", **OPTIONS).continued == 0
    os.kill(process.pid, signal.SIGCONT)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    prepare(str(source), destination, **OPTIONS)
    assert everything_under(destination) == expected


def test_what_was_half_written_is_not_taken_along(left: Path, source: Path, expected: dict[str, bytes]) -> None:
    (partial,) = left.parent.glob(".partial-*")
    for name in ("train/shard-000099.tar", "train/index.json.partial", "validation/shard-000000.tar"):
        (partial / "set" / name).parent.mkdir(exist_ok=True)
        (partial / "set" / name).write_text("half")
    assert go_on(source, left).continued >= 14
    assert everything_under(left) == expected


# --- leftovers that do not fit ------------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path: Path, source: Path) -> Path:
    """A destination that was not finished."""
    destination = tmp_path / "out" / "d"
    process = child(source, destination, "wait")
    at_shard_three(process)
    process.kill()
    process.communicate(timeout=60)
    return destination


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 4},
        {"seed": 1},
        {"shard_images": 6},
        {"fit": "pad"},
        {"classes": ["cat"]},
        {"validation": 11},
        {"validation": None},
    ],
)
def test_other_options_begin_anew(
    left: Path, source: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    options = {**OPTIONS, **change}
    assert prepare(str(source), left, **options).continued == 0
    assert "begins anew" in capsys.readouterr().err
    prepare(str(source), left.parent / "fresh", **options)
    assert everything_under(left) == everything_under(left.parent / "fresh")
    assert {path.name for path in left.iterdir()} == {path.name for path in (left.parent / "fresh").iterdir()}


@pytest.mark.parametrize("change", ["added", "changed", "renamed", "removed", "moved"])
def test_a_changed_source_begins_anew(
    left: Path, source: Path, tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cats = source / "cat"
    original = (cats / "0003.png").read_bytes()
    when = (cats / "0003.png").stat()
    try:
        if change == "added":
            picture(seed=99).save(cats / "new.png")
        elif change == "changed":
            (cats / "0003.png").write_bytes(original[:-1] + b"x")
        elif change == "renamed":
            (cats / "0003.png").rename(cats / "new.png")
        elif change == "removed":
            (cats / "0003.png").unlink()
        else:
            (cats / "0003.png").rename(source / "dog" / "new.png")
        assert prepare(str(source), left, **OPTIONS).continued == 0
        assert "or the source has changed since" in capsys.readouterr().err
    finally:
        for path in (cats / "new.png", source / "dog" / "new.png"):
            path.unlink(missing_ok=True)
        (cats / "0003.png").write_bytes(original)
        os.utime(cats / "0003.png", ns=(when.st_atime_ns, when.st_mtime_ns))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "ledger", "ledger list"])
def test_damaged_leftovers_begin_anew(
    left: Path, source: Path, expected: dict[str, bytes], damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (partial,) = left.parent.glob(".partial-*")
    shard = partial / "set" / "train" / "shard-000001.tar"
    if damage == "flipped":
        raw = bytearray(shard.read_bytes())
        raw[700] ^= 1
        shard.write_bytes(raw)
    elif damage == "cut":
        os.truncate(shard, 100)
    elif damage == "gone":
        shard.unlink()
    else:
        (partial / "ledger.json").write_text("{" if damage == "ledger" else "[]")
    assert go_on(source, left).continued == 0
    assert "begins anew" in capsys.readouterr().err
    assert everything_under(left) == expected


def test_what_does_not_change_the_bytes_may_change(
    left: Path, source: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gandist.data.making.write._WORTH_A_POOL", 1)
    summary = prepare(str(source), left, **{**OPTIONS, "workers": 2, "max_rejected": 5})
    assert summary.continued >= 14
    assert everything_under(left) == expected
    assert summary.reasons == {"not an image": 1, "too small": 1}
    assert sum(summary.widths.values()) == 59, "of the images that could be opened, before and after"


def test_a_mistyped_source_costs_nothing(left: Path, source: Path) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        prepare(f"{source}s", left, **OPTIONS)
    assert go_on(source, left).continued >= 14


def test_too_many_rejected_leave_nothing(left: Path, source: Path) -> None:
    with pytest.raises(DataError, match="2 of 60 images cannot be used"):
        prepare(str(source), left, **{**OPTIONS, "max_rejected": 1})
    assert list(left.parent.iterdir()) == []


# --- the hidden folder ---------------------------------------------------------------------------------------


def test_a_dead_worker_keeps_what_is_finished(left: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ProcessPoolExecutor

    monkeypatch.setattr("gandist.data.making.write._WORTH_A_POOL", 1)
    submit = ProcessPoolExecutor.submit
    with monkeypatch.context() as deadly:
        deadly.setattr(ProcessPoolExecutor, "submit", lambda pool, *_: submit(pool, os._exit, 9))
        with pytest.raises(MachineError, match=r"Use fewer with --workers\. What is finished is kept"):
            prepare(str(source), left, **{**OPTIONS, "workers": 1})
    assert go_on(source, left).continued >= 14


def test_the_lock_is_let_go_at_the_end_and_after_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), published(tmp_path / "d"):
        raise ValueError("mine")
    with published(tmp_path / "d") as scratch:
        scratch.set.mkdir()
        with (scratch.folder / "lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_file_system_without_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with published(tmp_path / "d") as scratch:
        scratch.set.mkdir()
    assert (tmp_path / "d").is_dir()


def test_a_destination_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    def overtaken() -> None:
        with published(tmp_path / "d") as scratch:
            scratch.set.mkdir()
            (tmp_path / "d").mkdir()
            (tmp_path / "d" / "mine").write_text("x")

    with pytest.raises(DataError, match="exists already"):
        overtaken()
    assert everything_under(tmp_path) == {"d/mine": b"x"}

"""W&B: what arrives there, and that nothing that happens there reaches the trainer."""

import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gandist.config import WandbConfig
from gandist.runtime import wandb_link
from gandist.runtime.wandb_link import WandbLink, wandb_run_id

pytestmark = pytest.mark.usefixtures("_patient")

BLOCK = 32768

sessions: list[WandbLink] = []


@pytest.fixture(autouse=True)
def nothing_left_over() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while sessions:
        session = sessions.pop()
        if session._process is not None:
            session._process.kill()


def link(folder: Path, mode: str, said: list[str], **more: Any) -> WandbLink:
    settings = WandbConfig.model_validate({"mode": mode, "project": "digits", "group": "g1", "tags": ["a", "b"]})
    config = {"run": {"seed": 7}, "environment": {"world_size": 2}}
    sessions.append(WandbLink(folder, settings, name="run one", config=config, say=said.append, **more))
    return sessions[-1]


def row(number: int) -> dict[str, float]:
    return {"images_seen": 100 * number, "round": number, "loss/d": number / 8}


def until(condition: Callable[[], Any], do: Callable[[], Any] = lambda: None, seconds: float = 40.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        do()
        time.sleep(0.02)


def until_heard(session: WandbLink, said: list[str], words: str) -> None:
    until(lambda: any(words in sentence for sentence in said), session._move)


def picture(folder: Path) -> Path:
    path = folder / "grid.png"
    Image.new("RGB", (20, 10), (200, 30, 60)).save(path)
    return path


def segment(folder: Path) -> Path:
    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    return path


def services() -> set[int]:
    """Return the process ids of W&B's services that are not about to end."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, state = (process / "cmdline").read_bytes(), (process / "stat").read_text().rsplit(")", 1)[1][1]
        except OSError:
            continue  # ended meanwhile
        if b"wandb-core" in command and state != "Z":
            found.add(int(process.name))
    return found


def service(of: WandbLink) -> int:
    """Return the process id of a session's W&B service."""
    assert of._process is not None
    parent = of._process._popen.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (found,) = services() & {int(child) for child in children}
    return found


def inspected(path: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def records(path: Path) -> Iterator[Any]:
    """Read W&B's file by its layout: blocks of LevelDB's log format that hold protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, part = path.read_bytes(), 7, b""
    assert struct.unpack("<4sHB", content[:7]) == (b":W&B", 0xBEE1, 0)
    while place + 7 <= len(content):  # the file may still be growing
        if (left := BLOCK - place % BLOCK) < 7:
            place += left
            continue
        crc, length, kind = struct.unpack("<IHB", content[place : place + 7])
        data = content[place + 7 : place + 7 + length]
        if len(data) < length:
            return
        assert zlib.crc32(bytes([kind]) + data) == crc
        place, part = place + 7 + length, part + data
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(part)
            part = b""
            yield record


def history(path: Path) -> list[dict[str, Any]]:
    rows = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
    return rows


# --- what arrives ------------------------------------------------------------------------------------------


def test_an_offline_session_holds_rows_picture_and_configuration(no_wandb: Path, tmp_path: Path) -> None:
    said: list[str] = []
    session = link(tmp_path, "offline", said)
    for number in range(1, 41):
        session.row(row(number))
    session.picture(4000, "samples/ema", picture(tmp_path))
    session.close("done")

    path = segment(tmp_path)
    assert said == [f"W&B: offline; upload later with: wandb sync {path.parent}"]
    *rows, drawn = history(path)
    assert rows == [row(number) for number in range(1, 41)]
    assert drawn["images_seen"] == 4000
    assert drawn["samples/ema.caption"] == "4 kimg"
    (copy,) = path.parent.glob("files/media/images/samples/ema*.png")
    assert copy.read_bytes() == (tmp_path / "grid.png").read_bytes()

    run = next(r.run for r in records(path) if r.WhichOneof("record_type") == "run")
    assert (run.run_id, run.project, run.run_group) == (wandb_run_id(tmp_path), "digits", "g1")
    assert list(run.tags) == ["a", "b"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["run"] == {"seed": 7}
    assert config["environment"] == {"world_size": 2}
    axes = {r.metric.name or r.metric.glob_name: r.metric.step_metric for r in records(path) if r.HasField("metric")}
    assert axes == {"images_seen": "", "*": "images_seen"}
    assert [r.exit.exit_code for r in records(path) if r.WhichOneof("record_type") == "exit"] == [0]

    by_cli = [r["history"]["item"] for r in inspected(path) if r["type"] == "history"]
    assert [items["loss/d"] for items in by_cli[:-1]] == [number / 8 for number in range(1, 41)]


def test_an_online_session_and_its_continuation_are_one_run(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gandist", "train", "digits.yaml"])
    said: list[str] = []
    ends = []
    for session_number, numbers in enumerate([range(1, 21), range(16, 31)]):  # the second starts at a checkpoint
        session = link(tmp_path, "online", said)
        for number in numbers:
            session.row(row(number))
        if session_number:
            session.picture(3000, "samples/ema", picture(tmp_path))
        session.close("done" if session_number else "preempted")
        run = server.runs[wandb_run_id(tmp_path)]
        ends.append((run.pop("exitcode"), run.pop("preempting", None)))

    assert ends == [(75, True), (0, None)]
    assert server.asked.count("RunResumeStatus") == 2
    (run_id,) = server.runs
    *rows, drawn = server.history(run_id)
    assert rows == [row(number) for number in [*range(1, 21), *range(16, 31)]]
    assert drawn["images_seen"] == 3000
    sent = {name: content for name, content in server.files.items() if name.startswith("media/images/samples/ema")}
    assert list(sent.values()) == [(tmp_path / "grid.png").read_bytes()]
    config = {name: part["value"] for name, part in json.loads(run["config"]).items()}
    assert config["run"] == {"seed": 7}
    assert (run["displayName"], run["groupName"], run["project"]) == ("run one", "g1", "digits")
    assert run["program"] == "gandist"
    (machine,) = {json.dumps(part["args"]) for part in config["_wandb"]["e"].values()}
    assert machine == json.dumps(["train", "digits.yaml"])
    assert said == [f"W&B: {server.url}/me/digits/runs/{run_id}"] * 2


def test_offline_sessions_are_uploaded_as_one_run(server: Any, tmp_path: Path) -> None:
    said: list[str] = []
    for numbers in range(1, 11), range(11, 16):
        session = link(tmp_path, "offline", said)
        for number in numbers:
            session.row(row(number))
        session.close("done")
    assert not server.runs
    folders = [sentence.rsplit(" ", 1)[1] for sentence in said]
    assert len(set(folders)) == 2
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *folders]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert server.history(wandb_run_id(tmp_path)) == [row(number) for number in range(1, 16)], done.stdout + done.stderr


def test_the_key_is_written_nowhere(server: Any, key: str, tmp_path: Path) -> None:
    said: list[str] = []
    for mode in "online", "offline":
        session = link(tmp_path / "run", mode, said)
        session.row(row(1))
        session.close("done")
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 6
    assert not [path for path in files if key.encode() in path.read_bytes()]
    assert key not in " ".join(said)
    assert key not in json.dumps(server.runs)


# --- what does not reach the trainer -----------------------------------------------------------------------


def test_nothing_of_wandb_runs_in_the_trainer(server: Any, tmp_path: Path) -> None:
    program = f"""
import sys, threading
from pathlib import Path
from gandist.config import WandbConfig
from gandist.runtime import wandb_link
from gandist.runtime.wandb_link import WandbLink
wandb_link.CONNECT_GRACE_SECONDS = 60.0
hooks = sys.excepthook
session = WandbLink(Path({str(tmp_path)!r}), WandbConfig(mode="online"), name="n", config={{}}, say=lambda text: None)
for number in range(200):
    session.row({{"images_seen": number}})
assert not [name for name in sys.modules if name.partition(".")[0] == "wandb"], "wandb was imported"
assert threading.active_count() == 1, "a thread was started"
assert sys.excepthook is hooks
session.close("done", seconds=180)
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
    assert len(server.history(wandb_run_id(tmp_path))) == 200


@pytest.mark.parametrize("failure", ["no_server", "black_hole"])
def test_a_server_out_of_reach_makes_the_session_an_offline_one(
    failure: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue(failure)
    said: list[str] = []
    session = link(tmp_path, "online", said, connect_seconds=2.0)
    begin = time.monotonic()
    for number in range(1, 101):
        session.row(row(number))
    assert time.monotonic() - begin < 5  # a hundred calls; connecting alone takes longer than that
    until_heard(session, said, "offline; upload later")
    session.row(row(101))
    begin = time.monotonic()
    session.close("done")
    assert time.monotonic() - begin < 20
    assert said[0].startswith("W&B cannot start online (")
    assert history(segment(tmp_path)) == [row(number) for number in range(1, 102)]


def test_a_run_that_ends_before_the_server_answers_loses_no_row(black_hole: None, tmp_path: Path) -> None:
    said: list[str] = []
    session = link(tmp_path, "online", said)
    session.row(row(1))
    begin = time.monotonic()
    session.close("done", seconds=24)
    assert time.monotonic() - begin < 40
    assert history(segment(tmp_path)) == [row(1)]


def test_a_server_that_falls_silent_is_left_behind(server: Any, tmp_path: Path) -> None:
    said: list[str] = []
    session = link(tmp_path, "online", said)
    session.row(row(1))
    until_heard(session, said, "W&B: http")
    server.silent.set()
    begin = time.monotonic()
    for number in range(2, 102):
        session.row(row(number))
    assert time.monotonic() - begin < 5
    left = service(session)
    begin = time.monotonic()
    session.close("done", seconds=4)
    assert time.monotonic() - begin < 15
    assert "within 4 s" in said[-1]
    folder = Path(said[-1].rsplit(" ", 1)[1])
    assert history(next(folder.glob("*.wandb"))) == [row(number) for number in range(1, 102)]  # can be uploaded later
    until(lambda: left not in services())


@pytest.mark.parametrize("victim", ["service", "process"])
def test_a_killed_wandb_is_one_sentence(victim: str, no_wandb: Path, tmp_path: Path) -> None:
    said: list[str] = []
    session = link(tmp_path, "offline", said)
    session.row(row(1))
    until_heard(session, said, "W&B: offline")
    assert session._process is not None
    left = service(session)
    os.kill(left if victim == "service" else session._process._popen.pid, signal.SIGKILL)
    numbers = itertools.count(2)
    until(lambda: len(said) > 1, lambda: session.row(row(next(numbers))))
    for _ in range(100):
        session.row(row(next(numbers)))
    begin = time.monotonic()
    session.close("done")
    assert time.monotonic() - begin < 10
    assert len(said) == 2
    assert "metrics.jsonl has every row" in said[1]
    until(lambda: left not in services())


def test_signals_that_slurm_sends_to_every_process_are_for_the_trainer_alone(no_wandb: Path, tmp_path: Path) -> None:
    said: list[str] = []
    session = link(tmp_path, "offline", said)
    session.row(row(1))
    until_heard(session, said, "W&B: offline")
    assert session._process is not None
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2:
        os.kill(session._process._popen.pid, number)
    for number in signal.SIGUSR1, signal.SIGUSR2:
        os.kill(service(session), number)
    session.row(row(2))
    session.close("preempted")
    assert len(said) == 1
    assert history(segment(tmp_path)) == [row(1), row(2)]


def test_rows_are_on_the_disk_within_seconds(no_wandb: Path, tmp_path: Path) -> None:
    said: list[str] = []
    session = link(tmp_path, "offline", said)
    until_heard(session, said, "W&B: offline")
    for number in range(1, 11):
        session.row(row(number))
    until(lambda: len(history(segment(tmp_path))) == 10, seconds=10)  # wandb's own default is 15
    os.kill(service(session), signal.SIGTERM)
    session.close("preempted")
    assert history(segment(tmp_path)) == [row(number) for number in range(1, 11)]


def test_a_stuck_wandb_drops_rows_instead_of_blocking(
    no_wandb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_link, "CAPACITY", 50)
    said: list[str] = []
    session = link(tmp_path, "offline", said)
    until_heard(session, said, "W&B: offline")
    assert session._process is not None
    os.kill(session._process._popen.pid, signal.SIGSTOP)
    many = 5000
    begin = time.monotonic()
    for number in range(many):
        session.row(row(number) | {f"metric/{i}": 0.5 for i in range(10)})
    assert time.monotonic() - begin < 10
    assert 0 < session.dropped < many
    assert len(session._waiting) == 50
    dropped = session.dropped
    session.close("done", seconds=1)
    assert said[1] == "W&B is too slow: 50 rows wait, further ones are left out of it."
    assert said[-1] == f"W&B is without {dropped} rows or pictures that it was too slow for."
    assert len(said) == 4


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit(3)", "os.kill(os.getpid(), 9)"])
def test_a_trainer_that_ends_without_a_word_is_not_held_and_its_rows_arrive(
    end: str, no_wandb: Path, tmp_path: Path
) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
from gandist.config import WandbConfig
from gandist.runtime.wandb_link import WandbLink
said = []
session = WandbLink(Path({str(tmp_path)!r}), WandbConfig(mode="offline"), name="n", config={{}}, say=said.append)
for number in range(1, 6):
    session.row({{"images_seen": number}})
while not said:
    session._move()
    time.sleep(0.01)
{end}
"""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=40, capture_output=True, text=True)
    assert ended.returncode == (-9 if "kill" in end else 3)
    assert ended.stderr == ""

    def codes() -> list[int]:
        return [r.exit.exit_code for r in records(segment(tmp_path)) if r.WhichOneof("record_type") == "exit"]

    until(codes)
    assert history(segment(tmp_path)) == [{"images_seen": number} for number in range(1, 6)]
    assert codes() == [1]


def broken_wandb(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    (folder / "broken").mkdir()
    (folder / "broken" / "wandb.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(folder / "broken"))


@pytest.mark.parametrize("before", ["", "import os; os.system('echo hello; cat')", "import sys; sys.stdin.read()"])
def test_a_wandb_that_cannot_be_imported_is_one_sentence(
    before: str, no_wandb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_wandb(tmp_path, monkeypatch, f"{before}\nraise ImportError('no wandb today')")
    said: list[str] = []
    session = link(tmp_path, "offline", said)
    session.row(row(1))
    session.close("done", seconds=10)
    assert [sentence.partition(".")[0] for sentence in said] == ["W&B stopped (ImportError: no wandb today)"]


def test_a_complaint_that_quotes_the_key_is_shown_without_it(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_wandb(tmp_path, monkeypatch, f"raise ValueError('bad key {key}!')")
    said: list[str] = []
    link(tmp_path, "online", said).close("done")
    assert said[0].startswith("W&B cannot start online (ValueError: bad key ***!)")
    assert key not in " ".join(said)


def test_a_machine_without_a_process_to_spare_trains_on(
    no_wandb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **more: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", full)
    said: list[str] = []
    session = link(tmp_path, "offline", said)
    session.row(row(1))
    session.close("done")
    assert len(said) == 1
    assert said[0].startswith("W&B cannot be started")

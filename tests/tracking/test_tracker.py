"""The one door: everything a trainer hands over arrives in every place that was asked for."""

import importlib.util
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gandist.config import TrackingConfig
from gandist.errors import EXIT_USER_ERROR, MachineError
from gandist.runtime.metrics_log import read_metrics
from gandist.runtime.tracking import AnyTracker, NullTracker, Tracker, check_tracking


def tracking(mode: str = "disabled", tensorboard: bool = False) -> TrackingConfig:
    return TrackingConfig.model_validate({"tensorboard": tensorboard, "wandb": {"mode": mode}})


def tracker(folder: Path, what: TrackingConfig, **more: Any) -> Tracker:
    given = {"metrics_position": None, "start_images": 0, "screen": io.StringIO()} | more
    return Tracker(
        folder,
        what,
        name="run",
        total_images=10_000,
        settings={"run": {"seed": 1}},
        environment={"torch": "2"},
        **given,
    )


def picture(folder: Path, mode: str = "RGB") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "grid.png"
    Image.new(mode, (12, 8), 200 if mode == "L" else (200, 30, 60)).save(path)
    return path


# --- a session ---------------------------------------------------------------------------------------------


def test_a_session_in_every_place(server: Any, tmp_path: Path) -> None:
    folder, screen = tmp_path / "run", io.StringIO()
    path = picture(folder)
    begin = tracker(folder, tracking("online", tensorboard=True), screen=screen)
    for number in range(1, 4):
        begin.log(1000 * number, number, {"loss/d": number / 8})
    begin.picture(3000, "samples/ema", path)
    begin.event("saved checkpoint 000003000")
    position = begin.metrics_position
    begin.close("done", "the end")

    assert position == (folder / "metrics.jsonl").stat().st_size
    assert [(row["images_seen"], row["loss/d"]) for row in read_metrics(folder / "metrics.jsonl")] == [
        (1000, 0.125), (2000, 0.25), (3000, 0.375),
    ]  # fmt: skip
    ((run_id, run),) = server.runs.items()
    assert [(row["images_seen"], row.get("loss/d")) for row in server.history(run_id)] == [
        (1000, 0.125), (2000, 0.25), (3000, 0.375), (3000, None),
    ]  # fmt: skip
    config = {name: part["value"] for name, part in json.loads(run["config"]).items()}
    assert (config["run"], config["environment"]) == ({"seed": 1}, {"torch": "2"})
    assert run["displayName"] == "run"
    assert scalars(folder, "loss/d") == [(1000, 0.125), (2000, 0.25), (3000, 0.375)]
    events = (folder / "events.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  saved checkpoint 000003000$", events, re.MULTILINE)
    assert "saved checkpoint 000003000\n" in screen.getvalue()
    assert "3.0/10.0 kimg" in screen.getvalue()


def test_a_disabled_session_leaves_nothing_of_wandb(no_wandb: Path, tmp_path: Path) -> None:
    session = tracker(tmp_path, tracking())
    session.log(64, 0, {"loss/d": 1.0})
    session.close("done", "the end")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.log", "home", "metrics.jsonl"]


def test_a_continued_session_drops_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    session = tracker(tmp_path, tracking())
    session.log(1000, 1, {})
    known = session.metrics_position
    session.log(2000, 2, {})
    session.close("preempted", "the end")
    session = tracker(tmp_path, tracking(), metrics_position=known, start_images=1000)
    session.log(2000, 2, {})
    session.close("done", "the end")
    assert [row["round"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    assert "1 row(s) from after the checkpoint were removed" in (tmp_path / "events.log").read_text()


def test_log_stays_fast_without_a_server(black_hole: None, tmp_path: Path) -> None:
    session = tracker(tmp_path, tracking("online"))
    begin = time.monotonic()
    for number in range(200):
        session.log(number, number, {"loss/d": 1.0})
    assert time.monotonic() - begin < 5
    begin = time.monotonic()
    session.close("failed", "the end")
    assert time.monotonic() - begin < 45
    assert len(list(read_metrics(tmp_path / "metrics.jsonl"))) == 200
    assert "offline" in (tmp_path / "events.log").read_text()


def test_an_event_of_several_lines_stays_one_event(tmp_path: Path) -> None:
    session = tracker(tmp_path, tracking())
    session.event("first\nsecond")
    session.close("done", "the end")
    assert (tmp_path / "events.log").read_text().split("  ", 1)[1].startswith("first\n    second\n2")


def test_the_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session: AnyTracker = NullTracker()
    session.log(64, 0, {"loss/d": 1.0})
    session.picture(64, "samples/ema", tmp_path / "none.png")
    session.event("nothing")
    assert session.metrics_position == 0
    session.close("done", "the end")
    assert not list(tmp_path.iterdir())
    taken: AnyTracker = tracker(tmp_path, tracking())
    taken.close("done", "the end")


# --- TensorBoard -------------------------------------------------------------------------------------------


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard")).Reload()


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_tensorboard_reads_back(mode: str, tmp_path: Path) -> None:
    path = picture(tmp_path, mode)
    session = tracker(tmp_path, tracking(tensorboard=True))
    session.log(640, 1, {"loss/d": 0.5, "lr/g": 0.25})
    session.picture(640, "samples/ema", path)
    session.close("done", "the end")
    assert scalars(tmp_path, "loss/d") == [(640, 0.5)]
    assert scalars(tmp_path, "lr/g") == [(640, 0.25)]
    (image,) = events(tmp_path).Images("samples/ema")
    assert (image.step, image.width, image.height) == (640, 12, 8)
    with Image.open(io.BytesIO(image.encoded_image_string)) as read, Image.open(path) as drawn:
        assert read.tobytes() == drawn.convert("RGB").tobytes()


def test_tensorboard_hides_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    session = tracker(tmp_path, tracking(tensorboard=True))
    for number in range(1, 5):
        session.log(100 * number, number, {"loss/d": 1.0})
    session.close("preempted", "the end")
    session = tracker(tmp_path, tracking(tensorboard=True), start_images=200)
    session.log(300, 3, {"loss/d": 2.0})
    session.close("done", "the end")
    assert scalars(tmp_path, "loss/d") == [(100, 1.0), (200, 1.0), (300, 2.0)]


# --- before a run ------------------------------------------------------------------------------------------


def test_online_without_a_key_is_refused_before_anything_is_written(no_wandb: Path, tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        tracker(tmp_path / "run", tracking("online"))
    for remedy in "WANDB_API_KEY", "wandb login", "--tracking.wandb.mode offline", "--tracking.wandb.mode disabled":
        assert remedy in str(caught.value)
    assert caught.value.exit_code == EXIT_USER_ERROR
    assert not (tmp_path / "run").exists()
    check_tracking(tracking("offline"))
    check_tracking(tracking("disabled"))


@pytest.mark.parametrize(
    ("machine", "base_url", "found"),
    [
        ("api.wandb.ai", None, True),
        ("api.forge.coreweave.com", None, True),
        ("github.com", None, False),
        ("wandb.lab.example", "https://wandb.lab.example", True),
        ("api.wandb.ai", "https://wandb.lab.example", False),
        ("wandb.lab.example:8080", "http://wandb.lab.example:8080", True),
    ],
)
def test_a_key_in_netrc_counts_for_its_server(
    machine: str, base_url: str | None, found: bool, no_wandb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_wandb / ".netrc").write_text(f"machine {machine}\n  login user\n  password {'a' * 40}\n")
    if base_url:
        monkeypatch.setenv("WANDB_BASE_URL", base_url)
    if found:
        check_tracking(tracking("online"))
    else:
        with pytest.raises(MachineError, match="no W&B API key"):
            check_tracking(tracking("online"))


def test_keys_elsewhere_count(no_wandb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    check_tracking(tracking("online"))
    monkeypatch.delenv("NETRC")
    (no_wandb / ".config" / "wandb").mkdir(parents=True)
    (no_wandb / ".config" / "wandb" / "settings").write_text("[default]\napi_key = " + "a" * 40 + "\n")
    check_tracking(tracking("online"))


def test_a_broken_netrc_is_no_key(no_wandb: Path) -> None:
    (no_wandb / ".netrc").write_text("machine\nnonsense nonsense")
    with pytest.raises(MachineError, match="no W&B API key"):
        check_tracking(tracking("online"))


@pytest.mark.parametrize(
    ("package", "what"), [("tensorboard", tracking(tensorboard=True)), ("wandb", tracking("offline"))]
)
def test_a_missing_package_is_named_with_its_command(
    package: str, what: TrackingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(MachineError, match=f"pip install {package}"):
        check_tracking(what)

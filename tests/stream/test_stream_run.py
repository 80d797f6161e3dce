"""Whole runs on streams: they end, say what they do not promise, and go on elsewhere in the stream."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from streams import CLASSES, SIDE, write_shards
from trainer_runs import Launch, make_config, play

from gandist.cli import main
from gandist.config import Config, dump
from gandist.data.stream.shards import shard_order
from gandist.errors import DataError, ResumeError
from gandist.trainer import Trainer


def streaming(root: Path, shards: object, kimg: float = 0.064, **changes: Any) -> Config:
    return make_config(
        root,
        {
            "run": {"total_kimg": kimg},
            "data": {
                "shards": str(shards),
                "resolution": SIDE,
                "channels": 1,
                "stream": {"label": "cls", "class_count": CLASSES, "shuffle_images": 2},
            },
            "model": {"conditional": True},
            **changes,
        },
    )


def events(config: Config) -> str:
    return (config.folder / "events.log").read_text()


def test_a_run_says_what_a_stream_does_not_promise(shards: Path, tmp_path: Path) -> None:
    config = streaming(tmp_path, f"{shards}/*.tar")
    play(config)
    for words in ("there are no epochs", "ranks and workers", "instead of going on exactly", "come twice"):
        assert words in events(config)


def test_a_run_goes_on_in_new_streams(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(streaming(tmp_path, f"{shards}/*.tar"))
    begun: list[int] = []
    images = type(Trainer(streaming(tmp_path, f"{shards}/*.tar")).images)
    real = images.begin  # type: ignore[union-attr]

    def begin(self: Any, *, start: int, **rest: int) -> object:
        begun.append(start)
        return real(self, start=start, **rest)

    monkeypatch.setattr(images, "begin", begin)
    again = play(streaming(tmp_path, f"{shards}/*.tar", kimg=0.128))
    assert begun == [64]
    assert again.clock.data_position == 128


def test_other_shards_are_another_run(shards: Path, tmp_path: Path) -> None:
    play(streaming(tmp_path, f"{shards}/*.tar"))
    with pytest.raises(ResumeError, match="--restart-data"):
        Trainer(streaming(tmp_path, f"{shards}/00[0-5].tar", kimg=0.128))


def test_two_ranks_end_and_tell_what_either_met(tmp_path: Path, launch: Launch) -> None:
    """The first shard of rank 1 is damaged: rank 0, which writes the log, never sees it."""
    data = tmp_path / "data"
    data.mkdir()
    write_shards(data, 24, 4)
    first = next(shard_order(24, seed=3, start=0, consumer=1, consumers=2))
    assert first not in itertools.islice(shard_order(24, seed=3, start=0, consumer=0, consumers=2), 12)
    path = data / f"{first:03d}.tar"
    path.write_bytes(path.read_bytes()[:1600])
    config = streaming(tmp_path, f"{data}/*.tar")
    ranks = launch(config, world=2)
    assert ranks.wait() == [0, 0], ranks.output()
    (line,) = [line for line in events(config).splitlines() if "Damaged shard" in line]
    assert f"{path}: damaged at byte" in line
    rows = [json.loads(row) for row in (config.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["data/damaged_shards"] == 1
    assert "data/bad_images" not in rows[-1]


def test_two_ranks_with_workers_end_when_the_data_are_bad(tmp_path: Path, launch: Launch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_shards(data, 4, 4)
    for path in data.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:1600])
    ranks = launch(streaming(tmp_path, f"{data}/*.tar", execution={"workers": 1}), world=2)
    assert all(code != 0 for code in ranks.wait()), ranks.output()
    assert "damaged shard" in ranks.output()


def test_bad_data_end_a_run_in_plain_words(shards: Path, tmp_path: Path) -> None:
    trainer = Trainer(streaming(tmp_path, f"{shards}/*.tar", data={
        "shards": f"{shards}/*.tar", "resolution": 8, "channels": 1, "stream": {"label": "cls", "class_count": CLASSES},
    }))  # fmt: skip
    with pytest.raises(DataError, match="bad image 11 of 11"):
        trainer.train()
    assert "bad image 11 of 11" in (trainer.folder / "status.json").read_text()


@pytest.mark.parametrize("switches", [[], ["--debug"]])
def test_the_flag_of_the_command_line(shards: Path, tmp_path: Path, switches: list[str]) -> None:
    config = streaming(tmp_path, f"pipe:cat {shards}/{{000..007}}.tar")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(dump(config)))
    assert main(["train", str(recipe), *switches]) == 2
    assert main(["train", str(recipe), "--allow-pipe", *switches]) == 0
    assert main(["config", str(recipe), "--folder", "--allow-pipe"]) == 0

"""What follows from measured figures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gandist.config import Config, parse
from gandist.doctor import verdict
from gandist.doctor.finding import Finding
from gandist.doctor.slurm import Job
from gandist.doctor.trial import Figures, Play
from gandist.doctor.verdict import Need
from gandist.runtime.probe import Reduction

GIB = 1 << 30
HOUR = 3600.0
PLAY = Play(
    stopped=False, build_seconds=20, blocked_seconds=0.01, written_seconds=2, gradient_numbers=1_000_000, on_gpu=True,
    precision="bf16", notes=(),
)  # fmt: skip
FIGURES = Figures(
    rounds=100, seconds_per_round=0.064, images_per_second=1000, data_wait_share=0.01, bad_images=0, skipped_steps=0,
    checkpoint_bytes=GIB, peak_bytes=40 * GIB, memory_bytes=80 * GIB, problems=(), play=PLAY,
)  # fmt: skip


def recipe(**sections: Any) -> Config:
    return parse({"run": {"total_kimg": 3600, "root": "/r", "name": "x"}, **sections}, "tests")


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def need(seconds: float) -> Need:
    return Need(images=seconds * 1000, seconds=seconds)


def test_what_is_left_of_a_run() -> None:
    assert Need.of(recipe(), FIGURES, 0) == Need(3_600_000, pytest.approx(3600 + 72 * 0.01))
    assert Need.of(recipe(), FIGURES, 3_000_000).images == 600_000
    assert Need.of(recipe(), FIGURES, 4_000_000) == Need(0, 0)


def test_speed_and_time() -> None:
    found = verdict.speed_findings(FIGURES, need(3600), 0)
    assert [finding.fact for finding in found] == [
        "1,000 images/s in bf16, 64 ms a round (100 rounds)",
        "1 h for 3,600 kimg",
    ]
    assert "that are left" in verdict.speed_findings(FIGURES, need(3600), 5)[1].fact
    assert len(verdict.speed_findings(FIGURES, Need(0, 0), 5)) == 1, "a run that is done takes no time"
    skipped = verdict.speed_findings(replace(FIGURES, skipped_steps=3), need(3600), 0)
    assert ("warn", "numbers") in [(finding.level, finding.check) for finding in skipped]


@pytest.mark.parametrize(
    ("share", "workers", "level"), [(0.01, 2, "ok"), (0.1, 2, "note"), (0.5, 2, "warn"), (0.5, 0, "ok")]
)
def test_waiting_for_images(share: float, workers: int, level: str) -> None:
    (found,) = verdict.waiting_findings(replace(FIGURES, data_wait_share=share), workers)
    assert found.level == level
    assert ("--execution.workers 4" in found.advice) == (level in ("note", "warn"))


def test_bad_images_are_warned_of() -> None:
    assert levels(verdict.waiting_findings(replace(FIGURES, bad_images=2), 1)) == ["ok", "warn"]


@pytest.mark.parametrize(("peak", "level"), [(40, "ok"), (78, "warn")])
def test_memory(peak: int, level: str) -> None:
    (found,) = verdict.memory_findings(replace(FIGURES, peak_bytes=peak * GIB))
    assert found.level == level


def test_gradients_between_ranks() -> None:
    reductions = [Reduction(1 << 16, 0.001), Reduction(1 << 22, 0.004)]
    assert verdict.traffic_findings(FIGURES, [], compressed=False) == []
    (found,) = verdict.traffic_findings(FIGURES, reductions, compressed=False)
    assert found.level == "ok"
    assert found.figures == {"gradient_bytes": 4e6, "reduction_seconds": pytest.approx(0.004)}
    assert verdict.traffic_findings(FIGURES, reductions, compressed=True)[0].figures["gradient_bytes"] == 2e6
    slow = [Reduction(1 << 20, 0.02)]  # four of them are longer than a round
    assert levels(verdict.traffic_findings(FIGURES, slow, compressed=False)) == ["warn"]


def test_checkpoints() -> None:
    (found,) = verdict.checkpoint_findings(FIGURES, recipe())
    assert found.level == "ok"
    assert found.figures["seconds_between"] == 50
    slow = replace(FIGURES, play=replace(PLAY, written_seconds=60))
    (found,) = verdict.checkpoint_findings(slow, recipe())
    assert (found.level, "--checkpoint.every_kimg 200" in found.advice) == ("warn", True)
    blocking = replace(FIGURES, play=replace(PLAY, blocked_seconds=5))
    assert levels(verdict.checkpoint_findings(blocking, recipe())) == ["warn"]
    (found,) = verdict.checkpoint_findings(replace(FIGURES, problems=("the disk is full",)), recipe())
    assert (found.level, found.fact) == ("FAIL", "the disk is full")


@pytest.mark.parametrize(
    ("free", "present", "knobs", "level"),
    [
        (100, 0, {}, "ok"),
        (4.5, 0, {}, "warn"),
        (3, 0, {}, "FAIL"),
        (3, 3, {}, "ok"),
        (30, 0, {"keep_every_kimg": 100}, "FAIL"),
        (4.5, 0, {"best_metric": "loss/d"}, "FAIL"),
    ],
)
def test_the_disk_holds_all_that_is_kept(free: float, present: float, knobs: dict[str, Any], level: str) -> None:
    config = recipe(checkpoint=knobs)
    assert levels(verdict.disk_findings(FIGURES, config, free * GIB, present * GIB)) == [level]


def test_exactness() -> None:
    assert levels(verdict.exactness_findings([], 8, on_gpu=True, deterministic=False)) == ["ok"]
    (found,) = verdict.exactness_findings(["ema.safetensors"], 8, on_gpu=False, deterministic=False)
    assert found.level == "FAIL"
    assert found.fact == "8 rounds in one go and with a stop after 4 end in different bytes, first in ema.safetensors"
    (found,) = verdict.exactness_findings(["ema.safetensors"], 8, on_gpu=True, deterministic=False)
    assert (found.level, "--execution.deterministic true" in found.advice) == ("warn", True)
    assert levels(verdict.exactness_findings(["g"], 8, on_gpu=True, deterministic=True)) == ["FAIL"]


# --- the time limit ------------------------------------------------------------------------------------------


def limits(seconds: float, job: Job, **sections: Any) -> list[tuple[str, str]]:
    found = verdict.limit_findings(FIGURES, need(seconds), job, recipe(**sections))
    return [(finding.check, finding.level) for finding in found]


def test_a_run_that_fits_and_one_that_takes_several_attempts() -> None:
    job = Job("7", 1, limit_seconds=HOUR, notice_seconds=300)
    assert limits(HOUR / 2, job) == [("notice", "ok"), ("time limit", "ok")]
    found = verdict.limit_findings(FIGURES, need(10 * HOUR), job, recipe())[-1]
    assert (found.level, found.figures["attempts"]) == ("ok", 11)
    assert "the job goes back to the queue by itself" in found.fact
    assert limits(10 * HOUR, replace(job, requeues=False))[-1] == ("time limit", "warn")
    assert limits(HOUR / 2, Job("7", 1)) == [], "no limit, nothing to say"
    assert limits(0, job) == [], "nothing is left to do"


def test_a_limit_in_which_nothing_is_learnt() -> None:
    assert limits(HOUR, Job("7", 1, limit_seconds=310, notice_seconds=300)) == [
        ("notice", "ok"),
        ("time limit", "FAIL"),
    ]


def test_a_limit_of_which_little_is_training_is_warned_of() -> None:
    job = Job("7", 1, limit_seconds=HOUR, notice_seconds=0.75 * HOUR)
    assert limits(2 * HOUR, job) == [("notice", "ok"), ("time limit", "warn")]
    assert limits(HOUR / 8, job) == [("notice", "ok"), ("time limit", "ok")], "it fits all the same"


@pytest.mark.parametrize(("notice", "level"), [(1.0, "FAIL"), (2.0, "FAIL"), (3.0, "warn"), (3.2, "ok")])
def test_a_save_must_fit_into_the_notice(notice: float, level: str) -> None:
    assert limits(HOUR / 2, Job("7", 1, limit_seconds=HOUR, notice_seconds=notice))[0] == ("notice", level)


def test_without_a_notice_each_end_loses_what_was_not_saved() -> None:
    job = Job("7", 1, limit_seconds=HOUR)
    assert limits(HOUR / 2, job) == [("time limit", "ok")]
    assert limits(2 * HOUR, job) == [("time limit", "warn")]
    assert limits(2 * HOUR, job, checkpoint={"every_kimg": 5000}) == [("time limit", "FAIL")]


def test_bytes_of_a_run_that_is_there(tmp_path: Path) -> None:
    from gandist.doctor.rounds import present_bytes

    assert present_bytes(tmp_path) == 0
    (tmp_path / "checkpoints" / "000000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "000000001" / "ema.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "other").write_bytes(b"x")
    assert present_bytes(tmp_path) == 100

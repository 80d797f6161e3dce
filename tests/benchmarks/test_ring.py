"""The benchmark on a ring of Gaussians: how modes are counted, and the rows to rely on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from modes.count import Count, count
from modes.play import play, recipe
from modes.rows import TABLES

from gandist.config import Config
from gandist.data import ring

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ring.py"


def test_the_data_cover_all_modes() -> None:
    points, _ = ring.draw(np.arange(8000), seed=1)
    found = count(points)
    assert found.modes == 8
    assert found.quality == pytest.approx(1 - np.exp(-4.5), abs=0.004)


def test_a_mode_needs_a_quarter_of_its_share() -> None:
    """Of 320 points a fair share is 40: ten good ones cover a mode, nine do not, and bad ones do not count."""
    near, far = ring.CENTRES + np.float32(0.01), ring.CENTRES + np.float32(0.05)  # 1.8 and 8.8 deviations away
    points = [near[0]] * 10 + [near[1]] * 9 + [near[2]] * 9 + [far[2]] * 200 + [near[3]] * 92
    assert count(np.stack(points)) == Count(2, 120 / 320)


def test_every_row_is_a_recipe_of_its_own() -> None:
    recipes: dict[Config, str] = {}
    for title, rows in TABLES.items():
        for name, changes in rows.items():
            recipes.setdefault(recipe(changes, 0), f"{title}: {name}")
    again = ["R1", "detach", "none", "fixed"]  # the same run in another table
    assert len(recipes) == sum(map(len, TABLES.values())) - len(again)


@pytest.mark.long
def test_r1_keeps_all_modes() -> None:
    """What docs/ring.md shows of five seeds, for one."""
    kept = play(recipe(TABLES["Regularisers"]["R1 at every 4th step (the recipe)"], 0))
    assert kept.average.modes == 8
    assert kept.average.quality > 0.5
    assert not any("mode collapse" in news for news in kept.news)


@pytest.mark.long
@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
def test_without_a_penalty_modes_are_lost_and_that_is_told(name: str) -> None:
    lost = play(recipe(TABLES["Losses, without a penalty"][name], 0))
    assert lost.average.modes < 8
    told = [news for news in lost.news if "mode collapse" in news]
    assert told
    assert "--regularizer.r1.gamma" in told[0]


@pytest.mark.long
def test_the_script_runs() -> None:
    run = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--jobs", "1"],
        capture_output=True, text=True, check=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "| R1 " in run.stdout

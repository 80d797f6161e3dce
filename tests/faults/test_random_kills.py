"""One run killed 200 times, at moments that nobody chose, ends as if nothing had happened."""

import json
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from random_kills import BATCH, INTERVAL

PROGRAM = Path(__file__).with_name("random_kills.py")
KILLS = 200


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_200_kills_lose_no_more_than_the_checkpoint_that_was_being_written(tmp_path: Path) -> None:
    seed = secrets.randbelow(1 << 32)
    command = [sys.executable, PROGRAM, tmp_path, str(KILLS), str(seed)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"seed {seed}: {run.stdout}\n{run.stderr}"
    *kills, comparison = map(json.loads, run.stdout.splitlines())
    for kill in kills:
        what = f"seed {seed}: {kill}"
        assert kill["code"] == -signal.SIGKILL, what
        assert kill["newest"] >= kill["oldest_allowed"], what
    assert len(kills) == KILLS
    inside = sum(kill["in_a_save"] for kill in kills)
    print(f"seed {seed}: {inside} of {KILLS} kills hit inside a save, {sum(k['real'] for k in kills)} had workers")
    lost = max(kill["position"] - kill["newest"] for kill in kills)
    print(f"at most {lost} images were lost to a kill, with a checkpoint each {INTERVAL}")
    assert inside >= KILLS // 10, f"seed {seed}: only {inside} kills hit inside a save"
    assert comparison["codes"] == [0, 0], f"seed {seed}: {comparison}"
    assert comparison["rows"] == comparison["end"] // BATCH, "a row for each round"
    assert comparison["same_weights"], f"seed {seed}: {comparison}"
    assert comparison["same_rows"], f"seed {seed}: {comparison}"

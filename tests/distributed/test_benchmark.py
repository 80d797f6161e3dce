"""The benchmark of several processes runs, and fails if a round sends more than it must."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ddp.py"


@pytest.mark.long
def test_a_round_reduces_each_network_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick"], env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path, text=True,
        capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:2] == "| "]
    multiples = {row[0]: row[5] for row in rows if len(row) == 8}
    assert multiples["gandist's round"] == "1.000"
    assert multiples["gradients in bf16, R1 due"] == "0.500"
    (hidden,) = (float(row[4]) for row in rows if len(row) == 5 and re.fullmatch(r"\d\.\d\d", row[4]))
    assert 0 < hidden <= 1

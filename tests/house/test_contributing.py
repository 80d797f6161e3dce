"""The examples of CONTRIBUTING.md are complete: added to a copy of the package, each of them trains."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n# (gandist/[\w/]+\.py)(?:, in (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TABLES = {"LOSSES": set(), "PENALTIES": {"drift.py"}, "ARCHITECTURES": {"patches.py"}}
"""The tables that get a row, and the new file of each."""

PROGRAM = """
import sys
import gandist
from accelerate.state import AcceleratorState
from gandist.cli import main

assert gandist.__file__.startswith(sys.argv[1]), gandist.__file__
for name, *flags in (
    ("loss", "--loss.kind", "total_variation"),
    ("penalty", "--regularizer.other.name", "drift", "--regularizer.other.weight", "0.5"),
    ("architecture", "--model.arch", "patches"),
    ("classes", "--model.arch", "patches", "--model.conditional", "True"),
):
    AcceleratorState._reset_state(reset_partial_state=True)
    assert main(["train", "tiny.yaml", "--run.name", name, *flags]) == 0, name
"""
TINY = {
    "run": {"total_kimg": 0.016},
    "data": {"resolution": 8, "channels": 1},
    "model": {"arch": "mlp", "latent_dim": 4, "mlp": {"generator_widths": [8], "discriminator_widths": [8]}},
    "update": {"batch_images": 8},
    "samples": {"rows": 1, "columns": 1},
    "tracking": {"every_kimg": 0.008},
    "execution": {"workers": 0, "precision": "fp32", "device": "cpu", "threads": 1},
}


def with_row(source: str, table: str, addition: str) -> str:
    """Return a module with a row more at the end of a table, and with what the row needs imported."""
    imports = [line for line in addition.splitlines() if line.startswith("from ")]
    row = "\n".join(line for line in addition.splitlines() if line and line not in imports)
    begin = source.index(f"\n{table}: ")
    end = source.index("\n}\n", begin)
    last_import = source.rindex("\nfrom ", 0, begin) + 1
    return "".join(
        [source[:last_import], *(f"{line}\n" for line in imports), source[last_import:end], f"\n{row}", source[end:]]
    )


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """A copy of the package with all that the page adds; for each table, the new files that come with it."""
    home = tmp_path_factory.mktemp("checkout")
    for name in ("gandist", "configs"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    added: dict[str, list[str]] = {}
    new: list[str] = []
    for path, table, code in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        file = home / path
        if table:
            file.write_text(with_row(file.read_text(encoding="utf-8"), table, code), encoding="utf-8")
            added[table], new = new, []
        else:
            assert not file.exists(), f"{path} is there already"
            file.write_text(code, encoding="utf-8")
            new.append(path)
    return home, added


def test_each_example_is_one_file_and_one_row(extended: tuple[Path, dict[str, list[str]]]) -> None:
    home, added = extended
    assert {table: {Path(path).name for path in paths} for table, paths in added.items()} == TABLES
    new = [str(home / path) for paths in added.values() for path in paths]
    ruff = [sys.executable, "-m", "ruff"]
    for check in (["check", "--config", str(ROOT / "pyproject.toml")], ["format", "--check", "--line-length", "120"]):
        done = subprocess.run([*ruff, *check, *new], cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_each_example_trains(extended: tuple[Path, dict[str, list[str]]], tmp_path: Path) -> None:
    home, _ = extended
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(home)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(home)}, timeout=280,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("loss", "penalty", "architecture", "classes"):
        folder = tmp_path / "runs" / name
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["images_seen"] for row in rows] == [8, 16], name
        assert all(math.isfinite(row[loss]) for row in rows for loss in ("loss/d", "loss/g")), name
        assert any("drift" in column for column in rows[-1]) == (name == "penalty")

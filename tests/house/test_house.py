"""What holds for every file of the project."""

import re
import tomllib
from pathlib import Path

import gandist

ROOT = Path(__file__).parents[2]
FOLDERS = ["gandist", "tests", "configs", "launch", "slurm", "benchmarks", ".ci"]
KINDS = {".py", ".yaml", ".yml", ".sh", ".sbatch", ".md", ".toml", ""}


def written_files() -> list[Path]:
    found = [path for path in ROOT.iterdir() if path.is_file()]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in found if path.suffix in KINDS and "__pycache__" not in path.parts]


def test_nothing_is_put_off() -> None:
    words = ["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]  # cut in two, so that this line is not found
    later = re.compile(rf"\b({'|'.join(words)})\b|raise Not{'Implemented'}")
    files = written_files()
    assert len(files) > 50, "the search looks in the wrong place"
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if later.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert gandist.__version__ == project["version"]

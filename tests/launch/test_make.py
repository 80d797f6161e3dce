"""The Makefile: its help is complete, and the environment is made once, with whatever the machine has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FAKE_ENVIRONMENT = """\
#!/bin/sh
# A Python whose virtual environments write down what is asked of them.
case "$1 $2" in
  "-c "*) exec {python} "$@" ;;
  "-m venv")
    for target; do :; done
    mkdir -p "$target/bin"
    printf '#!/bin/sh\\necho "$*" >>asked\\n' >"$target/bin/python"
    chmod +x "$target/bin/python" ;;
  *) exit 64 ;;
esac
"""


def make(*words, cwd=ROOT):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    return subprocess.run(["make", *words], cwd=cwd, env=env, text=True, capture_output=True, timeout=60)


@pytest.fixture
def checkout(tmp_path):
    """A folder with all that `make setup` reads, and a python that installs nothing."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    fake = tmp_path / "fake-python"
    fake.write_text(FAKE_ENVIRONMENT.format(python=sys.executable))
    fake.chmod(0o755)
    return tmp_path


def test_make_alone_explains_every_target():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    explained = re.findall(r"^  make ([a-z-]+) +\S", make().stdout, flags=re.MULTILINE)
    assert sorted(explained) == sorted(phony.split())


def test_setup_is_done_once_and_again_when_the_requirements_change(checkout):
    asked = checkout / "asked"
    for _ in range(2):
        done = make("setup", f"PYTHON={checkout}/fake-python", "UV=", cwd=checkout)
        assert done.returncode == 0, done.stderr
        assert len(asked.read_text().splitlines()) == 1
    assert "-c constraints.txt -e .[dev]" in asked.read_text()
    ready = (checkout / ".venv/.ready").stat().st_mtime
    for changed in ("constraints.txt", "pyproject.toml"):
        os.utime(checkout / changed, (ready + 10, ready + 10))
        make("setup", f"PYTHON={checkout}/fake-python", "UV=", cwd=checkout)
        os.utime(checkout / changed, (ready - 10, ready - 10))
    assert len(asked.read_text().splitlines()) == 3


def test_a_machine_without_a_fitting_python_is_told_so(checkout):
    done = make("setup", "PYTHON=false", cwd=checkout)
    assert done.returncode != 0
    assert "gandist needs Python 3.11, 3.12 or 3.13; tried in vain: false" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_failed_installation_is_not_taken_for_a_finished_one(checkout):
    make("setup", f"PYTHON={checkout}/fake-python", "UV=", cwd=checkout)
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\nexit 1\n")
    os.utime(checkout / "constraints.txt", (2e9, 2e9))
    for _ in range(2):
        assert make("setup", f"PYTHON={checkout}/fake-python", "UV=", cwd=checkout).returncode != 0


@pytest.mark.parametrize(
    "script", [".ci/run", "slurm/train.sbatch", "slurm/prepare.sbatch", "slurm/environment.sh"]
)  # fmt: skip
def test_shell_scripts_parse(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)

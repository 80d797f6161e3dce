"""Makes the helpers of this folder importable, and their fixture known."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from doctor_runs import start  # noqa: F401


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "GANDIST_LAUNCHED_WORLD"):
        monkeypatch.delenv(name, raising=False)

"""Where the real data sets are, for tests that read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    folder = Path(os.environ.get("GANDIST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data sets are not there; point GANDIST_DATA at them")
    return folder.resolve()

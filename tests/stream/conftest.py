"""Makes the helpers of this folder importable; shards that several tests read."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

from streams import write_shards
from trainer_runs import launch  # noqa: F401


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight shards of six images; not to be changed."""
    return write_shards(tmp_path_factory.mktemp("shards"), 8, 6)

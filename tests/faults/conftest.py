"""Makes the helpers of this folder, and the tiny runs of the trainer's tests, importable, and their fixtures known."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

from hosts import hosts  # noqa: F401
from trainer_runs import launch  # noqa: F401

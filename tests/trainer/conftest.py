"""Makes the helpers of this folder importable, and their fixtures known."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from trainer_runs import launch  # noqa: F401

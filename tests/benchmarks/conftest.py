"""Makes the parts of the benchmarks importable, behind everything else."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

"""Makes the helper of this folder importable, and its fixture known."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from supervised import supervise  # noqa: F401

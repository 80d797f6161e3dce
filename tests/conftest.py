"""What holds for the whole test run: one thread for each process, and shapes that are checked.

``Float[Tensor, "batch"]`` in a signature is a contract here, and free in production. It catches the silent bug of GAN
code: logits of shape ``(B, 1)`` broadcast against ``(B,)``.
"""

import os
import signal

# Tests are many small steps, often in several processes: threads that wait for each other make them ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings
from jaxtyping import install_import_hook

CHECKED = ["gandist.adversarial", "gandist.models", "gandist.evaluation"]

install_import_hook(CHECKED, "beartype.beartype")

# A test run in the background, or under nohup, ignores these, and what it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("gandist", deadline=None)  # how long an example takes says nothing on a busy machine
settings.load_profile("gandist")

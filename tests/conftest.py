"""What holds for the whole test run: one thread for each process, shapes that are checked, what runs beside what.

``Float[Tensor, "batch"]`` in a signature is a contract here, and free in production. It catches the silent bug of GAN
code: logits of shape ``(B, 1)`` broadcast against ``(B,)``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

# Tests are many small steps, often in several processes: threads that wait for each other make them ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

CHECKED = ["gandist.adversarial", "gandist.models", "gandist.evaluation"]

install_import_hook(CHECKED, "beartype.beartype")

# A test run in the background, or under nohup, ignores these, and what it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("gandist", deadline=None)  # how long an example takes says nothing on a busy machine
settings.load_profile("gandist")


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """What a test draws does not depend on the tests before it."""
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """Let each test choose its number format and its ranks: Accelerate keeps one state per process."""
    yield
    if "accelerate.state" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)


TOGETHER = ("tests/slurm", "tests/distributed")
"""Folders whose tests share something that is costly to start: a cluster, and games that several ranks have played."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Let each process of ``pytest -n 2`` take whole files, and the folders above as if they were one file."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)

    return Files(config, log)

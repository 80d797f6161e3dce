"""How long ranks wait for each other: longer than the watchdog does, which knows where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from gandist.assembly import open_accelerator


class MetError(Exception):
    """Carries what the process group was to be opened with."""


@pytest.fixture
def second_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be one of two ranks."""
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("second_rank")
def test_the_group_of_the_gradients_waits_half_as_long_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def met(*_: Any, **settings: Any) -> None:
        raise MetError(settings)

    monkeypatch.setattr(torch.distributed, "init_process_group", met)
    with pytest.raises(MetError) as seen:
        open_accelerator("cpu", "fp32", timeout_seconds=40.0)
    assert seen.value.args[0]["timeout"] == timedelta(seconds=60)

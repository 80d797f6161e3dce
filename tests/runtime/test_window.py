"""Means over the rounds since the last log row."""

import json

import pytest
import torch
from torch import Tensor

from gandist.runtime import window
from gandist.runtime.window import Window


def alone(values: Tensor) -> Tensor:
    """The mean over one rank."""
    return values


def test_a_mean_is_taken_over_the_rounds_that_measured() -> None:
    rounds = Window()
    rounds.add({"loss/d": torch.tensor(1.0), "penalty/r1": torch.tensor(8.0)}, images=4)
    rounds.add({"loss/d": torch.tensor(2.0)}, images=4)
    rounds.add({"loss/d": torch.tensor(6.0), "a": torch.tensor(-1.0)}, images=4)
    assert rounds.means(alone) == {"a": -1.0, "loss/d": 3.0, "penalty/r1": 8.0}
    assert rounds.means(lambda values: values * 10) == {"a": -10.0, "loss/d": 30.0, "penalty/r1": 80.0}
    assert Window().means(alone) == {}


def test_a_window_goes_on_from_a_checkpoint_to_the_bit() -> None:
    values = [torch.tensor(0.1), torch.tensor(1 / 3), torch.tensor(7e-9), torch.tensor(1e7)]
    whole, first, second = Window(), Window(), Window()
    for value in values:
        whole.add({"x": value}, images=1)
    for value in values[:2]:
        first.add({"x": value}, images=1)
    second.restore(json.loads(json.dumps(first.state(alone))), torch.device("cpu"))
    for value in values[2:]:
        second.add({"x": value}, images=1)
    assert second.means(alone) == whole.means(alone)


def test_adding_does_not_change_what_was_given() -> None:
    rounds, value = Window(), torch.tensor(1.0)
    rounds.add({"x": value}, images=1)
    rounds.add({"x": torch.tensor(2.0)}, images=1)
    assert value.item() == 1.0


def test_speed_and_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr(window.time, "perf_counter", lambda: now)
    rounds = Window()
    with rounds.waiting():
        now = 11.0
    rounds.add({}, images=60)
    now = 13.0
    with rounds.waiting():
        now = 14.0
    rounds.add({}, images=60)
    assert rounds.speed() == {"speed/images_per_second": 30.0, "speed/data_wait_share": 0.5}

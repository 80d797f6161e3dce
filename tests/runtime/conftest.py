"""A small game's parts, as a checkpoint holds them."""

from collections.abc import Callable

import pytest
import torch

from gandist.runtime.checkpoint import Part


@pytest.fixture
def parts() -> Callable[[int], dict[str, Part]]:
    """Return a function from a number to parts that are a pure function of it."""

    def make(number: int) -> dict[str, Part]:
        draw = torch.Generator().manual_seed(number)
        weights = {"layer.weight": torch.randn(40, 3, generator=draw), "layer.count": torch.tensor(number)}
        return {
            "generator": Part(weights, {"format": "test", "number": str(number)}),
            "optimizer_g": Part({"layer.weight/exp_avg": torch.randn(40, 3, generator=draw)}),
        }

    return make

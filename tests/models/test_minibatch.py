"""Minibatch standard deviation against its definition, and the groups that must not be cut."""

import math

import pytest
import torch
from torch import nn

from gandist.models.minibatch import MinibatchStd, batch_group


def test_known_rows() -> None:
    """Two groups of two: 0 and 2 lie one away from their mean, 5 and 11 three."""
    x = torch.tensor([0.0, 2.0, 5.0, 11.0])[:, None, None, None].expand(4, 3, 2, 2)
    out = MinibatchStd(group=2)(x)
    assert out.shape == (4, 4, 2, 2)
    assert torch.equal(out[:, :3], x)
    assert out[:, 3, 0, 0].tolist() == pytest.approx([1, 1, 3, 3], rel=1e-6)
    assert torch.equal(out[:, 3], out[:, 3, :1, :1].expand(4, 2, 2))


def test_the_definition_channel_by_channel() -> None:
    """The deviation of each feature at each place over the group, then the mean over a channel's share of features."""
    x = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    out = MinibatchStd(group=3, channels=2)(x)
    for first in (0, 3):
        deviation = x[first : first + 3].std(dim=0, correction=0)  # features, height, width
        expected = [deviation[:2].mean().item(), deviation[2:].mean().item()]
        for row in range(first, first + 3):
            assert out[row, 4:, 1, 2].tolist() == pytest.approx(expected, rel=1e-5)


def test_groups_are_rows_of_the_batch_however_it_is_cut() -> None:
    x, layer = torch.randn(12, 2, 4, 4, generator=torch.Generator().manual_seed(1)), MinibatchStd(group=4)
    whole = layer(x)
    for size in (4, 8):
        assert torch.equal(torch.cat([layer(part) for part in x.split(size)]), whole)
    with pytest.raises(AssertionError, match="6 images are not groups of 4"):
        layer(x[:6])


def test_equal_images_have_finite_second_derivatives() -> None:
    """A generator that collapsed still gets a finite penalty."""
    x = torch.ones(4, 2, 3, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(MinibatchStd()(x).square().sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_half_precision_passes_take_the_deviation_in_full() -> None:
    """Images of which one is far away: squares of them do not fit fp16."""
    x = torch.zeros(4, 1, 2, 2, dtype=torch.float16)
    x[0] = 6e4
    out = MinibatchStd()(x)
    assert out.dtype == torch.float16
    assert out[0, 1, 0, 0].item() == pytest.approx(6e4 * math.sqrt(3) / 4, rel=1e-3)


def test_the_group_of_a_network_is_what_its_layers_have_in_common() -> None:
    assert batch_group(nn.Linear(1, 1)) == 1
    assert batch_group(nn.Sequential(MinibatchStd(4), nn.Sequential(MinibatchStd(6)))) == 12

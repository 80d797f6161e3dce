"""Self-attention against its equations."""

import pytest
import torch
from torch.nn.utils import parametrize

from gandist.models.attention import SelfAttention


def layer(channels: int = 16, *, spectral: bool = False) -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(channels, spectral=spectral)


def test_it_begins_as_the_identity() -> None:
    x = torch.randn(2, 16, 6, 6)
    assert torch.equal(layer(spectral=True)(x), x)


def test_place_by_place() -> None:
    """Equations 1 to 3, with keys and values that are the largest of each square of four places."""
    attention, x = layer(), torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        attention.gamma.fill_(0.7)
        g, f, h = (conv.weight[:, :, 0, 0] for conv in (attention.queries, attention.keys, attention.values))
        assert (g.shape, f.shape, h.shape) == ((2, 16), (2, 16), (8, 16))
        squares = [x[0, :, i : i + 2, j : j + 2].flatten(1) for i in (0, 2) for j in (0, 2)]
        keys = torch.stack([(f @ square).amax(dim=1) for square in squares])
        values = torch.stack([(h @ square).amax(dim=1) for square in squares])
        out = attention(x)
        for i in range(4):
            for j in range(4):
                beta = torch.softmax(keys @ (g @ x[0, :, i, j]), dim=0)
                found = attention.out.weight[:, :, 0, 0] @ (beta @ values)
                torch.testing.assert_close(out[0, :, i, j], x[0, :, i, j] + 0.7 * found, rtol=1e-4, atol=1e-5)


def test_every_place_sees_every_other() -> None:
    attention, x = layer(), torch.randn(1, 16, 8, 8, requires_grad=True)
    torch.nn.init.ones_(attention.gamma)
    attention(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, 7, 7].any() or x.grad[0, :, 6:, 6:].any()


def test_it_can_be_differentiated_twice() -> None:
    attention = layer(8).double()
    torch.nn.init.ones_(attention.gamma)
    x = torch.randn(1, 8, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(attention, x)


@pytest.mark.parametrize("spectral", [True, False])
def test_its_convolutions_are_normalised_or_not(spectral: bool) -> None:
    attention = layer(spectral=spectral)
    for conv in (attention.queries, attention.keys, attention.values, attention.out):
        assert parametrize.is_parametrized(conv, "weight") is spectral
        assert conv.bias is None

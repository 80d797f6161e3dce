"""Equalized learning rate: what a layer computes, where it begins, and how far one step of Adam moves it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandist.models.equalized import EqualizedConv2d, EqualizedEmbedding, EqualizedLinear, lrelu


def effective(layer: nn.Module, inputs: int) -> Tensor:
    """Return the matrix of a linear layer, found by what it does to unit vectors."""
    with torch.no_grad():
        matrix: Tensor = (layer(torch.eye(inputs)) - layer(torch.zeros(1, inputs))).T
    return matrix


@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_the_layer_begins_alike_whatever_its_multiplier(multiplier: float) -> None:
    torch.manual_seed(0)
    layer = EqualizedLinear(400, 300, bias=0.5, lr_multiplier=multiplier)
    assert layer.weight.std().item() == pytest.approx(1 / multiplier, rel=0.01)
    assert effective(layer, 400).std().item() == pytest.approx(400**-0.5, rel=0.01)
    torch.testing.assert_close(layer(torch.zeros(1, 400)), torch.full((1, 300), 0.5))


@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_one_step_of_adam_moves_it_by_the_multiplier(multiplier: float) -> None:
    """Adam's first step is its learning rate for every weight: 0.001 c of what is multiplied, for each input."""
    torch.manual_seed(0)
    layer = EqualizedLinear(64, 8, lr_multiplier=multiplier)
    before, rest = effective(layer, 64), layer(torch.zeros(1, 64)).detach()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.001)
    layer(torch.randn(4, 64)).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(
        (effective(layer, 64) - before).abs(), torch.full((8, 64), 0.001 * multiplier / 8), rtol=0.03, atol=0
    )
    torch.testing.assert_close(
        (layer(torch.zeros(1, 64)) - rest).abs(), torch.full((1, 8), 0.001 * multiplier), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_keeps_the_size_of_images_and_the_variance(kernel: int) -> None:
    torch.manual_seed(0)
    layer = EqualizedConv2d(64, 96, kernel)
    x = torch.randn(4, 64, 32, 32)
    out = layer(x)
    assert out.shape == (4, 96, 32, 32)
    assert out[:, :, 1:-1, 1:-1].var().item() == pytest.approx(1.0, rel=0.05)
    scaled = layer.weight / (64 * kernel**2) ** 0.5
    torch.testing.assert_close(out, F.conv2d(x, scaled, layer.bias, padding=kernel // 2))


def test_an_embedding_is_the_linear_layer_of_one_hot_vectors() -> None:
    torch.manual_seed(0)
    embedding, linear = EqualizedEmbedding(5, 7), EqualizedLinear(5, 7)
    with torch.no_grad():
        linear.weight.copy_(embedding.weight.T)
        embedding.bias.add_(0.3)
        linear.bias.add_(0.3)
    c = torch.tensor([4, 0, 0, 2])
    torch.testing.assert_close(embedding(c), linear(F.one_hot(c, 5).float()))


def test_the_activation_keeps_the_second_moment() -> None:
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert lrelu(x).square().mean().item() == pytest.approx(1 + 0.2**2, rel=0.02)
    assert lrelu(torch.tensor([-1.0, 1.0])).tolist() == pytest.approx([-0.2 * 2**0.5, 2**0.5])


@pytest.mark.parametrize(
    "make",
    [lambda: EqualizedLinear(3, 4, bias=None), lambda: EqualizedConv2d(3, 4, 3, bias=False)],
    ids=["linear", "convolution"],
)
def test_layers_without_bias(make: Callable[[], nn.Module]) -> None:
    assert [name for name, _ in make().named_parameters()] == ["weight"]

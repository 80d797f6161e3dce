"""Modulated layers against the paper's form, which has other weights for each image."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandist.models.modulated import ModulatedConv2d, ModulatedLinear
from gandist.models.resample import BINOMIAL_4, blur

DEMODULATED = pytest.mark.parametrize("demodulate", [True, False], ids=["demodulated", "not demodulated"])
BATCH, INPUTS, OUTPUTS, STYLE = 3, 4, 5, 6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random(layer: nn.Module) -> nn.Module:
    """Return the layer in double precision with all its parameters drawn anew."""
    layer.double()
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=number))
    return layer


def weights_of_each_image(layer: ModulatedConv2d | ModulatedLinear, w: Tensor) -> Tensor:
    """Return equations 1 and 3, written out: (batch, outputs, inputs, *kernel)."""
    s = w @ layer.affine.weight.T / STYLE**0.5 + layer.affine.bias
    places = layer.weight[0, 0].numel()
    plain = layer.weight / (INPUTS * places) ** 0.5
    images = []
    for row in s:
        modulated = plain * row.view(1, -1, *[1] * (plain.ndim - 2))
        if layer.demodulate:
            modulated = torch.stack([kernel / (kernel.square().sum() + 1e-8).sqrt() for kernel in modulated])
        images.append(modulated)
    return torch.stack(images)


@DEMODULATED
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution(kernel: int, demodulate: bool) -> None:
    layer = random(ModulatedConv2d(INPUTS, OUTPUTS, kernel, STYLE, demodulate=demodulate))
    x, w = normal(BATCH, INPUTS, 5, 7), normal(BATCH, STYLE, seed=9)
    direct = [F.conv2d(image[None], weight, padding=kernel // 2) for image, weight in zip(
        x, weights_of_each_image(layer, w), strict=True)]  # fmt: skip
    torch.testing.assert_close(layer(x, w), torch.cat(direct))


@DEMODULATED
def test_convolution_that_doubles(demodulate: bool) -> None:
    """Zeros between the pixels, the kernel turned by 180 degrees, and a blur: border rows included."""
    layer = random(ModulatedConv2d(INPUTS, OUTPUTS, 3, STYLE, demodulate=demodulate, up=True))
    x, w = normal(BATCH, INPUTS, 3, 4), normal(BATCH, STYLE, seed=9)
    sparse = torch.zeros(BATCH, INPUTS, 5, 7, dtype=torch.float64)
    sparse[:, :, ::2, ::2] = x
    taps = torch.tensor(BINOMIAL_4, dtype=torch.float64)
    direct = [F.conv2d(image[None], weight.flip(2, 3), padding=2) for image, weight in zip(
        sparse, weights_of_each_image(layer, w), strict=True)]  # fmt: skip
    expected = blur(torch.cat(direct), taps, padding=1, gain=4.0)
    assert expected.shape == (BATCH, OUTPUTS, 6, 8)
    torch.testing.assert_close(layer(x, w), expected)


@DEMODULATED
def test_linear_layer(demodulate: bool) -> None:
    layer = random(ModulatedLinear(INPUTS, OUTPUTS, STYLE, demodulate=demodulate))
    x, w = normal(BATCH, 8, INPUTS), normal(BATCH, STYLE, seed=9)
    torch.testing.assert_close(layer(x, w), x @ weights_of_each_image(layer, w).mT)


def test_demodulated_features_have_unit_variance_whatever_the_style() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(2, 64, 32, 32), torch.randn(2, STYLE)
    for demodulate in (True, False):
        layer = ModulatedConv2d(64, 32, 3, STYLE, demodulate=demodulate)
        with torch.no_grad():
            layer.affine.bias.mul_(5)  # louder
        spread = layer(x, w)[:, :, 1:-1, 1:-1].std().item()
        assert spread == pytest.approx(1.0, abs=0.1) if demodulate else spread > 4


def test_the_scale_of_a_style_has_no_effect_on_demodulated_features() -> None:
    layer = random(ModulatedLinear(INPUTS, OUTPUTS, STYLE))
    x, w = normal(BATCH, 8, INPUTS), normal(BATCH, STYLE, seed=9)
    before = layer(x, w)
    with torch.no_grad():
        for parameter in layer.affine.parameters():
            parameter *= 10
    torch.testing.assert_close(layer(x, w), before, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("up", [False, pytest.param(True, marks=pytest.mark.long)], ids=["plain", "doubling"])
def test_two_derivatives(up: bool) -> None:
    layer = random(ModulatedConv2d(2, 2, 3, 2, up=up))
    x, w = normal(2, 2, 3, 3).requires_grad_(), normal(2, 2, seed=9).requires_grad_()
    torch.autograd.gradcheck(layer, (x, w))
    torch.autograd.gradgradcheck(layer, (x, w))


def test_it_begins_unmodulated_on_average() -> None:
    torch.manual_seed(0)
    s = ModulatedConv2d(64, 8, 3, 512).affine(torch.randn(100, 512))
    assert s.mean().item() == pytest.approx(1.0, abs=0.05)

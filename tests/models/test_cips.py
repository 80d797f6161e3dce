"""CIPS: its size, pixels that know nothing of each other, and images of any resolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gandist.config import ModelConfig
from gandist.models import cips
from gandist.models.cips import PositionFeatures, positions
from gandist.models.contract import AnyResolution, ImageShape, Networks
from gandist.models.equalized import lrelu
from gandist.models.modulated import demodulation

Make = Callable[..., Networks]
LATENT_DIM = 5


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.long
def test_parameters() -> None:
    """The paper's G for 256 px has 45.9 million parameters, three in four of them learned for single pixels."""
    mapping = 8 * (512 * 512 + 512)
    at_positions = 2 * 512 + 512 * 256 * 256

    def mod_fc(inputs: int) -> int:  # affine, weights, bias
        return (512 * inputs + inputs) + inputs * 512 + 512

    to_rgb = (512 * 512 + 512) + 512 * 3 + 3
    expected = mapping + at_positions + mod_fc(1024) + 7 * (2 * mod_fc(512) + to_rgb)
    assert expected == 45_910_549
    model = ModelConfig.model_validate({"arch": "cips", "latent_dim": 512})
    with torch.device("meta"):
        generator = cips.build(model, ImageShape(256, 3), 0).generator
    assert sum(p.numel() for p in generator.parameters()) == expected


def test_positions_go_row_by_row_from_corner_to_corner() -> None:
    assert positions(3).tolist() == [[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)]


def test_features_of_a_position() -> None:
    torch.manual_seed(0)
    layer = PositionFeatures(sines=4, std=2.0, learned=3, resolution=5)
    assert layer.learned is not None
    features = layer(5)
    assert features.shape == (25, 7)
    for y, x in ((0, 0), (1, 3), (4, 2)):
        p = torch.tensor([y / 2 - 1, x / 2 - 1])
        expected = torch.cat([torch.sin(layer.frequencies @ p), layer.learned[0, :, y, x]])
        torch.testing.assert_close(features[5 * y + x], expected)


def test_a_finer_grid_goes_through_the_trained_pixels() -> None:
    """2 n - 1 pixels lie on the n that were trained, and between them."""
    torch.manual_seed(0)
    layer = PositionFeatures(sines=4, std=2.0, learned=3, resolution=5)
    coarse, fine = layer(5).unflatten(0, (5, 5)), layer(9).unflatten(0, (9, 9))
    torch.testing.assert_close(fine[::2, ::2], coarse)
    torch.testing.assert_close(fine[1, 0, 4:], (coarse[0, 0, 4:] + coarse[1, 0, 4:]) / 2)


def test_any_resolution(tiny: Make) -> None:
    generator = tiny("cips", 8).generator.eval()
    assert isinstance(generator, AnyResolution)
    z = normal(2, LATENT_DIM)
    trained = generator(z, None)
    generator.draw_at(15)
    fine = generator(z, None)
    assert fine.shape == (2, 3, 15, 15)
    torch.testing.assert_close(fine[:, :, ::2, ::2], trained, rtol=1e-4, atol=1e-5)
    generator.draw_at(7)
    assert generator(z, None).shape == (2, 3, 7, 7)


def test_a_pixel_is_made_from_its_position_alone(tiny: Make) -> None:
    generator = tiny("cips", 8).generator.eval()
    z = normal(2, LATENT_DIM)
    before = generator(z, None)
    with torch.no_grad():
        generator.positions.learned[0, :, 2, 5] += 1.0
    changed = (generator(z, None) - before).abs().sum(dim=1) > 1e-4
    assert changed.nonzero().tolist() == [[0, 2, 5], [1, 2, 5]]


@pytest.mark.parametrize("demodulate", [True, False])
def test_a_pixel_by_hand(demodulate: bool) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "arch": "cips",
        "latent_dim": LATENT_DIM,
        "stylegan2": {"style_dim": 6, "channel_max": 2},
        "cips": {"widths": [4], "fourier_features": 3, "position_features": 0, "demodulate": demodulate},
    }
    generator = cips.build(ModelConfig.model_validate(settings), ImageShape(8, 1), 0).generator.eval()
    assert isinstance(generator, cips.CipsGenerator)
    w = generator.mapping(normal(1, LATENT_DIM), None)

    def layer(x: Tensor, linear: Any, bias: Tensor, demodulated: bool) -> Tensor:
        s = (w @ linear.affine.weight.T / 6**0.5 + linear.affine.bias)[0]
        weight = linear.weight / x.shape[0] ** 0.5
        h: Tensor = weight @ (s * x)
        return h * demodulation(weight, s[None])[0] + bias if demodulated else h + bias

    p = torch.tensor([-1 + 2 * 3 / 7, -1 + 2 * 6 / 7])  # row 3, column 6
    h, block = torch.sin(generator.positions.frequencies @ p), generator.blocks[0]
    for fc in (generator.first, block.first, block.second):
        h = lrelu(layer(h, fc.linear, fc.bias, demodulate))
    pixel = layer(h, block.to_image, block.bias, demodulated=False)
    torch.testing.assert_close(generator.synthesize(w[:, None].expand(-1, 4, -1))[0, :, 3, 6], pixel)


def test_styles_are_two_for_each_pair_of_layers_and_two_more(tiny: Make) -> None:
    generator = tiny("cips", 8).generator.eval()
    images, w = generator(normal(2, LATENT_DIM), None, with_styles=True)
    assert w.shape == (2, 6, 6)
    (gradient,) = torch.autograd.grad((images * normal(*images.shape)).sum(), w)
    assert (gradient.abs().sum(dim=(0, 2)) > 0).all()


def test_positions_are_told_apart_with_and_without_demodulation() -> None:
    """The share of positions in the second moment of features, and the size of these, behind all fifteen layers."""
    found = {}
    for demodulate in (True, False):
        settings: dict[str, Any] = {
            "arch": "cips",
            "latent_dim": 32,
            "stylegan2": {"style_dim": 32, "mapping_depth": 4, "channel_max": 2},
            "cips": {"widths": [32] * 7, "fourier_features": 32, "position_features": 0, "demodulate": demodulate},
        }
        torch.manual_seed(0)
        generator = cips.build(ModelConfig.model_validate(settings), ImageShape(16, 3), 0).generator.eval()
        seen: list[Tensor] = []
        generator.blocks[-1].second.register_forward_hook(lambda *given, seen=seen: seen.append(given[2]))
        generator(normal(8, 32), None)
        x = seen[0]
        found[demodulate] = (x.var(dim=1).mean() / x.square().mean()).item(), x.square().mean().sqrt().item()
    assert min(share for share, _ in found.values()) > 0.1
    assert found[True][1] < 3
    assert found[False][1] > 30

"""R3GAN: the paper's sizes, how a network of blocks without norms begins, and what is computed in which format."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandist.config import ModelConfig
from gandist.errors import ConfigError
from gandist.models.build import build
from gandist.models.contract import ImageShape, Networks
from gandist.models.r3gan import Block


def networks(resolution: int = 16, classes: int = 0, head: str = "own", **knobs: Any) -> Networks:
    small = {"channel_base": 64, "channel_max": 8, "group_channels": 4, "class_dim": 3}
    settings = {"arch": "r3gan", "conditional": classes > 0, "latent_dim": 6, "head": head, "r3gan": small | knobs}
    return build(ModelConfig.model_validate(settings), ImageShape(resolution, 3), classes, seed=0)


def stirred(network: nn.Module) -> nn.Module:
    """Return the network with its last convolutions away from zero."""
    for module in network.modules():
        if isinstance(module, Block):
            nn.init.normal_(module.conv3.weight, 0.0, 0.1)
            for act in (module.act1, module.act2):
                nn.init.normal_(act.bias, 0.0, 0.1)
    return network


# --- sizes, layer by layer ------------------------------------------------------------------------------------------


def blocks_size(widths: list[int], group: int) -> int:
    """Two blocks a stage, 2x wider inside, no biases but those of activations; 1x1 where the width changes."""
    blocks = sum(2 * (2 * w * 2 * w + 2 * w * group * 9 + 2 * 2 * w) for w in widths)
    return blocks + sum(a * b for a, b in pairwise(widths) if a != b)


# widths from 4 px on, channels of a group, classes, and G and D in millions as the presets of the paper have them
SIZES: list[Any] = [
    ("CIFAR-10", [768] * 4, 16, 10, 20.78, 21.28),
    ("FFHQ-64", [768] * 4 + [384], 16, 0, 22.43, 22.38),
    pytest.param("FFHQ-256", [768] * 4 + [384, 192, 96], 16, 0, 23.06, 23.01, marks=pytest.mark.long),
    pytest.param("ImageNet-32", [1536] * 4, 32, 1000, 82.91, 86.55, marks=pytest.mark.long),
    pytest.param("ImageNet-64", [1536] * 5, 32, 1000, 103.57, 107.21, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("name", "widths", "group", "classes", "g_millions", "d_millions"), SIZES)
def test_sizes(
    name: str,
    widths: list[int],
    group: int,
    classes: int,
    g_millions: float,
    d_millions: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nn.init, "normal_", lambda *_: None)
    base = widths[-1] * (2 << len(widths))
    knobs = {"channel_base": base, "channel_max": widths[0], "group_channels": group, "class_dim": 64}
    settings = {"arch": "r3gan", "conditional": classes > 0, "latent_dim": 64, "r3gan": knobs}
    made = build(ModelConfig.model_validate(settings), ImageShape(2 << len(widths), 3), classes, seed=0)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (made.generator, made.discriminator)]
    first, blocks = widths[0], blocks_size(widths, group)
    assert sizes[0] == classes * 64 + (64 + (64 if classes else 0)) * first + 16 * first + blocks + 3 * widths[-1], name
    head = first * first + classes * first if classes else first
    assert sizes[1] == 3 * widths[-1] + blocks + 16 * first + head, name
    assert [size / 1e6 for size in sizes] == pytest.approx([g_millions, d_millions], abs=0.005)


@pytest.mark.parametrize("resolution", [32, 64, 256])
def test_the_widths_that_are_preset_are_the_paper_s(resolution: int) -> None:
    from gandist.config import R3ganConfig
    from gandist.models.r3gan import widths_of

    paper = {32: [768] * 4, 64: [*[768] * 4, 384], 256: [*[768] * 4, 384, 192, 96]}
    assert widths_of(ImageShape(resolution, 3), R3ganConfig()) == paper[resolution]


# --- the beginning --------------------------------------------------------------------------------------------------


def test_blocks_begin_as_the_identity() -> None:
    for network in (networks().generator, networks().discriminator):
        blocks = [module for module in network.modules() if isinstance(module, Block)]
        assert len(blocks) == 6
        for block in blocks:
            x = torch.randn(2, block.conv1.in_channels, 4, 4)
            assert torch.equal(block(x), x)


def test_inner_weights_are_scaled_by_the_number_of_blocks() -> None:
    """Gain of a leaky ReLU over the fourth root of 10 blocks over the square root of the fan in: 64, then 9 x 16."""
    generator = networks(64, channel_base=4096, channel_max=64, group_channels=16).generator
    gain = (2 / 1.04) ** 0.5 / 10**0.25
    block = generator.stages[1][1]  # type: ignore[index,union-attr]
    for conv, fan_in in ((block.conv1, 64), (block.conv2, 9 * 16)):
        weight = conv.weight
        assert weight.std().item() == pytest.approx(gain / fan_in**0.5, rel=6 / weight.numel() ** 0.5)


def test_a_block_against_its_formula() -> None:
    """Channel by channel: the groups of the 3x3 convolution see only their own four channels."""
    block = stirred(networks().discriminator).stages[0][0]  # type: ignore[index,union-attr]
    x = torch.randn(2, 8, 5, 5)
    wide = F.leaky_relu(F.conv2d(x, block.conv1.weight) + block.act1.bias[:, None, None], 0.2)
    groups = [F.conv2d(wide[:, k : k + 4], block.conv2.weight[k : k + 4], padding=1) for k in range(0, 16, 4)]
    inner = F.leaky_relu(torch.cat(groups, dim=1) + block.act2.bias[:, None, None], 0.2)
    torch.testing.assert_close(block(x), x + F.conv2d(inner, block.conv3.weight))


# --- classes, number formats, and what is refused -------------------------------------------------------------------


def test_a_conditional_logit_is_an_inner_product_with_the_class() -> None:
    network = networks(classes=3).discriminator
    x, c = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    seen: list[Tensor] = []
    network.head.register_forward_hook(lambda _, __, out: seen.append(out))  # type: ignore[union-attr]
    logits = network(x, c)
    torch.testing.assert_close(logits, torch.einsum("bf,bf->b", seen[0], network.embedding.weight[c]))  # type: ignore[union-attr,index]


def test_stages_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    formats: dict[str, list[torch.dtype]] = {}
    for full_stages in (0, 1, 2):
        made = networks(fp32_stages=full_stages)
        for role, network in (("g", made.generator), ("d", made.discriminator)):
            seen = formats[f"{role}{full_stages}"] = []
            for stage in network.stages:  # type: ignore[union-attr]
                block = next(layer for layer in stage if isinstance(layer, Block))
                block.conv1.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            logits = made.discriminator(made.generator(torch.randn(2, 6), None), None)
        assert logits.dtype == torch.float32
    full, half = torch.float32, torch.bfloat16
    assert formats == {
        "g0": [half, half, half], "g1": [full, half, half], "g2": [full, full, half],
        "d0": [half, half, half], "d1": [half, half, full], "d2": [half, full, full],
    }  # fmt: skip


def test_groups_that_do_not_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match=r"model\.r3gan\.group_channels: 16 channels .* groups of 5.* divisor of 16"):
        networks(group_channels=5)


def test_it_can_be_differentiated_twice() -> None:
    network = stirred(networks(8).discriminator).double()
    x = (torch.randn(1, 3, 8, 8, dtype=torch.float64)).requires_grad_()
    (slope,) = torch.autograd.grad(network(x, None).sum(), x, create_graph=True)
    slope.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None or name.endswith("act2.bias"), name

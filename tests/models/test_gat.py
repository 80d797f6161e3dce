"""The latent transformers: their parts against independent derivations, the levels, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gandist.config import ModelConfig
from gandist.errors import ConfigError
from gandist.models.build import build, stacked
from gandist.models.contract import ImageShape, Networks
from gandist.models.multilevel import MultiLevelNoise, noise_mixing, noise_shares
from gandist.models.noise import RowNoise, random_layers, seed_layers
from gandist.models.transformer import (
    Attention,
    Rotation,
    SwiGlu,
    from_patches,
    rms_norm,
    sincos_positions,
    to_patches,
)

Noise = Callable[[nn.Module, int], nn.Module]
SMALL = {"depth": 4, "width": 8, "head_width": 4, "style_dim": 6, "projection_dim": 5}


def make(image: ImageShape = ImageShape(8, 3), classes: int = 0, **gat: Any) -> Networks:  # noqa: B008 - frozen
    settings = {"arch": "gat", "latent_dim": 5, "conditional": classes > 0, "gat": {**SMALL, **gat}}
    return build(ModelConfig.model_validate(settings), image, classes, seed=0)


# S/2 and B/2 on latents of 32x32 and 4 channels
@pytest.mark.parametrize(
    ("width", "classes", "generator", "discriminator"),
    [
        (384, 0, 31_831_616, 21_302_401),
        pytest.param(384, 1000, 32_606_272, 28_336_896, marks=pytest.mark.long),
        pytest.param(768, 1000, 106_609_216, 92_892_672, marks=pytest.mark.long),
    ],
)
def test_sizes(width: int, classes: int, generator: int, discriminator: int) -> None:
    settings = {"arch": "gat", "latent_dim": 64, "conditional": classes > 0, "gat": {"width": width}}
    networks = build(ModelConfig.model_validate(settings), ImageShape(32, 4), classes, seed=0)
    counted = [sum(p.numel() for p in n.parameters()) for n in (networks.generator, networks.discriminator)]
    assert counted == [generator, discriminator]


# --- the parts ---------------------------------------------------------------------------------------------------


def test_patches_are_cut_and_laid_together_again() -> None:
    x = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 4, 12)
    assert torch.equal(patches[1, 2], x[1, :, 2:4, 0:2].flatten()), "the third patch is the lower left one"
    assert torch.equal(from_patches(patches, 2), x)


def test_positions_are_those_of_the_paper() -> None:
    codes = sincos_positions(3, 8)
    assert torch.equal(codes[0], torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1]))
    row, column = 2, 1  # of patch 7
    expected = [row, row / 100, column, column / 100]
    assert torch.allclose(codes[7], torch.tensor([*map(math.sin, expected), *map(math.cos, expected)]))


def test_rotated_products_depend_on_the_distance_alone() -> None:
    rotation = Rotation(4, 8, extra=1)
    q, k = torch.randn(8), torch.randn(8)
    turned = [rotation(v.expand(1, 1, 17, 8))[0, 0] for v in (q, k)]
    products = turned[0] @ turned[1].T

    def at(first: tuple[int, int], second: tuple[int, int]) -> float:
        return products[1 + 4 * first[0] + first[1], 1 + 4 * second[0] + second[1]].item()

    assert at((0, 0), (1, 2)) == pytest.approx(at((2, 1), (3, 3)), abs=1e-5)
    assert at((0, 0), (1, 2)) != pytest.approx(at((0, 0), (2, 1)), abs=1e-3), "rows and columns are told apart"
    assert torch.equal(turned[0][0], q), "the extra token is not turned"
    assert torch.allclose(turned[0].norm(dim=1), q.norm().expand(17))


@pytest.mark.parametrize("kind", ["fused", "plain"])
def test_attention_is_that_of_the_paper(kind: Any) -> None:
    layer = Attention(8, 4, Rotation(2, 4), kind).double()
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    q, k, v = (layer.qkv.weight @ x.mT).mT.split(8, dim=2)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        qn, kn = (p[..., head] / (p[..., head].square().mean(-1, keepdim=True) + 1e-6).sqrt() for p in (q, k))
        qn, kn = (layer.rotation(part[:, None])[:, 0] for part in (qn, kn))
        weights = (qn @ kn.mT / 2).exp()
        heads.append(weights / weights.sum(-1, keepdim=True) @ v[..., head])
    expected = torch.cat(heads, dim=2) @ layer.out.weight.T
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)


def test_feed_forward_layers_have_the_paper_s_size() -> None:
    assert [SwiGlu(width).out.in_features for width in (384, 768)] == [1024, 2048]


def test_a_norm_without_scale_gives_mean_square_one() -> None:
    x = torch.randn(5, 64) * 7
    assert torch.allclose(rms_norm(x).square().mean(dim=1), torch.ones(5), atol=1e-4)
    assert rms_norm(x.bfloat16()).dtype == torch.bfloat16


def test_plain_attention_can_be_differentiated_twice() -> None:
    judge = make(ImageShape(4, 1), levels=1, depth=1, attention="plain").discriminator.eval().double()
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: judge(x, None), x)
    assert torch.autograd.gradgradcheck(lambda x: judge(x, None), x)


def test_both_kinds_of_attention_are_one_network() -> None:
    fused, plain = (make(classes=3, attention=kind) for kind in ("fused", "plain"))
    z, c = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    for ours, theirs, given in (
        (fused.generator.eval(), plain.generator.eval(), z),
        (fused.discriminator.eval(), plain.discriminator.eval(), torch.randn(4, 3, 8, 8)),
    ):
        assert torch.allclose(ours(given, c), theirs(given, c), atol=1e-5)


# --- the levels ----------------------------------------------------------------------------------------------------


def test_shares_of_noise_are_those_of_the_paper() -> None:
    assert noise_shares(4) == pytest.approx([0.885, 0.76, 0.51, 0.01])
    assert noise_shares(1) == [0.0]


def test_noise_has_variance_one_and_levels_lie_on_one_path() -> None:
    mixing, t = noise_mixing(4).double(), noise_shares(4)
    covariance = mixing @ mixing.T
    for i in range(4):
        assert covariance[i, i] == pytest.approx(1, abs=1e-6)
        for j in range(i, 4):  # level i is level j, scaled, and noise that is new: so is their covariance
            expected = (1 - t[i]) / (1 - t[j]) * t[j] / t[i]
            assert covariance[i, j] == pytest.approx(expected, abs=1e-6)


def test_levels_are_mixed_with_their_shares() -> None:
    layer, x, t = MultiLevelNoise(3), torch.randn(2, 6, 4, 4), noise_shares(3)
    seed_layers([layer], RowNoise(torch.Generator().manual_seed(1), 2, 0, 2))
    noisy = layer(x)
    eps = RowNoise(torch.Generator().manual_seed(1), 2, 0, 2).normal(3, 2, 4, 4)
    last = (1 - t[2]) * x[:, 4:] + t[2] * eps[:, 2]
    assert torch.allclose(noisy[:, 4:], last, atol=1e-6)
    kept = (1 - t[1]) / (1 - t[2])
    fresh = math.sqrt(t[1] ** 2 - (kept * t[2]) ** 2)
    expected = (1 - t[1]) * x[:, 2:4] + kept * t[2] * eps[:, 2] + fresh * eps[:, 1]
    assert torch.allclose(noisy[:, 2:4], expected, atol=1e-6)
    assert torch.equal(layer.eval()(x), x), "in evaluation there is no noise"


def test_stages_add_up_to_the_image_and_the_last_is_the_image() -> None:
    generator, z = make(levels=2).generator, torch.randn(3, 5)
    stages = generator(z, None)
    assert stages.shape == (3, 6, 8, 8)
    image = generator.eval()(z, None)
    assert torch.equal(stages[:, 3:], image)
    seen: list[Tensor] = []
    for head in generator.heads:
        head.register_forward_hook(lambda _module, _given, out: seen.append(out))
    generator(z, None)
    assert torch.allclose(stages[:, :3], seen[0])
    assert torch.allclose(image, seen[0] + seen[1])


def test_a_plain_image_stands_for_all_its_levels(with_noise: Noise) -> None:
    judge, x = make(levels=4).discriminator, torch.randn(3, 3, 8, 8)
    logits = [with_noise(judge, 3)(given, None) for given in (x, x.repeat(1, 4, 1, 1))]
    assert torch.equal(*logits)
    assert not torch.equal(logits[0], judge.eval()(x, None))


def test_every_level_teaches_the_blocks_before_it(with_noise: Noise) -> None:
    networks = make(levels=2, depth=2)
    with_noise(networks.discriminator, 4)(networks.generator(torch.randn(4, 5), None), None).sum().backward()
    for name, parameter in [*networks.generator.named_parameters(), *networks.discriminator.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_what_a_row_sees_does_not_depend_on_the_pass(with_noise: Noise) -> None:
    judge, x = make(levels=3, depth=3).discriminator, torch.randn(4, 3, 8, 8)
    whole = with_noise(judge, 4)(x, None)
    parts = []
    for start in (0, 2):
        seed_layers(random_layers(judge), RowNoise(torch.Generator().manual_seed(0), 4, start, 2))
        parts.append(judge(x[start : start + 2], None))
    assert torch.allclose(whole, torch.cat(parts), atol=1e-6)


def test_one_level_is_a_plain_pair() -> None:
    networks = make(levels=1)
    assert networks.generator(torch.randn(2, 5), None).shape == (2, 3, 8, 8)
    assert networks.discriminator(torch.randn(2, 3, 8, 8), None).shape == (2,)
    assert stacked(ModelConfig.model_validate({"arch": "gat", "gat": {"levels": 3}})) == 3
    assert stacked(ModelConfig.model_validate({"arch": "mlp", "gat": {"levels": 3}})) == 1


def test_logits_are_computed_in_fp32() -> None:
    judge = make(levels=1).discriminator
    with torch.autocast("cpu", torch.bfloat16):
        logits = judge(torch.randn(2, 3, 8, 8), None)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gat", "what"),
    [
        ({"patch": 3}, r"data\.resolution 8 is no multiple of model\.gat\.patch 3"),
        ({"width": 10}, r"model\.gat\.width 10 is no multiple of 4 \(head_width\)"),
        ({"head_width": 6, "width": 12}, r"model\.gat\.head_width 6 is no multiple of 4"),
        ({"levels": 3}, r"model\.gat\.depth 4 is no multiple of 3 \(levels\)"),
    ],
)
def test_sizes_that_do_not_go_into_each_other(gat: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        make(**gat)

"""StyleGAN2: its size, layer by layer; styles, noise and skips against what the papers say of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gandist.config import ModelConfig
from gandist.errors import ConfigError
from gandist.models import stylegan2
from gandist.models.contract import ImageShape, Networks, Verdict
from gandist.models.equalized import lrelu
from gandist.models.noise import RowNoise, random_layers, seed_layers
from gandist.models.resample import BlurUpsample
from gandist.models.styles import Mapping, StyleMixing, truncated

Make = Callable[..., Networks]
LATENT_DIM, STYLES = 5, 6
CIFAR = {"mapping_depth": 2, "mixing_probability": 0.0, "discriminator": "plain", "minibatch_group": 32}


# --- parameters --------------------------------------------------------------------------------------------------


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def mapping(inputs: int, width: int, depth: int, classes: int) -> int:
    first = dense(inputs + (width if classes else 0), width)
    return first + (depth - 1) * dense(width, width) + (dense(classes, width) if classes else 0)


def expected(resolution: int, classes: int, *, depth: int, residual: bool) -> tuple[int, int]:
    """Count G and D as the papers describe them, with z and w of 512 and min(32768 / resolution, 512) maps."""
    sizes = [4 * 2**k for k in range(resolution.bit_length() - 2)]
    maps = [min(32768 // size, 512) for size in sizes]

    def styled(inputs: int, outputs: int) -> int:  # affine, weights, bias, strength of the noise
        return dense(512, inputs) + 9 * inputs * outputs + outputs + 1

    def to_rgb(inputs: int) -> int:
        return dense(512, inputs) + 3 * inputs + 3

    generator = mapping(512, 512, depth, classes) + 4 * 4 * 512 + styled(512, 512) + to_rgb(512)
    generator += sum(styled(a, b) + styled(b, b) + to_rgb(b) for a, b in pairwise(maps))

    discriminator = 3 * maps[-1] + maps[-1]
    for b, a in pairwise(maps):
        discriminator += 9 * a * a + a + 9 * a * b + b + (a * b if residual else 0)
    discriminator += 9 * 513 * 512 + 512 + dense(512 * 16, 512)
    discriminator += dense(512, 512) + mapping(0, 512, 8, classes) if classes else dense(512, 1)
    return generator, discriminator


@pytest.mark.parametrize(
    ("resolution", "classes", "settings", "sizes"),
    [
        pytest.param(1024, 0, {}, (30_370_060, 29_012_513), marks=pytest.mark.long),  # configuration F on FFHQ
        pytest.param(256, 0, {}, (30_034_338, 28_864_129), marks=pytest.mark.long),
        pytest.param(32, 0, CIFAR, (19_947_539, 20_720_641), marks=pytest.mark.long),
        (32, 10, CIFAR, (20_215_315, 23_089_664)),  # ADA's network for CIFAR-10
    ],
)
def test_parameters(resolution: int, classes: int, settings: dict[str, Any], sizes: tuple[int, int]) -> None:
    depth, residual = settings.get("mapping_depth", 8), settings.get("discriminator") != "plain"
    assert expected(resolution, classes, depth=depth, residual=residual) == sizes
    model = ModelConfig.model_validate({"arch": "stylegan2", "latent_dim": 512, "stylegan2": settings})
    networks = stylegan2.build(model, ImageShape(resolution, 3), classes)
    assert (count(networks.generator), count(networks.discriminator)) == sizes


# --- styles ------------------------------------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mapping_by_hand() -> None:
    torch.manual_seed(0)
    layer = Mapping(4, classes=3, width=6, depth=2, lr_multiplier=0.1)
    z, c = normal(5, 4), torch.tensor([0, 1, 2, 2, 0])
    assert layer.embedding is not None
    embedded = layer.embedding.weight[c] / 3**0.5
    h = torch.cat([part / part.square().mean(dim=1, keepdim=True).sqrt() for part in (z, embedded)], dim=1)
    for linear, inputs in zip(layer.layers, (10, 6), strict=True):
        h = lrelu(h @ linear.weight.T * (0.1 / inputs**0.5))
    torch.testing.assert_close(layer(z, c), h)
    torch.testing.assert_close(layer(7 * z, c), h, msg="only the direction of z counts")


def test_styles_are_mixed_as_often_as_told_and_from_some_layer_on() -> None:
    mixing = StyleMixing(0.7, layers=5)
    mixing.noise = RowNoise(torch.Generator().manual_seed(0), 4000, 0, 4000)
    z, where = mixing.draw(8)
    assert z.shape == (4000, 8)
    mixed = where.any(dim=1)
    assert mixed.float().mean().item() == pytest.approx(0.7, abs=0.03)
    first = where[mixed].int().argmax(dim=1)
    assert torch.bincount(first).div(len(first)).tolist() == pytest.approx([0, 0.25, 0.25, 0.25, 0.25], abs=0.03)
    assert torch.equal(where[mixed], torch.arange(5) >= first[:, None]), "from the crossover on, to the last"


def test_a_mixed_image_is_made_of_both_latents(tiny: Make, with_noise: Callable[..., nn.Module]) -> None:
    generator = with_noise(tiny("stylegan2").generator, 64)
    z = normal(64, LATENT_DIM, seed=5)
    _, w = generator(z, None, with_styles=True)
    own = generator.mapping(z, None)[:, None].expand_as(w)
    taken = (w == own).all(dim=2)
    assert taken[:, 0].all(), "the first layer keeps its style"
    assert 0.5 < (~taken[:, -1]).float().mean() <= 1
    assert torch.equal(generator.styles(z, None), own), "what is asked for is not mixed"


def test_images_are_differentiable_in_the_styles_they_were_made_from(tiny: Make, with_noise: Any) -> None:
    generator = with_noise(tiny("stylegan2").generator, 2)
    images, w = generator(normal(2, LATENT_DIM), None, with_styles=True)
    assert w.shape == (2, 6, STYLES), "2 log2(16) - 2 styles"
    (gradient,) = torch.autograd.grad((images * normal(*images.shape)).sum(), w, create_graph=True)
    assert (gradient.abs().sum(dim=(0, 2)) > 0).all(), "every layer has its part"
    gradient.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in generator.parameters())


def test_truncation() -> None:
    w, mean = normal(3, 4, STYLES), normal(3, 4, STYLES, seed=1)
    torch.testing.assert_close(truncated(w, mean, 1.0), w)
    assert torch.equal(truncated(w, mean, 0.0), mean)
    torch.testing.assert_close(truncated(w, mean, 0.5), (w + mean) / 2)
    part = truncated(w, mean, 0.5, cutoff=3)
    assert torch.equal(part[:, 3], w[:, 3])
    torch.testing.assert_close(part[:, :3], (w + mean)[:, :3] / 2)


# --- noise -------------------------------------------------------------------------------------------------------


def loud(generator: nn.Module) -> nn.Module:
    """Return the generator with noise that can be heard: it begins with the strength zero."""
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("strength"):
                parameter.fill_(1.0)
    return generator


def test_noise_begins_silent(tiny: Make, with_noise: Any) -> None:
    generator = with_noise(tiny("stylegan2").generator, 3)
    w = generator.styles(normal(3, LATENT_DIM), None)
    before = generator.synthesize(w)
    torch.testing.assert_close(generator.synthesize(w), before)
    assert not torch.allclose(loud(generator).synthesize(w), generator.synthesize(w)), "every pass draws anew"


def test_evaluation_draws_nothing(tiny: Make) -> None:
    generator = loud(tiny("stylegan2").generator).eval()
    z = normal(3, LATENT_DIM)
    assert torch.equal(generator(z, None), generator(z, None))
    torch.testing.assert_close(generator(z[1:2], None), generator(z, None)[1:2], rtol=1e-5, atol=1e-5)
    assert {name.rpartition(".")[2] for name, _ in generator.named_buffers()} == {"fixed", "taps"}
    assert "taps" not in {name.rpartition(".")[2] for name in generator.state_dict()}


def test_draws_do_not_depend_on_how_the_batch_is_cut(tiny: Make) -> None:
    generator, z = loud(tiny("stylegan2").generator), normal(8, LATENT_DIM)

    def rows(start: int, stop: int) -> Tensor:
        noise = RowNoise(torch.Generator().manual_seed(4), batch=8, start=start, count=stop - start)
        seed_layers(random_layers(generator), noise)
        images: Tensor = generator(z[start:stop], None)
        return images

    torch.testing.assert_close(torch.cat([rows(0, 2), rows(2, 3), rows(3, 8)]), rows(0, 8), rtol=1e-4, atol=1e-5)


# --- skips and heads ---------------------------------------------------------------------------------------------


def test_an_image_is_the_sum_of_those_of_all_resolutions(tiny: Make) -> None:
    generator = tiny("stylegan2").generator.eval()
    w = generator.styles(normal(2, LATENT_DIM), None)
    whole = generator.synthesize(w)
    parts = [generator.to_image, *(block.to_image for block in generator.blocks)]
    alone = []
    for kept in parts:
        weights = [part.conv.weight.detach().clone() for part in parts]
        with torch.no_grad():
            for part in parts:
                part.conv.weight.mul_(part is kept)
        alone.append(generator.synthesize(w))
        with torch.no_grad():
            for part, weight in zip(parts, weights, strict=True):
                part.conv.weight.copy_(weight)
    torch.testing.assert_close(torch.stack(alone).sum(dim=0), whole)
    x = generator.conv(generator.constant.expand(2, -1, -1, -1), w[:, 0])
    enlarge = BlurUpsample()
    torch.testing.assert_close(alone[0], enlarge(enlarge(generator.to_image(x, w[:, 1]))), msg="figure 7: summed")


def test_a_class_is_judged_by_the_inner_product_with_its_mapping(tiny: Make) -> None:
    judge = tiny("stylegan2", classes=3).discriminator
    x, c = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    seen: list[Tensor] = []
    judge.out.register_forward_hook(lambda *given: seen.append(given[2]))
    logits = judge(x, c)
    torch.testing.assert_close(logits, (seen[0] * judge.class_map(None, c)).sum(dim=1) / 4**0.5)
    assert count(judge.class_map) == mapping(0, 4, 2, 3)


def test_an_auxiliary_discriminator_is_not_told_the_class() -> None:
    settings = {"arch": "stylegan2", "conditional": True, "head": "auxiliary", "stylegan2": {"channel_max": 4}}
    judge = stylegan2.build(ModelConfig.model_validate(settings), ImageShape(8, 3), 3).discriminator
    x = torch.randn(4, 3, 8, 8)
    one, other = judge(x, torch.tensor([0, 1, 2, 1])), judge(x, torch.tensor([2, 2, 2, 2]))
    assert isinstance(one, Verdict)
    assert one.classes.shape == (4, 3)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.classes, other.classes)


def test_a_head_it_has_not() -> None:
    model = ModelConfig.model_validate({"arch": "stylegan2", "head": "own"})
    assert stylegan2.head_kind(model, "projection", ["projection"]) == "projection"
    with pytest.raises(ConfigError, match=r"model\.head"):
        stylegan2.head_kind(model.model_copy(update={"head": "auxiliary"}), "projection", ["projection"])


def test_the_discriminator_has_two_derivatives(tiny: Make) -> None:
    judge, x = tiny("stylegan2").discriminator, torch.randn(4, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(judge(x, None).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    for name, parameter in judge.named_parameters():
        if not name.endswith("bias"):  # biases move no gradient but at kinks
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_residual_blocks_keep_the_variance() -> None:
    torch.manual_seed(0)
    block = stylegan2.DownBlock(32, 32, residual=True)
    x = torch.randn(4, 32, 32, 32)
    assert block.shortcut is not None
    h = lrelu(block.conv2(stylegan2.blur(lrelu(block.conv1(x)), block.taps, padding=2)))
    torch.testing.assert_close(block(x), (h + block.shortcut(block.halve(x))) / 2**0.5)
    plain = stylegan2.DownBlock(32, 32, residual=False)
    plain.load_state_dict(block.state_dict(), strict=False)
    torch.testing.assert_close(plain(x), h)

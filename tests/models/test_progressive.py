"""Progressive growing: the paper's sizes, the clock of its levels, and what a level shows of G and shows to D."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandist.config import ModelConfig, ProgressiveConfig
from gandist.models.build import build
from gandist.models.contract import Growing, ImageShape, Networks, follow
from gandist.models.minibatch import batch_group
from gandist.models.progressive import ProgressiveDiscriminator, ProgressiveGenerator, level_at, pixel_norm

# 10 images stable, 20 fading: 4 px until 10, 8 px joins until 30 and is stable until 40, 16 px joins until 60
KNOBS: dict[str, Any] = {"stable_kimg": 0.01, "fade_kimg": 0.02, "channel_base": 64, "channel_max": 6}
STABLE_4, FADING_8, STABLE_8, FADING_16, STABLE_16 = 0, 25, 35, 45, 60


def networks(resolution: int = 16, classes: int = 0, head: str = "own", **knobs: Any) -> Networks:
    settings = {
        "arch": "progressive", "conditional": classes > 0, "latent_dim": 5, "head": head, "progressive": KNOBS | knobs,
    }  # fmt: skip
    return build(ModelConfig.model_validate(settings), ImageShape(resolution, 3), classes, seed=0)


def generator(images_seen: int, **knobs: Any) -> ProgressiveGenerator:
    network = networks(**knobs).generator
    assert isinstance(network, ProgressiveGenerator)
    network.follow(images_seen)
    return network


def discriminator(images_seen: int, **knobs: Any) -> ProgressiveDiscriminator:
    network = networks(**knobs).discriminator
    assert isinstance(network, ProgressiveDiscriminator)
    network.follow(images_seen)
    return network


def smooth(x: Tensor) -> Tensor:
    """Return ``x`` averaged over 2x2 squares, at the same size."""
    return F.avg_pool2d(x, 2).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_table_2() -> None:
    """At 1024 px: 23.1 M for each network, counted layer by layer; the images of lower resolutions come on top."""
    settings = {"arch": "progressive", "latent_dim": 512}
    made = build(ModelConfig.model_validate(settings), ImageShape(1024, 3), 0, seed=0)
    widths = [512, 512, 512, 512, 256, 128, 64, 32, 16]
    g = 512 * 512 * 16 + 512 + (9 * 512 + 1) * 512  # the linear layer is a 4x4 convolution of a single place
    g += sum((9 * a + 1) * b + (9 * b + 1) * b for a, b in pairwise(widths))
    d = sum((9 * b + 1) * b + (9 * b + 1) * a for a, b in pairwise(widths))
    d += (9 * 513 + 1) * 512 + (16 * 512 + 1) * 512 + 512 + 1
    table = [g + (16 + 1) * 3, d + (3 + 1) * 16]
    assert [round(size / 1e6, 1) for size in table] == [23.1, 23.1]
    sizes = [sum(p.numel() for p in network.parameters()) for network in (made.generator, made.discriminator)]
    assert sizes == [g + sum((w + 1) * 3 for w in widths), d + sum((3 + 1) * w for w in widths)]


# --- the clock ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images_seen", "level", "stage"),
    [
        (0, 0, 0),
        (10, 0, 0),
        (11, 0.05, 1),
        (25, 0.75, 1),
        (30, 1, 1),
        (40, 1, 1),
        (41, 1.05, 2),
        (60, 2, 2),
        (999, 2, 2),
    ],
)
def test_levels_follow_the_images_seen(images_seen: int, level: float, stage: int) -> None:
    assert level_at(images_seen, ProgressiveConfig.model_validate(KNOBS), last=2) == pytest.approx(level)
    for network in (generator(999), discriminator(999)):  # from any shape, a pure function of the number
        network.follow(images_seen)
        assert network.stage(images_seen) == network.top == stage
        assert network.fading is (level != stage)
        assert network.alpha.item() == pytest.approx(level % 1 or 1)


def test_the_paper_s_schedule() -> None:
    """Appendix A.1: 800 k images at 4 px, then 800 k to fade each resolution in and 800 k to train it."""
    knobs = ProgressiveConfig()
    levels = [level_at(kimg * 1000, knobs, last=8) for kimg in (800, 1200, 1600, 2400, 2800, 12_800, 13_000)]
    assert levels == pytest.approx([0, 0.5, 1, 1, 1.5, 8, 8])


def test_the_shape_is_in_no_checkpoint_and_is_found_again() -> None:
    before, after = generator(FADING_16), generator(STABLE_4)
    assert not any("alpha" in name for name in before.state_dict())
    after.load_state_dict(before.state_dict())
    follow(after, FADING_16)
    z = torch.randn(2, 5)
    assert torch.equal(before(z, None), after(z, None))


# --- what G makes ---------------------------------------------------------------------------------------------------


def images_by_hand(network: ProgressiveGenerator, z: Tensor) -> list[Tensor]:
    """Return G's image at each resolution."""
    h = pixel_norm(F.leaky_relu(network.start(pixel_norm(z)).view(-1, 6, 4, 4) + network.start_bias, 0.2))
    h = pixel_norm(F.leaky_relu(network.conv(h), 0.2))
    images = [network.to_image[0](h)]
    for block, to_image in zip(network.blocks, network.to_image[1:], strict=True):
        h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        for conv in (block.conv1, block.conv2):
            h = pixel_norm(F.leaky_relu(conv(h), 0.2))
        images.append(to_image(h))
    return images


def to_16(x: Tensor) -> Tensor:
    return F.interpolate(x, size=16, mode="nearest")


def test_images_of_every_level() -> None:
    network, z = generator(STABLE_4).eval(), torch.randn(3, 5)
    nn.init.normal_(network.start_bias)
    at_4, at_8, at_16 = images_by_hand(network, z)
    expected = {
        STABLE_4: at_4,
        FADING_8: 0.25 * F.interpolate(at_4, size=8, mode="nearest") + 0.75 * at_8,
        STABLE_8: at_8,
        FADING_16: 0.75 * to_16(at_8) + 0.25 * at_16,
        STABLE_16: at_16,
    }
    for images_seen, images in expected.items():
        network.follow(images_seen)
        torch.testing.assert_close(network(z, None), to_16(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("images_seen", [FADING_8, FADING_16])
def test_d_makes_the_paper_s_mixture_of_a_fake(images_seen: int) -> None:
    """What G returns in training is faded by D, so that D sees of it what G returns in evaluation."""
    network, z = generator(images_seen), torch.randn(2, 5)
    fake, mixture = network.train()(z, None), network.eval()(z, None)
    assert not torch.allclose(fake, mixture, atol=1e-3)
    judge, seen = discriminator(images_seen), []
    judge.from_image[judge.top].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    judge.deviation.group = 2
    judge(fake, None)
    side = 4 << judge.top
    torch.testing.assert_close(seen[0], F.interpolate(mixture, size=side, mode="nearest"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("images_seen", [STABLE_4, STABLE_8, STABLE_16])
def test_between_fades_training_and_evaluation_agree(images_seen: int) -> None:
    network, z = generator(images_seen), torch.randn(2, 5)
    assert torch.equal(network.train()(z, None), network.eval()(z, None))


# --- what D sees ----------------------------------------------------------------------------------------------------


def test_d_sees_no_more_than_its_resolution() -> None:
    x, noise = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    finer = {STABLE_4: noise - smooth(smooth(noise)[..., ::2, ::2]).repeat_interleave(2, 2).repeat_interleave(2, 3)}
    finer[STABLE_8] = noise - smooth(noise)
    for images_seen, detail in finer.items():
        network = discriminator(images_seen)
        torch.testing.assert_close(network(x, None), network(x + detail, None), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(network(x, None), network(x + noise, None), rtol=1e-3)


def test_slopes_are_smaller_at_the_full_resolution() -> None:
    """At 4 px of 16: repeated four by four, the same image is four times as long, so the slope is a quarter."""
    network, small = discriminator(STABLE_4), torch.randn(4, 3, 4, 4, requires_grad=True)
    network.last = 0  # a network of 4 px
    (slope_4,) = torch.autograd.grad(network(small, None).sum(), small)
    network.last = 2
    full = to_16(small.detach()).requires_grad_()
    (slope_16,) = torch.autograd.grad(network(full, None).sum(), full)
    torch.testing.assert_close(slope_16.flatten(1).norm(dim=1), slope_4.flatten(1).norm(dim=1) / 4)


def test_a_real_image_is_faded_and_its_features_are_mixed() -> None:
    """At 16 px with alpha 1/4, step by step."""
    network, x = discriminator(FADING_16), torch.randn(4, 3, 16, 16)
    seen: dict[str, Tensor] = {}
    for name, module in (("new", network.from_image[2]), ("old", network.from_image[1]), ("next", network.blocks[0])):
        module.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    network(x, None)
    torch.testing.assert_close(seen["new"], 0.75 * smooth(x) + 0.25 * x)
    torch.testing.assert_close(seen["old"], F.avg_pool2d(x, 2))
    gain = 2**0.5
    old = F.leaky_relu(network.from_image[1](F.avg_pool2d(x, 2)), 0.2) * gain
    new = network.blocks[1](F.leaky_relu(network.from_image[2](0.75 * smooth(x) + 0.25 * x), 0.2) * gain)
    torch.testing.assert_close(seen["next"], 0.75 * old + 0.25 * new, rtol=1e-4, atol=1e-5)


def test_a_resolution_joins_without_a_jump() -> None:
    """The paper's reason for fading: a network that has just grown does what it did before."""
    ripe = 10 + 20_000_000 + 10  # 8 px has faded in slowly, and been trained
    for make, given in ((generator, torch.randn(4, 5)), (discriminator, torch.randn(4, 3, 16, 16))):
        network = make(ripe, fade_kimg=20_000.0).eval()
        assert (network.top, network.fading) == (1, False)
        before = network(given, None)
        network.follow(ripe + 1)
        assert (network.top, network.fading) == (2, True)
        torch.testing.assert_close(network(given, None), before, rtol=1e-4, atol=1e-4)
        network.follow(ripe + 10_000_000)
        assert not torch.allclose(network(given, None), before, rtol=1e-2, atol=1e-2)


# --- as parts of a run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("images_seen", [STABLE_4, FADING_8, STABLE_8, FADING_16, STABLE_16])
def test_every_weight_takes_part_and_those_that_rest_have_zero_gradients(images_seen: int, classes: int) -> None:
    made = networks(classes=classes)
    for network in (made.generator, made.discriminator):
        assert isinstance(network, Growing)
        network.follow(images_seen)
    c = torch.tensor([0, 1, 2, 0]) if classes else None
    (made.discriminator(made.generator(torch.randn(4, 5), c), c) * torch.tensor([1.0, 2, -1, 3])).sum().backward()
    top, fading = made.generator.top, made.generator.fading
    for network, images in ((made.generator, "to_image"), (made.discriminator, "from_image")):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            kind, _, rest = name.partition(".")
            number = int(rest.split(".")[0]) if kind in {"blocks", images} else None
            active = number is None or (number < top if kind == "blocks" else top - fading <= number <= top)
            assert bool(parameter.grad.any()) is active, name


def test_a_stirred_resting_layer_changes_nothing() -> None:
    z, x = torch.randn(4, 5), torch.randn(4, 3, 16, 16)
    for network, given, images in ((generator(STABLE_8), z, "to_image"), (discriminator(STABLE_8), x, "from_image")):
        before = network(given, None)
        for k in (0, 2):
            nn.init.normal_(getattr(network, images)[k].weight)
        nn.init.normal_(network.blocks[1].conv1.weight)
        assert torch.equal(network(given, None), before)


def test_pixel_norm_against_its_formula() -> None:
    x = torch.tensor([[3.0, 0.0], [4.0, 0.0]])[None, :, :, None]  # features (3, 4) and (0, 0) at two places
    expected = torch.tensor([[3.0, 0.0], [4.0, 0.0]])[None, :, :, None] / 12.5**0.5
    torch.testing.assert_close(pixel_norm(x), expected)


def test_the_latent_lies_on_a_sphere() -> None:
    network, z = generator(STABLE_8), torch.randn(2, 5)
    torch.testing.assert_close(network(z, None), network(7 * z, None), rtol=1e-4, atol=1e-5)


def test_classes_reach_both_networks() -> None:
    made = networks(classes=3)
    zeros, ones = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    z, x = torch.randn(4, 5), torch.randn(4, 3, 16, 16)
    assert not torch.allclose(made.generator(z, zeros), made.generator(z, ones))
    assert not torch.allclose(made.discriminator(x, zeros), made.discriminator(x, ones))
    verdict = networks(classes=3, head="auxiliary").discriminator(x, None)
    assert verdict.classes.shape == (4, 3)


def test_groups_of_images_are_known_to_the_assembly() -> None:
    made = networks(minibatch_group=2)
    assert (batch_group(made.generator), batch_group(made.discriminator)) == (1, 2)

"""Every architecture: its size, its shapes, its beginning, and what it refuses."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from gandist.config import ModelConfig
from gandist.errors import ConfigError
from gandist.models.build import ARCHITECTURES, build
from gandist.models.contract import ImageShape, Networks
from gandist.models.layers import couples_batch

Make = Callable[..., Networks]
Noise = Callable[[nn.Module, int], nn.Module]
LATENT_DIM = 5

RESOLUTIONS = {
    "mlp": [4, 7, 28, 50],
    "dcgan": [8, 16, 32, 64, 128, 256],
    "resnet": [8, 16, 32, 64, 128, 256],
    "biggan": [8, 16, 32, 64, 256],
    "progressive": [8, 32, 128],
    "r3gan": [8, 32, 128],
    "stylegan2": [8, 32, 128],
    "cips": [8, 32],
    "gat": [4, 16],
}
UNBOUNDED = {"progressive", "r3gan", "stylegan2", "cips", "gat"}
"""Those whose images are sums without a bound."""
EVERY = [(arch, resolution) for arch, allowed in RESOLUTIONS.items() for resolution in allowed]
BOTH = pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# arch, image, latent, classes -> parameters of G, of D. The 64 px DCGAN is the official tutorial's, the 32 px residual
# network the SNGAN paper's for CIFAR-10.
SIZES: list[tuple[dict[str, Any], ImageShape, int, int, int]] = [
    ({"arch": "dcgan", "latent_dim": 100}, ImageShape(64, 3), 0, 3_576_704, 2_765_568),
    ({"arch": "dcgan", "latent_dim": 100}, ImageShape(32, 3), 0, 1_068_928, 663_296),
    ({"arch": "dcgan", "latent_dim": 100}, ImageShape(32, 3), 10, 1_479_528, 665_856),
    ({"arch": "resnet", "latent_dim": 128}, ImageShape(32, 3), 0, 4_276_739, 1_053_825),
    ({"arch": "resnet", "latent_dim": 128}, ImageShape(32, 3), 10, 4_304_387, 1_055_105),
    ({"arch": "resnet", "latent_dim": 128}, ImageShape(64, 3), 0, 1_162_051, 599_857),
    ({"arch": "mlp", "latent_dim": 100}, ImageShape(28, 1), 0, 1_486_352, 1_460_225),
    ({"arch": "mlp", "latent_dim": 100}, ImageShape(28, 1), 10, 1_512_952, 1_724_929),
]


@pytest.mark.parametrize(("model", "image", "classes", "generator", "discriminator"), SIZES)
def test_sizes(model: dict[str, Any], image: ImageShape, classes: int, generator: int, discriminator: int) -> None:
    settings = ModelConfig.model_validate({**model, "conditional": classes > 0})
    networks = build(settings, image, classes, seed=0)
    assert (parameters(networks.generator), parameters(networks.discriminator)) == (generator, discriminator)


def test_every_architecture_is_tried_here() -> None:
    assert set(RESOLUTIONS) == set(ARCHITECTURES)
    with pytest.raises(ConfigError, match=r"model\.arch dcgna: no such network\. Did you mean 'dcgan'\?"):
        build(ModelConfig(arch="dcgna"), ImageShape(16, 3), 0, 0)


@BOTH
@pytest.mark.parametrize(("arch", "resolution"), EVERY)
def test_shapes_and_range(tiny: Make, with_noise: Noise, arch: str, resolution: int, classes: int) -> None:
    channels = 1 if resolution % 16 else 3
    networks = tiny(arch, resolution, channels, classes=classes)
    z, c = torch.randn(4, LATENT_DIM) * 3, torch.tensor([0, 2, 1, 1]) if classes else None
    images = with_noise(networks.generator, 4)(z, c)
    assert images.shape == (4, channels, resolution, resolution)
    assert images.dtype == torch.float32
    with torch.no_grad():
        for parameter in networks.generator.parameters():
            parameter *= 50  # far from its beginning
    images = networks.generator(z, c)
    assert 0.9 < images.abs().max() <= (torch.inf if arch in UNBOUNDED else 1)
    logits = with_noise(networks.discriminator, 4)(images / images.abs().max(), c)
    assert logits.shape == (4,)
    assert torch.isfinite(logits).all()


@BOTH
@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "progressive"])  # not all at once
def test_every_parameter_learns(tiny: Make, with_noise: Noise, arch: str, classes: int) -> None:
    networks = tiny(arch, classes=classes)
    for parameter in [*networks.generator.parameters(), *networks.discriminator.parameters()]:
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, 0.0, 0.1)  # behind a convolution that begins at zero nothing learns yet
    c = torch.tensor([0, 1, 2, 0]) if classes else None
    images = with_noise(networks.generator, 4)(torch.randn(4, LATENT_DIM), c)
    logits = with_noise(networks.discriminator, 4)(images, c)
    (logits * torch.tensor([1.0, 2.0, -1.0, 0.5])).sum().backward()
    for role, network in (("generator", networks.generator), ("discriminator", networks.discriminator)):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, f"{role}.{name}"
            assert torch.isfinite(parameter.grad).all(), f"{role}.{name}"
            assert parameter.grad.any(), f"{role}.{name}"


@BOTH
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_bf16_passes(tiny: Make, with_noise: Noise, arch: str, classes: int) -> None:
    networks = tiny(arch, classes=classes)
    torch.manual_seed(0)
    z, c = torch.randn(8, LATENT_DIM), torch.arange(8) % 3 if classes else None
    exact = networks.generator.eval()(z, c)
    exact_logits = networks.discriminator.eval()(exact, c)
    with torch.autocast("cpu", torch.bfloat16):
        images = networks.generator(z, c)
        logits = networks.discriminator(exact, c)
    assert images.shape == exact.shape
    size = exact.abs().max().clamp_min(1)
    torch.testing.assert_close(images.float() / size, exact / size, rtol=0.05, atol=0.05)
    torch.testing.assert_close(logits.float(), exact_logits, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_conditional_networks_see_the_class_and_others_do_not(tiny: Make, arch: str) -> None:
    z, x = torch.randn(4, LATENT_DIM), torch.rand(4, 3, 16, 16)
    zeros, ones = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    for classes, differs in ((3, True), (0, False)):
        networks = tiny(arch, classes=classes)
        for network in (networks.generator.eval(), networks.discriminator.eval()):
            if arch == "resnet" and network is networks.generator and classes:
                with torch.no_grad():  # every class begins with the same scale and shift
                    network.blocks[0].norm1.conditional.shift.weight[1] += 1
            given = z if network is networks.generator else x
            assert torch.equal(network(given, zeros), network(given, ones)) is not differs


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["dcgan", "resnet", "biggan", "progressive", "r3gan", "stylegan2", "cips"])
@pytest.mark.parametrize(
    ("resolution", "sizes"),
    [(4, "8"), (6, "8"), (12, "8 or 16"), (28, "16 or 32"), (48, "32 or 64"), (100, "64 or 128")],
)
def test_resolutions_that_do_not_fit_are_refused(tiny: Make, arch: str, resolution: int, sizes: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.resolution: {arch} .*not {resolution}\. .* at {sizes} px"):
        tiny(arch, resolution)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_classes_are_needed_where_they_are_asked_for(arch: str) -> None:
    model = ModelConfig.model_validate({"arch": arch, "conditional": True})
    with pytest.raises(ConfigError, match=r"model\.conditional is on, but the data has no classes.*conditional False"):
        build(model, ImageShape(16, 3), classes=0, seed=0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_unconditional_networks_leave_the_classes_out(tiny: Make, arch: str) -> None:
    model = ModelConfig.model_validate({"arch": arch, "conditional": False, "latent_dim": 12})
    few, none = (build(model, ImageShape(16, 3), classes, seed=0) for classes in (10, 0))
    assert few.generator.state_dict().keys() == none.generator.state_dict().keys()
    assert parameters(few.discriminator) == parameters(none.discriminator)


# --- the beginning -----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_initial_weights_are_a_function_of_the_seed_alone(tiny: Make, arch: str, classes: int) -> None:
    torch.manual_seed(1)
    first = tiny(arch, classes=classes, seed=5)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second = tiny(arch, classes=classes, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before), "the global random state is left as it was"
    other = tiny(arch, classes=classes, seed=6)
    for role in ("generator", "discriminator"):
        a, b, c = (getattr(networks, role).state_dict() for networks in (first, second, other))
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert any(not torch.equal(a[name], c[name]) for name in a)


def test_dcgan_begins_as_the_paper_says() -> None:
    """Section 4 of Radford et al. 2016: a normal distribution with standard deviation 0.02."""
    model = ModelConfig.model_validate({"arch": "dcgan", "conditional": True})
    networks = build(model, ImageShape(64, 3), classes=10, seed=3)
    for network in (networks.generator, networks.discriminator):
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
                weight = module.weight
                bound = 6 / weight.numel() ** 0.5
                assert weight.mean().item() == pytest.approx(0.0, abs=0.02 * bound), name
                assert weight.std().item() == pytest.approx(0.02, rel=bound), name
                assert getattr(module, "bias", None) is None, "batch norm takes a bias away again"
            elif isinstance(module, nn.BatchNorm2d):
                bound = 6 / module.weight.numel() ** 0.5
                assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02 * bound), name
                assert module.weight.std().item() == pytest.approx(0.02, rel=bound), name
                assert not module.bias.any(), name


def test_residual_networks_begin_with_xavier_uniform() -> None:
    model = ModelConfig.model_validate({"arch": "resnet"})
    networks = build(model, ImageShape(32, 3), classes=0, seed=3)
    seen = set()
    for network in (networks.generator, networks.discriminator):
        weights = {
            name.replace("parametrizations.weight.original", "weight"): p for name, p in network.named_parameters()
        }
        for name, weight in weights.items():
            if name.endswith("bias"):
                assert not weight.any(), name
            elif weight.ndim > 1:
                area = weight[0, 0].numel()
                gain = 2**0.5 if re.search(r"conv[12]\.weight", name) else 1.0
                bound = gain * (6 / (area * (weight.shape[0] + weight.shape[1]))) ** 0.5
                assert weight.abs().max().item() <= bound + 1e-7, name
                assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=6 / weight.numel() ** 0.5), name
                seen.add(gain)
    assert seen == {1.0, 2**0.5}


# --- as parts of a run -------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_names_of_weights_carry_no_wrapper(tiny: Make, arch: str, classes: int) -> None:
    networks = tiny(arch, classes=classes)
    for network in (networks.generator, networks.discriminator):
        names = list(network.state_dict())
        network.compile()
        assert list(network.state_dict()) == names
        assert not any(part in {"module", "_orig_mod"} for name in names for part in name.split("."))


def test_batch_norms_are_what_couples_a_batch(tiny: Make) -> None:
    coupled = {
        arch: (bool(couples_batch(tiny(arch).generator)), bool(couples_batch(tiny(arch).discriminator)))
        for arch in ARCHITECTURES
    }
    norms = {"dcgan": (True, True), "resnet": (True, False), "biggan": (True, False)}
    assert coupled == {arch: norms.get(arch, (False, False)) for arch in ARCHITECTURES}
    assert couples_batch(tiny("dcgan").discriminator)[0] == "layers.3"


@BOTH
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_in_evaluation_images_do_not_see_each_other(tiny: Make, with_noise: Noise, arch: str, classes: int) -> None:
    generator = with_noise(tiny(arch, classes=classes).generator, 8)
    generator(torch.randn(8, LATENT_DIM), torch.arange(8) % 3 if classes else None)  # statistics of its own
    generator.eval()
    z, c = torch.randn(4, LATENT_DIM), torch.tensor([2, 0, 1, 1]) if classes else None
    together = generator(z, c)
    for k in range(4):
        alone = generator(z[k : k + 1], None if c is None else c[k : k + 1])
        torch.testing.assert_close(alone[0], together[k], rtol=1e-5, atol=1e-5)

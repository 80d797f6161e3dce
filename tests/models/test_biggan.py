"""BigGAN: the paper's sizes, layer by layer, where z and the class enter, and what is refused."""

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from gandist.adversarial.ema import GeneratorAverage
from gandist.config import ModelConfig
from gandist.errors import ConfigError
from gandist.models.build import build
from gandist.models.contract import ImageShape, Networks
from gandist.models.layers import SpectralNorm, begin_step, renew_spectral_norms


def networks(resolution: int, classes: int = 0, latent_dim: int = 12, **knobs: Any) -> Networks:
    small = {"generator_channels": 2, "discriminator_channels": 2, "class_dim": 3}
    settings = {"arch": "biggan", "conditional": classes > 0, "latent_dim": latent_dim, "biggan": small | knobs}
    return build(ModelConfig.model_validate(settings), ImageShape(resolution, 3), classes, seed=0)


# --- sizes, counted from the tables of appendix B -------------------------------------------------------------------


def attention(channels: int) -> int:
    return 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1


def generator_size(widths: list[int], piece: int, classes: int, attended: int | None) -> int:
    """Linear layer; per block two 3x3 and one 1x1 convolutions and two norms without biases; norm and convolution."""
    count = classes * 128 + (piece + 1) * 16 * widths[0]
    condition = 128 + piece
    for a, b in pairwise(widths):
        count += (9 * a + 1) * b + (9 * b + 1) * b + (a + 1) * b + 2 * condition * (a + b)
    return count + (attention(attended) if attended else 0) + 2 * widths[-1] + (9 * widths[-1] + 1) * 3


def discriminator_size(widths: list[int], halvings: int, classes: int, attended: int | None) -> int:
    """Per block two 3x3 convolutions, a 1x1 where something changes; one logit; one embedding per class."""
    count = 0
    for k, (a, b) in enumerate(pairwise([3, *widths])):
        count += (9 * a + 1) * b + (9 * b + 1) * b + ((a + 1) * b if a != b or k < halvings else 0)
    return count + (attention(attended) if attended else 0) + widths[-1] + 1 + classes * widths[-1]


# resolution, base width, latent, attention, classes, multiples of G's and D's base width, halvings of D, and the totals
LONG = partial(pytest.param, marks=pytest.mark.long)
SIZES: list[Any] = [
    # table 4 at its best base width, 70.4 M and 88.0 M: 158.4 M, where table 1 says 158.3 M
    LONG(128, 96, 120, 64, 1000, [16, 16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16], 5, 70_433_988, 87_982_370),
    LONG(256, 96, 119, 64, 1000, [16, 16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16], 6, None, None),
    # CIFAR-10 at base width 64 and 96, whose G of 9.4 M benchmarks list
    (32, 64, 128, None, 10, [4, 4, 4, 4], [4, 4, 4, 4], 2, 4_373_251, 4_207_361),
    (32, 96, 80, 16, 10, [4, 4, 4, 4], [4, 4, 4, 4], 2, 9_416_196, 9_641_090),
    LONG(64, 64, 100, 32, 10, [16, 16, 8, 4, 2], [1, 2, 4, 8, 16], 4, None, None),
]


@pytest.mark.parametrize(
    ("resolution", "ch", "latent_dim", "place", "classes", "g", "d", "halvings", "g_total", "d_total"), SIZES
)
def test_sizes(
    resolution: int,
    ch: int,
    latent_dim: int,
    place: int | None,
    classes: int,
    g: list[int],
    d: list[int],
    halvings: int,
    g_total: int | None,
    d_total: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for slow in ((SpectralNorm, "iterate"), (nn.init, "orthogonal_"), (nn.init, "xavier_uniform_")):
        monkeypatch.setattr(*slow, lambda *_: None)
    knobs = {"generator_channels": ch, "discriminator_channels": ch, "class_dim": 128, "attention_resolution": place}
    made = networks(resolution, classes, latent_dim, **knobs)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (made.generator, made.discriminator)]
    attended = (None, None)
    if place:  # the block of G that reaches this size, and the first of D
        attended = (g[(place // 4).bit_length() - 1] * ch, d[(resolution // place).bit_length() - 2] * ch)
    expected = [
        generator_size([ch * k for k in g], latent_dim // len(g), classes, attended[0]),
        discriminator_size([ch * k for k in d], halvings, classes, attended[1]),
    ]
    assert sizes == expected
    for size, total in zip(sizes, (g_total, d_total), strict=True):
        assert total in (None, size)


# --- where z and the class enter ------------------------------------------------------------------------------------


def test_every_block_has_its_piece_of_z() -> None:
    generator = networks(16, classes=3).generator
    seen: list[torch.Tensor] = []
    for block in generator.blocks:  # type: ignore[union-attr]
        block.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    z, c = torch.randn(2, 12), torch.tensor([2, 0])
    generator.start.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore[union-attr]
    generator(z, c)
    named = generator.embedding(c)  # type: ignore[operator]
    assert torch.equal(seen[0], z[:, :4])
    for k in (1, 2):
        assert torch.equal(seen[k], torch.cat([named, z[:, 4 * k : 4 * k + 4]], dim=1))


@pytest.mark.parametrize("hierarchical", [True, False])
@pytest.mark.parametrize("classes", [0, 3])
def test_norms_see_what_there_is_to_see(classes: int, hierarchical: bool) -> None:
    generator = networks(16, classes, hierarchical=hierarchical).generator
    norm = generator.blocks[1].norm2  # type: ignore[index,union-attr]
    condition = (3 if classes else 0) + (4 if hierarchical else 0)
    assert norm.norm.affine is (condition == 0)
    if condition:
        assert norm.scale.in_features == norm.shift.in_features == condition
    assert generator.start.in_features == (4 if hierarchical else 12)  # type: ignore[union-attr]
    c = torch.tensor([0, 1]) if classes else None
    assert generator(torch.randn(2, 12), c).shape == (2, 3, 16, 16)


def test_a_norm_scales_by_one_more_than_its_linear_layer() -> None:
    norm = networks(8, classes=2, hierarchical=False).generator.blocks[0].norm1.eval()  # type: ignore[union-attr,index]
    x, y = torch.randn(2, 8, 3, 3), torch.randn(2, 3)
    scale, shift = y @ norm.scale.weight.T, y @ norm.shift.weight.T
    expected = x / (1 + 1e-5) ** 0.5 * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    torch.testing.assert_close(norm(x, y), expected)


def test_networks_begin_orthogonal_and_normalised() -> None:
    made = networks(16, classes=3, attention_resolution=8, latent_dim=6)
    for network in (made.generator, made.discriminator):
        for name, module in network.named_modules():
            if not isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                continue
            if network is made.generator and name == "embedding":
                matrix = module.weight
                assert not parametrize.is_parametrized(module), "the shared embedding is no layer between layers"
            else:
                norm = module.parametrizations.weight[0]  # type: ignore[index,union-attr]
                assert isinstance(norm, SpectralNorm)
                matrix = module.parametrizations.weight.original.flatten(1)  # type: ignore[index,union-attr]
                torch.testing.assert_close(module.weight.flatten(1), matrix, msg=f"{name}: its norm is one")
            narrow = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
            torch.testing.assert_close(narrow @ narrow.T, torch.eye(len(narrow)), rtol=0, atol=1e-5, msg=name)
            if getattr(module, "bias", None) is not None:
                assert not module.bias.any(), name  # type: ignore[union-attr,operator]


def test_averaged_layers_have_norm_one_too() -> None:
    """The average of singular vectors that turn is none: without vectors of its own the average would be too large."""
    generator, draw = networks(8).generator, torch.Generator().manual_seed(0)
    average = GeneratorAverage(generator, halflife_images=2000.0, rampup=None)
    for step in range(1, 60):
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=draw)
        begin_step(generator)
        average.update(64 * step, 64)
    for name, module in average.network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            norm = torch.linalg.svdvals(module.weight.flatten(1))[0].item()
            assert norm == pytest.approx(1.0, abs=0.05), name


def test_added_up_layers_have_norm_one_too() -> None:
    """As widths of averages are, after a run."""
    generator, other = networks(8).generator, networks(8).generator
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    begin_step(other)
    first, second = generator.state_dict(), other.state_dict()
    state = {name: 0.7 * value + 0.3 * second[name] if value.ndim else value for name, value in first.items()}
    renew_spectral_norms(state)
    generator.load_state_dict(state)
    for name, module in generator.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            norm = torch.linalg.svdvals(module.weight.flatten(1))[0].item()
            assert norm == pytest.approx(1.0, abs=0.01), name


def test_attention_stands_where_it_is_asked_for_and_learns() -> None:
    made = networks(32, attention_resolution=16)
    places: list[tuple[int, ...]] = []
    for network, given in ((made.generator, torch.randn(4, 12)), (made.discriminator, torch.randn(4, 3, 32, 32))):
        network.attention.register_forward_hook(lambda _, __, out: places.append(tuple(out.shape[1:])))  # type: ignore[union-attr]
        network(given, None).sum().backward()
        assert network.attention.gamma.grad != 0  # type: ignore[union-attr]
    assert places == [(8, 16, 16), (8, 16, 16)]


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resolution", "latent_dim", "knobs", "words"),
    [
        (32, 101, {}, r"model\.latent_dim: .* 4 equal pieces at 32 px, and 101 .* to 100 or 104"),
        (32, 3, {}, r"and 3 cannot .* to 4, or"),
        (32, 12, {"attention_resolution": 4}, r"attention_resolution: at 32 px .* features of 8, 16 px, not 4"),
        (1024, 12, {}, r"data\.resolution: biggan is drawn for up to 512 px, not for 1024"),
        (24, 12, {}, r"data\.resolution: biggan needs a power of two .* at 16 or 32 px"),
    ],
)
def test_what_does_not_fit(resolution: int, latent_dim: int, knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        networks(resolution, latent_dim=latent_dim, **knobs)

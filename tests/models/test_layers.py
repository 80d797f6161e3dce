"""Spectral norm, conditional batch norm and dropout against their definitions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gandist.models.contract import Networks
from gandist.models.layers import ConditionalBatchNorm, SpectralNorm, begin_step, spectral_norm
from gandist.models.noise import Dropout, RowNoise, random_layers

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(12, 7),
    "convolution": lambda: nn.Conv2d(3, 8, 3),
    "embedding": lambda: nn.Embedding(5, 9),
}


def normalised(kind: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return spectral_norm(LAYERS[kind]())


def largest_singular_value(weight: Tensor) -> float:
    return torch.linalg.svdvals(weight.detach().flatten(1).double())[0].item()


def norm_of(layer: nn.Module) -> SpectralNorm:
    found = layer.parametrizations.weight[0]  # type: ignore[index,union-attr]
    assert isinstance(found, SpectralNorm)
    return found


# --- spectral norm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("seed", range(5))
def test_the_largest_singular_value_becomes_one(kind: str, seed: int) -> None:
    layer = normalised(kind, seed)
    assert largest_singular_value(layer.weight) == pytest.approx(1.0, abs=0.1), "close, after the first iterations"
    for _ in range(200):
        begin_step(layer)
    assert largest_singular_value(layer.weight) == pytest.approx(1.0, abs=1e-4)


def test_it_follows_a_weight_that_changes() -> None:
    layer = normalised("linear")
    original = layer.parametrizations.weight.original
    for step in range(300):
        with torch.no_grad():
            original += 0.01 * torch.randn(original.shape, generator=torch.Generator().manual_seed(step))
        begin_step(layer)  # one iteration for each step of the network is enough
    assert largest_singular_value(layer.weight) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_gradient_flows_through_the_norm(kind: str) -> None:
    layer = normalised(kind)
    original, norm = layer.parametrizations.weight.original, norm_of(layer)
    along = torch.randn(original.shape, generator=torch.Generator().manual_seed(9))
    (got,) = torch.autograd.grad((layer.weight * along).sum(), original)

    weight = original.detach().clone().requires_grad_()
    sigma = norm.u @ weight.flatten(1) @ norm.v
    (expected,) = torch.autograd.grad((weight / sigma * along).sum(), weight)
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, along / sigma.detach()), "the scale has a gradient of its own"


def test_a_pass_changes_no_buffer_and_a_step_does(tiny: Callable[..., Networks]) -> None:
    """So the real and the fake batch, and every pass of a step, see the same weight."""
    network = tiny("resnet", classes=3).discriminator.train()
    x, c = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    before = {name: value.clone() for name, value in network.named_buffers()}
    first = network(x, c)
    first.sum().backward()
    assert torch.equal(network(x, c), first)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    begin_step(network)
    moved = [name for name, value in network.named_buffers() if not torch.equal(value, before[name])]
    assert len(moved) > len(before) / 2
    assert not torch.equal(network(x, c), first)


def test_two_passes_before_one_backward(tiny: Callable[..., Networks]) -> None:
    """The real and the fake pass share a backward; a step may begin before an older graph is used up."""
    network = tiny("resnet").discriminator
    x = torch.randn(2, 3, 16, 16)
    loss = network(x, None).sum() - network(-x, None).sum()
    begin_step(network)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_every_weight_of_the_residual_discriminator_is_normalised(tiny: Callable[..., Networks]) -> None:
    network = tiny("resnet", classes=3).discriminator
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) > 8
    assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)


def test_the_norm_is_exact_in_half_precision_passes() -> None:
    layer = normalised("linear")
    exact = layer.weight.detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.weight.detach().float(), exact)


def test_the_norm_belongs_to_the_checkpoint() -> None:
    """Without its vectors a continued run would not go on to the bit."""
    layer, other = normalised("linear", 0), normalised("linear", 1)
    other.load_state_dict(layer.state_dict())
    for _ in range(3):
        begin_step(layer)
        begin_step(other)
    assert torch.equal(layer.weight, other.weight)


# --- conditional batch norm --------------------------------------------------------------------------------------


def test_conditional_batch_norm_against_its_definition() -> None:
    draw = torch.Generator().manual_seed(4)
    norm = ConditionalBatchNorm(channels=3, classes=4)
    x, c = torch.randn(6, 3, 5, 5, generator=draw) * 2 + 1, torch.tensor([0, 3, 3, 1, 0, 2])
    plain = nn.BatchNorm2d(3)
    torch.testing.assert_close(norm(x, c), plain(x)), "it begins as a plain batch norm"
    with torch.no_grad():
        norm.scale.weight.copy_(torch.randn(4, 3, generator=draw))
        norm.shift.weight.copy_(torch.randn(4, 3, generator=draw))
    mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
    for k in range(6):
        for channel in range(3):
            even = (x[k, channel] - mean[channel]) / (variance[channel] + 1e-5).sqrt()
            expected = even * norm.scale.weight[c[k], channel] + norm.shift.weight[c[k], channel]
            torch.testing.assert_close(norm(x, c)[k, channel], expected, rtol=1e-4, atol=1e-5)


def test_conditional_batch_norm_in_evaluation_uses_running_statistics() -> None:
    norm = ConditionalBatchNorm(channels=2, classes=2).eval()
    norm.norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    x = torch.full((1, 2, 1, 1), 5.0)
    assert norm(x, torch.tensor([1])).flatten().tolist() == pytest.approx([2.0, 1.0], rel=1e-5)


# --- dropout -----------------------------------------------------------------------------------------------------


def dropped(layer: Dropout, x: Tensor, batch: int, start: int, seed: int = 0) -> Tensor:
    layer.noise = RowNoise(torch.Generator().manual_seed(seed), batch, start, len(x))
    return layer(x)


def test_the_mask_of_a_row_depends_on_its_place_alone() -> None:
    layer, x = Dropout(0.4).train(), torch.rand(10, 50) + 1
    whole = dropped(layer, x, batch=10, start=0)
    for start, stop in ((0, 3), (3, 4), (4, 10)):
        assert torch.equal(dropped(layer, x[start:stop], batch=10, start=start), whole[start:stop])
    masks = whole != 0
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(dropped(layer, x, batch=10, start=0, seed=1), whole)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_a_share_is_dropped_and_the_mean_is_kept(probability: float) -> None:
    x = torch.ones(200, 500)
    out = dropped(Dropout(probability).train(), x, batch=200, start=0)
    assert (out == 0).float().mean().item() == pytest.approx(probability, abs=0.01)
    assert out[out != 0].unique().tolist() == pytest.approx([1 / (1 - probability)], rel=1e-6)


def test_every_element_is_dropped_by_itself() -> None:
    """Other than in nn.Dropout2d, the positions of a channel do not share their fate."""
    mask = dropped(Dropout(0.5).train(), torch.ones(2, 3, 16, 16), batch=2, start=0) != 0
    assert mask.shape == (2, 3, 16, 16)
    for plane in mask.flatten(0, 1):
        assert plane.any()
        assert not plane.all()


def test_nothing_is_dropped_in_evaluation_or_at_probability_zero() -> None:
    x = torch.rand(3, 4)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)


def test_training_without_draws_is_a_mistake_that_is_named() -> None:
    with pytest.raises(AssertionError, match="seed_layers"):
        Dropout(0.5).train()(torch.rand(3, 4))


def test_layers_that_draw_are_found_in_order(tiny: Callable[..., Networks]) -> None:
    networks = tiny("mlp")
    assert random_layers(networks.generator) == []
    assert random_layers(networks.discriminator) == [m for m in networks.discriminator.layers if isinstance(m, Dropout)]
    assert len(random_layers(networks.discriminator)) == 2

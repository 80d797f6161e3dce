"""R1 against closed forms, and penalties that are paid lazily."""

import pytest
import torch
from torch import Tensor, nn

from gandist.adversarial.penalties.base import Scene, View, input_gradient
from gandist.adversarial.penalties.gradient import R1
from gandist.adversarial.regularizers import PENALTIES, Regularizer


def r1(x: Tensor, logits: Tensor, scale: float = 1.0) -> Tensor:
    """Return what R1 costs for images and D's logits for them."""
    views = {"real": View(x, None), "fake": View(x, None)}
    scene = Scene(views, nn.Identity(), *[lambda *_: x] * 3, loss_scale=scale, logits={"real": logits})
    return R1().cost(scene)


GENERATOR = torch.Generator().manual_seed(5)


def images(count: int = 7) -> Tensor:
    return torch.randn(count, 3, 4, 4, generator=GENERATOR).requires_grad_()


def test_r1_of_a_linear_discriminator_is_half_the_squared_norm_of_its_weight() -> None:
    x = images()
    w = torch.randn(x[0].numel(), generator=GENERATOR, requires_grad=True)
    penalty = r1(x, x.flatten(1) @ w)
    torch.testing.assert_close(penalty, w.square().sum() / 2)
    (gradient,) = torch.autograd.grad(penalty, w)
    torch.testing.assert_close(gradient, w.detach())


def test_r1_of_a_quadratic_discriminator() -> None:
    """With D(x) = a |x|^2 / 2 the gradient is a x, and the penalty a^2 |x|^2 / 2 in the mean over images."""
    x, a = images(), 1.7
    penalty = r1(x, a * x.square().flatten(1).sum(dim=1) / 2)
    expected = a**2 * x.detach().square().flatten(1).sum(dim=1).mean() / 2
    torch.testing.assert_close(penalty, expected)


def smooth_network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.Tanh(), nn.Linear(20, 9), nn.Softplus(), nn.Linear(9, 1))


def test_r1_and_its_gradient_against_float64_one_image_at_a_time() -> None:
    x, network = images(), smooth_network()
    penalty = r1(x, network(x).squeeze(1))
    got = torch.autograd.grad(penalty, list(network.parameters()), materialize_grads=True)

    exact = smooth_network().double()
    norms = []
    for one in x.detach().double():
        one = one.requires_grad_()
        (slope,) = torch.autograd.grad(exact(one[None]).sum(), one, create_graph=True)
        norms.append(slope.square().sum())
    expected = torch.stack(norms).mean() / 2
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(
        got, torch.autograd.grad(expected, list(exact.parameters()), materialize_grads=True), strict=True
    ):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [2.0**10, 2.0**16, 1000.0])
def test_the_loss_scale_leaves_the_penalty_as_it_is(scale: float) -> None:
    x, network = images(), smooth_network()
    torch.testing.assert_close(r1(x, network(x).squeeze(1), scale), r1(x, network(x).squeeze(1)))


def test_the_loss_scale_saves_small_gradients_in_half_precision() -> None:
    """D(h) = 2^-16 h^2 has the slope 2^-27 at h = 2^-12, and the smallest fp16 number is 2^-24."""
    x = torch.full((2, 1), 2.0**-12, dtype=torch.float16, requires_grad=True)
    logits = (x * 2.0**-8).square().sum(dim=1)
    assert input_gradient(x, logits, 1.0).abs().max() == 0
    scaled = input_gradient(x, logits, 2.0**14)
    torch.testing.assert_close(scaled, torch.full_like(scaled, 2.0**-27))
    assert scaled.dtype == torch.float32


def test_each_image_has_a_gradient_of_its_own() -> None:
    """The mean is taken over images after squaring, not before: two opposite slopes do not cancel."""
    x = torch.zeros(2, 1, 1, 1, requires_grad=True)
    sign = torch.tensor([1.0, -1.0])
    assert r1(x, x.flatten() * sign * 3).item() == pytest.approx(4.5)


@pytest.mark.parametrize("interval", [1, 4, 16])
def test_a_lazy_penalty_keeps_its_strength(interval: int) -> None:
    regularizer = Regularizer("r1", PENALTIES["r1"](), lambda images_seen: 10.0 + images_seen, interval)
    due = [step for step in range(64) if regularizer.due(step, images_seen=5)]
    assert due == list(range(0, 64, interval))
    paid = sum(regularizer.scale(images_seen=5) for _ in due)
    assert paid == pytest.approx(64 * 15.0), "over many steps the weight does not depend on the interval"

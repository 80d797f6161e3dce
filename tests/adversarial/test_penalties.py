"""Every penalty against a closed form, or against a derivation that shares no code with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gandist.adversarial.gradient_norm import GradientNormalization
from gandist.adversarial.penalties.base import Made, Scene, View
from gandist.adversarial.penalties.consistency import (
    BalancedConsistency,
    LatentConsistency,
    LatentVariety,
    mirror_and_shift,
)
from gandist.adversarial.penalties.gradient import R1, R2, GradientPenalty
from gandist.adversarial.penalties.logits import Centring, LeCam
from gandist.adversarial.penalties.path_length import PathLength
from gandist.adversarial.penalties.weights import OrthogonalDiscriminator, OrthogonalGenerator
from gandist.adversarial.regularizers import GENERATOR_PENALTIES, PENALTIES
from gandist.models.noise import RowNoise
from gandist.runtime import rng

ROWS, SHAPE = 6, (2, 3, 3)
Judge = Callable[[Tensor], Tensor]


def noise(site: str, rows: int = ROWS) -> RowNoise:
    return RowNoise(rng.generator(0, site), rows, 0, rows)


def images(site: str, rows: int = ROWS) -> Tensor:
    return noise(f"{site} images", rows).normal(*SHAPE).double()


def play(penalty: Any, judge: Judge, rows: int = ROWS, **more: Any) -> tuple[Tensor, Scene]:
    """Return what a penalty costs when D judges views by a function."""
    views = {name: View(images(name, rows), None) for name in ("real", "fake")}
    for name in penalty.gradients:
        views[name].x.requires_grad_()
    near = lambda draws, sigma: views["fake"].x.detach() + sigma * draws.normal(*SHAPE)  # noqa: E731
    spread = views["real"].x.detach().std(correction=0)
    scene = Scene(views, nn.Identity(), partial(noise, rows=rows), near, lambda: spread, **more)
    penalty.prepare(scene)
    scene.logits = {name: judge(view.x) for name, view in scene.views.items()}
    return penalty.cost(scene), scene


def linear(w: Tensor) -> Judge:
    return lambda x: x.flatten(1) @ w


W = torch.randn(math.prod(SHAPE), generator=rng.generator(1), dtype=torch.float64)


@pytest.mark.parametrize("kind", [R1, R2])
def test_exact_zero_centred_penalty_of_a_linear_and_of_a_quadratic_discriminator(kind: Any) -> None:
    cost, _ = play(kind(), linear(W))
    assert cost.item() == pytest.approx(W.square().sum().item() / 2, rel=1e-6)
    cost, scene = play(kind(), lambda x: 1.7 * x.square().flatten(1).sum(dim=1) / 2)
    x = scene.views[kind.view].x.detach()
    assert cost.item() == pytest.approx(1.7**2 * x.square().sum().item() / len(x) / 2, rel=1e-6)


@pytest.mark.parametrize("kind", [R1, R2])
@pytest.mark.parametrize("antithetic", [False, True])
def test_finite_differences_of_a_linear_discriminator(kind: Any, antithetic: bool) -> None:
    """They are w.n for the probe n at hand, and |w|^2 in the mean over many."""
    cost, _ = play(kind("finite_difference", 0.01, antithetic), linear(W))
    probe = noise(f"{kind.view}.probe").normal(*SHAPE).double()
    assert cost.item() == pytest.approx((probe.flatten(1) @ W).square().mean().item() / 2, rel=1e-6)
    many, rows = play(kind("finite_difference", 0.01, antithetic), linear(W), rows=20_000)[0], 20_000
    assert many.item() == pytest.approx(W.square().sum().item() / 2, rel=5 * math.sqrt(2 / rows))


def test_antithetic_differences_have_no_second_order_error() -> None:
    def quadratic(x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(dim=1) / 2 + linear(W)(x)

    x, probe = images("real").flatten(1), noise("real.probe").normal(*SHAPE).double().flatten(1)
    slope = ((x + W) * probe).sum(dim=1)
    cost, _ = play(R1("finite_difference", 0.1, antithetic=True), quadratic)
    assert cost.item() == pytest.approx(slope.square().mean().item() / 2, rel=1e-6)
    cost, _ = play(R1("finite_difference", 0.1), quadratic)
    one_sided = slope + 0.1 * probe.square().sum(dim=1) / 2
    assert cost.item() == pytest.approx(one_sided.square().mean().item() / 2, rel=1e-6)


def test_finite_differences_agree_with_the_exact_penalty_and_its_gradient() -> None:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(18, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0)).double()
    weights = [network[1].weight, network[3].weight]
    exact, _ = play(R1(), network, rows=4000)
    close, _ = play(R1("finite_difference", 0.01, antithetic=True), network, rows=4000)
    assert close.item() == pytest.approx(exact.item(), rel=0.1)
    for a, b in zip(torch.autograd.grad(exact, weights), torch.autograd.grad(close, weights), strict=True):
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99
        assert (a.norm() / b.norm()).item() == pytest.approx(1, abs=0.1)


def test_the_floor_is_what_rounding_alone_would_give() -> None:
    """In bf16, logits from 1 to 2 are 2^-7 apart: 2 (2^-7)^2 / 12 / sigma^2, which is 0.10 for sigma 0.01."""
    _, scene = play(R1("finite_difference", 0.01), lambda x: x.flatten(1).sum(1) * 0 + 1.5, rounding=2.0**-7)
    assert 2 * scene.measured["penalty/r1_floor"].item() == pytest.approx(2 * 2.0**-14 / 12 / 1e-4)
    _, scene = play(R1("finite_difference", 0.01), lambda x: x.flatten(1).sum(1) * 0 - 12.0, rounding=2.0**-7)
    assert 2 * scene.measured["penalty/r1_floor"].item() == pytest.approx(2 * 2.0**-8 / 12 / 1e-4)


def test_gradient_penalty_draws_the_norm_to_its_target() -> None:
    length = W.norm().item()
    for target, one_sided, expected in (
        (1.0, False, (length - 1) ** 2),
        (1.0, True, (length - 1) ** 2),
        (length + 2, False, 4.0),
        (length + 2, True, 0.0),
    ):
        for kind in ("wgan_gp", "dragan"):
            cost, _ = play(GradientPenalty(kind, target, one_sided), linear(W))  # type: ignore[arg-type]
            assert cost.item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_where_gradient_penalties_look() -> None:
    """The gradient of |x|^2 / 2 is x itself."""
    real, fake = images("real"), images("fake")
    u = noise("between").uniform(1, 1, 1)
    points = u * real + (1 - u) * fake
    cost, _ = play(GradientPenalty("wgan_gp", 1.0), lambda x: x.square().flatten(1).sum(dim=1) / 2)
    assert cost.item() == pytest.approx((points.flatten(1).norm(dim=1) - 1).square().mean().item(), rel=1e-5)
    points = real + real.std(correction=0) * noise("between").uniform(*SHAPE) / 2
    cost, _ = play(GradientPenalty("dragan", 1.0), lambda x: x.square().flatten(1).sum(dim=1) / 2)
    assert cost.item() == pytest.approx((points.flatten(1).norm(dim=1) - 1).square().mean().item(), rel=1e-5)


def test_a_norm_of_zero_has_a_gradient() -> None:
    w = torch.zeros(math.prod(SHAPE), dtype=torch.float64, requires_grad=True)
    cost, _ = play(GradientPenalty(), linear(w))
    assert cost.item() == pytest.approx(1.0)
    assert torch.autograd.grad(cost, w)[0].isfinite().all()


def test_centring() -> None:
    cost, _ = play(Centring(), linear(W))
    both = images("real").flatten(1) @ W + images("fake").flatten(1) @ W
    assert cost.item() == pytest.approx(both.square().mean().item())


def test_lecam_by_hand() -> None:
    penalty = LeCam(decay=0.9, start_kimg=0.1)
    real, fake = images("real").flatten(1) @ W, images("fake").flatten(1) @ W
    assert play(penalty, linear(W))[0].item() == 0, "nothing is known yet"
    a_real = a_fake = None
    for shift in (0.0, 1.0, -2.0):
        penalty.observe(torch.tensor(1.0 + shift), torch.tensor(-1.0 + shift), 0)
        a_real = 1.0 + shift if a_real is None else 0.9 * a_real + 0.1 * (1.0 + shift)
        a_fake = -1.0 + shift if a_fake is None else 0.9 * a_fake + 0.1 * (-1.0 + shift)
    assert play(penalty, linear(W), images_seen=99)[0].item() == 0
    expected = (real - a_fake).square().mean() + (fake - a_real).square().mean()
    again = LeCam(decay=0.9, start_kimg=0.1)
    again.restore(penalty.state())
    for one in (penalty, again):
        assert play(one, linear(W), images_seen=100)[0].item() == pytest.approx(expected.item(), rel=1e-5)
    penalty.observe(torch.tensor(math.nan), torch.tensor(0.0), 0)
    assert penalty.state()["anchors"].isfinite().all()


def test_consistency_under_mirroring_and_shifting() -> None:
    penalty = BalancedConsistency(real_weight=2.0, fake_weight=5.0, shift=0.34)
    cost, scene = play(penalty, linear(W))
    expected = 0.0
    for name, weight in (("real", 2.0), ("fake", 5.0)):
        moved = by_hand(images(name), noise(f"{name}.transform"))
        expected += weight * ((images(name) - moved).flatten(1) @ W).square().mean().item()
        assert scene.views[f"T({name})"].like == name, "both get the same augmentation"
    assert cost.item() == pytest.approx(expected)


def by_hand(x: Tensor, draws: RowNoise) -> Tensor:
    """Mirror and shift by up to one pixel, image by image, place by place."""
    mirrored, down, right = (draws.integers(n, *[1] * dims).flatten() for n, dims in ((2, 3), (3, 2), (3, 2)))
    out = torch.empty_like(x)
    for n in range(len(x)):
        source = x[n].flip(-1) if mirrored[n] else x[n]
        for i in range(3):
            for j in range(3):
                a, b = i + int(down[n]) - 1, j + int(right[n]) - 1
                a, b = (1 if k in (-1, 3) else k for k in (a, b))  # reflected at the edge
                out[n, :, i, j] = source[:, a, b]
    return out


def test_transforms_reach_every_place_and_both_sides() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3).expand(400, -1, -1, -1)
    moved = mirror_and_shift(x, noise("t", 400), 0.34)
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 12, (
        "shifts of a mirrored row differ from the plain one's in one of three"
    )
    assert torch.equal(mirror_and_shift(x[:9], noise("t", 9), 0.0).sum(dim=(1, 2, 3)), x[:9].sum(dim=(1, 2, 3)))


def test_latent_consistency() -> None:
    cost, _ = play(LatentConsistency(sigma=0.5), linear(W))
    step = noise("near").normal(*SHAPE).double().flatten(1) @ W
    assert cost.item() == pytest.approx((0.5 * step).square().mean().item(), rel=1e-6)


def made(fake: Tensor, network: nn.Module, **more: Any) -> Made:
    settings: dict[str, Any] = {"near": lambda draws, sigma: fake, "styled": lambda: (fake, fake), **more}
    return Made(fake, network, noise=noise, **settings)


def test_latent_variety_rewards_differences() -> None:
    fake = images("fake")
    cost = LatentVariety(sigma=0.1).cost(made(fake, nn.Identity(), near=lambda draws, sigma: fake + 3 * sigma))
    assert cost.item() == pytest.approx(-0.09, rel=1e-5)


def test_orthogonality_of_a_known_matrix() -> None:
    """W^T W off its diagonal, for filters (1, 2), (0, 1), (3, 0): inner products 2, 3 and 0, each twice."""
    layer = nn.Linear(2, 3)
    layer.weight.data = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]])
    assert OrthogonalGenerator().cost(made(images("fake"), layer)).item() == pytest.approx(2 * (4 + 9))
    wide = nn.Conv2d(5, 3, 2)
    filters = wide.weight.detach().flatten(1)
    expected = ((filters @ filters.t()) * (1 - torch.eye(3))).square().sum().item()
    scene = Scene({}, wide, noise, lambda *_: images("x"), lambda: torch.ones(()))
    assert OrthogonalDiscriminator().cost(scene).item() == pytest.approx(expected, rel=1e-5)
    nn.init.orthogonal_(wide.weight)
    assert OrthogonalDiscriminator().cost(scene).item() == pytest.approx(0, abs=1e-5)


def test_path_length_of_a_linear_generator() -> None:
    """With images A w the projection is A^T y; two layers share the work, so the length is the root of a mean."""
    a = torch.randn(2, 4, math.prod(SHAPE), generator=rng.generator(5), dtype=torch.float64)
    w = torch.randn(ROWS, 2, 4, generator=rng.generator(6), dtype=torch.float64, requires_grad=True)

    def styled() -> tuple[Tensor, Tensor]:
        return torch.einsum("blw,lwp->bp", w, a).view(ROWS, *SHAPE), w

    y = noise("path").normal(*SHAPE).double().flatten(1) / 3
    lengths = torch.einsum("lwp,bp->blw", a, y).square().sum(2).mean(1).sqrt()
    penalty, mean = PathLength(decay=0.5), 0.0
    for _ in range(3):
        look = made(images("fake"), nn.Identity(), styled=styled)
        assert penalty.cost(look).item() == pytest.approx((lengths - mean).square().mean().item(), rel=1e-4)
        assert look.measured["path_length"].item() == pytest.approx(lengths.mean().item(), rel=1e-4)
        penalty.end_step(look.measured)
        mean = 0.5 * mean + 0.5 * lengths.mean().item()
    again = PathLength(decay=0.5)
    again.restore(penalty.state())
    assert again.cost(look).item() == pytest.approx(penalty.cost(look).item())


def test_a_normalized_gradient_has_the_size_of_a_mean_over_elements() -> None:
    normalization = GradientNormalization(decay=0.0)
    x = images("x").float().requires_grad_()
    gradient = 100 * images("gradient").float()
    for step in range(3):
        passed = normalization(x, 1.0)
        assert torch.equal(passed, x)
        (got,) = torch.autograd.grad(passed, x, gradient)
        normalization.end_step(x.numel(), lambda t: t)
        if step == 0:
            assert torch.equal(got, gradient), "nothing is known yet"
        else:
            assert got.square().mean().sqrt().item() == pytest.approx(1 / x.numel(), rel=1e-5)
            assert torch.cosine_similarity(got.flatten(), gradient.flatten(), dim=0).item() == pytest.approx(
                1, abs=1e-5
            )
    torch.autograd.grad(normalization(x, 1.0), x, gradient * math.inf)
    normalization.end_step(x.numel(), lambda t: t)
    assert normalization.state()["mean"].isfinite().all()


def test_every_row_of_the_tables_is_tested_here() -> None:
    tested = {R1, R2, GradientPenalty, Centring, LeCam, BalancedConsistency, LatentConsistency, OrthogonalDiscriminator}
    assert set(PENALTIES.values()) == tested
    assert set(GENERATOR_PENALTIES.values()) == {PathLength, LatentVariety, OrthogonalGenerator}

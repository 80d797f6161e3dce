"""Every loss against its formula, worked out with :mod:`math` alone."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from gandist.adversarial.losses import LOSSES, Targets

LOGITS = [-30.0, -3.5, -1.0, -0.25, 0.0, 0.5, 1.0, 2.75, 40.0]


def log1pexp(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


# name -> what D pays to say real, what it pays to say fake, what G pays
PAPERS: dict[str, tuple[Callable[[float], float], Callable[[float], float], Callable[[float], float]]] = {
    "minimax": (lambda x: log1pexp(-x), log1pexp, lambda x: -log1pexp(x)),
    "non_saturating": (lambda x: log1pexp(-x), log1pexp, lambda x: log1pexp(-x)),
    "hinge": (lambda x: max(0.0, 1 - x), lambda x: max(0.0, 1 + x), lambda x: -x),
    "least_squares": (lambda x: (x - 1) ** 2 / 2, lambda x: x**2 / 2, lambda x: (x - 1) ** 2 / 2),
    "wasserstein": (lambda x: -x, lambda x: x, lambda x: -x),
}


def test_every_loss_has_its_formula_here() -> None:
    assert set(PAPERS) == set(LOSSES)


@pytest.mark.parametrize("target", [1.0, 0.0, 0.98, 0.02, 0.9])
@pytest.mark.parametrize("name", PAPERS)
def test_discriminator_pays_the_mixture_of_both_costs(name: str, target: float) -> None:
    as_real, as_fake, _ = PAPERS[name]
    costs = [target * as_real(x) + (1 - target) * as_fake(x) for x in LOGITS]
    for logit, cost in zip(LOGITS, costs, strict=True):
        got = LOSSES[name].mixture(torch.tensor([logit]), target)
        assert got.item() == pytest.approx(cost, rel=1e-6, abs=1e-6)
    batch = LOSSES[name].mixture(torch.tensor(LOGITS), target)
    assert batch.item() == pytest.approx(sum(costs) / len(costs), rel=1e-6)


@pytest.mark.parametrize("name", PAPERS)
def test_generator_pays_its_cost(name: str) -> None:
    costs = [PAPERS[name][2](x) for x in LOGITS]
    for logit, cost in zip(LOGITS, costs, strict=True):
        assert LOSSES[name].generator(torch.tensor([logit])).item() == pytest.approx(cost, rel=1e-6, abs=1e-6)
    assert LOSSES[name].generator(torch.tensor(LOGITS)).item() == pytest.approx(sum(costs) / len(costs), rel=1e-6)


@pytest.mark.parametrize("name", PAPERS)
def test_targets_may_differ_from_image_to_image(name: str) -> None:
    as_real, as_fake, _ = PAPERS[name]
    targets = [0.98 if k % 3 else 0.02 for k in range(len(LOGITS))]
    costs = [y * as_real(x) + (1 - y) * as_fake(x) for x, y in zip(LOGITS, targets, strict=True)]
    got = LOSSES[name].mixture(torch.tensor(LOGITS), torch.tensor(targets))
    assert got.item() == pytest.approx(sum(costs) / len(costs), rel=1e-6)


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_logistic_costs_are_binary_cross_entropy(name: str) -> None:
    logits = torch.linspace(-12, 12, 41)
    for target in (0.0, 0.02, 0.3, 0.9, 1.0):
        soft = torch.full_like(logits, target)
        expected = F.binary_cross_entropy_with_logits(logits, soft)
        torch.testing.assert_close(LOSSES[name].mixture(logits, soft), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("target", [0.0, 0.1, 0.9, 1.0])
def test_least_squares_has_the_gradient_of_the_distance_to_the_target(target: float) -> None:
    logits = torch.linspace(-3, 3, 13, requires_grad=True)
    (got,) = torch.autograd.grad(LOSSES["least_squares"].mixture(logits, target), logits)
    torch.testing.assert_close(got, (logits.detach() - target) / len(logits), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", PAPERS)
def test_discriminator_is_undecided_at_the_boundary(name: str) -> None:
    loss = LOSSES[name]
    at, above = torch.tensor([loss.boundary]), torch.tensor([loss.boundary + 0.1])
    assert torch.equal(loss.as_real(at), loss.as_fake(at))
    assert loss.as_real(above) < loss.as_fake(above), "above the boundary it costs less to say real"


@pytest.mark.parametrize("name", PAPERS)
def test_half_precision_logits_are_averaged_in_full_precision(name: str) -> None:
    logits = torch.linspace(-4, 4, 999).bfloat16()
    for got, expected in [
        (LOSSES[name].mixture(logits, 0.9), LOSSES[name].mixture(logits.float(), 0.9)),
        (LOSSES[name].generator(logits), LOSSES[name].generator(logits.float())),
    ]:
        assert got.dtype == torch.float32
        assert torch.equal(got, expected)


# --- targets -------------------------------------------------------------------------------------------------


def test_without_draws_the_targets_are_numbers() -> None:
    targets = Targets(real=0.9, fake=0.02)
    assert (targets.draw(True, None), targets.draw(False, None)) == (0.9, 0.02)


def test_draws_below_the_probability_swap_the_targets() -> None:
    targets = Targets(real=0.98, fake=0.02, swap_probability=0.25)
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.9])
    torch.testing.assert_close(targets.draw(True, uniform), torch.tensor([0.02, 0.02, 0.98, 0.98]))
    torch.testing.assert_close(targets.draw(False, uniform), torch.tensor([0.98, 0.98, 0.02, 0.02]))

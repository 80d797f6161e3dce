"""Who moves first, what is shared, who learns: each strategy against the same round written out in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandist.adversarial.gradient_norm import GradientNormalization
from gandist.adversarial.losses import LOSSES
from gandist.adversarial.penalties.consistency import LatentVariety
from gandist.adversarial.regularizers import PENALTIES, Regularizer
from gandist.adversarial.strategies import STRATEGIES

Make = Callable[..., Any]
PLAIN: dict[str, Any] = {"arch": "mlp", "dropout": 0.0, "rate": 0.1}


def descend(network: nn.Module, loss: Tensor, rate: float = 0.1, graph: bool = False) -> list[Tensor]:
    weights = list(network.parameters())
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True, retain_graph=graph)
    return [w.detach() - rate * g for w, g in zip(weights, gradients, strict=True)]


def put(network: nn.Module, weights: list[Tensor]) -> None:
    for weight, value in zip(network.parameters(), weights, strict=True):
        weight.data.copy_(value)


def d_loss(d: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-d(real, None)).mean() + F.softplus(d(fake.detach(), None)).mean()


def g_loss(d: nn.Module, fake: Tensor) -> Tensor:
    return F.softplus(-d(fake, None)).mean()


def expect(table: Any, g: nn.Module, d: nn.Module) -> None:
    for ours, theirs in ((table.g, g), (table.d, d)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("micro", [None, 2])
def test_both_at_once_from_where_they_stand(set_table: Make, micro: int | None) -> None:
    table = set_table(**PLAIN, strategy=STRATEGIES["retain_graph"], micro_images=micro)
    g, d, real = deepcopy(table.g), deepcopy(table.d), table.reals()[0]
    fake = g(table.round().draw_latents(real, "step0").z, None)
    moved_d, moved_g = descend(d, d_loss(d, real.x, fake)), descend(g, g_loss(d, fake))
    forwards: list[str] = []
    table.g.register_forward_hook(lambda *_: forwards.append("g"))
    table.d.register_forward_hook(lambda *_: forwards.append("d"))
    table.play()
    put(d, moved_d)
    put(g, moved_g)
    expect(table, g, d)
    assert forwards == ["g", "d", "d"] * (1 if micro is None else 3), "D judges the fakes once"


@pytest.mark.parametrize("micro", [None, 2])
def test_the_generator_first(set_table: Make, micro: int | None) -> None:
    """D then sees what G drew before it moved."""
    table = set_table(**PLAIN, strategy=STRATEGIES["generator_first"], micro_images=micro)
    g, d, real = deepcopy(table.g), deepcopy(table.d), table.reals()[0]
    fake = g(table.round().draw_latents(real, "step0").z, None)
    put(g, descend(g, g_loss(d, fake)))
    put(d, descend(d, d_loss(d, real.x, fake)))
    table.play()
    expect(table, g, d)


def test_fresh_latents(set_table: Make) -> None:
    table = set_table(**PLAIN, share_latents=False)
    g, d, real, play = deepcopy(table.g), deepcopy(table.d), table.reals()[0], table.round()
    put(d, descend(d, d_loss(d, real.x, g(play.draw_latents(real, "step0").z, None))))
    put(g, descend(g, g_loss(d, g(play.draw_latents(real, "g0").z, None))))
    table.play()
    expect(table, g, d)


def test_several_generator_steps(set_table: Make) -> None:
    table = set_table(**PLAIN, g_steps=2)
    g, d, real, play = deepcopy(table.g), deepcopy(table.d), table.reals()[0], table.round()
    fake = g(play.draw_latents(real, "step0").z, None)
    put(d, descend(d, d_loss(d, real.x, fake)))
    put(g, descend(g, g_loss(d, fake)))
    put(g, descend(g, g_loss(d, g(play.draw_latents(real, "g1").z, None))))
    table.play()
    expect(table, g, d)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("moves", ["discriminator", "generator"])
def test_who_does_not_learn_stays_as_it_is(set_table: Make, strategy: str, moves: Any) -> None:
    table = set_table(**PLAIN, strategy=STRATEGIES[strategy])
    played = table.round()
    played.moves = moves
    table.strategy(played, table.reals())
    assert table.moved("discriminator") == (moves == "discriminator")
    assert table.moved("generator") == played.generator_moved == (moves == "generator")
    assert {"accuracy/real", "accuracy/fake", "loss/d"} <= played.statistics.keys(), "D's opinion is known all the same"


EVERYTHING: dict[str, Any] = {
    "relativistic pairs, R1 and R2": {"relativistic": "pairs", "penalties": ["r1", "r2", "centring"]},
    "finite differences, one batch": {"relativistic": "pairs", "penalties": ["fd"], "conditional": True},
    "consistency": {"penalties": ["bcr", "zcr_d", "gradient_penalty"], "more": {"variety": True}},
    "auxiliary classifier": {"head": "auxiliary", "conditional": True, "penalties": ["orthogonal_d"]},
    "normalized gradient": {"more": {"normalize": True}, "penalties": ["lecam"]},
}


def everything(set_table: Make, case: str, **settings: Any) -> Any:
    """Return a game with everything of a case switched on."""
    chosen = EVERYTHING[case]
    made = {"fd": lambda: PENALTIES["r1"](method="finite_difference", sigma=0.1)}
    table = set_table(
        "mlp",
        conditional=chosen.get("conditional", False),
        head=chosen.get("head", "own"),
        relativistic=chosen.get("relativistic", "off"),
        dropout=0.3,
        rate=0.2,
        regularizers=[
            Regularizer(name, made.get(name, PENALTIES.get(name))(), lambda seen: 0.1, 1)  # type: ignore[misc]
            for name in chosen["penalties"]
        ],
        **settings,
    )
    if chosen.get("more", {}).get("variety"):
        table.game.generator_regularizers = [Regularizer("zcr_g", LatentVariety(), lambda seen: 0.5, 1)]
    if chosen.get("more", {}).get("normalize"):
        table.game.gradient_norm = GradientNormalization()
    return table


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", EVERYTHING)
def test_passes_change_nothing(set_table: Make, strategy: str, case: str) -> None:
    whole, cut = (everything(set_table, case, strategy=STRATEGIES[strategy], micro_images=micro) for micro in (None, 2))
    for index in range(2):
        a, b = whole.play(index), cut.play(index)
        for name, value in a.statistics.items():
            assert b.statistics[name].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-5), name
    for role in ("generator", "discriminator"):
        assert whole.moved(role)
        for ours, theirs in zip(cut.weights(role), whole.weights(role), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_one_batch_or_two_is_the_same_without_batch_statistics(set_table: Make) -> None:
    """Dropout too: each part draws as it would alone."""
    apart, joined = (set_table("mlp", conditional=True, concatenate=joined, rate=0.2) for joined in (False, True))
    for table in (apart, joined):
        table.play()
    for ours, theirs in zip(joined.weights("discriminator"), apart.weights("discriminator"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_clipped_weights(set_table: Make) -> None:
    table = set_table("mlp", clip_weights=0.03)
    assert max(w.abs().max() for w in table.weights("discriminator")) > 0.1
    table.play()
    assert max(w.abs().max() for w in table.weights("discriminator")) == pytest.approx(0.03)
    assert max(w.abs().max() for w in table.weights("generator")) > 0.1


def test_an_auxiliary_classifier_is_paid_by_both(set_table: Make) -> None:
    """Odena et al. 2017: D maximises L_S + L_C, G maximises L_C - L_S."""
    table = set_table("mlp", conditional=True, head="auxiliary", dropout=0.0, rate=0.1, auxiliary_weight=0.7)
    g, d, real = deepcopy(table.g), deepcopy(table.d), table.reals()[0]
    latents = table.round().draw_latents(real, "step0")
    fake = g(latents.z, latents.c)
    on_real, on_fake = d(real.x, real.c), d(fake.detach(), latents.c)
    loss = F.softplus(-on_real.logits).mean() + F.softplus(on_fake.logits).mean()
    loss = loss + 0.7 * (F.cross_entropy(on_real.classes, real.c) + F.cross_entropy(on_fake.classes, latents.c))
    put(d, descend(d, loss))
    judged = d(fake, latents.c)
    put(g, descend(g, F.softplus(-judged.logits).mean() + 0.7 * F.cross_entropy(judged.classes, latents.c)))
    played = table.play()
    expect(table, g, d)
    share = (on_real.classes.argmax(1) == real.c).float().mean().item()
    assert played.statistics["accuracy/class_real"].item() == pytest.approx(share)


@pytest.mark.parametrize("kind", LOSSES)
def test_relativistic_losses_written_out(kind: str) -> None:
    """With the boundary b: pairs pay f(b + r - f), averages pay for each logit minus the other kind's mean."""
    base, real, fake = LOSSES[kind], torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 0.1, -1.5])
    b = base.boundary
    pairs, average = base.compared("pairs"), base.compared("average")
    assert pairs.discriminator(real, fake).item() == pytest.approx(base.as_real(real - fake + b).mean().item())
    assert pairs.generator(fake, real).item() == pytest.approx(base.for_generator(fake - real + b).mean().item())
    above, below = real - fake.mean() + b, fake - real.mean() + b
    assert average.discriminator(real, fake).item() == pytest.approx(
        (base.as_real(above).mean() + base.as_fake(below).mean()).item()
    )
    assert average.generator(fake, real).item() == pytest.approx(
        (base.for_generator(below).mean() + base.as_fake(above).mean()).item()
    )
    shifted = pairs.discriminator(real + 7, fake + 7).item()
    assert shifted == pytest.approx(pairs.discriminator(real, fake).item(), rel=1e-5), "only differences count"


def test_pairs_have_the_classes_of_the_real_images(set_table: Make) -> None:
    table = set_table("mlp", conditional=True, relativistic="pairs")
    real = table.reals()[0]
    assert torch.equal(table.round().draw_latents(real, "step0").c, real.c)


@pytest.mark.parametrize("strategy", ["detach", "retain_graph"])
def test_a_relativistic_round(set_table: Make, strategy: str) -> None:
    """G's cost too is of differences: from the real logits of the moved D, or of D where it stands."""
    table = set_table(**PLAIN, relativistic="pairs", strategy=STRATEGIES[strategy])
    g, d, real = deepcopy(table.g), deepcopy(table.d), table.reals()[0].x
    fake = g(table.round().draw_latents(table.reals()[0], "step0").z, None)
    moved_d = descend(d, F.softplus(d(fake.detach(), None) - d(real, None)).mean())
    if strategy == "detach":
        put(d, moved_d)
    put(g, descend(g, F.softplus(d(real, None).detach() - d(fake, None)).mean()))
    put(d, moved_d)
    table.play()
    expect(table, g, d)

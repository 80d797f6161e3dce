"""Power function averages: closed forms over trajectories, whatever the batch, and widths made from kept ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gandist.adversarial.ema import Averages, GeneratorAverage, PowerAverage, part_name
from gandist.adversarial.posthoc import Profile, gamma_of, inner_products, rebuild
from gandist.models.contract import Generator


class Line(Generator):
    """One weight and a batch statistic in float64, and a count."""

    running: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("running", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        return z[:, :, None, None]

    def put(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.running.fill_(-value)
            self.count += 1


def value_of(average: PowerAverage) -> float:
    assert isinstance(average.network, Line)
    return float(average.network.weight)


# --- the profile and its exponent ------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [0.001, 0.01, 0.05, 0.1, 0.2, 0.28])
def test_gamma_gives_its_profile_the_width(std: float) -> None:
    """The standard deviation of tau / t under the profile, integrated by the midpoint rule in place of its formula."""
    gamma, count = gamma_of(std), 400_000
    tau = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    profile = (gamma + 1) * tau**gamma / count
    mean = (profile * tau).sum()
    variance = (profile * (tau - mean) ** 2).sum()
    assert float(profile.sum()) == pytest.approx(1, rel=1e-5)
    assert float(variance.sqrt()) == pytest.approx(std, rel=1e-5)
    back = math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)  # EDM2, the width of the profile tau^gamma
    assert back == pytest.approx(std, rel=1e-12)


def test_gamma_is_the_largest_root() -> None:
    """The cubic of EDM2 has three real roots; numbers of an independent solver: those of its companion matrix."""
    for std in (0.02, 0.05, 0.1, 0.25):
        companion = torch.zeros(3, 3, dtype=torch.float64)
        companion[0] = torch.tensor([-7, std**-2 - 16, std**-2 - 12], dtype=torch.float64)
        companion[1, 0] = companion[2, 1] = 1
        roots = torch.linalg.eigvals(companion).real
        assert gamma_of(std) == pytest.approx(float(roots.max()), rel=1e-9)


def test_inner_products_are_integrals_of_products() -> None:
    profiles = [Profile(70, 0.05), Profile(100, 0.05), Profile(100, 0.2), Profile(90, 0.1)]
    count = 200_000
    tau = (torch.arange(count, dtype=torch.float64) + 0.5) * 100 / count
    curves = [
        (p.gamma + 1) * (tau / p.images_seen) ** p.gamma / p.images_seen * (tau < p.images_seen) for p in profiles
    ]
    expected = torch.stack([torch.stack([(a * b).sum() * 100 / count for b in curves]) for a in curves])
    torch.testing.assert_close(inner_products(profiles, profiles), expected, rtol=1e-3, atol=0)


# --- the average as it is tracked --------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_average_of_a_trajectory_in_closed_form(std: float, power: int) -> None:
    """theta(tau) = tau^n has the average (gamma + 1) / (gamma + 1 + n) t^n; each round puts the value of its middle."""
    network, batch, end = Line(), 40, 20_000
    average = PowerAverage(network, std)
    for seen in range(batch, end + 1, batch):
        network.put(((seen - batch / 2) / end) ** power)
        average.update(seen, batch)
    gamma = average.gamma
    assert value_of(average) == pytest.approx((gamma + 1) / (gamma + 1 + power), rel=2e-4 if power else 1e-12)


def test_the_batch_does_not_matter() -> None:
    """Weights that change every 120 images, averaged in rounds of 1 to 120 images: the same but for rounding."""
    found = set()
    for batch in (1, 8, 40, 120):
        network = Line()
        average = PowerAverage(network, 0.1)
        for seen in range(batch, 1201, batch):
            network.put(math.sin(-(-seen // 120)))
            average.update(seen, batch)
        found.add(round(value_of(average), 12))
        assert isinstance(average.network, Line)
        assert float(average.network.running) == pytest.approx(-value_of(average), rel=1e-12)
        assert int(average.network.count) == 1200 // batch
    assert len(found) == 1


def test_the_first_weights_count_for_nothing() -> None:
    network = Line()
    network.put(1e6)
    average = PowerAverage(network, 0.05)
    network.put(0.5)
    average.update(8, 8)
    assert value_of(average) == 0.5


def test_averages_move_together_and_have_names_for_their_files() -> None:
    network = Line()
    averages = Averages(GeneratorAverage(network, 0.0, None), [PowerAverage(network, std) for std in (0.05, 0.125)])
    network.put(2.0)
    averages.update(8, 8)
    assert list(averages.networks) == ["ema", "average_0_05", "average_0_125"]
    assert averages.networks["ema"] is averages.network
    assert [float(net.weight) for net in averages.networks.values() if isinstance(net, Line)] == [2.0] * 3
    assert len({part_name(std) for std in (0.05, 0.051, 0.1, 0.001, 0.28)}) == 5


# --- other widths, made from kept ones ---------------------------------------------------------------------------


def kept_profiles(moments: int, stds: tuple[float, ...] = (0.05, 0.1)) -> list[Profile]:
    return [Profile(1_000_000 * (moment + 1) // moments, std) for moment in range(moments) for std in stds]


def test_a_kept_average_is_found_among_the_kept() -> None:
    kept = kept_profiles(8)
    made = rebuild(kept, kept[5])
    expected = torch.zeros(16, dtype=torch.float64)
    expected[5] = 1
    torch.testing.assert_close(made.weights, expected, rtol=0, atol=1e-7)
    assert made.residual < 1e-6


@pytest.mark.parametrize(("std", "bound"), [(0.03, 0.03), (0.07, 0.005), (0.15, 0.01), (0.2, 0.02)])
def test_any_width_is_near(std: float, bound: float) -> None:
    """20 moments of two widths. The residual is compared with the profiles themselves, laid on a fine grid."""
    kept, wanted = kept_profiles(20), Profile(1_000_000, std)
    made = rebuild(kept, wanted)
    tau = (torch.arange(100_000, dtype=torch.float64) + 0.5) * 10

    def curve(p: Profile) -> Tensor:
        return (p.gamma + 1) * (tau / p.images_seen) ** p.gamma / p.images_seen * (tau < p.images_seen)

    error = sum((weight * curve(p) for weight, p in zip(made.weights, kept, strict=True)), -curve(wanted))
    distance = (error.square().sum() / curve(wanted).square().sum()).sqrt()
    assert made.residual == pytest.approx(float(distance), rel=0.02)
    assert made.residual < bound
    assert float(made.weights.sum()) == pytest.approx(1, abs=1e-12)


def test_no_other_weights_come_nearer() -> None:
    """At a least squares solution every small step away makes the error larger."""
    kept, wanted = kept_profiles(4), Profile(1_000_000, 0.2)
    gram, along = inner_products(kept, kept), inner_products(kept, [wanted])[:, 0]
    weights = rebuild(kept, wanted).weights
    generator = torch.Generator().manual_seed(0)

    def error(x: Tensor) -> float:
        return float(x @ gram @ x - 2 * along @ x)

    for _ in range(20):
        step = torch.randn(len(kept), generator=generator, dtype=torch.float64)
        step -= step.mean()  # it keeps the sum, as the weights are scaled to
        assert error(weights + 0.03 * step) > error(weights)


@pytest.mark.parametrize("std", [0.03, 0.07, 0.15, 0.2])
def test_synthetic_trajectories_are_averaged_as_if_tracked(std: float) -> None:
    """theta(tau) = tau^n: sum_i x_i (gamma_i + 1) / (gamma_i + 1 + n) t_i^n is (gamma + 1) / (gamma + 1 + n) t^n."""
    kept, wanted = kept_profiles(20), Profile(1_000_000, std)
    weights = rebuild(kept, wanted).weights
    for n in (0.0, 0.5, 1.0, 3.0):
        parts = [(p.gamma + 1) / (p.gamma + 1 + n) * (p.images_seen / 1e6) ** n for p in kept]
        made = float(weights @ torch.tensor(parts, dtype=torch.float64))
        assert made == pytest.approx((wanted.gamma + 1) / (wanted.gamma + 1 + n), abs=1e-3)


def test_moments_before_and_after_the_last() -> None:
    kept = kept_profiles(20)
    assert rebuild(kept[:20], Profile(500_000, 0.07)).residual < 0.01, "at the tenth moment, from the first ten"
    assert rebuild(kept[:20], Profile(1_000_000, 0.05)).residual > 0.5, "what came after the last snapshot is not in it"


def test_many_snapshots_keep_the_weights_small() -> None:
    """Neighbours among 400 profiles are nearly parallel; without care their weights would be huge and cancel."""
    made = rebuild(kept_profiles(200), Profile(1_000_000, 0.07))
    assert made.residual < 1e-3
    assert float(made.weights.abs().sum()) < 3

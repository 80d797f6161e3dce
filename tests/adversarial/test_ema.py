"""The average of the generator: closed forms, and a half-life that counts images, not updates."""

import pytest
import torch
from torch import Tensor, nn

from gandist.adversarial.ema import GeneratorAverage
from gandist.models.contract import Generator


class Line(Generator):
    """One weight, one float buffer, one integer buffer."""

    running: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        return z[:, :, None, None]


def put(network: Line, value: float) -> None:
    with torch.no_grad():
        network.weight.fill_(value)
        network.running.fill_(10 * value)
        network.count.fill_(int(100 * value))


def averaged(average: GeneratorAverage) -> Line:
    assert isinstance(average.network, Line)
    return average.network


def test_closed_form_over_changing_weights() -> None:
    network = Line()
    average = GeneratorAverage(network, halflife_images=30.0, rampup=None)
    decay, expected = 0.5 ** (8 / 30), 0.0
    for update in range(1, 13):
        value = 1.0 / update
        put(network, value)
        average.update(images_seen=8 * update, images=8)
        expected = decay * expected + (1 - decay) * value
        assert averaged(average).weight.tolist() == pytest.approx([expected] * 3, rel=1e-5)
        assert averaged(average).running.tolist() == pytest.approx([10 * expected] * 2, rel=1e-5)


@pytest.mark.parametrize("batch", [1, 25, 50, 100])
def test_half_of_a_weight_is_forgotten_after_the_half_life_whatever_the_batch(batch: int) -> None:
    network = Line()
    put(network, 0.0)
    average = GeneratorAverage(network, halflife_images=100.0, rampup=None)
    put(network, 1.0)
    for seen in range(batch, 101, batch):
        average.update(seen, batch)
    assert averaged(average).weight.tolist() == pytest.approx([0.5] * 3, rel=1e-4)
    for seen in range(100 + batch, 301, batch):
        average.update(seen, batch)
    assert averaged(average).weight.tolist() == pytest.approx([1 - 0.5**3] * 3, rel=1e-4)


def test_early_in_the_run_the_half_life_is_a_share_of_the_images_seen() -> None:
    average = GeneratorAverage(Line(), halflife_images=1000.0, rampup=0.05)
    assert average.decay(images_seen=200, images=5) == pytest.approx(0.5 ** (5 / 10))
    assert average.decay(images_seen=20_000, images=5) == pytest.approx(0.5 ** (5 / 1000))
    assert average.decay(images_seen=10**9, images=5) == pytest.approx(0.5 ** (5 / 1000))
    assert GeneratorAverage(Line(), 1000.0, None).decay(images_seen=200, images=5) == pytest.approx(0.5 ** (5 / 1000))


def test_no_half_life_copies_the_generator() -> None:
    network = Line()
    average = GeneratorAverage(network, halflife_images=0.0, rampup=0.05)
    put(network, 0.7)
    average.update(images_seen=5, images=5)
    assert torch.equal(averaged(average).weight, network.weight)
    assert torch.equal(averaged(average).running, network.running)


def test_integer_buffers_are_copied() -> None:
    network = Line()
    average = GeneratorAverage(network, halflife_images=1000.0, rampup=None)
    put(network, 0.42)
    average.update(images_seen=5, images=5)
    assert averaged(average).count.item() == 42
    assert averaged(average).count.dtype == torch.int64


def test_the_average_is_a_network_of_its_own_for_evaluation() -> None:
    network = Line().train()
    average = GeneratorAverage(network, halflife_images=10.0, rampup=None)
    put(network, 1.0)
    assert averaged(average).weight.tolist() == [0.0] * 3, "the copy shares no memory with the generator"
    average.update(images_seen=5, images=5)
    assert network.weight.tolist() == [1.0] * 3, "averaging does not touch the generator"
    assert not averaged(average).training
    assert network.training
    assert not averaged(average).weight.requires_grad
    assert network.weight.requires_grad


def test_it_follows_a_generator_whose_tensors_are_changed_in_place() -> None:
    """Optimizers, checkpoints and moves of memory order write into the same tensors; the average sees all of it."""
    network = Line()
    average = GeneratorAverage(network, halflife_images=0.0, rampup=None)
    other = Line()
    put(other, 3.0)
    network.load_state_dict(other.state_dict())
    average.update(images_seen=1, images=1)
    assert averaged(average).weight.tolist() == [3.0] * 3


def test_it_follows_a_generator_whose_buffers_are_replaced() -> None:
    """DDP puts new tensors in the place of a network's buffers, after the average was made."""
    network = Line()
    average = GeneratorAverage(network, halflife_images=0.0, rampup=None)
    network.running, network.count = torch.full((2,), 7.0), torch.tensor(9)
    average.update(images_seen=1, images=1)
    assert averaged(average).running.tolist() == [7.0, 7.0]
    assert averaged(average).count.item() == 9

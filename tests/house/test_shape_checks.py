"""The test run checks the shapes that signatures state, with the mistakes it is there for."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from gandist.adversarial.game import Real
from gandist.adversarial.losses import LOSSES, Targets
from gandist.adversarial.penalties.base import squared_norm
from gandist.evaluation.sample import draw
from gandist.models.contract import ImageShape
from gandist.models.mlp import MlpDiscriminator, MlpGenerator

IMAGE = ImageShape(resolution=8, channels=1)


def test_logits_of_shape_batch_by_one_are_caught_in_the_loss() -> None:
    column, target = torch.zeros(4, 1), torch.ones(4)
    assert (column * target).shape == (4, 4), "what would happen without a check: every logit meets every target"
    with pytest.raises(TypeCheckError):
        LOSSES["non_saturating"].mixture(column, target)
    with pytest.raises(TypeCheckError):
        LOSSES["non_saturating"].generator(column)


def test_logits_and_targets_of_different_batches_are_caught() -> None:
    with pytest.raises(TypeCheckError):
        LOSSES["hinge"].mixture(torch.zeros(1), torch.ones(4))


def test_a_discriminator_that_forgets_to_squeeze_is_caught() -> None:
    discriminator = MlpDiscriminator(IMAGE, (4,), dropout=0.0, classes=0, head="projection")
    discriminator(torch.zeros(3, 1, 8, 8), None)
    discriminator.head = nn.Sequential(discriminator.head, nn.Unflatten(1, (1, 1)))
    with pytest.raises(TypeCheckError):
        discriminator(torch.zeros(3, 1, 8, 8), None)


def test_the_other_wings_are_checked_too() -> None:
    with pytest.raises(TypeCheckError):
        Real(torch.zeros(4, 1, 8, 8), torch.zeros(3, dtype=torch.long))
    with pytest.raises(TypeCheckError):
        Targets().draw(True, torch.zeros(2, 2))
    with pytest.raises(TypeCheckError):
        squared_norm(torch.zeros(4, 2, dtype=torch.long))
    generator = MlpGenerator(IMAGE, 5, (4,), classes=0)
    with pytest.raises(TypeCheckError):
        draw(generator, torch.zeros(4, 5), torch.zeros(3, dtype=torch.long))

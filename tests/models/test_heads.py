"""How discriminators judge classes: the heads against their equations, in every architecture that has them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gandist.config import ModelConfig
from gandist.errors import ConfigError
from gandist.models.build import build
from gandist.models.contract import Discriminator, ImageShape, Verdict
from gandist.models.heads import Auxiliary, NoHead, Projection, class_head, head_kind

TOLD = ["mlp", "dcgan", "resnet", "biggan", "progressive", "r3gan"]
SMALL: dict[str, Any] = {
    "mlp": {"generator_widths": [4], "discriminator_widths": [8, 6], "dropout": 0.0},
    "dcgan": {"generator_channels": 2, "discriminator_channels": 4},
    "resnet": {"generator_channels": 2, "discriminator_channels": 4},
    "biggan": {"generator_channels": 2, "discriminator_channels": 2, "hierarchical": False},
    "progressive": {"channel_base": 64, "channel_max": 6},
    "r3gan": {"channel_base": 64, "channel_max": 6, "group_channels": 2},
}


def discriminator(arch: str, head: str, classes: int = 3) -> Discriminator:
    settings = {"arch": arch, "conditional": classes > 0, "head": head, arch: SMALL[arch]}
    return build(ModelConfig.model_validate(settings), ImageShape(16, 3), classes, seed=1).discriminator.eval()


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_projection_is_the_inner_product_with_the_embedding() -> None:
    head = Projection(nn.Embedding.from_pretrained(torch.tensor([[1.0, 0.0], [2.0, -1.0]])), scale=0.5)
    features, c = torch.tensor([[3.0, 4.0], [3.0, 4.0]]), torch.tensor([0, 1])
    assert head(torch.tensor([10.0, 20.0]), features, c).tolist() == [10 + 0.5 * 3, 20 + 0.5 * (6 - 4)]


def test_the_auxiliary_head_names_the_class_and_is_not_told() -> None:
    head = Auxiliary(nn.Linear(2, 3))
    logits, features = torch.tensor([1.0, -1.0]), torch.randn(2, 2)
    verdict = head(logits, features, None)
    assert torch.equal(verdict.logits, logits)
    assert torch.equal(verdict.classes, head.classifier(features))


def test_heads_by_name() -> None:
    assert isinstance(class_head("projection", 4, 0), NoHead), "without classes there is nothing to judge"
    assert isinstance(class_head("concatenation", 4, 2), NoHead), "the class has entered elsewhere"
    projection, auxiliary = class_head("projection", 4, 2), class_head("auxiliary", 4, 2)
    assert isinstance(projection, Projection)
    assert projection.embedding.weight.shape == (2, 4)
    assert isinstance(auxiliary, Auxiliary)
    assert auxiliary.classifier.weight.shape == (2, 4)


@pytest.mark.parametrize("arch", TOLD)
def test_a_head_says_what_it_is_told_or_names_it_itself(arch: str) -> None:
    x, zeros, ones = images(), torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    for head in ("own", "projection"):
        network = discriminator(arch, head)
        assert not torch.equal(network(x, zeros), network(x, ones)), head
    network = discriminator(arch, "auxiliary")
    verdict = network(x, zeros)
    assert isinstance(verdict, Verdict)
    assert verdict.logits.shape == (4,)
    assert verdict.classes is not None
    assert verdict.classes.shape == (4, 3)
    assert torch.equal(verdict.classes, network(x, ones).classes)
    assert torch.equal(verdict.logits, network(x, None).logits)
    assert isinstance(discriminator(arch, "auxiliary", classes=0)(x, None), Tensor)


@pytest.mark.parametrize("arch", [arch for arch in TOLD if arch != "r3gan"])  # whose logit is the inner product alone
def test_projection_adds_to_one_logit_of_the_image(arch: str) -> None:
    """D(x, a) - D(x, b) = (V_a - V_b) . phi(x) is linear in V: twice the embedding, twice the difference."""
    network, x = discriminator(arch, "projection"), images()
    zeros, ones = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    once = network(x, zeros) - network(x, ones)
    assert isinstance(network.classes, Projection)
    network.classes.scale *= 2
    torch.testing.assert_close(network(x, zeros) - network(x, ones), 2 * once)


def test_heads_of_the_residual_discriminator_are_normalised_too() -> None:
    assert parametrize.is_parametrized(discriminator("resnet", "projection").classes.embedding, "weight")  # type: ignore[arg-type,union-attr]
    assert parametrize.is_parametrized(discriminator("resnet", "auxiliary").classes.classifier, "weight")  # type: ignore[arg-type,union-attr]


def test_an_architecture_without_the_head_says_so() -> None:
    model = ModelConfig.model_validate({"arch": "mlp", "head": "auxiliary"})
    with pytest.raises(ConfigError, match=r"model\.head: .* mlp has no auxiliary head.* to 'own' or 'projection'"):
        head_kind(model, "projection", ["projection"])
    assert head_kind(ModelConfig(), "concatenation", []) == "concatenation"

"""The first weights of a network, as model.initialisation says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gandist.config import ModelConfig
from gandist.errors import ConfigError
from gandist.models.build import ARCHITECTURES, build
from gandist.models.contract import ImageShape, Networks
from gandist.models.initialise import DRAWS, LAYERS, REDRAWN, inputs_of, variance_scaled
from gandist.models.layers import ConditionalBatchNorm


def built(arch: str, kind: str) -> Networks:
    width = {"generator_channels": 16, "discriminator_channels": 16}
    settings: dict[str, Any] = {
        "arch": arch,
        "conditional": True,
        "initialisation": kind,
        "latent_dim": 60,
        "mlp": {"generator_widths": [64, 80], "discriminator_widths": [80, 64]},
        "dcgan": width,
        "resnet": width,
        "biggan": width,
    }
    return build(ModelConfig.model_validate(settings), ImageShape(16, 3), classes=30, seed=1)


def weights(networks: Networks) -> list[tuple[str, nn.Module, Tensor]]:
    found = []
    for network in (networks.generator, networks.discriminator):
        norms = [m for m in network.modules() if isinstance(m, ConditionalBatchNorm)]
        kept = {id(part) for norm in norms for part in norm.modules()}
        for name, module in network.named_modules():
            if isinstance(module, LAYERS) and id(module) not in kept:
                normalised = parametrize.is_parametrized(module)
                weight = module.parametrizations.weight.original if normalised else module.weight
                found.append((name, module, weight.detach()))
                assert getattr(module, "bias", None) is None or not module.bias.any(), name
    return found


QUICK = ("mlp", "dcgan")


@pytest.mark.parametrize(
    "arch", [*QUICK, *(pytest.param(a, marks=pytest.mark.long) for a in REDRAWN if a not in QUICK)]
)
@pytest.mark.parametrize("kind", DRAWS)
def test_every_layer_is_drawn_as_told(arch: str, kind: str) -> None:
    seen = 0
    for name, module, weight in weights(built(arch, kind)):
        matrix, outputs = weight.flatten(1).double(), weight.shape[0]
        if kind == "orthogonal":
            gram = matrix @ matrix.T if outputs <= matrix.shape[1] else matrix.T @ matrix
            torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-5, msg=name)
        else:
            gain, places = 1.0 if isinstance(module, nn.Embedding) else 2.0, weight[0, 0].numel()
            xavier = (2 / (places * (weight.shape[0] + weight.shape[1]))) ** 0.5
            std = {"normal": 0.02, "xavier": xavier, "he": (gain / inputs_of(module)) ** 0.5}[kind]
            assert weight.std().item() == pytest.approx(std, rel=5 / weight.numel() ** 0.5), name
            assert weight.mean().item() == pytest.approx(0, abs=5 * std / weight.numel() ** 0.5), name
        seen += 1
    assert seen >= 6


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(7, 3),
        nn.Conv2d(5, 2, 3, padding=1),
        nn.ConvTranspose2d(5, 2, 4, stride=2, padding=1),
        nn.ConvTranspose2d(5, 2, 3, padding=1),
    ],
    ids=["linear", "convolution", "doubling", "transposed"],
)
def test_inputs_are_those_that_an_output_is_summed_from(layer: Any) -> None:
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.zero_()
    x = torch.ones(1, 7) if isinstance(layer, nn.Linear) else torch.ones(1, 5, 8, 8)
    assert layer(x).max().item() == inputs_of(layer)


def test_he_keeps_the_second_moment_through_a_deep_network() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 1024)
    for _ in range(10):
        x = torch.relu(x @ variance_scaled(torch.empty(1024, 1024), 1024).T)
    assert x.square().mean().item() == pytest.approx(1, rel=0.3)


def test_spectral_norms_know_the_new_weights() -> None:
    judge = built("resnet", "he").discriminator
    for name, module in judge.named_modules():
        if isinstance(module, LAYERS):
            largest = torch.linalg.svdvals(module.weight.detach().flatten(1))[0].item()
            assert largest == pytest.approx(1, abs=0.1), name


def test_scales_of_norms() -> None:
    generator = built("resnet", "normal").generator
    for module in generator.modules():
        if isinstance(module, ConditionalBatchNorm):
            assert (module.scale.weight == 1).all()
            assert not module.shift.weight.any()
    scales = torch.cat(
        [m.weight for m in built("dcgan", "normal").generator.modules() if isinstance(m, nn.BatchNorm2d)]
    )
    assert scales.std().item() == pytest.approx(0.02, rel=0.4)
    assert all((m.weight == 1).all() for m in built("dcgan", "he").generator.modules() if isinstance(m, nn.BatchNorm2d))


def test_own_is_the_papers() -> None:
    own, normal = built("dcgan", "own"), built("dcgan", "normal")
    for name, module, weight in weights(own):
        assert weight.std().item() == pytest.approx(0.02, rel=5 / weight.numel() ** 0.5), (name, module)
    assert own.generator.state_dict().keys() == normal.generator.state_dict().keys()


@pytest.mark.parametrize("arch", sorted(set(ARCHITECTURES) - set(REDRAWN)))
def test_others_begin_as_their_papers_say(arch: str) -> None:
    model = ModelConfig.model_validate({"arch": arch, "initialisation": "he"})
    with pytest.raises(ConfigError, match=rf"model\.initialisation: {arch} .*'own'"):
        build(model, ImageShape(32, 3), classes=0, seed=0)

"""From the section ``augment`` of a recipe to what D's images go through."""

import math
from typing import Any, get_args

import pytest
import torch

from gandist.adversarial.augment import PRESETS, Ada, Adaptive, DiffAugment, InstanceNoise, Pipeline, Scheduled
from gandist.adversarial.augment.ada.colour import COLOURS
from gandist.adversarial.augment.diff_augment import POLICIES
from gandist.assembly.augment import ada_p, ada_rates, augment_of
from gandist.config import AdaConfig, AugmentConfig, Config, parse
from gandist.errors import ConfigError

CPU = torch.device("cpu")


def recipe(channels: int = 3, total_kimg: float = 100.0, **augment: Any) -> Config:
    sections = {"data": {"channels": channels}, "run": {"total_kimg": total_kimg}, "augment": augment}
    return parse(sections, "a test")


def steps(config: Config) -> tuple[Any, ...]:
    augment = augment_of(config, CPU)
    assert isinstance(augment, Pipeline)
    return augment.steps


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    assert augment_of(Config(), CPU) is None


def test_the_knobs_name_what_there_is() -> None:
    assert set(get_args(AdaConfig.model_fields["pipe"].annotation)) == PRESETS.keys()
    assert set(get_args(get_args(AugmentConfig.model_fields["diff"].annotation)[0])) == POLICIES.keys()
    assert type(AdaConfig().rates).model_fields.keys() == PRESETS["bgcfnc"].keys()


def test_the_order_is_diff_augment_ada_noise() -> None:
    found = steps(recipe(diff=["cutout", "colour"], ada={"pipe": "blit"}, instance_noise={"sigma": 0.1}))
    assert [type(step) for step in found] == [DiffAugment, Ada, InstanceNoise]
    assert found[0].transforms == [POLICIES["cutout"], POLICIES["colour"]]


def test_rates_lie_over_those_of_the_pipe() -> None:
    ada = AdaConfig.model_validate({"pipe": "r3gan", "rates": {"hue": 0.25, "cutout": 0.0, "noise": 2.0}})
    expected = {**PRESETS["r3gan"], "hue": 0.25, "noise": 2.0}
    del expected["cutout"]
    assert ada_rates(ada, channels=3) == expected
    assert ada_rates(AdaConfig.model_validate({"rates": {"xflip": 1.0}}), channels=3) == {"xflip": 1.0}
    assert ada_rates(AdaConfig(), channels=3) == {}


def test_r3gans_pipe() -> None:
    moves = {"xflip", "rotate90", "integer_translation", "isotropic_scaling", "rotation", "anisotropic_scaling"}
    expected = dict.fromkeys([*moves, "fractional_translation", "cutout"], 1.0) | dict.fromkeys(COLOURS, 0.5)
    assert PRESETS["r3gan"] == expected


def test_colours_need_one_channel_or_three() -> None:
    assert steps(recipe(channels=1, ada={"pipe": "bgc"}))[0].rates.keys() >= {"brightness", "contrast", "luma_flip"}
    assert steps(recipe(channels=4, ada={"pipe": "bg"}))
    with pytest.raises(ConfigError, match=r"augment\.ada\.pipe: bgc .* images of 4 channels"):
        augment_of(recipe(channels=4, ada={"pipe": "bgc"}), CPU)


def test_p_adapts_itself_unless_it_is_told() -> None:
    adaptive = steps(recipe(ada={"pipe": "bg", "p": 0.2, "target": 0.5, "interval_steps": 2, "adjust_kimg": 10}))[0]
    assert isinstance(adaptive.strength, Adaptive)
    for _ in range(2):
        adaptive.observe(torch.tensor(0.55), 100)
    assert float(adaptive.strength.p(0)) == pytest.approx(0.2 + 200 / 10_000)
    fixed = steps(recipe(ada={"pipe": "bg", "adaptive": False, "p": 0.2}))[0]
    assert isinstance(fixed.strength, Scheduled)
    assert [fixed.strength.p(seen) for seen in (0, 50_000, 10**9)] == [0.2] * 3


def test_p_goes_up_and_down_along_its_ramp() -> None:
    def at(kimg: float, **settings: Any) -> float:
        return ada_p(AdaConfig.model_validate({"adaptive": False, **settings}), total_kimg=50.0)(int(kimg * 1000))

    rising: dict[str, Any] = {"p": 0.0, "ramp": {"shape": "cosine", "end_kimg": 20_000.0, "final": 0.55}}  # R3GAN's
    expected = [0.55 * (1 - math.cos(math.pi * x)) / 2 for x in (0, 0.25, 0.5, 1, 1)]
    assert [at(kimg, **rising) for kimg in (0, 5000, 10_000, 20_000, 90_000)] == pytest.approx(expected)
    falling: dict[str, Any] = {"p": 0.8, "ramp": {"shape": "linear", "begin_kimg": 10.0, "final": 0.4}}
    assert [at(kimg, **falling) for kimg in (0, 10, 30, 50, 60)] == pytest.approx([0.8, 0.8, 0.6, 0.4, 0.4])


def test_a_p_has_one_master() -> None:
    with pytest.raises(ConfigError, match="an adaptive p has no ramp"):
        recipe(ada={"pipe": "bg", "ramp": {"shape": "linear"}})
    with pytest.raises(ConfigError, match=r"end_kimg 1 must be above begin_kimg 2"):
        recipe(ada={"adaptive": False, "ramp": {"begin_kimg": 2.0, "end_kimg": 1.0}})


def test_instance_noise_follows_its_schedule() -> None:
    (noise,) = steps(recipe(instance_noise={"sigma": 0.1, "schedule": {"shape": "linear", "end_kimg": 50.0}}))
    assert [noise.sigma(seen) for seen in (0, 25_000, 50_000, 90_000)] == pytest.approx([0.1, 0.05, 0.0, 0.0])

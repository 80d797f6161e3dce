"""What the method carries from round to round survives a stop; rules that do not fit are refused with a way out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import digests, make_config, metrics, play

from gandist.config import merge
from gandist.errors import ConfigError
from gandist.trainer import Trainer

STYLES = {
    "arch": "stylegan2",
    "stylegan2": {
        "style_dim": 8, "mapping_depth": 2, "class_mapping_depth": 2, "channel_base": 64, "channel_max": 8,
        "minibatch_group": 4,
    },
}  # fmt: skip
CARRIED: dict[str, dict[str, Any]] = {
    "everything of D": {
        "regularizer": {"lecam": {"weight": 0.3, "start_kimg": 0.03}, "gradient_norm": {"on": True}},
        "augment": {"ada": {"pipe": "bg", "adjust_kimg": 0.3, "interval_steps": 2}},
        "update": {"strategy": "retain_graph"},
        "ema": {"power_stds": [0.1]},
    },
    "path length": {"model": STYLES, "regularizer": {"path_length": {"weight": 2.0}}},
    "balance": {
        "balance": {"kind": "accuracy", "accuracy": {"low": 0.5, "high": 0.56}, "interval_rounds": 2},
        "update": {"strategy": "generator_first", "d_steps": 2, "g_steps": 2},
    },
    "relativistic": {
        "loss": {"relativistic": "pairs"},
        "model": {"conditional": True},
        "regularizer": {"r1": {"method": "finite_difference"}, "r2": {"gamma": 0.1, "method": "finite_difference"}},
    },
}


@pytest.mark.long
@pytest.mark.parametrize("case", CARRIED)
def test_stopped_and_run_again_is_bitwise_the_straight_run(tmp_path: Path, case: str) -> None:
    straight = play(make_config(tmp_path / "straight", CARRIED[case]))
    shutil.copytree(straight.folder, tmp_path / "stopped" / "tiny")
    config = make_config(tmp_path / "stopped", CARRIED[case])
    for name in sorted(path.name for path in (config.folder / "checkpoints").iterdir() if path.is_dir())[-1:]:
        shutil.rmtree(config.folder / "checkpoints" / name)
    again = play(config)
    assert 0 < again.resumed_at < again.clock.images_seen  # type: ignore[operator]
    assert digests(again.folder) == digests(straight.folder)
    assert metrics(again.folder) == metrics(straight.folder)
    if case in ("everything of D", "path length"):
        assert "method.safetensors" in digests(straight.folder)


FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "loss": ({"loss": {"kind": "hing"}}, ["loss.kind hing", "Did you mean 'hinge'?", "wasserstein"]),
    "arch": ({"model": {"arch": "dcgam"}}, ["model.arch dcgam", "Did you mean 'dcgan'?"]),
    "other": (
        {"regularizer": {"other": {"name": "r1", "weight": 1.0}}},
        ["regularizer.other.name r1", "section of its own"],
    ),
    "styles": ({"regularizer": {"path_length": {"weight": 2.0}}}, ["path_length.weight 2", "mlp", "stylegan2"]),
    "norms": (
        {
            "model": {"arch": "dcgan"},
            "data": {"resolution": 16},
            "regularizer": {"r1": {"gamma": 1.0, "method": "finite_difference"}},
        },
        ["regularizer.r1.method finite_difference", "batch norm", "exact"],
    ),
    "average": (
        {"loss": {"relativistic": "average"}, "execution": {"micro_images": 4}},
        ["execution.micro_images 4", "average", "pairs"],
    ),
    "group": ({"model": STYLES, "update": {"batch_images": 6}}, ["update.batch_images", "6 images", "multiple of 4"]),
    "passes": (
        {"model": STYLES, "execution": {"micro_images": 6}},
        ["execution.micro_images 6", "group of 4", "multiple of 4"],
    ),
    "at once": (
        {"update": {"strategy": "retain_graph", "g_steps": 2}},
        ["update", "retain_graph", "g_steps 1"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_rules_that_do_not_fit_are_refused(tmp_path: Path, fault: str) -> None:
    changes, words = FAULTS[fault]
    with pytest.raises(ConfigError) as error:
        Trainer(make_config(tmp_path, merge({"regularizer": {"r1": {"gamma": 0.0}}}, changes)))
    for word in words:
        assert word in str(error.value)
    assert not any(tmp_path.iterdir()), "nothing was begun"


def test_what_a_recipe_asks_for_is_at_the_table(tmp_path: Path) -> None:
    """Each part of the game that a section switches on, and none by default."""
    plain = Trainer(make_config(tmp_path / "plain", {"regularizer": {"r1": {"gamma": 0.0}}})).game
    assert (plain.augment, plain.gradient_norm, plain.clip_weights, [*plain.regularizers]) == (None, None, None, [])
    asked = {
        "augment": {"diff": ["colour"]},
        "regularizer": {"gradient_norm": {"on": True}, "clip_weights": 0.1, "zcr_g": {"weight": 1.0}},
        "update": {"latents": "fresh", "g_steps": 2, "concatenate": True},
    }
    game = Trainer(make_config(tmp_path / "asked", asked)).game
    assert game.augment is not None
    assert game.gradient_norm is not None
    assert (game.clip_weights, game.share_latents, game.g_steps, game.concatenate) == (0.1, False, 2, True)
    assert ([r.name for r in game.regularizers], [r.name for r in game.generator_regularizers]) == (["r1"], ["zcr_g"])


def test_a_run_that_ends_before_its_networks_have_grown_says_so(tmp_path: Path) -> None:
    model = {"arch": "progressive", "progressive": {"channel_base": 64, "channel_max": 8, "minibatch_group": 4}}
    for name, kimg, told in (("short", 0.32, True), ("long", 1e6, False)):
        changes = {"model": model, "run": {"total_kimg": kimg}, "regularizer": {"r1": {"gamma": 0.0}}}
        notes = Trainer(make_config(tmp_path / name, changes)).notes
        assert any("full resolution" in note for note in notes) == told

"""Recipes: what is wrong with one, how flags override it, what a change means, and those that come with gandist."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gandist.config import (
    Config,
    check_knobs,
    differences,
    dump,
    embedded_recipe,
    explain,
    leaves,
    load,
    merge,
    override,
    parse,
    read_recipe,
    to_yaml,
)
from gandist.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"modle": {}}, ["modle: no such knob. Did you mean 'model'?"]),
        ({"optimizer": {"generator": {"schedule": {"shpae": "linear"}}}}, ["schedule.shpae", "Did you mean 'shape'?"]),
        ({"loss": {"relativistic": "pair"}}, ["loss.relativistic", "'pairs'", "not 'pair'"]),
        ({"update": {"batch_images": "many"}}, ["update.batch_images", "integer", "not 'many'"]),
        ({"update": {"batch_images": 2.5}}, ["update.batch_images", "not 2.5"]),
        ({"loss": {"real_label": 1.5}}, ["loss.real_label", "less than or equal to 1", "not 1.5"]),
        ({"optimizer": {"generator": {"lr": float("nan")}}}, ["optimizer.generator.lr", "finite"]),
        ({"optimizer": {"generator": {"lr": float("inf")}}}, ["optimizer.generator.lr", "finite"]),
        ({"run": {"name": "../elsewhere"}}, ["run.name", "not '../elsewhere'"]),
        ({"loss": {"real_label": 0.1, "fake_label": 0.2}}, ["real_label 0.1 must be above fake_label 0.2"]),
        (
            {"regularizer": {"r1": {"schedule": {"begin_kimg": 5, "end_kimg": 4}}}},
            ["regularizer.r1.schedule", "end_kimg 4 must be above begin_kimg 5"],
        ),
        ({"data": 3}, ["data", "not 3"]),
        ({"update": {"batch_images": True}}, ["update.batch_images", "not be true or false", "not True"]),
    ],
)
def test_a_fault_is_named_with_its_place_and_value(content: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(content, "recipe.yaml")
    assert str(error.value).startswith("recipe.yaml: 1 thing(s) to correct:")
    for word in words:
        assert word in str(error.value)


def test_all_faults_are_named_at_once() -> None:
    content = {"loss": {"knid": 1, "real_label": 2}, "run": {"seed": -1}, "updat": {}}
    with pytest.raises(ConfigError) as error:
        parse(content, "recipe.yaml")
    for word in ("4 thing(s)", "loss.knid", "loss.real_label", "run.seed", "updat"):
        assert word in str(error.value)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    with pytest.raises(ConfigError, match="no such recipe file"):
        read_recipe(recipe)
    for content, word in (
        ("a: [", "not YAML"),
        ("[1]", "this is a list"),
        ("a: !!python/name:os.system", "not YAML"),
        ("a: 1\na: 2", "'a' occurs twice"),
    ):
        recipe.write_text(content)
        with pytest.raises(ConfigError, match=word):
            read_recipe(recipe)
    recipe.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="text file"):
        read_recipe(recipe)
    with pytest.raises(ConfigError, match=r"recipe\.yaml'\?"):
        read_recipe(tmp_path / "recpe.yaml")
    recipe.write_text("")
    assert load(recipe).name == "recipe"


def test_numbers_as_people_write_them() -> None:
    """YAML reads 2e-3 as text, and 0 as an integer where Adam needs a float."""
    config = parse(yaml.safe_load("optimizer: {generator: {lr: 2e-3, beta1: 0}}"), "recipe")
    adam = config.optimizer.generator
    assert (adam.lr, adam.beta1, type(adam.beta1)) == (0.002, 0.0, float)


@pytest.mark.parametrize(
    ("flags", "knob", "value"),
    [
        (["--loss.kind", "hinge"], "loss.kind", "hinge"),
        (["--loss.kind=hinge"], "loss.kind", "hinge"),
        (["--update.batch-images", "8"], "update.batch_images", 8),
        (["--data.hflip", "true"], "data.hflip", True),
        (["--data.hflip=True"], "data.hflip", True),
        (["--ema.rampup", "null"], "ema.rampup", None),
        (["--data.classes", "1", "2"], "data.classes", (1, 2)),
        (["--model.mlp.generator_widths", "3", "4"], "model.mlp.generator_widths", (3, 4)),
        (["--run.root", "/some/where"], "run.root", Path("/some/where")),
        (["--execution.micro_images", "4"], "execution.micro_images", 4),
    ],
)
def test_flags(flags: list[str], knob: str, value: object) -> None:
    changed = override(Config(), flags)
    assert {leaf.path: leaf.value for leaf in leaves(changed)}[knob] == value
    assert [d.path for d in differences(dump(Config()), changed)] == [knob]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--loss.kin", "hinge"], "--loss.kind"),
        (["--loss.relativistic", "pair"], "'pairs'"),
        (["--loss.real_label", "3"], "less than or equal to 1"),
        (["--loss.real_label", "0", "--loss.fake_label", "0.5"], "greater than 0"),
        (["--update.batch_images"], "Missing argument"),
        (["stray"], "stray"),
    ],
)
def test_wrong_flags_end_with_2_and_say_why(
    flags: list[str], word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        override(Config(), flags)
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert word in printed.err + printed.out


def test_one_rank_speaks_for_all(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit):
        override(Config(), ["--loss.kin", "hinge"])
    printed = capsys.readouterr()
    assert printed.err + printed.out == ""


@given(
    lr=st.floats(1e-9, 1.0),
    classes=st.none() | st.lists(st.integers(0, 1000), max_size=4),
    kimg=st.floats(0.001, 1e9),
    tags=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])), max_size=3),
)
def test_a_resolved_recipe_reads_back_equal(lr: float, classes: Any, kimg: float, tags: list[str]) -> None:
    content = {
        "run": {"name": "n", "total_kimg": kimg},
        "data": {"classes": classes},
        "optimizer": {"discriminator": {"lr": lr}},
        "tracking": {"wandb": {"tags": tags}},
    }
    config = parse(content, "recipe")
    assert parse(yaml.safe_load(to_yaml(config)), "again") == config
    assert differences(dump(config), config) == []


def test_what_a_change_means_to_a_continued_run() -> None:
    changed = override(
        Config(),
        ["--loss.kind", "hinge", "--optimizer.generator.lr", "1e-3", "--execution.workers", "7", "--data.shards", "s"],
    )
    found = {d.path: d for d in differences(dump(Config()), changed)}
    assert {path: d.change for path, d in found.items()} == {
        "loss.kind": "refuse",
        "optimizer.generator.lr": "warn",
        "execution.workers": "continue",
        "data.shards": "continue",
    }
    said = str(found["loss.kind"])
    assert "was non_saturating, now hinge" in said
    assert "--loss.kind non_saturating" in said
    assert "--accept loss.kind" in said


def test_a_knob_that_an_old_run_did_not_have_counts_as_its_default() -> None:
    old = dump(Config())
    del old["loss"]["swap_probability"]
    assert differences(old, Config()) == []
    assert [d.path for d in differences(old, override(Config(), ["--loss.swap_probability", "0.1"]))] == [
        "loss.swap_probability"
    ]


def test_explain_says_where_each_value_came_from(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("loss: {kind: hinge}")
    flags = ["--update.batch_images", "8"]
    lines = explain(load(recipe, flags), recipe, flags).splitlines()
    of = {line.split()[0]: line for line in lines}
    assert "mine.yaml" in of["loss.kind"]
    assert "command line" in of["update.batch_images"]
    assert "default" in of["run.seed"]
    assert "images" in of["update.batch_images"]
    assert len(lines) == 1 + len(list(leaves(Config())))


def test_every_knob_has_a_sentence_and_a_unit_in_its_name_or_words() -> None:
    for leaf in leaves(Config()):
        assert leaf.about.endswith("."), leaf.path
        if leaf.path.endswith("_kimg"):
            assert leaf.unit == "kimg", leaf.path


def test_names_after_accept() -> None:
    check_knobs(["loss.kind"], "--accept")
    with pytest.raises(ConfigError, match=r"Did you mean 'loss.kind'\?"):
        check_knobs(["loss.knd"], "--accept")


ON_META = {"cips", "gat", "progressive", "r3gan", "stylegan2"}
"""Architectures that can be built without memory for their weights; spectral norms look at theirs."""
SLOW_TO_BUILD = {"cifar10_biggan"}
CARD = {"paper", "data", "hardware", "expected", "run", "command"}


def card(recipe: Path) -> dict[str, str]:
    """Return the lines of a recipe's head comment that begin with a word, by that word."""
    head = [line[2:] for line in recipe.read_text().splitlines() if line.startswith("# ")]
    words = [line.partition(" ") for line in head[1:] if line[0] != " "]
    return {word: text.strip() for word, _, text in words}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_card_of_a_recipe(recipe: Path) -> None:
    """It says what the recipe is, whether it was run, and how to start it; the README's table leads to it."""
    config, said = load(recipe), card(recipe)
    assert config.name == recipe.stem
    assert CARD <= said.keys() <= CARD | {"note"}
    assert all(said.values())
    assert said["run"].startswith(("not yet", "to the end", "in part"))
    assert recipe.name in said["command"] or recipe.stem == "demo"
    assert f"(configs/{recipe.name})" in (recipe.parents[1] / "README.md").read_text()


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.long] if p.stem in SLOW_TO_BUILD else []) for p in RECIPES],
)
def test_a_recipe_builds(recipe: Path) -> None:
    """Its networks fit the images, and its rules fit the networks."""
    from gandist.assembly.augment import augment_of
    from gandist.assembly.rules import check_rules, generator_regularizers_of, loss_of, regularizers_of
    from gandist.models.build import build
    from gandist.models.contract import ImageShape

    config = load(recipe)
    with torch.device("meta") if config.model.arch in ON_META else contextlib.nullcontext():
        networks = build(config.model, ImageShape(config.data.resolution, config.data.channels), 10, seed=0)
    check_rules(config, networks, config.update.batch_images)
    loss_of(config)
    regularizers_of(config)
    generator_regularizers_of(config)
    augment_of(config, torch.device("cpu"))


NARROW = {
    "mlp": {"generator_widths": [8], "discriminator_widths": [8]},
    "dcgan": {"generator_channels": 2, "discriminator_channels": 2},
    "resnet": {"generator_channels": 4, "discriminator_channels": 4},
    "biggan": {"generator_channels": 2, "discriminator_channels": 2, "class_dim": 4},
    "stylegan2": {"channel_base": 64, "channel_max": 8, "style_dim": 8, "minibatch_group": 4},
    "cips": {"widths": [8, 8], "fourier_features": 4, "position_features": 4},
    "progressive": {"channel_base": 64, "channel_max": 8, "stable_kimg": 0.008, "fade_kimg": 0.008},
    "r3gan": {"channel_base": 64, "channel_max": 8, "group_channels": 4, "class_dim": 4},
}
"""Sections of architectures with hardly any channels."""


@pytest.mark.long
@pytest.mark.parametrize("recipe", [p for p in RECIPES if not p.stem.startswith("gat_")], ids=lambda path: path.stem)
def test_a_recipe_trains(recipe: Path, tmp_path: Path) -> None:
    """Three rounds with its method on narrow networks, and on built-in images where its own are not there.

    Latents are trained on in tests/trainer/test_latent_run.py.
    """
    from gandist.trainer import Trainer

    config = load(recipe)
    built_in = config.data.shards in {"glyphs", "ring"}
    images = 8 * config.update.d_steps
    small = merge(
        dump(config),
        {
            "run": {"root": str(tmp_path), "total_kimg": 3 * images / 1000},
            "data": {} if built_in else {"shards": "glyphs", "resolution": 32},
            "model": NARROW,
            "update": {"batch_images": 8},
            "samples": {"every_kimg": 1, "rows": 1, "columns": 1},
            "checkpoint": {"every_kimg": 1},
            "tracking": {"every_kimg": images / 1000},
            "execution": {"workers": 0, "device": "cpu", "precision": "fp32", "threads": 1},
        },
    )
    assert Trainer(parse(small, "tests")).train() == 0
    rows = [json.loads(line) for line in (tmp_path / recipe.stem / "metrics.jsonl").read_text().splitlines()]
    assert [row["images_seen"] for row in rows] == [images, 2 * images, 3 * images]
    assert all(math.isfinite(row[loss]) for row in rows for loss in ("loss/d", "loss/g"))


def test_without_a_recipe_it_is_the_demo() -> None:
    assert load(None) == load(embedded_recipe("demo"))
    assert load(None).name == "demo"


def test_help_is_instant_in_imports() -> None:
    program = "import sys; from gandist.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    program += "print(sorted({'torch', 'tyro', 'wandb', 'pydantic', 'numpy'} & set(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"}
    ).stdout
    assert "train, or continue, the run of a recipe" in out
    assert out.splitlines()[-1] == "[]"


def test_config_verb_takes_the_words_of_a_training_command(capsys: pytest.CaptureFixture[str]) -> None:
    from gandist.cli import main

    words = ["--accept", "loss.kind", "--restart-data", "--debug", "--run.name", "x", "--folder"]
    assert main(["config", *words]) == 0
    assert capsys.readouterr().out == "runs/x\n"


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    command = f"{sys.executable} -m gandist.cli config --explain | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("knob")

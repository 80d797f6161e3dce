"""Quotes, commands, newlines, leading dashes in every value and file name: they arrive as they are, and do nothing."""

from __future__ import annotations

import json
import shlex
import shutil
import typing
from pathlib import Path

import pytest
import yaml
from real_runs import RECIPE, state

from gandist.config import Config, dump, leaves, merge

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

LINE = """it's "q" $(touch owned) `touch owned` ; touch owned && ${HOME} \\ ünï ~ # x"""
HOSTILE = f"--{LINE}\n-n  'two lines'\ttouch owned"
PROJECT = """it's "q" $(touch owned) `touch owned` ; touch owned && ${HOME} ünï ~"""  # W&B refuses some characters
TAG = HOSTILE[:60]  # W&B takes 64 characters
# Names of rows of tables, of which any other is refused; and a decoder, which pictures do not have.
REFUSED = {"loss.kind", "model.arch", "regularizer.other.name", "data.decoder"}
PATHS = {"run.root", "data.shards", "data.root", "execution.cache.dir"}  # these must exist, or be made


def is_free_text(path):
    """Say whether a knob takes any text or path: no choice of words, no pattern."""
    kind, field = Config, None
    for part in path.split("."):
        field = kind.model_fields[part]
        kind = field.annotation
    bounded = any(getattr(limit, "pattern", None) for limit in field.metadata)
    return not bounded and bool({str, Path} & set(kinds_in(kind)))


def kinds_in(annotation):
    yield annotation
    for part in typing.get_args(annotation):
        yield from kinds_in(part)


FREE_TEXT = sorted(leaf.path for leaf in leaves(Config()) if is_free_text(leaf.path) and leaf.path not in REFUSED)


def knob(settings, path):
    for part in path.split("."):
        settings = settings[part]
    return settings


def flags(values):
    return [f"--{path}={value}" for path, value in values.items()]


@pytest.fixture
def shards(real):
    """Shards in a folder with a hostile name, made by slurm/prepare.sbatch; the tar files lie in another one."""
    folder = real.folder / f"-shards {HOSTILE}"
    real.prepare("glyphs:64", f"./{folder.name}", "--resolution", "8", "--channels", "1", "--workers", "0").wait_for(
        "COMPLETED", 200
    )
    root = real.folder / f"root {HOSTILE}"
    shutil.copytree(folder, root)
    for shard in folder.glob("*.tar"):
        shard.unlink()
    return {"data.shards": str(folder), "data.root": str(root)}


def test_every_text_arrives_in_the_run_and_nothing_is_executed(real, shards):
    """By the recipe file, the command line or a line of a sweep; the run trains, and can be looked at."""
    values = dict.fromkeys(FREE_TEXT, HOSTILE) | shards
    values |= {"run.root": f"-runs {HOSTILE}", "execution.cache.dir": str(real.folder / f"cache {HOSTILE}")}
    values |= {"tracking.wandb.project": PROJECT, "tracking.wandb.tags": TAG}
    in_recipe = {"tracking.wandb.group", "data.stream.label"}
    in_sweep = {"tracking.wandb.entity": LINE, "tracking.wandb.project": PROJECT}
    recipe = real.folder / f"-recipes {HOSTILE}" / f"{HOSTILE}.yaml"
    recipe.parent.mkdir()
    stated = {"tracking": {"wandb": {"group": HOSTILE}}, "data": {"stream": {"label": HOSTILE}}}
    recipe.write_text(json.dumps(merge(merge(RECIPE, stated), {"run": {"total_kimg": 0.8}})))
    sweep = real.folder / f"sweep {HOSTILE}"
    sweep.write_text("# flags\n" + " ".join(map(shlex.quote, flags(in_sweep))) + "\n")

    by_flag = {path: value for path, value in values.items() if path not in in_recipe | set(in_sweep)}
    job = real.train_array(
        f"./{recipe.relative_to(real.folder)}", "--run.name", "tiny", *flags(by_flag),
        tasks=[2], GANDIST_SWEEP=sweep.name,
    )[2]  # fmt: skip
    job.wait_for("COMPLETED", 300)
    run = real.folder / values["run.root"] / "tiny-2"
    assert state(run) == "done"
    settings = yaml.safe_load((run / "config.yaml").read_text())
    expected = values | in_sweep | {"tracking.wandb.tags": [TAG]}
    assert {path: knob(settings, path) for path in FREE_TEXT} == {path: expected[path] for path in FREE_TEXT}

    assert list(run.glob("wandb/offline-run-*/*.wandb")), "W&B refused the texts"

    picture = f"-grid {HOSTILE}.png"
    looked = real.evaluate("sample", f"./{run.relative_to(real.folder)}", f"--out={picture}")
    looked.wait_for("COMPLETED", 200)
    assert (real.folder / picture).read_bytes().startswith(b"\x89PNG")
    assert not list(real.folder.rglob("owned"))


def test_the_walk_finds_the_texts():
    assert set(dump(Config())) >= {path.partition(".")[0] for path in FREE_TEXT}
    assert PATHS | {"tracking.wandb.tags", "tracking.wandb.entity", "data.stream.label"} <= set(FREE_TEXT)
    assert "run.name" not in FREE_TEXT, "its pattern leaves nothing to be hostile with"
    assert "loss.kind" not in FREE_TEXT

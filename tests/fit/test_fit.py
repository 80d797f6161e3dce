"""``gandist fit``: what it writes and says, its chart, and the rate that it finds on real images."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gandist.cli import main
from gandist.config import Config, merge, parse
from gandist.errors import ConfigError
from gandist.evaluation.rows import save_rows
from gandist.fitting.chart import Axis, draw_chart
from gandist.fitting.fit import RATES, fit, prepare, verdict
from gandist.fitting.sweep import Curve, best, sweep

TINY: dict[str, Any] = {
    "run": {"name": "tiny"},
    "data": {"shards": "glyphs", "resolution": 8, "channels": 1},
    "model": {"arch": "mlp", "latent_dim": 8, "mlp": {"generator_widths": [16], "discriminator_widths": [4]}},
    "execution": {"workers": 0, "precision": "fp32", "threads": 1, "device": "cpu"},
}


def tiny(root: Path, changes: dict[str, Any] | None = None) -> Config:
    return parse(merge(merge(TINY, {"run": {"root": str(root)}}), changes or {}), "tests")


def recipe(root: Path) -> str:
    path = root / "tiny.yaml"
    path.write_text(json.dumps(merge(TINY, {"run": {"root": str(root / "runs")}})))  # JSON is YAML
    return str(path)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "fit",
        recipe(tmp_path),
        "--images",
        "12",
        "--steps",
        "40",
        "--lrs",
        "1e-3",
        "1e-2",
        "1e30",
        "--run.seed=5",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "runs" / "fits" / "tiny"
    assert {path.name for path in folder.iterdir()} == {"curves.png", "pictures.png", "fit.json"}
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["fits"], "the run's own folder is not touched"
    found = json.loads((folder / "fit.json").read_text())
    assert [curve["lr"] for curve in found["curves"]] == [1e-3, 1e-2, 1e30]
    assert [curve["state"] for curve in found["curves"]] == ["learns", "learns", "diverged"]
    assert found["best_lr"] == 1e-2
    assert found["config"]["run"]["seed"] == 5
    assert len(found["curves"][0]["losses"]) == 40
    assert "Best: --optimizer.generator.lr 0.01, which leaves" in said
    assert "From 1e+30 on the loss diverged." in said
    assert "What it does not show" in said
    assert str(folder) in said
    for name in ("curves.png", "pictures.png"):
        with Image.open(folder / name) as picture:
            picture.load()
    assert main(words) == 0
    assert json.loads((folder / "fit.json").read_text())["curves"] == found["curves"], "again, the same curves"


@pytest.mark.long
def test_what_makes_no_sense_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "--images one": "--images 64",
        "--images 1": "at least 2",
        "--steps 3": "at least 10",
        "--lrs 0": "learning rates above 0",
        "--lrs": "learning rates above 0",
        "--lrs 1e-3 much": "could not convert",
    }
    for words, said in wrong.items():
        assert main(["fit", recipe(tmp_path), *words.split()]) == 2, words
        assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_more_images_than_there_are(tmp_path: Path) -> None:
    from gandist.data.making.prepare import prepare as make_shards

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(5):
        Image.new("L", (8, 8), 50 * number).save(pictures / f"{number}.png")
    make_shards(str(pictures), tmp_path / "shards", resolution=8, channels=1)
    with pytest.raises(ConfigError, match=r"--images 6: data\.shards .* holds 5"):
        prepare(tiny(tmp_path, {"data": {"shards": str(tmp_path / "shards")}}), 6)


def test_what_is_learned_is_the_recipe_s(tmp_path: Path) -> None:
    """Fixed images and latents, their classes where G sees them, the recipe's optimizer, its passes."""
    changes = {
        "model": {"conditional": True},
        "optimizer": {"generator": {"beta1": 0.25, "clip_norm": 2.0}},
        "execution": {"micro_images": 4},
        "data": {"hflip": True},
    }
    player, task, _ = prepare(tiny(tmp_path, changes), 10)
    plain = prepare(tiny(tmp_path, {"model": {"conditional": True}}), 10)[1]
    assert torch.equal(task.x, plain.x), "mirroring is left out"
    assert task.c is not None
    assert len(set(task.c.tolist())) > 2
    assert float(task.x.min()) == pytest.approx(-1, abs=0.3)
    assert player.optimizer.param_groups[0]["betas"] == (0.25, 0.999)
    assert player.clip_norm == 2.0
    assert [rows.stop for rows in task.passes()] == [4, 8, 10]
    assert prepare(tiny(tmp_path), 10)[1].c is None


@pytest.mark.long
def test_points_are_fitted_without_pictures(tmp_path: Path) -> None:
    ring = {"data": {"shards": "ring", "resolution": 1, "channels": 2}, "run": {"name": "ring"}}
    folder = fit(tiny(tmp_path, ring), images=8, steps=20, rates=[1e-3, 1e-2], say=lambda line: None)
    assert {path.name for path in folder.iterdir()} == {"curves.png", "fit.json"}


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gandist.fitting import fit as module

    accelerator = type("Two", (), {"num_processes": 2})()
    monkeypatch.setattr(module, "open_accelerator", lambda *_: accelerator)
    with pytest.raises(ConfigError, match="one process"):
        prepare(tiny(tmp_path), 10)


def curve(lr: float, end: float, steps: int = 20) -> Curve:
    return Curve(lr, tuple(1.0 + (end - 1.0) * step / steps for step in range(1, steps + 1)), torch.zeros(1, 1, 1, 1))


def test_the_verdict() -> None:
    inner = [curve(0.001, 0.5), curve(0.002, 0.1), curve(0.004, 2.0)]
    assert verdict(inner, best(inner), 1.0).startswith("Best: --optimizer.generator.lr 0.002, which leaves 1")
    assert "From 0.004 on" in verdict(inner, best(inner), 1.0)
    assert "edge" not in verdict(inner, best(inner), 1.0)
    assert "little difference" not in verdict(inner, best(inner), 1.0)
    alike = [curve(0.001, 0.2), curve(0.002, 0.1), curve(0.004, 0.101), curve(0.008, 0.2)]
    assert "From 0.002 to 0.004 it makes little difference." in verdict(alike, best(alike), 1.0)
    assert "look beyond it, with --lrs 0.0005" in verdict(inner[1:], best(inner[1:]), 1.0).replace("0.001", "0.0005")
    low = [curve(0.001, 0.9), curve(0.002, 0.8)]
    assert "More than half is left" in verdict(low, best(low), 1.0)
    assert "--lrs 0.004" in verdict(low, best(low), 1.0)
    torn = [curve(0.001, 3.0), curve(0.002, 0.1)]
    assert "At 0.001 the loss diverged." in verdict(torn, best(torn), 1.0)
    assert "At every rate" in verdict([curve(1.0, 3.0)], None, 1.0)


def test_rates_double() -> None:
    assert all(later / earlier == pytest.approx(2) for earlier, later in itertools.pairwise(RATES))
    assert RATES[0] == pytest.approx(1e-4)
    assert RATES[-1] > 0.1


# --- pictures ------------------------------------------------------------------------------------------------


def test_a_logarithmic_axis() -> None:
    axis = Axis(0.01, 100.0, 0.0, 400.0)
    assert [axis.place(value) for value in (0.01, 0.1, 1, 10, 100)] == pytest.approx([0, 100, 200, 300, 400])
    assert axis.place(1e-9) == 0
    assert axis.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert Axis(0.15, 0.7, 0.0, 1.0).ticks() == pytest.approx([0.2, 0.5])
    assert Axis(1.0, 10.0, 300.0, 0.0).place(10.0) == 0, "upwards"


def test_the_chart_shows_the_best_curve_boldly(tmp_path: Path) -> None:
    curves = [curve(0.001, 0.5), curve(0.002, 0.05), Curve(0.004, (1.0, math.nan), torch.zeros(1, 1, 1, 1))]
    draw_chart(curves, curves[1], 0.7, "a title", tmp_path / "chart.png")
    draw_chart(curves[2:], None, 0.7, "all diverged", tmp_path / "none.png")
    with Image.open(tmp_path / "chart.png") as picture:
        pixels = torch.tensor(list(picture.convert("L").get_flattened_data())).view(picture.height, picture.width)
    inside = pixels[60:380, 300:540]  # of the panel of steps, away from axes and words
    assert int((inside < 60).sum()) > 300, "black, of the best curve"
    assert (tmp_path / "none.png").is_file()


def test_rows_of_a_picture(tmp_path: Path) -> None:
    """Each row has its own grey; small images are enlarged to 64 px."""
    rows = [(f"row {level}", torch.full((3, 1, 16, 16), level, dtype=torch.uint8)) for level in (10, 200)]
    save_rows(rows, tmp_path / "rows.png")
    colours = [("colour", torch.tensor([250, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 128, 128))]
    save_rows(colours, tmp_path / "colours.png")
    with Image.open(tmp_path / "rows.png") as picture:
        assert picture.height == 2 * 68 + 4
        assert [picture.getpixel((picture.width - 40, top)) for top in (4, 67, 72, 135)] == [
            (10,) * 3, (10,) * 3, (200,) * 3, (200,) * 3,
        ]  # fmt: skip
    with Image.open(tmp_path / "colours.png") as picture:
        assert picture.getpixel((picture.width - 40, 60)) == (250, 0, 0)


# --- does it find a good rate? ---------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.realdata
@pytest.mark.timeout(1200)  # some 3,500 steps of a small network: most of a minute, or many on a busy machine
def test_the_rate_is_within_a_factor_of_two_of_the_best_of_a_finer_sweep(real_data: Path, tmp_path: Path) -> None:
    """DCGAN on Fashion-MNIST, small; docs/fit.md shows a larger one. Where the valley is flat, chance picks in it."""
    from gandist.data.making.prepare import prepare as make_shards

    source = f"fashion-mnist:{real_data / 'fashion-mnist'}:test"
    make_shards(source, tmp_path / "shards", resolution=32, channels=1, max_images=200)
    changes = {
        "data": {"shards": str(tmp_path / "shards"), "resolution": 32},
        "model": {"arch": "dcgan", "latent_dim": 64, "dcgan": {"generator_channels": 8, "discriminator_channels": 2}},
    }
    config = tiny(tmp_path, changes)
    folder = fit(config, images=32, steps=150, say=lambda line: None)
    found = json.loads((folder / "fit.json").read_text())["best_lr"]
    player, task, _ = prepare(config, 32)
    finer = list(sweep(player, task, [1.6e-3 * 2 ** (half / 2) for half in range(12)], 150, 1))
    finest = best(finer)
    assert finest is not None
    as_good = [curve.lr for curve in finer if curve.end <= 1.1 * finest.end]
    assert any(0.5 <= found / rate <= 2.0 for rate in as_good), (found, [(c.lr, c.end) for c in finer])

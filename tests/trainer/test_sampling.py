"""``gandist sample``, the pictures of a run, and the files they are drawn from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_runs import make_config, play

from gandist.cli import main
from gandist.errors import CheckpointError, ConfigError
from gandist.evaluation.sample import draw, fixed_latents, load_generator, save_grid, to_uint8

CONDITIONAL = {"model": {"arch": "resnet", "conditional": True}, "ema": {"halflife_kimg": 0.05}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play(make_config(tmp_path_factory.mktemp("sampling"), CONDITIONAL)).folder


def test_the_averaged_weights_alone_are_enough(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run / "checkpoints" / "000000320" / "ema.safetensors", alone)
    for source in (run, run / "checkpoints" / "000000320", alone):
        assert main(["sample", str(source), "--out", str(tmp_path / "grid.png"), "--rows", "2", "--columns", "3"]) == 0
        picture = np.asarray(Image.open(tmp_path / "grid.png"))
        assert picture.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
        assert picture.std() > 0


def test_the_picture_of_the_run_is_redrawn_from_its_checkpoint(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.png"
    words = ["sample", str(run / "checkpoints" / "000000320"), "--out", str(out)]
    assert main([*words, "--rows", "2", "--columns", "2", "--seed", "3"]) == 0
    assert np.array_equal(Image.open(out), Image.open(run / "samples" / "00000000kimg.png"))


def test_one_class_by_name_or_number(run: Path, tmp_path: Path) -> None:
    pictures = []
    for label in ("7", "2"):
        out = tmp_path / f"{label}.png"
        assert main(["sample", str(run), "--out", str(out), "--rows", "1", "--columns", "2", "--class", label]) == 0
        pictures.append(np.asarray(Image.open(out)))
    assert not np.array_equal(*pictures)
    assert main(["sample", str(run), "--out", str(tmp_path / "x.png"), "--class", "eleven"]) == 2


def test_a_grid_that_grows_keeps_its_images() -> None:
    small, _ = fixed_latents(5, 0, rows=1, columns=3, seed=1)
    large, labels = fixed_latents(5, 4, rows=5, columns=3, seed=1)
    assert torch.equal(small, large[:3])
    assert labels.view(5, 3)[:, 0].tolist() == [0, 1, 2, 3, 0]


def test_images_do_not_depend_on_the_size_of_a_pass(run: Path) -> None:
    generator, card = load_generator(run / "checkpoints" / "000000320" / "ema.safetensors")
    z, c = fixed_latents(card.model.latent_dim, len(card.class_names), 2, 5, seed=0)
    whole, parts = draw(generator, z, c), draw(generator, z, c, pass_images=3)
    assert (whole.int() - parts.int()).abs().max() <= 1


def test_bytes_of_images() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255]
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels.float() / 127.5 - 1), levels.to(torch.uint8))


def test_a_grid_is_laid_out_in_rows(tmp_path: Path) -> None:
    images = torch.arange(6, dtype=torch.uint8).mul(40)[:, None, None, None].expand(6, 1, 64, 64)
    save_grid(images, columns=3, path=tmp_path / "grid.png")
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert [int(grid[66 * r + 30, 66 * k + 30, 0]) for r in range(2) for k in range(3)] == [0, 40, 80, 120, 160, 200]


def test_files_that_are_no_generator(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="names no architecture"):
        load_generator(run / "checkpoints" / "000000320" / "discriminator.safetensors")
    damaged = tmp_path / "cut.safetensors"
    damaged.write_bytes((run / "checkpoints" / "000000320" / "ema.safetensors").read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        load_generator(damaged)


def test_a_class_of_an_unconditional_generator(tmp_path: Path) -> None:
    folder = play(make_config(tmp_path)).folder
    from gandist.evaluation.sample import pick_class

    _, card = load_generator(folder / "checkpoints" / "000000320" / "ema.safetensors")
    with pytest.raises(ConfigError, match="not conditional"):
        pick_class(card, "1")

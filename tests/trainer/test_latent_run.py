"""From images to latents to a run and its pictures, with an autoencoder made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_ranks import finish
from trainer_runs import Launch, digests, make_config, play

from gandist.assembly import build_networks
from gandist.cli import main
from gandist.config import Config, ModelConfig, dump, merge, parse
from gandist.data.making.prepare import prepare
from gandist.data.shards.index_files import read_index
from gandist.errors import CheckpointError, ConfigError, DataError, UserError
from gandist.evaluation.diversity import look
from gandist.evaluation.sample import GeneratorCard, draw, fixed_latents, load_generator, save_grid
from gandist.latents.autoencoder import open_autoencoder
from gandist.latents.pictures import Decoded
from gandist.latents.space import LatentSpace
from gandist.models.build import build
from gandist.models.contract import ImageShape
from gandist.trainer import Trainer

GAT = {"depth": 2, "width": 8, "head_width": 4, "patch": 2, "style_dim": 8, "projection_dim": 8, "levels": 2}
SPACE = LatentSpace("folder", "ab" * 32, 2, 4, (0.5, -1.0), (2.0, 0.25), 0.18)


# --- what a weights file says of its latents ------------------------------------------------------------------------


def test_the_card_of_a_generator_says_whose_latents_it_makes() -> None:
    card = GeneratorCard(ModelConfig(), ImageShape(4, 2), (), 7, SPACE)
    assert GeneratorCard.read(card.header(), Path("x")) == card
    plain = GeneratorCard(ModelConfig(), ImageShape(4, 3), (), 7)
    assert "latents" not in plain.header()["gandist"]
    assert GeneratorCard.read(plain.header(), Path("x")).latents is None


@pytest.mark.parametrize("entry", [{"std": [1.0]}, {"std": [1.0, 0.0]}, {"mean": ["nan", 1.0]}, {"channels": None}])
def test_a_card_whose_latents_are_damaged_is_named(entry: dict[str, Any]) -> None:
    header = GeneratorCard(ModelConfig(), ImageShape(4, 2), (), 7, SPACE).header()
    content = json.loads(header["gandist"])
    content["latents"] |= entry
    with pytest.raises(CheckpointError, match="its header cannot be read"):
        GeneratorCard.read({"gandist": json.dumps(content)}, Path("x"))


def test_health_looks_at_the_image_and_not_at_its_stages() -> None:
    model = ModelConfig.model_validate({"arch": "gat", "latent_dim": 8, "gat": GAT})
    generator = build(model, ImageShape(4, 2), 0, seed=0).generator.eval()
    z, c, real = torch.randn(5, 8), torch.zeros(5, dtype=torch.long), torch.randn(5, 2, 4, 4)
    assert look(generator, z, c, real.repeat(1, 2, 1, 1)) == look(generator, z, c, real)


# --- what does not go together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["r1", "r2", "gradient_penalty", "path_length"])
def test_penalties_with_second_derivatives_refuse_fused_attention(tmp_path: Path, penalty: str) -> None:
    weight = "gamma" if penalty.startswith("r") else "weight"
    changes: dict[str, Any] = {"model": {"arch": "gat", "gat": GAT}, "regularizer": {"r1": {"gamma": 0.0}}}
    changes = merge(changes, {"regularizer": {penalty: {weight: 1.0}}})
    with pytest.raises(ConfigError, match=rf"regularizer\.{penalty}: .*--model\.gat\.attention plain"):
        build_networks(make_config(tmp_path, changes), 0, 16)
    build_networks(make_config(tmp_path, merge(changes, {"model": {"gat": {"attention": "plain"}}})), 0, 16)


# --- the whole way; diffusers alone takes ten seconds to load --------------------------------------------------------


def make_autoencoder(folder: Path, seed: int) -> Path:
    """Write a tiny autoencoder: 16 px to 4x4 latents of 2 channels."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(4, 4, 4),
            layers_per_block=1,
            norm_num_groups=2,
            latent_channels=2,
            sample_size=16,
        )
    network.save_pretrained(str(folder), safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two autoencoders, images, and their latents by the first, all made by the command line."""
    folder = tmp_path_factory.mktemp("latents")
    for seed, name in enumerate(("autoencoder", "another")):
        make_autoencoder(folder / name, seed)
    prepare("glyphs", folder / "images", resolution=16, max_images=64, shard_images=32, workers=0)
    words = ["--autoencoder", str(folder / "autoencoder"), "--device", "cpu", "--workers", "1"]
    assert main(["encode", str(folder / "images"), str(folder / "shards"), *words]) == 0
    return folder


def latent_run(made: Path, root: Path, total_kimg: float = 0.08, **data: Any) -> Config:
    return make_config(
        root,
        {
            "run": {"total_kimg": total_kimg},
            "data": {"shards": str(made / "shards"), "resolution": 4, "channels": 2, "hflip": False, **data},
            "model": {"arch": "gat", "conditional": True, "gat": GAT},
            "loss": {"relativistic": "pairs"},
            "regularizer": {
                "r1": {"gamma": 0.1, "interval_steps": 1, "method": "finite_difference"},
                "r2": {"gamma": 0.1, "interval_steps": 1, "method": "finite_difference"},
            },
            "checkpoint": {"every_kimg": 0.032},
            "samples": {"every_kimg": 0.08, "rows": 2, "columns": 2},
        },
    )


@pytest.mark.long
def test_a_run_on_latents_goes_on_bitwise_and_its_pictures_are_decoded(made: Path, tmp_path: Path) -> None:
    decoder = str(made / "autoencoder")
    straight = play(latent_run(made, tmp_path / "straight", decoder=decoder))
    play(latent_run(made, tmp_path / "cut", total_kimg=0.048))
    play(latent_run(made, tmp_path / "cut", decoder=decoder))
    assert digests(straight.folder) == digests(tmp_path / "cut" / "tiny")
    pictures = [(root / "tiny" / "samples" / "00000000kimg.png").read_bytes() for root in tmp_path.iterdir()]
    assert pictures[0] == pictures[1]

    weights = straight.folder / "checkpoints" / "000000080" / "ema.safetensors"
    generator, card = load_generator(weights)
    assert card.latents == read_index(made / "shards").latents
    assert card.latents is not None
    z, c = fixed_latents(8, len(card.class_names), 2, 2, seed=3)
    latents = generator(z, c)
    assert latents.shape == (4, 2, 4, 4)
    decoded = Decoded(open_autoencoder(decoder, torch.device("cpu")), card.latents, torch.device("cpu"))
    save_grid(draw(generator, z, c, show=decoded), 2, tmp_path / "by_hand.png")
    assert (tmp_path / "by_hand.png").read_bytes() == pictures[0]
    words = ["sample", str(straight.folder), "--rows", "2", "--columns", "2", "--seed", "3", "--out"]
    assert main([*words, str(tmp_path / "grid.png")]) == 0, "the decoder is where the latents' card says"
    assert (tmp_path / "grid.png").read_bytes() == pictures[0]


@pytest.mark.long
def test_without_a_decoder_three_channels_are_shown_and_it_is_said(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = play(latent_run(made, tmp_path, hflip=True))
    said = (trainer.folder / "events.log").read_text()
    assert "--data.decoder with their autoencoder" in said
    assert "gandist encode --mirror" in said
    picture = trainer.folder / "samples" / "00000000kimg.png"
    words = ["sample", str(trainer.folder), "--rows", "2", "--columns", "2", "--seed", "3", "--decoder", "none"]
    assert main([*words, "--out", str(tmp_path / "grid.png")]) == 0
    assert (tmp_path / "grid.png").read_bytes() == picture.read_bytes()
    assert "three channels" in capsys.readouterr().err


@pytest.mark.long
def test_another_autoencoder_than_that_of_the_latents_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="is not the autoencoder that the latents come from"):
        Trainer(latent_run(made, tmp_path, decoder=str(made / "another")))
    trainer = play(latent_run(made, tmp_path))
    assert main(["sample", str(trainer.folder), "--decoder", str(made / "another"), "--out", "x.png"]) == 2
    assert "theirs had" in capsys.readouterr().err


@pytest.mark.long
def test_autoencoders_that_would_be_unpickled_or_are_none(made: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    known = open_autoencoder(str(made / "autoencoder"), cpu)
    moved = make_autoencoder(tmp_path / "same", 0)
    assert open_autoencoder(str(moved), cpu).sha256 == known.sha256, "the digest is of the weights, not of the place"
    assert open_autoencoder(str(made / "another"), cpu).sha256 != known.sha256
    weights = moved / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(
        DataError, match=r"is no AutoencoderKL that can be read .*other formats of weights are not read"
    ):
        open_autoencoder(str(moved), cpu)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is no AutoencoderKL that can be read"):
        open_autoencoder(str(tmp_path / "empty"), cpu)


@pytest.mark.long
def test_two_ranks_end_where_one_does(made: Path, tmp_path: Path, launch: Launch) -> None:
    """Not with pairs, in which what the head adds to all images of a class has no gradient but rounding."""
    for world in (1, 2):
        config = latent_run(made, tmp_path / str(world))
        config = parse(merge(dump(config), {"loss": {"relativistic": "off"}}), "tests")
        finish(launch, config, world) if world > 1 else play(config)
    for name in ("generator", "discriminator", "ema"):
        one, two = (
            load_file(tmp_path / world / "tiny" / "checkpoints" / "000000080" / f"{name}.safetensors")
            for world in ("1", "2")
        )
        for key, tensor in one.items():
            assert torch.allclose(tensor, two[key], rtol=1e-4, atol=2e-5), f"{name}: {key}"

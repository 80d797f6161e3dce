"""gandist encode: moments in the order of the images, their statistics, and what happens when it is cut short."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gandist.cli import main
from gandist.config import DataConfig
from gandist.data.decode import DecodeError, Decoder, npy_header
from gandist.data.encoding.encode import encode_with
from gandist.data.encoding.statistics import Sums
from gandist.data.images import open_images
from gandist.data.loader import Batch
from gandist.data.making.prepare import prepare
from gandist.data.reals import RealImages
from gandist.data.shards.index_files import INDEX_NAME, read_index
from gandist.errors import ConfigError, DataError
from gandist.latents.pictures import Decoded, show_by, three_channels
from gandist.latents.whitening import Whitening
from gandist.models.noise import RowNoise
from gandist.runtime import rng

SIDE, LATENT = 8, 4  # px of the images, places of the latents


class Averages:
    """An autoencoder whose moments can be worked out by hand: means of squares of pixels, and a known variance."""

    name, sha256, channels, scaling = "averages", "ab" * 32, 2, 0.5

    def __init__(self, fail_at: int | None = None) -> None:
        self.passes, self.fail_at = 0, fail_at

    def encode(self, pictures: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == self.fail_at:
            raise KeyboardInterrupt
        small = torch.nn.functional.avg_pool2d(pictures, SIDE // LATENT)
        mean = torch.stack([small[:, 0], 3 * small[:, 1] + 2], dim=1)
        return torch.cat([mean, torch.full_like(mean, -2.0) + 0.5 * mean.abs()], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :1].expand(-1, 3, -1, -1).repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    prepare("glyphs", tmp_path / "images", resolution=SIDE, channels=3, max_images=40, shard_images=16, workers=0)
    return tmp_path / "images"


def read_all(folder: Path, **data: Any) -> tuple[np.ndarray, list[int]]:
    """Return the images of a set in the order of the first epoch, and their labels."""
    images = open_images(DataConfig.model_validate({"shards": str(folder), "chunk": 1, **data}), seed=0)
    assert images.samples is not None
    pixels, labels = images.read(np.arange(images.samples))
    return pixels, labels.tolist()


def encoded(shards: Path, out: Path, autoencoder: Any = None, **options: Any) -> Path:
    encode_with(autoencoder or Averages(), shards, out, **{"mirror": False, "batch": 7, "workers": 2, **options})
    return out


def as_moments(raw: np.ndarray) -> np.ndarray:
    return raw.view(np.float16).astype(np.float64)


def test_moments_stand_for_the_images_one_for_one_and_keep_the_labels(shards: Path, tmp_path: Path) -> None:
    out = encoded(shards, tmp_path / "latents")
    pixels, labels = read_all(shards, resolution=SIDE)
    moments, same_labels = read_all(out, resolution=LATENT, channels=2)
    assert labels == same_labels
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = Averages().encode(x).permute(0, 2, 3, 1).to(torch.float16).numpy()
    assert np.array_equal(moments.view(np.float16), expected)


def test_the_index_says_whose_latents_they_are_and_how_they_are_spread(shards: Path, tmp_path: Path) -> None:
    out = encoded(shards, tmp_path / "latents")
    content = json.loads((out / INDEX_NAME).read_text())
    assert content["numbers"] == "float16"
    assert content["channels"] == 4
    assert content["resolution"] == LATENT
    space = read_index(out).latents
    assert space is not None
    assert (space.autoencoder, space.sha256, space.channels, space.factor) == ("averages", "ab" * 32, 2, 2)
    moments = as_moments(read_all(out, resolution=LATENT, channels=2)[0]).reshape(-1, 4)
    noise = np.random.default_rng(0).standard_normal((1000, len(moments), 2))
    drawn = moments[:, :2] + np.exp(0.5 * moments[:, 2:]) * noise
    assert np.allclose(space.mean, moments[:, :2].mean(axis=0), rtol=1e-12)
    assert np.allclose(space.std, drawn.std(axis=(0, 1)), rtol=5e-3)


def test_mirror_images_follow_their_images(shards: Path, tmp_path: Path) -> None:
    plain = as_moments(read_all(encoded(shards, tmp_path / "plain"), resolution=LATENT, channels=2)[0])
    out = encoded(shards, tmp_path / "both", mirror=True)
    index = read_index(out)
    assert index.samples == 80
    assert index.label.tolist() == np.repeat(read_index(shards).label, 2).tolist()
    rows = []
    for shard, count in zip(index.shards, index.counts, strict=True):
        raw = (out / shard.url).read_bytes()
        at = int(np.cumsum([0, *index.counts])[len(rows) and index.shards.index(shard)])
        rows += [
            raw[index.offset[n] : index.offset[n] + index.size[n]][-LATENT * LATENT * 8 :]
            for n in range(at, at + count)
        ]
    moments = np.stack([np.frombuffer(row, dtype=np.float16).reshape(LATENT, LATENT, 4) for row in rows])
    assert np.allclose(moments[1::2], moments[::2, :, ::-1], atol=2e-3), "averages of mirror images are mirrored"
    assert not np.allclose(moments[1::2], moments[::2], atol=2e-3)
    assert np.allclose(sorted(moments[::2].sum(axis=(1, 2, 3))), sorted(plain.sum(axis=(1, 2, 3))), atol=0.1)


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_the_batch_changes_nothing(shards: Path, tmp_path: Path, batch: int) -> None:
    first, second = encoded(shards, tmp_path / "a"), encoded(shards, tmp_path / "b", batch=batch)
    assert read_index(first).digest == read_index(second).digest


def test_cut_short_it_goes_on_and_ends_with_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    straight = encoded(shards, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        encoded(shards, tmp_path / "cut", Averages(fail_at=5))
    assert not (tmp_path / "cut").exists(), "it appears whole or not at all"
    rest = Averages()
    out = encoded(shards, tmp_path / "cut", rest)
    assert rest.passes < 6, "shards that were finished are not encoded again"
    for path in straight.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name


def test_killed_it_goes_on_past_what_was_half_written(shards: Path, tmp_path: Path) -> None:
    """What lies there while the second shard is being written is all that a killed process leaves."""
    straight = encoded(shards, tmp_path / "straight")
    left = tmp_path / "left"

    class Killed(Averages):
        def encode(self, pictures: Tensor) -> Tensor:
            if self.passes + 1 == self.fail_at:
                (partial,) = tmp_path.glob(".partial-*")
                shutil.copytree(partial, left / partial.name)
            return super().encode(pictures)

    with pytest.raises(KeyboardInterrupt):
        encoded(shards, tmp_path / "cut", Killed(fail_at=5))
    (partial,) = tmp_path.glob(".partial-*")
    shutil.rmtree(partial)
    (left / partial.name).rename(partial)
    assert (partial / "set" / "shard-000001.tar").exists(), "half written"
    (partial / "set" / "shard-000009.tar").write_text("of no set")
    sums = json.loads((partial / "sums.json").read_text())
    (partial / "sums.json").write_text(json.dumps([*sums, sums[0]]))  # the ledger was still to be written
    rest = Averages()
    out = encoded(shards, tmp_path / "cut", rest)
    assert rest.passes < 6
    assert {path.name for path in out.iterdir()} == {path.name for path in straight.iterdir()}
    for path in straight.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name


def test_another_autoencoder_does_not_go_on_with_it(shards: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        encoded(shards, tmp_path / "cut", Averages(fail_at=5))
    other = Averages()
    other.sha256 = "cd" * 32
    encoded(shards, tmp_path / "cut", other)
    assert "begins anew" in capsys.readouterr().err
    assert read_index(tmp_path / "cut").latents.sha256 == "cd" * 32  # type: ignore[union-attr]


def test_sums_of_parts_are_those_of_the_whole_and_survive_writing() -> None:
    moments = np.random.default_rng(1).normal(2, 3, (6, 3, 3, 4)).astype(np.float16)
    parts = sum(map(Sums.of, moments), Sums.none(2))
    mean, variance = moments[..., :2].astype(np.float64), np.exp(moments[..., 2:].astype(np.float64))
    assert np.allclose(parts.statistics()[0], mean.mean(axis=(0, 1, 2)), rtol=1e-12)
    total = variance.mean(axis=(0, 1, 2)) + mean.var(axis=(0, 1, 2))  # the law of total variance
    assert np.allclose(parts.statistics()[1], np.sqrt(total), rtol=1e-12)
    again = Sums.read(json.loads(json.dumps(parts.as_json())))
    assert again.statistics() == parts.statistics()


# --- what is refused -------------------------------------------------------------------------------------------


def test_a_damaged_image_ends_it_and_leaves_nothing(shards: Path, tmp_path: Path) -> None:
    shard = sorted(shards.glob("*.tar"))[1]
    shard.write_bytes(shard.read_bytes().replace(b"\x93NUMPY", b"\x00NUMPY", 1))
    with pytest.raises(DataError, match=rf"{shard.name}: byte \d+: .*Prepare the set again"):
        encoded(shards, tmp_path / "latents")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("value", "what"), [(float("nan"), "not finite"), (1e6, "not finite, or above"), (0.25, "the same everywhere")]
)
def test_latents_of_no_use_are_refused(shards: Path, tmp_path: Path, value: float, what: str) -> None:
    class Spoilt(Averages):
        def encode(self, pictures: Tensor) -> Tensor:
            return torch.cat(
                [torch.full((len(pictures), 2, 4, 4), value), torch.full((len(pictures), 2, 4, 4), -999.0)], 1
            )

    with pytest.raises(DataError, match=what):
        encoded(shards, tmp_path / "latents", Spoilt())


def test_latents_are_not_encoded_again_and_need_their_number_of_channels(shards: Path, tmp_path: Path) -> None:
    out = encoded(shards, tmp_path / "latents")
    with pytest.raises(DataError, match="holds float16 numbers, not images"):
        encoded(out, tmp_path / "again")
    with pytest.raises(
        DataError, match=r"holds moments of latents with 2 channels, but data\.channels is 3\. .*channels 2"
    ):
        read_all(out, resolution=LATENT, channels=3)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"numbers": "float8"}, "'numbers' is 'float8'"),
        ({"latents": {"autoencoder": "x"}}, "'latents' is damaged"),
        ({"channels": 6}, "'channels' is 6"),
        ({"image_ext": ["png"]}, "float16 images are npy"),
    ],
)
def test_a_damaged_index_of_latents_is_named(shards: Path, tmp_path: Path, entry: dict[str, Any], what: str) -> None:
    out = encoded(shards, tmp_path / "latents")
    path = out / INDEX_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **entry}))
    with pytest.raises(DataError, match=what):
        read_index(out)


def test_whitening_and_its_seed_are_part_of_what_a_run_continues_with(shards: Path, tmp_path: Path) -> None:
    out = encoded(shards, tmp_path / "latents")
    before = read_index(out).digest
    path = out / INDEX_NAME
    content = json.loads(path.read_text())
    content["latents"]["std"][0] *= 2
    path.write_text(json.dumps(content))
    assert read_index(out).digest != before


def test_an_autoencoder_that_is_not_there(shards: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["encode", str(shards), str(tmp_path / "out"), "--device", "cpu", "--autoencoder", str(tmp_path / "none")]
    assert main(words) == 2
    assert "there is no such folder" in capsys.readouterr().err


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_arrays_are_read_by_their_bytes_and_strictly() -> None:
    numbers = np.random.default_rng(0).normal(size=(4, 4, 6)).astype(np.float16)
    decoder, out = Decoder(4, 6, "float16"), np.empty((4, 4, 12), dtype=np.uint8)
    for raw in (npy(numbers), npy(np.asfortranarray(numbers)), npy_header(4, 6, "float16") + numbers.tobytes()):
        out[:] = 0
        decoder.into(raw, out)
        assert np.array_equal(out.view(np.float16), numbers)
    for raw, what in (
        (npy(numbers.astype(np.float32)), "the raw image is float32 .* not float16"),
        (npy(numbers[:, :, :4]), r"of shape \(4, 4, 4\), not float16 of \(4, 4, 6\)"),
        (npy(numbers)[:-1], "has 319 bytes, not 320"),
        (b"\x89PNG\r\n\x1a\n", "no raw array of float16"),
    ):
        with pytest.raises(DecodeError, match=what):
            decoder.into(raw, out)


# --- what D sees ------------------------------------------------------------------------------------------------


def reals(shards: Path, position: int = 0, *, ranks: int = 1, seed: int = 0, stacked: int = 1) -> Tensor:
    """Return the images of a global batch of 16 at a position, as D sees them, made rank by rank."""
    images = open_images(
        DataConfig.model_validate({"shards": str(shards), "resolution": LATENT, "channels": 2}), seed=0
    )
    seen = []
    for rank in range(ranks):
        first = rank * 16 // ranks
        raw, labels = images.read(position + np.arange(first, first + 16 // ranks))
        batch = Batch(torch.from_numpy(raw), torch.from_numpy(labels), position)
        made = RealImages(
            images,
            torch.device("cpu"),
            seed=seed,
            batch_images=16,
            first_row=first,
            stacked=stacked,
            channels_last=False,
        )
        seen.append(made.to_x(batch))
    return torch.cat(seen)


@pytest.mark.parametrize("position", [0, 40])
def test_samples_of_the_moments_are_whitened_and_known_by_seed_and_position(
    shards: Path, tmp_path: Path, position: int
) -> None:
    out = encoded(shards, tmp_path / "latents")
    x = reals(out, position)
    assert x.shape == (16, 2, LATENT, LATENT)
    raw, _ = open_images(
        DataConfig.model_validate({"shards": str(out), "resolution": LATENT, "channels": 2}), seed=0
    ).read(position + np.arange(16))
    moments, space = torch.from_numpy(as_moments(raw)).permute(0, 3, 1, 2), read_index(out).latents
    assert space is not None
    noise = RowNoise(rng.generator(0, "posterior", position), 16, 0, 16).normal(2, LATENT, LATENT)
    z = moments[:, :2] + (0.5 * moments[:, 2:]).exp() * noise
    mean, std = torch.tensor([space.mean, space.std])[:, :, None, None]
    assert torch.allclose(x.double(), (z - mean) / std, atol=1e-5)
    assert torch.equal(x, reals(out, position)), "the same numbers again after a resume"
    assert not torch.equal(x, reals(out, position, seed=1))


def test_the_set_as_a_whole_has_mean_zero_and_variance_one(shards: Path, tmp_path: Path) -> None:
    out = encoded(shards, tmp_path / "latents")
    x = torch.cat([reals(out, position) for position in range(0, 1600, 16)])  # 40 epochs
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(2), atol=0.03)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.ones(2), atol=0.03)


@pytest.mark.parametrize("ranks", [2, 4])
def test_what_d_sees_does_not_depend_on_the_ranks(shards: Path, tmp_path: Path, ranks: int) -> None:
    out = encoded(shards, tmp_path / "latents")
    assert torch.equal(reals(out, 32), reals(out, 32, ranks=ranks))


def test_stacked_reals_are_the_same_image_at_all_levels(shards: Path, tmp_path: Path) -> None:
    out = encoded(shards, tmp_path / "latents")
    assert torch.equal(reals(out, stacked=3), reals(out).repeat(1, 3, 1, 1))


# --- pictures of latents -------------------------------------------------------------------------------------------


def test_pictures_are_decoded_from_what_whitening_is_undone_of(shards: Path, tmp_path: Path) -> None:
    space = read_index(encoded(shards, tmp_path / "latents")).latents
    assert space is not None
    z = torch.randn(3, 2, LATENT, LATENT)
    whitened = Whitening(space, torch.device("cpu")).whiten(z)
    picture = Decoded(Averages(), space, torch.device("cpu"))(whitened)
    assert torch.allclose(picture, Averages().decode(z), atol=1e-5)


def test_three_channels_are_shown_where_there_is_no_decoder() -> None:
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(three_channels(x), x[:, :3] / 3)
    assert three_channels(x[:, :2]).shape == (2, 1, 5, 5)


def test_a_decoder_is_for_latents() -> None:
    with pytest.raises(ConfigError, match="pictures already"):
        show_by(None, "folder", torch.device("cpu"))


def test_shards_that_are_not_there_are_told_of_before_anything_is_loaded(tmp_path: Path, capsys: Any) -> None:
    words = ["encode", str(tmp_path / "none"), str(tmp_path / "out"), "--autoencoder", "owner/repository"]
    assert main(words) == 2
    assert "there is no such folder" in capsys.readouterr().err

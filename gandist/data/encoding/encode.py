"""Turns indexed shards of images into indexed shards of an autoencoder's moments, one for one and in the same order."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import gandist
from gandist.data.decode import npy_header
from gandist.data.encoding.pictures import Pictures
from gandist.data.encoding.statistics import Sums
from gandist.data.image_set import Images
from gandist.data.making.ledger import Ledger, OtherWorkError, finished, load
from gandist.data.making.publish import Scratch, check_free, published
from gandist.data.making.shard_file import ShardFile
from gandist.data.making.source import identity_of
from gandist.data.remote.address import is_remote
from gandist.data.shards.index import Index
from gandist.data.shards.index_files import read_index, write_index
from gandist.data.shards.scan import LABEL_FIELD
from gandist.errors import ConfigError, DataError
from gandist.latents.space import LatentSpace
from gandist.runtime.files import write_json

if TYPE_CHECKING:
    from gandist.latents.autoencoder import Autoencoder

Moments = NDArray[np.float16]
_SUMS_NAME = "sums.json"


@dataclass(frozen=True)
class Encoded:
    """What was made; ``str()`` of it is for a person."""

    folder: Path
    index: Index
    seconds: float
    continued: int

    def __str__(self) -> str:
        space, index = self.index.latents, self.index
        assert space is not None
        before = f", {self.continued} of them before" if self.continued else ""
        return (
            f"{self.folder}: moments of {index.samples} images{before}, {space.channels} channels of "
            f"{index.resolution}x{index.resolution}, {self.seconds:.1f} s\n"
            f"autoencoder {space.autoencoder}, SHA-256 {space.sha256[:16]}...\n"
            f"train with: --data.shards {self.folder} --data.resolution {index.resolution} "
            f"--data.channels {space.channels}"
        )


def encode(
    shards: Path,
    destination: Path,
    *,
    autoencoder: str,
    mirror: bool = False,
    batch: int = 32,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int | None = None,
) -> Encoded:
    """Make a folder of indexed shards of latents from one of images; it appears whole, or not at all.

    Interrupted or killed, it goes on from the last finished shard when the same command is given again.

    Args:
        shards: the folder of shards that 'gandist prepare' or 'gandist index' made.
        destination: the folder of shards to make.
        autoencoder: a folder or a repository of the Hugging Face hub that holds an AutoencoderKL in safetensors.
        mirror: write each image's mirror image after it too; a mirrored latent is not that of the mirrored image.
        batch: images that are encoded at a time.
        device: where to encode; auto takes a GPU where there is one.
        workers: threads that decode images; one for each core when None.

    Raises:
        ConfigError: an option is out of its range.
        DataError: the shards or the autoencoder cannot be used; the destination exists.
        MachineError: diffusers is not installed, or there is no space left.

    """
    import torch

    from gandist.latents.autoencoder import open_autoencoder

    if batch < 1 or (workers is not None and workers < 1):
        raise ConfigError("--batch and --workers: must be at least 1.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: there is no GPU that PyTorch can use here.")
    check_free(destination.expanduser())
    _source(shards)  # what is wrong with it is said before a minute of loading
    where = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    opened = open_autoencoder(autoencoder, where)
    return encode_with(
        opened, shards, destination, mirror=mirror, batch=batch, workers=workers or len(os.sched_getaffinity(0))
    )


def encode_with(
    autoencoder: Autoencoder, shards: Path, destination: Path, *, mirror: bool, batch: int, workers: int
) -> Encoded:
    """Make shards of latents as :func:`encode` does, with an autoencoder that is open already."""
    begin = time.monotonic()
    index, folder = _source(shards)
    destination = destination.expanduser()
    fingerprint = identity_of(gandist.__version__, "encode", index.digest, autoencoder.sha256, mirror)
    with published(destination) as scratch:
        ledger, sums = _begun(scratch, fingerprint, np.repeat(index.label, 2 if mirror else 1))
        work = _Work(autoencoder, index, Pictures(index, folder, workers), scratch, ledger, sums, mirror, batch)
        continued = ledger.images
        with closing(work.pictures), tqdm(total=index.samples, desc="images", disable=None, leave=False) as progress:
            for shard, images in enumerate(index.counts.tolist()):
                if shard >= len(ledger.shards):
                    work.write_shard(shard)
                progress.update(images)
        made = work.index_of_set()
        write_index(made, scratch.set)
    return Encoded(destination, made, time.monotonic() - begin, continued)


def _source(shards: Path) -> tuple[Index, Path]:
    if is_remote(str(shards)):
        raise ConfigError(f"{shards}: only shards on this machine can be encoded; copy them here first.")
    folder = shards.expanduser()
    index = read_index(folder)
    if index.numbers != "uint8":
        raise DataError(f"{folder}: holds {index.numbers} numbers, not images; they can be trained on as they are.")
    return index, folder


@dataclass(frozen=True)
class _Work:
    """The work and how far it is."""

    autoencoder: Autoencoder
    source: Index
    pictures: Pictures
    scratch: Scratch
    ledger: Ledger
    sums: list[Sums]
    mirror: bool
    batch: int

    def write_shard(self, shard: int) -> None:
        """Encode one shard; it is on the disk before the ledger names it."""
        samples, times = self.pictures.samples(shard), 2 if self.mirror else 1
        labels = iter(np.repeat(self.source.label[samples.start : samples.stop], times).tolist())
        file = ShardFile(self.scratch.set / f"shard-{shard:06d}.tar", "npy")
        total, number = Sums.none(self.autoencoder.channels), samples.start * times
        try:
            for images in self.pictures.batches(shard, self.batch):
                moments = self._moments(images)
                header = npy_header(moments.shape[1], moments.shape[3], "float16")
                for each in moments:
                    file.add(number, header + each.tobytes(), next(labels))
                    number += 1
                    total += Sums.of(each)  # one by one: sums do not depend on the batch
        except BaseException:
            file.abandon()
            raise
        self.ledger.shards.append(finished("", file, file.close()))
        self.ledger.consumed = number
        self.sums.append(total)
        write_json(self.scratch.folder / _SUMS_NAME, [each.as_json() for each in self.sums])
        write_json(self.scratch.ledger, self.ledger.as_json())

    def _moments(self, images: Images) -> Moments:
        """Return moments of images, or of images and mirror images in turn, of shape (n, h, w, 2 * channels)."""
        import torch

        if self.mirror:
            images = np.repeat(images, 2, axis=0)
            images[1::2] = images[1::2, :, ::-1]
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        grey_as_rgb = x.expand(-1, 3, -1, -1)
        moments = self.autoencoder.encode(grey_as_rgb).permute(0, 2, 3, 1).float().cpu().numpy()
        name, (height, width) = self.autoencoder.name, moments.shape[1:3]
        if height != width:
            raise DataError(f"{name}: makes latents of {height}x{width}, not square ones.")
        with np.errstate(over="ignore"):
            small: Moments = np.ascontiguousarray(moments, dtype=np.float16)
        if not np.isfinite(small).all():
            raise DataError(f"{name}: makes latents that are not finite, or above the 65504 that fp16 can hold.")
        return small

    def index_of_set(self) -> Index:
        """Return the index of what was made."""
        source, shards = self.source, self.ledger.shards
        side = _side(self.scratch.set / shards[0].shard.url, int(shards[0].offset[0]))
        return Index(
            shards=tuple(done.shard for done in shards),
            resolution=side,
            channels=2 * self.autoencoder.channels,
            image_ext=("npy",),
            class_names=source.class_names,
            source=source.source,
            label_source=LABEL_FIELD if source.class_names else None,
            transform={**source.transform, "encoded_from": source.digest, "mirror": self.mirror},
            rejected=source.rejected,
            offset=np.concatenate([done.offset for done in shards]),
            size=np.concatenate([done.size for done in shards]).astype(np.int32),
            label=np.concatenate([done.label for done in shards]).astype(np.int32),
            numbers="float16",
            latents=self._space(source.resolution // side),
        )

    def _space(self, factor: int) -> LatentSpace:
        known = self.autoencoder
        mean, std = sum(self.sums, Sums.none(known.channels)).statistics()
        if flat := [channel for channel, value in enumerate(std) if not value > 0]:
            raise DataError(f"{known.name}: channel {flat[0]} of its latents is the same everywhere; is it trained?")
        return LatentSpace(known.name, known.sha256, known.channels, factor, mean, std, known.scaling)


# --- the whole --------------------------------------------------------------------------------------------------


def _begun(scratch: Scratch, fingerprint: str, labels: NDArray[np.int32]) -> tuple[Ledger, list[Sums]]:
    """Return what an earlier run of the same work has finished, verified; what else it left is removed."""
    scratch.set.mkdir(exist_ok=True)
    try:
        ledger = load(scratch.ledger, fingerprint, scratch.set, labels.astype(np.int64))
        sums = _read_sums(scratch.folder / _SUMS_NAME, len(ledger.shards))
    except OtherWorkError as why:
        print(f"gandist: begins anew; what an earlier encode left cannot be gone on with: {why}.", file=sys.stderr)
        scratch.ledger.unlink(missing_ok=True)
        ledger, sums = Ledger(fingerprint), []
    scratch.begun = True
    kept = {scratch.set / done.shard.url for done in ledger.shards}
    for path in [*scratch.set.iterdir()]:
        if path not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if ledger.shards:
        print(f"gandist: goes on from {ledger.images} latents that are there already.", file=sys.stderr)
    return ledger, sums


def _read_sums(path: Path, shards: int) -> list[Sums]:
    """Return the sums of the finished shards; those of one more may be there, written just before the end came."""
    if not shards:
        return []
    try:
        sums = [Sums.read(entry) for entry in json.loads(path.read_bytes())[:shards]]
    except (OSError, ValueError, TypeError) as error:
        raise OtherWorkError("its sums are damaged") from error
    if len(sums) != shards:
        raise OtherWorkError("its sums do not fit its shards")
    return sums


def _side(shard: Path, offset: int) -> int:
    """Return the height and width of the moments in a shard."""
    with shard.open("rb") as file:
        file.seek(offset)
        assert np.lib.format.read_magic(file) == (1, 0)
        return int(np.lib.format.read_array_header_1_0(file)[0][0])

"""The recipe of a run: its data, its batch, its folder as it stands. Nothing is changed."""

from __future__ import annotations

import hashlib

from gandist.config import Config, to_yaml
from gandist.continuity import Insistence, check_folder, check_settings
from gandist.data.images import open_images
from gandist.data.loader import check_divides, describe_reading
from gandist.data.remote.address import shown
from gandist.data.stream.images import is_stream
from gandist.doctor.figures import count
from gandist.doctor.finding import Finding, note, ok
from gandist.runtime.checkpoint import CheckpointStore


def recipe_digest(config: Config) -> str:
    """Return a few digits that are equal for equal recipes."""
    return hashlib.sha256(to_yaml(config).encode()).hexdigest()[:12]


def data_findings(config: Config, rank: int, world: int, *, allow_pipe: bool = False) -> list[Finding]:
    """Open the images as a run does."""
    execution, batch = config.execution, config.update.batch_images
    images = open_images(config.data, config.run.seed, execution.cache, allow_pipe=allow_pipe)
    many = "endless images" if images.samples is None else count(images.samples, "image")
    if is_stream(config.data.shards):
        many = "a stream of images"
    shape = f"{images.resolution} px, {count(images.channels, 'channel')}"
    classes = count(len(images.class_names), "class", "classes") if images.class_names else "no classes"
    fact = f"{shown(config.data.shards)}: {many} of {shape}, {classes}, fingerprint {images.fingerprint[:12]}"
    reading = describe_reading(
        batch, rank, world, start=0, ahead_batches=execution.workers * execution.prefetch_batches
    )
    remarks = [note("data", remark) for remark in images.remarks(reading)]
    return [ok("data", fact, images=images.samples or 0), *remarks]


def fingerprint(config: Config, *, allow_pipe: bool = False) -> str:
    """Return what stands for the order of the images."""
    return open_images(config.data, config.run.seed, config.execution.cache, allow_pipe=allow_pipe).fingerprint


def batch_findings(config: Config, world: int) -> list[Finding]:
    """Look whether the batch can be shared by the ranks."""
    batch = config.update.batch_images
    check_divides(batch, world)
    share = batch // world
    micro = config.execution.micro_images
    passes = f", in passes of {micro}" if micro is not None and micro < share else ""
    shared = f", {share} on each of {world} ranks" if world > 1 else ""
    steps = config.update.d_steps
    return [ok("batch", f"{count(batch, 'image')}{shared}{passes}; {count(steps, 'D step')} in a round")]


def standing_findings(config: Config, order: str) -> list[Finding]:
    """Look at the run's folder as it stands: new, to be continued, finished, or to be refused."""
    check_folder(config)
    store = CheckpointStore(config.folder / "checkpoints", config.checkpoint.keep)
    names = store.names()
    total = config.run.total_kimg
    if not names:
        return [ok("run", f"{config.folder} would begin: {total:g} kimg")]
    newest = store.open(names[-1])
    remarks = [note("run", remark) for remark in check_settings(newest, config, order, Insistence())]
    kimg = newest.images_seen / 1000
    if kimg >= total:
        return [ok("run", f"{config.folder} is done at {kimg:g} kimg"), *remarks]
    return [ok("run", f"{config.folder} would continue at {kimg:g} of {total:g} kimg"), *remarks]


def images_done(config: Config) -> int:
    """Return the images that the newest checkpoint of the run has seen; 0 where there is none."""
    names = CheckpointStore(config.folder / "checkpoints", config.checkpoint.keep).names()
    return int(names[-1]) if names else 0

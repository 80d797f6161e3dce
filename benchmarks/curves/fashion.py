"""Fashion-MNIST on one core: each method sees the same number of images, and its distance must fall."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rounds.report import Table

from curves import fashion_net, frechet, measure, pictures
from curves.curve import Curve, by_images, curve_of, millions, number
from curves.runs import Entry, play
from gandist.config import DataConfig
from gandist.data.making.prepare import prepare

CONFIGS = Path(__file__).parents[2] / "configs"
KIMG, CHECKPOINTS, SAMPLES = 40.0, 8, 5_000
CPU = torch.device("cpu")

COMMON = """
    --data.resolution 32 --data.channels 1 --data.hflip False --model.conditional False --model.latent_dim 64
    --ema.halflife_kimg 5 --ema.rampup 0.05 --checkpoint.keep 1000 --samples.every_kimg 1000 --tracking.every_kimg 2
    --execution.device cpu --execution.precision fp32 --execution.threads 1 --execution.workers 0
    --execution.channels_last True
"""
FASTER = "--optimizer.generator.lr 5e-4 --optimizer.discriminator.lr 5e-4"  # for runs that are so short
SMALL_RESNET = f"""
    --model.resnet.generator_channels 48 --model.resnet.discriminator_channels 32
    --update.batch_images 16 --update.d_steps 2 {FASTER}
"""
SMALL_R3GAN = f"""
    --model.r3gan.channel_base 512 --model.r3gan.channel_max 64 --model.r3gan.stage_blocks 1
    --model.r3gan.group_channels 32 --regularizer.r1.gamma 1.0 --regularizer.r2.gamma 1.0
    --regularizer.r1.interval_steps 4 --regularizer.r2.interval_steps 4
    --update.batch_images 16 --update.latents shared --augment.ada.pipe none {FASTER}
"""


def _entry(name: str, title: str, recipe: str, flags: str) -> Entry:
    return Entry(name, title, CONFIGS / f"{recipe}.yaml", tuple(f"{COMMON} {flags}".split()))


ENTRIES = {
    entry.name: entry
    for entry in (
        _entry("dcgan", "DCGAN", "fashion_mnist_dcgan", "--update.batch_images 32"),
        _entry("sngan", "SNGAN", "cifar10_sngan_unconditional", SMALL_RESNET),
        _entry("wgan_gp", "WGAN-GP", "cifar10_wgan_gp", SMALL_RESNET),
        _entry("r3gan", "R3GAN", "cifar10_r3gan", SMALL_R3GAN),
    )
}


def prepared(data: Path, folder: Path) -> tuple[DataConfig, DataConfig]:
    """Return the training and the test images as shards, made from the four official files in ``data``."""
    sets = []
    for split in ("train", "test"):
        shards = folder / f"fashion_{split}"
        if not (shards / "index.json").is_file():
            prepare(f"fashion-mnist:{data}:{split}", shards, resolution=32, channels=1)
        sets.append(DataConfig(shards=str(shards), resolution=32, channels=1))
    return sets[0], sets[1]


def train_features(data: Path, folder: Path) -> str:
    """Train the feature network again, keep it, and say how good it is."""
    train, test = (_labelled(images) for images in prepared(data, folder))
    network = fashion_net.train(train)
    accuracy = fashion_net.accuracy(network, test)
    fashion_net.keep(network, accuracy)
    return f"{fashion_net.WEIGHTS}: {accuracy:.2%} of the test images, digest {fashion_net.digest()}"


def _labelled(images: DataConfig) -> fashion_net.Labelled:
    x, c = zip(*measure.real(images, CPU), strict=True)
    return fashion_net.Labelled(torch.cat(x), torch.cat(c).long())


def _timed(entry: Entry, train: DataConfig, kimg: float) -> Entry:
    every = f"{kimg / CHECKPOINTS:g}"
    return entry.with_flags(
        *("--data.shards", train.shards, "--run.total_kimg", f"{kimg:g}", "--checkpoint.every_kimg", every)
    )


def run(
    data: Path, folder: Path, names: list[str], kimg: float, samples: int, jobs: int, limit_seconds: float | None
) -> dict[str, Any]:
    """Train and measure the methods named; return the figures, and leave two pictures in ``folder``."""
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)  # of measuring; training has one
    torch.set_num_threads(threads)
    train, test = prepared(data, folder)
    features = fashion_net.pinned().features
    judge = measure.Judge(features, measure.real_moments(features, train, CPU), samples, CPU)
    floor = frechet.distance(judge.reference, measure.real_moments(features, test, CPU))

    def learn(entry: Entry) -> tuple[Curve, torch.Tensor]:
        played = play(entry, folder / "runs", threads=1, limit_seconds=limit_seconds)
        torch.set_num_threads(threads)  # of this Python thread
        curve = curve_of(entry, played, judge)
        print(f"{curve.title}: " + " ".join(number(p.distance) for p in curve.points), flush=True)
        weights = played.checkpoints()[-1] / "ema.safetensors"
        return curve, next(measure.made(weights, 48, CPU, stream="picture"))

    with ThreadPoolExecutor(jobs) as pool:
        learnt = list(pool.map(learn, [_timed(ENTRIES[name], train, kimg) for name in names]))
    curves = [curve for curve, _ in learnt]
    grids = {f"{curve.title}: {number(curve.points[-1].distance)}": x for curve, x in learnt}
    pictures.draw_curves(curves, floor, "fd_fashion of the generator's average", folder / "learning_fashion.png")
    pictures.draw_samples(grids, 16, folder / "learning_fashion_samples.png")
    return {"floor": floor, "samples": samples, "curves": curves}


def tables(figures: dict[str, Any]) -> list[Table]:
    """Return the page's tables."""
    curves: list[Curve] = figures["curves"]
    note = (
        f"`fd_fashion` of the average's weights over the images that D has seen: {figures['samples']} made images "
        f"against the 60,000 training images, in the 64 features of a small network of this benchmark "
        f"({fashion_net.said_accuracy():.2%} of the test images right, weights {fashion_net.digest()}). The 10,000 "
        f"real test images are at {figures['floor']:.2g}. Lower is better."
    )
    cost = [
        [c.title, *(millions(n) for n in c.parameters), f"{c.points[-1].images_seen / 1000:.1f}k",
         f"{c.processor_seconds / 60:.1f}", number(c.points[0].distance), number(c.points[-1].distance)]
        for c in curves
    ]  # fmt: skip
    return [
        by_images(curves, "Distance", note),
        Table(
            "Cost",
            "Parameters; images at the end, where a limit of time may come before the run's length; minutes of one "
            "core, start and checkpoints included; the distance at the first and at the last checkpoint.",
            ["run", "G", "D", "images", "minutes", "first", "last"],
            cost,
        ),
    ]


def not_learnt(figures: dict[str, Any]) -> list[str]:
    """Return a line for each run whose distance did not fall to two thirds of its first checkpoint's."""
    return [
        f"{curve.title}: from {number(first)} to {number(last)} only"
        for curve in figures["curves"]
        if (last := curve.points[-1].distance) > 2 / 3 * (first := curve.points[0].distance)
    ]

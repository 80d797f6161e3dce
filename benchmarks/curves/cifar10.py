"""CIFAR-10 on one GPU for the time there is: conditional SNGAN and R3GAN, measured by ``fd_resnet56``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rounds.report import Table

from curves import frechet, measure, pictures, resnet56
from curves.curve import Curve, by_share, curve_of, millions, number
from curves.runs import Entry, Played, play
from gandist.config import DataConfig
from gandist.evaluation.sample import draw, fixed_latents, load_generator, save_grid

CONFIGS = Path(__file__).parents[2] / "configs"
CHECKPOINTS = 8
TRIAL_KIMG, TRIAL_SECONDS = "8", 60.0  # of a trial, whichever comes first

COMMON = """
    --ema.halflife_kimg 50 --ema.rampup 0.05 --checkpoint.keep 1000 --samples.every_kimg 100000 --tracking.every_kimg 2
    --execution.workers 4
"""
SHORT_R3GAN = """
    --model.r3gan.channel_base 8192 --model.r3gan.channel_max 256 --update.batch_images 128 --augment.ada.pipe none
"""


def _entry(name: str, title: str, flags: str = "") -> Entry:
    return Entry(name, title, CONFIGS / f"cifar10_{name}.yaml", tuple(f"{COMMON} {flags}".split()))


ENTRIES = {
    entry.name: entry
    for entry in (
        _entry("sngan", "SNGAN"),
        _entry("r3gan", "R3GAN, small", SHORT_R3GAN),
    )
}


def data_config(shards: Path) -> DataConfig:
    """Return where the prepared training images are, without mirroring."""
    return DataConfig(shards=str(shards), resolution=32, channels=3)


def run(
    shards: Path, test: Path | None, weights: Path, folder: Path, names: list[str], minutes: float, samples: int,
    flags: tuple[str, ...],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Train each method for its share of ``minutes``; yield the figures after each, pictures left in ``folder``.

    A method whose run fails is told of and left out.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = resnet56.load(weights).to(device)
    reference = measure.real_moments(network.features, data_config(shards), device)
    judge = measure.Judge(network.features, reference, samples, device)
    floor = None
    if test is not None:
        floor = frechet.distance(reference, measure.real_moments(network.features, data_config(test), device))
    curves: list[Curve] = []
    last: dict[str, dict[str, float]] = {}
    for name in names:
        entry = ENTRIES[name].with_flags("--data.shards", str(shards), *flags)
        try:
            timed, played = _play_for(60 * minutes / len(names), entry, folder)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            continue
        curves.append(curve_of(timed, played, judge))
        last[name] = _last(played, judge)
        _grid(played, folder / f"learning_cifar10_{name}.png")
        print(f"{name}: " + " ".join(number(p.distance) for p in curves[-1].points), last[name], flush=True)
        pictures.draw_curves(curves, floor, "fd_resnet56 of the generator's average", folder / "learning_cifar10.png")
        yield {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "a CPU",
            "network": resnet56.digest(weights),
            "samples": samples,
            "floor": floor,
            "last": last,
            "curves": curves,
        }


def _play_for(seconds: float, entry: Entry, folder: Path) -> tuple[Entry, Played]:
    """Train an entry for so long, its schedules run to their end: a short trial says how many images that is."""
    trial = play(
        entry.with_flags("--run.total_kimg", TRIAL_KIMG, "--checkpoint.every_kimg", "1000"),
        folder / "trials", threads=None, limit_seconds=TRIAL_SECONDS,
    )  # fmt: skip
    kimg = trial.images_per_second() * seconds / 1000
    timed = entry.with_flags("--run.total_kimg", f"{kimg:.3f}", "--checkpoint.every_kimg", f"{kimg / CHECKPOINTS:.3f}")
    return timed, play(timed, folder / "runs", threads=None, limit_seconds=1.3 * seconds + 30)


def _last(played: Played, judge: measure.Judge) -> dict[str, float]:
    """Return the last checkpoint's distance from five times as many made images."""
    many = replace(judge, samples=5 * judge.samples)
    return {"samples": many.samples, "distance": many.distance(played.checkpoints()[-1] / "ema.safetensors")}


def _grid(played: Played, path: Path) -> None:
    """Draw ten images of each class with the last average."""
    generator, card = load_generator(played.checkpoints()[-1] / "ema.safetensors")
    z, c = fixed_latents(card.model.latent_dim, len(card.class_names), rows=10, columns=10, seed=0)
    save_grid(draw(generator, z, c), 10, path)


def tables(figures: dict[str, Any]) -> list[Table]:
    """Return the page's tables."""
    curves: list[Curve] = figures["curves"]
    note = (
        f"`fd_resnet56` of the average's weights at each of {CHECKPOINTS} parts of the run: {figures['samples']} made "
        f"images, classes in equal parts, against the 50,000 training images, in the 64 pooled features of a ResNet-56 "
        f"(weights {figures['network']}). Lower is better."
    )
    if figures["floor"] is not None:
        note += f" The 10,000 real test images are at {figures['floor']:.3g}."
    rows = []
    for curve in curves:
        images, last = curve.points[-1].images_seen, figures["last"][curve.name]
        rows.append(
            [curve.title, *(millions(n) for n in curve.parameters), f"{images / 1e6:.2f} M", f"{curve.seconds:.0f}",
             f"{images / curve.seconds:.0f}", f"{number(last['distance'])} ({last['samples'] // 1000}k)"]
        )  # fmt: skip
    return [
        by_share(curves, "Distance", note),
        Table(
            f"On {figures['device']}",
            "Real images shown to D; seconds of the whole process, its start and its checkpoints included; images a "
            "second over these seconds; the distance at the end from so many made images.",
            ["run", "G", "D", "images", "seconds", "images/s", "fd_resnet56"],
            rows,
        ),
    ]

"""Measure how the methods learn: the distance of what they draw to real images, checkpoint by checkpoint.

    .venv/bin/python benchmarks/learning.py fashion  --data DIR    # about 15 minutes of one core; --write, --quick
    .venv/bin/python benchmarks/learning.py features --data DIR    # trains what measures Fashion-MNIST
    .venv/bin/python benchmarks/learning.py cifar10 --shards DIR --features FILE --minutes 5    # on one GPU; -- KNOBS

Each run is a process of ``gandist train`` with a recipe of ``configs/``, and its average is read from its checkpoints.
DIR holds the four official files of Fashion-MNIST; SHARDS is CIFAR-10 as ``gandist prepare`` makes it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from curves import cifar10, fashion
from rounds import report
from rounds.report import Table

HERE = Path(__file__).parent
RESULTS, PICTURES = HERE / "results", HERE.parent / "docs"


def main() -> int:
    """Train, measure, print, and keep the figures where asked; return 1 if a method did not learn."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="gandist-learning-") as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if asked.what == "features":
            print(fashion.train_features(asked.data, folder))
            return 0
        return _fashion(asked, folder) if asked.what == "fashion" else _cifar10(asked, folder)


def _fashion(asked: argparse.Namespace, folder: Path) -> int:
    if not asked.data.is_dir():
        print(f"{asked.data}: Fashion-MNIST is not there; say where with --data DIR. Nothing was measured.")
        return 0
    kimg, samples = (0.256, 500) if asked.quick else (fashion.KIMG, fashion.SAMPLES)
    names = asked.models or list(fashion.ENTRIES)
    figures = fashion.run(asked.data, folder, names, kimg, samples, asked.jobs, asked.limit)
    _keep(figures, fashion.tables(figures), "learning-fashion", "How methods learn Fashion-MNIST on one core", folder)
    if asked.write:
        _publish(folder, "learning-fashion", "learning_fashion.png", "learning_fashion_samples.png")
    slow = [] if asked.quick else fashion.not_learnt(figures)
    for line in slow:
        print(line, file=sys.stderr)
    return 1 if slow else 0


def _cifar10(asked: argparse.Namespace, folder: Path) -> int:
    names, learnt = asked.models or list(cifar10.ENTRIES), 0
    flags = tuple(asked.flags)
    for figures in cifar10.run(
        asked.shards, asked.test, asked.features, folder, names, asked.minutes, asked.samples, flags
    ):
        learnt += 1
        _keep(figures, cifar10.tables(figures), "learning-cifar10", "How methods learn CIFAR-10 on one GPU", folder)
    if asked.write and learnt:
        _publish(folder, "learning-cifar10", *(path.name for path in folder.glob("learning_cifar10*.png")))
    return 0 if learnt == len(names) else 1


def _keep(figures: dict[str, Any], tables: list[Table], name: str, title: str, folder: Path) -> None:
    """Print a page of tables and leave it in ``folder``, beside its figures as JSON."""
    machine = report.machine(1 if "fashion" in name else None)
    if "device" in figures:
        machine = {"device": figures["device"], **machine}
    page = "\n".join([report.heading(machine, title, "benchmarks/learning.py"), *(t.markdown() for t in tables)])
    print(page, flush=True)
    (folder / f"{name}.md").write_text(page)
    plain = {**figures, "machine": machine, "curves": [curve.plain() for curve in figures["curves"]]}
    (folder / f"{name}.json").write_text(json.dumps(plain, indent=1) + "\n")


def _publish(folder: Path, page: str, *pictures: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    shutil.copyfile(folder / f"{page}.md", RESULTS / f"{page}.md")
    for picture in pictures:
        shutil.copyfile(folder / picture, PICTURES / picture)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how methods learn.")
    parser.add_argument("what", nargs="?", choices=["fashion", "features", "cifar10"], default="fashion")
    parser.add_argument("--data", type=Path, default=Path("fashion-mnist"), help="folder of Fashion-MNIST's files")
    parser.add_argument("--shards", type=Path, default=Path("shards/cifar10"), help="folder of CIFAR-10 as shards")
    parser.add_argument("--test", type=Path, help="folder of CIFAR-10's test images as shards, for comparison")
    parser.add_argument("--features", type=Path, default=Path("cifar10_resnet56.safetensors"), help="the network")
    parser.add_argument("--models", type=lambda text: text.split(","), help="names with commas; all when left out")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training on CIFAR-10, all models together")
    parser.add_argument("--samples", type=int, default=10_000, help="images drawn from each checkpoint of CIFAR-10")
    parser.add_argument("--jobs", type=int, default=1, help="runs on Fashion-MNIST at once, each on one thread")
    parser.add_argument("--limit", type=float, help="seconds after which a run on Fashion-MNIST is asked to stop")
    parser.add_argument("--folder", type=Path, help="keep runs, pictures and figures there")
    parser.add_argument("--write", action="store_true", help="put the page and the pictures where the docs have them")
    parser.add_argument("--quick", action="store_true", help="Fashion-MNIST for a few rounds: does it run?")
    words, flags = sys.argv[1:], list[str]()
    if "--" in words:  # knobs of every run on CIFAR-10
        words, flags = words[: words.index("--")], words[words.index("--") + 1 :]
    return parser.parse_args(words, argparse.Namespace(flags=flags))


if __name__ == "__main__":
    sys.exit(main())

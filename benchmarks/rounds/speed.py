"""The time of a round: gandist's round, its whole trainer, and plain loops, in one process, block by block in turn.

The trainer holds the clock. At the beginning of every block of its rounds it stands still while the others play as
many, so that all of them meet the same machine, warm or busy. A block's figure is its mean, whatever happens in it;
the first block of each, which warms up, is left out.
"""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from gandist.adversarial.game import Draws, Game, Real
from gandist.adversarial.losses import LOSSES, Targets
from gandist.adversarial.player import Player
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import STRATEGIES
from gandist.config import Config, parse
from gandist.data.image_set import ImageSet
from gandist.data.images import open_images
from gandist.models.build import build
from gandist.models.contract import ImageShape, Networks
from gandist.runtime import rng
from gandist.runtime.machine import cpu_flags, set_threads
from gandist.trainer import Trainer
from rounds import loops
from rounds.loops import Loop, Pair
from rounds.report import Table

PLAIN, AGAIN, ROUND, TUTORIAL, FED, TRAINER = (
    "plain",
    "plain, another copy",
    "gandist's round",
    "PyTorch's DCGAN tutorial",
    "plain, reading and averaging",
    "gandist's trainer",
)
AGAINST = {AGAIN: PLAIN, ROUND: PLAIN, TUTORIAL: PLAIN, FED: PLAIN, TRAINER: FED}
BLOCKS = 16
WORKERS, PREFETCH = 1, 2


@dataclass(frozen=True)
class Case:
    """A DCGAN, a batch, a number format (bf16 with channels last, as it is fastest), and threads to compute in."""

    resolution: int
    images: int
    precision: Literal["fp32", "bf16"]
    channels: int = 32
    threads: int | None = None

    def __str__(self) -> str:
        """Return the words by which tables call it."""
        form = "bf16, channels last" if self.precision == "bf16" else "fp32"
        return f"DCGAN-{self.resolution}, base {self.channels}, batch {self.images}, {form}"


CASES = [Case(64, 32, "fp32"), Case(64, 32, "bf16"), Case(32, 64, "fp32"), Case(32, 64, "bf16")]
QUICK = [Case(32, 16, "fp32", channels=8)]


@dataclass(frozen=True)
class Block:
    """The mean of some rounds: seconds that went by, and seconds that processors worked in this process."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Ratio:
    """Of one contestant to another: of medians over blocks, the least and greatest of blocks in turn, of the fastest.

    ``processor`` is the median over blocks in turn of the ratio of processors' time, which does not count a wait for
    other programs.
    """

    median: float
    least: float
    greatest: float
    fastest: float
    processor: float


@dataclass
class Times:
    """Every contestant's blocks, in the order in which they were played."""

    case: str
    block_rounds: int
    blocks: dict[str, list[Block]] = field(default_factory=dict)

    def walls(self, name: str) -> list[float]:
        """Return the seconds of a round that went by, block after block."""
        return [block.wall for block in self.blocks[name]]

    def ratio(self, name: str, to: str) -> Ratio:
        """Compare two contestants."""
        mine, theirs = self.walls(name), self.walls(to)
        turns = [a / b for a, b in zip(mine, theirs, strict=True)]
        worked = [a.processor / b.processor for a, b in zip(self.blocks[name], self.blocks[to], strict=True)]
        fastest = min(mine) / min(theirs)
        return Ratio(median(mine) / median(theirs), min(turns), max(turns), fastest, median(worked))


def computable(cases: Sequence[Case], threads: int | None) -> list[Case]:
    """Return the cases that this machine's processor has instructions for, with a number of threads (None: all)."""
    computes_bf16 = cpu_flags() & {"avx512_bf16", "amx_bf16"}
    return [replace(case, threads=threads) for case in cases if case.precision != "bf16" or computes_bf16]


def measure(cases: Sequence[Case], seconds: float) -> Iterator[Times]:
    """Play each case for about so long, in a process of its own: Accelerate keeps one number format per process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes:
        yield from processes.map(partial(_measure, seconds=seconds), cases)


def _measure(case: Case, seconds: float) -> Times:
    """Play blocks in turn for ``seconds``, and longer only until there are three of each."""
    set_threads(case.threads, "cpu", world=1)
    plain = _plain(case, loops.bare)
    _play_block(plain, 2)
    once = min(_play_block(plain, 1).wall for _ in range(5))
    rounds = max(2, round(seconds / (BLOCKS * (1 + len(AGAINST)) * once)))
    times = Times(str(case), rounds, {name: [] for name in (PLAIN, *AGAINST)})
    with _reading(case) as fed:
        others = {PLAIN: plain, AGAIN: _plain(case, loops.bare), ROUND: _gandist(case)}
        others |= {TUTORIAL: _plain(case, loops.tutorial), FED: fed}
        _play_in_turn(case, times, others, seconds)
    for blocks in times.blocks.values():
        del blocks[0]
    return times


def _play_in_turn(case: Case, times: Times, others: dict[str, Callable[[], None]], limit: float) -> None:
    """Run the trainer block by block, the others' blocks in between; all else that it does is in its time."""
    numbers, watch = count(), _Watch()
    with tempfile.TemporaryDirectory() as root, _quiet():
        trainer = Trainer(_config(case, root, times.block_rounds))
        strategy, end, own = trainer.play, time.perf_counter() + limit, times.blocks[TRAINER]

        def play(played: Round, reals: Sequence[Real]) -> None:
            nonlocal watch
            number = next(numbers)
            if number % times.block_rounds == 0:
                if number:
                    own.append(watch.block(times.block_rounds))
                if len(own) > 3 and time.perf_counter() > end:
                    signal.raise_signal(signal.SIGUSR1)  # as Slurm does; the trainer saves and leaves
                else:
                    for name, other in others.items():
                        times.blocks[name].append(_play_block(other, times.block_rounds))
                watch = _Watch()
            strategy(played, reals)

        trainer.play = play
        gc.collect()
        trainer.train()


class _Watch:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def block(self, rounds: int) -> Block:
        """Return the means of so many rounds since."""
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        return Block(wall / rounds, processor / rounds)


def _play_block(play: Callable[[], None], rounds: int) -> Block:
    watch = _Watch()
    for _ in range(rounds):
        play()
    return watch.block(rounds)


def _config(case: Case, root: str = "", block: int = 1) -> Config:
    never = 1e6
    content = {
        "run": {"name": "bench", "root": root, "total_kimg": never},
        "data": {"shards": "glyphs", "resolution": case.resolution, "channels": 3},
        "model": _model(case),
        "update": {"batch_images": case.images},
        "samples": {"every_kimg": never, "rows": 1, "columns": 1},
        "checkpoint": {"every_kimg": never},
        "tracking": {"every_kimg": block * case.images / 1000},  # every block pays for one row
        "execution": {
            "device": "cpu",
            "precision": case.precision,
            "channels_last": case.precision == "bf16",
            "threads": case.threads,
            "workers": WORKERS,
            "prefetch_batches": PREFETCH,  # the fewer, the less is made ready while others play
        },
    }
    return parse(content, "benchmark")


def _model(case: Case) -> dict[str, Any]:
    width = case.channels
    return {"arch": "dcgan", "dcgan": {"generator_channels": width, "discriminator_channels": width}}


# --- the others --------------------------------------------------------------------------------------------


def _networks(case: Case) -> Networks:
    networks = build(_config(case).model, ImageShape(case.resolution, 3), classes=0, seed=0)
    if case.precision == "bf16":
        for network in (networks.generator, networks.discriminator):
            network.to(memory_format=torch.channels_last)
    return networks


def _real(case: Case) -> Tensor:
    real = torch.rand(case.images, 3, case.resolution, case.resolution) * 2 - 1
    return real.contiguous(memory_format=torch.channels_last) if case.precision == "bf16" else real


def _casts(case: Case) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if case.precision == "bf16" else nullcontext()


def _adam(network: nn.Module, fused: bool = True) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=fused)


def _pair(case: Case, fused: bool = True) -> Pair:
    networks = _networks(case)
    g, d = networks.generator, networks.discriminator
    return Pair(g, d, _adam(g, fused), _adam(d, fused), _config(case).model.latent_dim, partial(_casts, case))


def _plain(case: Case, loop: Loop) -> Callable[[], None]:
    """Return a plain loop on images that lie ready; the tutorial's with its optimizer, torch's Adam as it comes."""
    pair, real = _pair(case, fused=loop is loops.bare), _real(case)
    return lambda: loop(pair, real)


def _gandist(case: Case) -> Callable[[], None]:
    """Return gandist's round on images that lie ready, outside of its trainer."""
    networks, real, rounds = _networks(case), Real(_real(case), None), count()
    g, d = (_Casting(network, case) for network in (networks.generator, networks.discriminator))
    game = Game(
        Player(g, g, _adam(g)),
        Player(d, d, _adam(d)),
        LOSSES["non_saturating"],
        Targets(),
        (),
        _config(case).model.latent_dim,
    )

    def play() -> None:
        index = next(rounds)
        draws = Draws(partial(rng.generator, 0, "round", index), case.images, start=0)
        STRATEGIES["detach"](Round(game, draws, index, index * case.images), [real])

    return play


class _Casting(nn.Module):
    """A network whose forward pass is cast, as Accelerate does it."""

    def __init__(self, network: nn.Module, case: Case) -> None:
        super().__init__()
        self.network, self.case = network, case

    def forward(self, *inputs: Tensor | None) -> Tensor:
        with _casts(self.case):
            out: Tensor = self.network(*inputs)
        return out


class _Batches(Dataset[Tensor]):
    """The trainer's images, batch by batch, for torch's own loader."""

    def __init__(self, images: ImageSet, batch: int) -> None:
        self.images, self.batch = images, batch

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> Tensor:
        images, _ = self.images.read(np.arange(number * self.batch, (number + 1) * self.batch))
        return torch.from_numpy(images)


@contextlib.contextmanager
def _reading(case: Case) -> Iterator[Callable[[], None]]:
    """Yield the plain loop with what a training script cannot do without: it reads its images and averages G."""
    pair = _pair(case)
    average = AveragedModel(pair.generator, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    images = open_images(_config(case).data, seed=0)
    assert isinstance(images, ImageSet)
    loader = DataLoader(
        _Batches(images, case.images),
        batch_size=None,
        num_workers=WORKERS,
        prefetch_factor=PREFETCH,
        multiprocessing_context="forkserver",
    )
    batches = iter(loader)

    def play() -> None:
        real = next(batches).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        loops.bare(pair, real if case.precision == "bf16" else real.contiguous())
        average.update_parameters(pair.generator)

    yield play
    del batches, play  # ends the worker


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def table(found: Sequence[Times]) -> Table:
    """Return a row for each case and contestant."""
    rows = []
    for times in found:
        rows.append([times.case, PLAIN, f"{1000 * median(times.walls(PLAIN)):.1f}", *[""] * 5])
        for name, to in AGAINST.items():
            ratio, ms = times.ratio(name, to), f"{1000 * median(times.walls(name)):.1f}"
            spread = f"{ratio.least:.3f} to {ratio.greatest:.3f}"
            figures = (f"{ratio.median:.3f}", spread, f"{ratio.fastest:.3f}", f"{ratio.processor:.3f}")
            rows.append(["", name, ms, *figures, to])
    return Table(
        "Time of a round",
        "Milliseconds, the median over blocks of rounds, and the ratio to a loop of the same work in plain PyTorch, "
        "the blocks of all played in turn in one process: the ratio of the medians, the least and greatest ratio of "
        "two blocks in turn, the ratio of the fastest blocks, and the ratio of the time that processors worked in "
        "this process. Other work on the machine disturbs the last two least (and the last only with one thread, "
        "since threads work while they wait for each other); where they differ from the first, measure again in "
        f"quiet.\n\n`{PLAIN}` does what gandist's round does (D frozen in G's step, one forward of G for both steps, "
        f"fused Adam) on images that lie ready. `{AGAIN}` shows what the measurement is worth: its ratio is 1 but for "
        f"chance. `{FED}` also draws its images in a worker of torch's own loader and keeps an average of G: a whole "
        "training script, with nothing written down. The trainer does that and measures, logs once in every block, "
        "shows its progress and looks for requests to stop.",
        ["networks", "loop", "ms", "ratio", "spread", "fastest", "processor", "ratio to"],
        rows,
    )

"""Real rounds of a recipe: at its batch, with its loader, on its disk, in a folder that is thrown away.

1. ``2 k`` rounds from nothing, saved after ``k`` and at the end.
2. The last checkpoint is removed, and the run continued from the one before: it must end in the same bytes.
3. Enough rounds to measure their speed, a checkpoint among them.

All ranks take part. Nothing is sent anywhere, and the folder of the real run is not touched.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch

from gandist.config import Config, dump, merge, parse
from gandist.doctor.devices import memory
from gandist.errors import EXIT_PREEMPTED
from gandist.runtime import machine
from gandist.runtime.distributed import Ranks
from gandist.runtime.preemption import STOP_FILE
from gandist.trainer import Trainer

HALF_ROUNDS = 4
WINDOWS = 5  # of the measured rounds; the first one, in which everything warms up, does not count
WARM_UP_SECONDS = 60.0  # for compilers and caches, before the first rounds are called too slow
PATIENCE_SECONDS = 240.0  # for a rank that gets no further


@dataclass(frozen=True)
class Play:
    """What one session of the trainer left in its folder, and what it said of itself.

    Attributes:
        stopped: whether it ran out of time before its last round.
        build_seconds: from nothing to the first round.
        blocked_seconds: how long the last checkpoint kept the training.
        written_seconds: how long it took in all.
        gradient_numbers: gradients that travel between ranks in a round.
        on_gpu: whether it computed on a GPU.
        precision: of the passes.
        notes: what the trainer remarked.

    """

    stopped: bool
    build_seconds: float
    blocked_seconds: float
    written_seconds: float
    gradient_numbers: int
    on_gpu: bool
    precision: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Figures:
    """What the rounds were measured to take.

    Attributes:
        rounds: that were measured.
        seconds_per_round: over all ranks.
        images_per_second: real images over all ranks.
        data_wait_share: of the time, that rank 0 waited for images.
        bad_images: that could not be decoded.
        skipped_steps: of both networks, since their gradients were not finite.
        checkpoint_bytes: of one checkpoint on the disk.
        peak_bytes: the most memory that any rank used: of its GPU, or resident.
        memory_bytes: what there is of it.
        problems: what the trainer could not do, and went on without.
        play: the session they come from.

    """

    rounds: int
    seconds_per_round: float
    images_per_second: float
    data_wait_share: float
    bad_images: int
    skipped_steps: int
    checkpoint_bytes: int
    peak_bytes: float
    memory_bytes: float
    problems: tuple[str, ...]
    play: Play


@dataclass
class Trial:
    """A recipe's trial in a folder of its own.

    Attributes:
        config: the recipe.
        folder: that is thrown away, seen by all ranks.
        ranks: that take part.
        seconds: for each of the sessions.
        allow_pipe: whether a recipe's ``pipe:`` may be run.
        run_name: of the sessions' folder.
        plays: the sessions so far.

    """

    config: Config
    folder: Path
    ranks: Ranks
    seconds: float
    allow_pipe: bool = False
    run_name: str = "exactness"
    plays: list[Play] = field(default_factory=list)

    @property
    def images_per_round(self) -> int:
        """Return the real images of a round over all ranks."""
        return self.config.update.batch_images * self.config.update.d_steps

    @property
    def run_folder(self) -> Path:
        """Return the folder of the trial's run."""
        return self.folder / self.run_name

    @property
    def first_limit(self) -> float:
        """Return the seconds after which one of the first two sessions is stopped."""
        return WARM_UP_SECONDS + 2 * self.seconds

    # --- exactness -----------------------------------------------------------------------------------------------

    def straight(self) -> dict[str, str] | None:
        """Play ``2 k`` rounds; return the digests of their end, None if there was no time for them."""
        return None if self._play_halves().stopped else self._digests()

    def resumed(self) -> dict[str, str] | None:
        """Play the second half again, from the checkpoint at its beginning; return the digests of the end."""
        if self.ranks.main:
            shutil.rmtree(self._newest())
        self.ranks.barrier()
        return None if self._play_halves().stopped else self._digests()

    def _play_halves(self) -> Play:
        return self._play(2 * HALF_ROUNDS, log_rounds=1, save_rounds=HALF_ROUNDS, limit=self.first_limit)

    def _newest(self) -> Path:
        """Return the folder of the newest checkpoint."""
        found = [entry for entry in (self.run_folder / "checkpoints").iterdir() if entry.name.isdigit()]
        return max(found, key=lambda entry: int(entry.name))

    def _digests(self) -> dict[str, str]:
        """Return the digests of the newest checkpoint's tensors on rank 0; nothing on the others."""
        if not self.ranks.main:
            return {}
        files = json.loads((self._newest() / "manifest.json").read_text(encoding="utf-8"))["files"]
        return {name: entry["sha256"] for name, entry in files.items() if name.endswith(".safetensors")}

    # --- speed ---------------------------------------------------------------------------------------------------

    def measured(self) -> Figures | None:
        """Play as many rounds as there is time for; return their figures on rank 0."""
        estimate = self.ranks.from_main(self._seconds_per_round() if self.ranks.main else 0.0)
        rounds = WINDOWS * max(1, round(self.seconds / WINDOWS / estimate))
        if self.ranks.main:
            shutil.rmtree(self.run_folder)
        self.run_name = "speed"  # a folder that no machine has in its cache
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what earlier sessions held is not this one's
            torch.cuda.reset_peak_memory_stats()
        limit = WARM_UP_SECONDS / 4 + 2 * self.seconds
        play = self._play(rounds, log_rounds=rounds // WINDOWS, save_rounds=rounds // 2 + 1, limit=limit)
        return self.figures(play)

    def figures(self, play: Play) -> Figures | None:
        """Return what the last session measured, on rank 0; nothing on the others, or if no row was logged."""
        used, there = memory_of(torch.device("cuda", torch.cuda.current_device()) if play.on_gpu else None)
        told = [json.loads(line) for line in self.ranks.to_main([json.dumps([used, there])])]
        if not self.ranks.main:
            return None
        used, there = max(told, key=lambda pair: float(pair[0] / pair[1]))
        rows = self._rows()
        if not rows:
            return None
        warm = rows[1:] or rows
        speed = len(warm) / sum(1 / row["speed/images_per_second"] for row in warm)
        return Figures(
            rounds=round(rows[-1]["images_seen"] / self.images_per_round),
            seconds_per_round=self.images_per_round / speed,
            images_per_second=speed,
            data_wait_share=sum(row["speed/data_wait_share"] for row in warm) / len(warm),
            bad_images=int(rows[-1].get("data/bad_images", 0)),
            skipped_steps=sum(int(rows[-1].get(f"fault/skipped_{letter}", 0)) for letter in "dg"),
            checkpoint_bytes=sum(file.stat().st_size for file in self._newest().iterdir()),
            peak_bytes=used,
            memory_bytes=there,
            problems=self._problems(),
            play=play,
        )

    def _seconds_per_round(self) -> float:
        """Return what a round took once everything was warm: the quicker half of those that were logged."""
        speeds = sorted(row["speed/images_per_second"] for row in self._rows())
        return float(self.images_per_round / speeds[len(speeds) * 3 // 4])

    def _rows(self) -> list[dict[str, Any]]:
        lines = (self.run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def _problems(self) -> tuple[str, ...]:
        lines = (self.run_folder / "events.log").read_text(encoding="utf-8").splitlines()
        return tuple(line.partition("NOT SAVED: ")[2] for line in lines if "NOT SAVED: " in line)

    # --- a session -----------------------------------------------------------------------------------------------

    def _play(self, rounds: int, log_rounds: int, save_rounds: int, limit: float) -> Play:
        begin = time.monotonic()
        config = self.copied(rounds, log_rounds, save_rounds)
        with contextlib.redirect_stderr(LastWords(sys.stderr)):
            trainer = Trainer(config, allow_pipe=self.allow_pipe)
            try:
                built = time.monotonic() - begin
                with self._time_limit(limit) as out_of_time:
                    code = trainer.train()
                out = bool(self.ranks.from_main(out_of_time.is_set()))
                if code == EXIT_PREEMPTED and not out:
                    raise KeyboardInterrupt  # the trainer took the signal for a request to stop
                play = self._seen(trainer, stopped=code == EXIT_PREEMPTED, built=built)
            finally:
                _let_go(trainer)
                del trainer
                gc.collect()  # the next trainer has the memory of this one
        self.plays.append(play)
        return play

    def copied(self, rounds: int, log_rounds: int, save_rounds: int) -> Config:
        """Return the recipe as a run of so many rounds that is logged and saved so often, here and nowhere else."""
        kimg = self.images_per_round / 1000
        changes = {
            "run": {"name": self.run_name, "root": str(self.folder), "total_kimg": rounds * kimg},
            "samples": {"every_kimg": 2 * rounds * kimg, "rows": 1, "columns": 1},
            "checkpoint": {"every_kimg": save_rounds * kimg, "keep": 2, "keep_every_kimg": None, "best_metric": None},
            "tracking": {"every_kimg": log_rounds * kimg, "tensorboard": False, "wandb": {"mode": "disabled"}},
            "execution": {"timeout_seconds": min(self.config.execution.timeout_seconds, PATIENCE_SECONDS)},
        }
        return parse(merge(dump(self.config), changes), "gandist doctor")

    @contextlib.contextmanager
    def _time_limit(self, seconds: float) -> Iterator[threading.Event]:
        """Ask the trainer to stop when its time is over; the event says whether that was done."""
        over = threading.Event()

        def stop() -> None:
            over.set()
            with contextlib.suppress(OSError):
                (self.run_folder / STOP_FILE).touch()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        if self.ranks.main:
            timer.start()
        try:
            yield over
        finally:
            timer.cancel()

    def _seen(self, trainer: Trainer, stopped: bool, built: float) -> Play:
        g, d = (
            sum(parameter.numel() for parameter in player.module.parameters())
            for player in (trainer.game.generator, trainer.game.discriminator)
        )
        return Play(
            stopped=stopped,
            build_seconds=built,
            blocked_seconds=trainer.saver.blocked_seconds,
            written_seconds=trainer.saver.written_seconds,
            gradient_numbers=g + d * self.config.update.d_steps,
            on_gpu=trainer.device.type == "cuda",
            precision=trainer.precision,
            notes=tuple(trainer.notes),
        )


class LastWords(io.TextIOBase):
    """A stream that lets through what a process says before it is ended, and drops what is said to who trains."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write or drop a piece of text."""
        if text.startswith("gandist: "):
            self._stream.write(f"{text.rstrip()}\n")
            self._stream.flush()
        return len(text)


def _let_go(trainer: Trainer) -> None:
    """Free the networks, and leave the process group to the next trainer."""
    trainer.accelerator.free_memory()
    del trainer.game, trainer.averages


def memory_of(device: torch.device | None) -> tuple[float, float]:
    """Return the bytes of memory that this process used at most, and the bytes there are: of a GPU, or of RAM."""
    if device is not None:
        return float(torch.cuda.max_memory_reserved(device)), float(torch.cuda.mem_get_info(device)[1])
    _, total, limit = memory()
    there = min(total or limit or 1 << 62, limit or 1 << 62)
    return machine.peak_memory_gib(torch.device("cpu")) * 2**30, float(there)


def differing(straight: dict[str, str], resumed: dict[str, str]) -> Sequence[str]:
    """Return the names of the files that are not the same."""
    return [name for name in straight if straight[name] != resumed.get(name)]

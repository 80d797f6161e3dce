"""The trainer: build the game, play its rounds, write down what happens, save, and continue where it stopped."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from gandist import averages, faults
from gandist.adversarial.game import Draws, Real
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import STRATEGIES
from gandist.assembly import build_networks, open_accelerator, remarks, seat_players, synchronises
from gandist.assembly.balance import balance_of, monitor_of
from gandist.assembly.rates import grow, growth_remarks, set_rates
from gandist.config import Config, dump, to_yaml
from gandist.continuity import (
    Insistence,
    check_folder,
    check_savable,
    check_settings,
    guard_states,
    load_players,
    player_parts,
    scaler_states,
)
from gandist.data.loader import Batch
from gandist.errors import (
    EXIT_DONE,
    EXIT_PREEMPTED,
    CheckpointError,
    MachineError,
    RunError,
)
from gandist.evaluation.diversity import look
from gandist.evaluation.sample import GeneratorCard, draw, fixed_latents
from gandist.evaluation.scatter import save_picture
from gandist.feed import Feed
from gandist.models.contract import ImageShape, follow
from gandist.runtime import machine, rng
from gandist.runtime.best import BestCheckpoint
from gandist.runtime.checkpoint import Checkpoint, CheckpointStore, Part
from gandist.runtime.distributed import Ranks
from gandist.runtime.files import write_text
from gandist.runtime.lease import Lease
from gandist.runtime.preemption import StopRequest, remove_stale_request
from gandist.runtime.saver import BackgroundSaver
from gandist.runtime.schedule import crossed
from gandist.runtime.snapshots import SnapshotStore
from gandist.runtime.status import Outcome, write_status
from gandist.runtime.tracking import AnyTracker, NullTracker, Tracker, check_tracking
from gandist.runtime.watchdog import Watchdog
from gandist.runtime.window import Window


@dataclass
class Clock:
    """Where the run stands."""

    round_index: int = 0
    images_seen: int = 0
    data_position: int = 0


class Trainer:
    """One run: built, or read back from its newest checkpoint, and played to its end or to a request to stop."""

    def __init__(self, config: Config, insistence: Insistence | None = None, *, allow_pipe: bool = False) -> None:
        self.config = config
        self.folder = config.folder
        check_folder(config)
        self.notes: list[str] = []
        kind = machine.choose_device(config.execution)
        self.precision = machine.choose_precision(config.execution, kind)
        if config.execution.deterministic:
            machine.require_determinism()
        patience = config.execution.timeout_seconds
        self.accelerator = open_accelerator(kind, self.precision, patience)
        self.device = self.accelerator.device
        self.ranks = Ranks.join(self.accelerator.process_index, self.accelerator.num_processes, patience)
        if self.ranks.main and remove_stale_request(self.folder):
            self.notes.append("Removed a STOP file that was left from before this start.")
        machine.set_threads(config.execution.threads, kind, self.ranks.world)
        self.feed = Feed(config, self.ranks, self.device, allow_pipe=allow_pipe)
        self.images, self.share_images = self.feed.images, self.feed.share_images
        self.notes.extend(self.feed.remarks)
        if self.ranks.main:
            check_tracking(config.tracking)
        networks = build_networks(config, len(self.images.class_names), self.share_images)
        self.game, self.averages = seat_players(
            config, networks, self.accelerator, self.precision, self.images.class_counts
        )
        self.norms_synced = synchronises(config, self.ranks.world)
        self.notes += remarks(self.game, self.ranks.world, self.share_images, self.norms_synced)
        self.notes += growth_remarks(self.game, config.run.total_kimg)
        self.play = STRATEGIES[config.update.strategy]
        self.balance, self.health = balance_of(config), monitor_of(config)
        milestones = config.checkpoint.keep_every_kimg
        self.store = CheckpointStore(
            self.folder / "checkpoints", config.checkpoint.keep, milestones and milestones * 1000
        )
        self.saver = BackgroundSaver(self.store)
        self.snapshots = SnapshotStore(self.folder, config.ema.keep_snapshots)
        for player in self.game.players.values():
            player.before_step = self.saver.copied
        self.clock = Clock()
        self.window = Window()
        self.tracker: AnyTracker = NullTracker()
        self.skipped = {"d": 0, "g": 0}  # steps that were told of
        self.rollbacks = 0
        self.told_of_notice = False
        self.best = BestCheckpoint(config.checkpoint.best_metric, config.checkpoint.best_mode)
        self.resumed_at: int | None = None
        self.lease = self._take_folder()
        try:
            self.metrics_bytes = self._resume(insistence or Insistence())
        except BaseException:
            self._let_go_of_folder()
            raise

    # --- the loop ----------------------------------------------------------------------------------------------

    def train(self) -> int:
        """Play until the end of the run or a request to stop; return the exit code for it."""
        stop = StopRequest(self.folder)
        watchdog = Watchdog(self.folder, self.ranks.rank, self.config.execution.timeout_seconds, self._hang)
        try:
            self._open_run()
            self._loop(stop, watchdog)
            return self._close_run(stop)
        except BaseException as raised:
            error = faults.explained(raised, self.game, self.share_images, self.device)
            with suppress(CheckpointError):  # what is on its way to the disk is not lost
                self.saver.finish()
            self._leave_word(error)
            raise error from (None if error is raised else raised)
        finally:
            watchdog.close()
            stop.close()
            self._let_go_of_folder()

    def _loop(self, stop: StopRequest, watchdog: Watchdog) -> None:
        """Play to the end, going back to the last checkpoint where numbers are not finite and that is allowed."""
        while True:
            try:
                return self._play_on(stop, watchdog)
            except faults.NotFiniteError as fault:
                self._go_back(fault)

    def _play_on(self, stop: StopRequest, watchdog: Watchdog) -> None:
        stream = self._real_images()
        while not (self.finished or self._asked_to_stop(stop)):
            before = self.clock.images_seen
            after = before + self.images_per_round
            log = crossed(self.config.tracking.every_kimg, before, after) or after >= self.total_images
            look_closely = crossed(self.config.health.every_kimg, before, after)
            self._follow_the_clock()
            with self.window.waiting():
                batches = [next(stream) for _ in range(self.config.update.d_steps)]
            self.feed.heed(batches)
            reals = [self._to_device(batch) for batch in batches]
            played = self._play_round(reals)
            self.clock.round_index += 1
            self.clock.images_seen = after
            self.clock.data_position = batches[-1].position + self.config.update.batch_images
            if played.generator_moved:
                self.averages.update(after, self.images_per_round)
            if not self.norms_synced:
                self.ranks.average_statistics(
                    self.game.generator.module, self.game.discriminator.module, *self.averages.networks.values()
                )
            self.window.add(played.statistics, self.images_per_round)
            self._check_steps_are_taken()
            if log or look_closely:
                self._check_folder_is_ours()
                self._log(self._look(reals[-1]) if look_closely else {})
            if crossed(self.config.samples.every_kimg, before, after):
                self._sample()
            if crossed(self.config.checkpoint.every_kimg, before, after):
                self._save(must=False)
            if crossed(self.config.ema.snapshot_kimg, before, after) or after >= self.total_images:
                self._keep_averages()
            watchdog.alive()

    @property
    def total_images(self) -> float:
        """Return the length of the run in images."""
        return self.config.run.total_kimg * 1000

    @property
    def images_per_round(self) -> int:
        """Return the real images that all ranks show D in one round."""
        return self.config.update.batch_images * self.config.update.d_steps

    @property
    def finished(self) -> bool:
        """Return whether the run has reached its length."""
        return self.clock.images_seen >= self.total_images

    def _asked_to_stop(self, stop: StopRequest) -> bool:
        return self.ranks.any(stop.requested(look_for_file=self.ranks.main))

    def _play_round(self, reals: Sequence[Real]) -> Round:
        index = self.clock.round_index
        again = ("again", self.rollbacks) if self.rollbacks else ()  # other latents than those that led astray
        stream = partial(rng.generator, self.config.run.seed, "round", index, *again)
        draws = Draws(stream, self.config.update.batch_images, start=self.ranks.rank * self.share_images)
        played = Round(self.game, draws, index, self.clock.images_seen, self.balance.moves)
        self.play(played, reals)
        for player in self.game.players.values():
            player.guard.settle()
        self.balance.observe(played.statistics)
        if news := self.balance.decide(self.ranks.mean):
            self.tracker.event(news)
        return played

    def _follow_the_clock(self) -> None:
        seen = self.clock.images_seen
        set_rates(self.game, self.config, seen)
        grow(self.game, self.averages.networks.values(), seen - self.images_per_round, seen)

    def _real_images(self) -> Iterator[Batch]:
        return self.feed.begin(self.clock.data_position)

    def _to_device(self, batch: Batch) -> Real:
        return self.feed.to_device(batch)

    # --- writing things down -----------------------------------------------------------------------------------

    def _log(self, looks: Mapping[str, float]) -> None:
        measured = {
            **self.window.means(self.ranks.mean),
            **self.balance.statistics(),
            **looks,
            "lr/g": self.game.generator.optimizer.param_groups[0]["lr"],
            "lr/d": self.game.discriminator.optimizer.param_groups[0]["lr"],
            **self.window.speed(),
            "memory/peak_gib": machine.peak_memory_gib(self.device),
            **self._skipped(),
            **self.feed.troubles(self.tracker.event),
            **self._last_save(),
        }
        self.tracker.log(self.clock.images_seen, self.clock.round_index, measured)
        self.best.measured(measured)
        for news in self.health.look(measured):
            self.tracker.event(news)
        self.window = Window()

    def _skipped(self) -> dict[str, float]:
        """Tell of steps that were skipped since this was last asked; return their counts where not zero."""
        counts = {letter: skipped.total for letter, skipped in faults.skipped_steps(self.game).items()}
        for letter, count in counts.items():
            if new := count - self.skipped[letter]:
                self.tracker.event(f"{new} step(s) of the {faults.ROLES[letter]} skipped: gradients not finite.")
        self.skipped = counts
        return {f"fault/skipped_{letter}": count for letter, count in counts.items() if count}

    def _last_save(self) -> dict[str, float]:
        """Return what the last save cost, once; say so if a run that is asked to stop would not be given that long."""
        seconds = self.saver.news()
        if seconds is None:
            return {}
        if not self.told_of_notice and (advice := machine.short_notice(seconds)):
            self.told_of_notice = True
            self.tracker.event(advice)
        return {"speed/checkpoint_seconds": seconds, "speed/checkpoint_blocked_seconds": self.saver.blocked_seconds}

    def _sample(self) -> None:
        """Draw the fixed latents with the average; rank 0 alone, as every rank's average is the same."""
        if not self.ranks.main:
            return
        settings = self.config.samples
        z, c = self._fixed_latents(settings.rows, settings.columns)
        follow(self.averages.network, self.clock.images_seen)
        path = self.folder / "samples" / f"{self.clock.images_seen // 1000:08d}kimg.png"
        try:
            save_picture(draw(self.averages.network, z, c, show=self.feed.show), settings.columns, path)
            self.tracker.picture(self.clock.images_seen, "samples/ema", path)
        except OSError as error:  # a picture is not worth a run
            self.tracker.event(f"NOT DRAWN: {path}: {error.strerror}. The run goes on.")

    def _look(self, real: Real) -> dict[str, float]:
        """Compare samples of the average with real images; rank 0 alone, with its own share of them."""
        if not self.ranks.main:
            return {}
        z, c = self._fixed_latents(1, self.config.health.images)
        follow(self.averages.network, self.clock.images_seen)
        return look(self.averages.network, z.to(self.device), c.to(self.device), real.x)

    def _fixed_latents(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        classes = len(self.images.class_names) if self.config.model.conditional else 0
        return fixed_latents(self.config.model.latent_dim, classes, rows, columns, self.config.run.seed)

    def _keep_averages(self) -> None:
        """Keep the power function averages as they are; rank 0 alone, as every rank's averages are the same."""
        if self.ranks.main:
            averages.keep(self.snapshots, self.averages, self._card(), self.tracker.event)

    def _save(self, must: bool) -> None:
        """Begin a checkpoint, which is written in the background; one that ``must`` succeed is waited for.

        A failure ends the run only if it must succeed; else it is told, and the next checkpoint tries again.
        """
        self._check_folder_is_ours()
        check_savable(self.ranks, self._parts(), self.images.fingerprint, self.clock.images_seen, self.device)
        self.best.choose(self.clock.images_seen, self.tracker.event)
        state = {**self._state(), "window": self.window.state(self.ranks.mean)}
        if self.ranks.main:
            try:
                self.saver.save(self.clock.images_seen, self._parts(), state)
            except CheckpointError as error:
                self.tracker.event(f"NOT SAVED: {error} The run goes on and tries again.")
        if must:
            self.ranks.on_main(self.saver.finish, CheckpointError)

    def _check_steps_are_taken(self) -> None:
        """End the attempt, on all ranks alike, when steps are skipped again and again; asks the device now and then."""
        limit = self.config.fault.skip_steps
        if self.clock.round_index % limit:
            return
        wrong = faults.over_limit(self.game, limit)
        if self.ranks.any(wrong is not None):
            raise faults.NotFiniteError(wrong or "Gradients of another rank are not finite: the ranks differ.")

    def _parts(self) -> dict[str, Part]:
        return player_parts(self.game, self.averages, self._card().header())

    def _state(self) -> dict[str, Any]:
        return {
            "round_index": self.clock.round_index,
            "data": {"t": self.clock.data_position, "fingerprint": self.images.fingerprint},
            "scalers": scaler_states(self.game),
            "guards": guard_states(self.game),
            "rollbacks": self.rollbacks,
            "balance": self.balance.state(self.ranks.mean),
            "health": self.health.state(),
            **self.best.state(),
            "metrics_bytes": self.tracker.metrics_position,
            "config": dump(self.config),
            "made_with": self._environment(),
        }

    def _card(self) -> GeneratorCard:
        image = ImageShape(self.config.data.resolution, self.config.data.channels)
        names, seen = tuple(self.images.class_names), self.clock.images_seen
        return GeneratorCard(self.config.model, image, names, seen, self.images.latents)

    def _environment(self) -> dict[str, Any]:
        return machine.environment(self.device, self.ranks.world, self.precision)

    # --- beginning and end ---------------------------------------------------------------------------------------

    def _open_run(self) -> None:
        if self.ranks.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "config.yaml", to_yaml(self.config))
            write_status(self.folder, "running", self.clock.images_seen)
            self.tracker = Tracker(
                self.folder,
                self.config.tracking,
                name=self.config.name,
                total_images=int(self.total_images),
                settings=dump(self.config),
                environment=self._environment(),
                metrics_position=self.metrics_bytes,
                start_images=self.clock.images_seen,
            )
            for note in self.notes:
                self.tracker.event(note)
        self.ranks.barrier()

    def _close_run(self, stop: StopRequest) -> int:
        outcome: Outcome = "done" if self.finished else "preempted"
        moved = self.clock.images_seen != self.resumed_at
        if moved:
            self._save(must=True)
        if self.ranks.main:  # before anything that can wait: a job that is killed from here on has lost nothing
            remove_stale_request(self.folder)
            write_status(self.folder, outcome, self.clock.images_seen, reason=stop.reason)
        if moved:
            self._sample()
        self.tracker.close(outcome, self._farewell(outcome, stop.reason))
        return EXIT_DONE if outcome == "done" else EXIT_PREEMPTED

    def _farewell(self, outcome: Outcome, reason: str | None) -> str:
        kimg = f"{self.clock.images_seen / 1000:g} kimg"
        pictures = sorted((self.folder / "samples").glob("*.png"))
        last = f" Newest samples: {pictures[-1]}" if pictures else ""
        if outcome == "done":
            return f"Done at {kimg}.{last}"
        return f"Stopped and saved at {kimg} ({reason or 'asked on another rank'}); the same command continues.{last}"

    def _leave_word(self, error: BaseException) -> None:
        """Say in the run folder why the run ended; the last checkpoint is as it was."""
        reason = f"{type(error).__name__}: {error}"
        self.tracker.close("failed", f"Failed at {self.clock.images_seen / 1000:g} kimg: {reason}")
        if self.lease is not None and self.lease.held and (self.folder / "status.json").is_file():
            write_status(self.folder, "failed", self.clock.images_seen, reason=reason)

    def shut_down(self) -> None:
        """Let go of the networks, then of the process group: gloo aborts when a reducer outlives it."""
        if self.ranks.world == 1:
            return
        self.accelerator.free_memory()
        del self.game, self.averages
        gc.collect()
        self.accelerator.end_training()

    def _hang(self, message: str) -> None:
        """Say that this rank hangs, just before the watchdog ends it; called in a thread of its own."""
        where = f"rank {self.ranks.rank} of {self.ranks.world} on {socket.gethostname()} {message}"
        print(f"gandist: {where}", file=sys.stderr, flush=True)
        if self.ranks.main:
            self._leave_word(RunError(where))

    # --- whose folder it is --------------------------------------------------------------------------------------

    def _take_folder(self) -> Lease | None:
        """Take the run folder on rank 0, or refuse on all ranks."""
        lease = self.ranks.on_main(lambda: Lease.take(self.folder), MachineError)
        self.store.fence = lease.check if lease else None
        return lease

    def _let_go_of_folder(self) -> None:
        if self.lease is not None:
            self.lease.close()

    def _check_folder_is_ours(self) -> None:
        """End all ranks if another attempt has taken the folder."""
        self.ranks.on_main(lambda: self.lease.check() if self.lease else None, RunError)

    # --- continuing ------------------------------------------------------------------------------------------------

    def _resume(self, insistence: Insistence) -> int | None:
        """Load the newest whole checkpoint, if any, and return the length of the metrics log that it knows.

        Rank 0 looks for it; all ranks then read the same one.
        """
        newest = self.ranks.on_main(lambda: self.store.newest(self.notes.append), CheckpointError)
        found = self.ranks.from_main(newest.folder.name if newest else None)
        if found is None:
            return None
        checkpoint = self.store.open(found)
        self.notes += check_settings(checkpoint, self.config, self.images.fingerprint, insistence)
        self._load(checkpoint)
        check_savable(self.ranks, self._parts(), self.images.fingerprint, self.clock.images_seen, self.device)
        self.rollbacks = checkpoint.state.get("rollbacks", 0)
        self.resumed_at = self.clock.images_seen
        self.notes.append(f"Continuing at {self.clock.images_seen / 1000:g} kimg from {checkpoint.folder}")
        return int(checkpoint.state["metrics_bytes"])

    def _load(self, checkpoint: Checkpoint) -> None:
        load_players(checkpoint, self.game, self.averages)
        if self.ranks.main:
            self.snapshots.forget_after(checkpoint.images_seen)
        state = checkpoint.state
        self.window = Window()
        self.window.restore(state["window"], self.device)
        same_data = state["data"]["fingerprint"] == self.images.fingerprint
        self.clock = Clock(state["round_index"], checkpoint.images_seen, state["data"]["t"] if same_data else 0)
        self.best.restore(state)
        if "balance" in state:
            self.balance.restore(state["balance"], self.device)
            self.health.restore(state["health"])
        self.skipped = {letter: skipped.total for letter, skipped in faults.skipped_steps(self.game).items()}

    def _go_back(self, fault: faults.NotFiniteError) -> None:
        """Continue from the newest checkpoint with new latents, or end the run with ``fault``; all ranks together."""
        self.ranks.on_main(self.saver.finish, CheckpointError)
        newest = self.ranks.on_main(lambda: self.store.newest(self.tracker.event), CheckpointError)
        found = self.ranks.from_main(newest.folder.name if newest else None)
        if self.rollbacks >= self.config.fault.rollbacks or found is None:
            before = f"The run had gone back {self.rollbacks} time(s) before. " if self.rollbacks else ""
            raise RunError(f"{fault} {before}Nothing of it was saved. {faults.WHAT_HELPS}") from None
        checkpoint = self.store.open(found)
        self._load(checkpoint)
        for player in self.game.players.values():
            player.guard.forgive()
        self.rollbacks += 1
        self.tracker.event(
            f"{fault} Going back to {self.clock.images_seen / 1000:g} kimg ({checkpoint.folder}) with new latents, "
            f"{self.rollbacks} of at most {self.config.fault.rollbacks} time(s)."
        )
        self.tracker.rewind(int(checkpoint.state["metrics_bytes"]))

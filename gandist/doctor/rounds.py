"""The trial of a recipe from its first session to what follows from its figures. All ranks take part."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gandist.config import Config
from gandist.data.stream.images import is_stream
from gandist.doctor import recipe, verdict
from gandist.doctor.figures import duration
from gandist.doctor.finding import Finding, note, warn
from gandist.doctor.page import Page
from gandist.doctor.slurm import Job
from gandist.doctor.trial import HALF_ROUNDS, Figures, Trial, differing
from gandist.runtime.distributed import Ranks
from gandist.runtime.probe import Reduction


@dataclass
class Rounds:
    """Plays rounds of a recipe and prints what they show.

    Attributes:
        config: the recipe.
        folder: for the trial, on the disk of the run.
        ranks: that take part.
        page: to print on.
        job: of Slurm, if this is one.
        seconds: for measuring.
        allow_pipe: whether a recipe's ``pipe:`` may be run.
        reductions: how fast the ranks reduce tensors.

    """

    config: Config
    folder: Path
    ranks: Ranks
    page: Page
    job: Job | None
    seconds: float
    allow_pipe: bool = False
    reductions: Sequence[Reduction] = field(default_factory=list)

    def play(self) -> None:
        """Play, and print.

        Raises:
            GandistError: the trainer's own words for what does not work.

        """
        trial = Trial(self.config, self.folder, self.ranks, self.seconds, self.allow_pipe)
        self.page.busy(f"playing {2 * HALF_ROUNDS} rounds from nothing")
        straight = trial.straight()
        said = {finding.fact for finding in self.page.findings}
        self._print("Rounds", [note("remark", remark) for remark in trial.plays[0].notes if remark not in said])
        if straight is None:
            fact = (
                f"{2 * HALF_ROUNDS} rounds take longer than {duration(trial.first_limit)}: exact resume was not tried"
            )
            self._print("Rounds", [warn("rounds", fact, f"gandist doctor ... --seconds {10 * self.seconds:g}")])
            self._after(trial.figures(trial.plays[0]), [])
            return
        exact = self._exactness(trial, straight)
        self.page.busy(f"measuring rounds for {duration(self.seconds)}")
        self._after(trial.measured(), exact)

    def _exactness(self, trial: Trial, straight: dict[str, str]) -> list[Finding]:
        execution = self.config.execution
        if is_stream(self.config.data.shards):
            return [note("exact resume", "not for a stream: a continued run sees other images")]
        self.page.busy(f"continuing from the checkpoint at round {HALF_ROUNDS}")
        resumed = trial.resumed()
        if resumed is None:
            return [note("exact resume", f"not tried: it takes longer than {duration(trial.first_limit)}")]
        different = differing(straight, resumed)
        on_gpu = trial.plays[0].on_gpu
        return verdict.exactness_findings(different, 2 * HALF_ROUNDS, on_gpu, execution.deterministic)

    def _after(self, figures: Figures | None, exact: Sequence[Finding]) -> None:
        if figures is None:
            advice = f"The machine is busy, or its disk hangs; gandist doctor ... --seconds {10 * self.seconds:g}"
            self._print("Rounds", [warn("rounds", "not one was finished in time", advice)])
            return
        done = recipe.images_done(self.config)
        need = verdict.Need.of(self.config, figures, done)
        config = self.config
        compressed = config.execution.gradient_compression != "none"
        rounds = verdict.speed_findings(figures, need, done)
        rounds += verdict.waiting_findings(figures, config.execution.workers)
        rounds += verdict.memory_findings(figures)
        rounds += verdict.traffic_findings(figures, self.reductions, compressed)
        if self.job is not None:
            rounds += verdict.limit_findings(figures, need, self.job, config)
        self._print("Rounds", rounds)
        checkpoints = verdict.checkpoint_findings(figures, config)
        checkpoints += verdict.disk_findings(figures, config, self._free_bytes(), present_bytes(config.folder))
        self._print("Checkpoints", [*checkpoints, *exact])

    def _free_bytes(self) -> float:
        """Return the space that there will be once the trial's own files are gone."""
        status = os.statvfs(self.folder)
        return float(status.f_bavail * status.f_frsize) + sum(map(present_bytes, self.folder.iterdir()))

    def _print(self, heading: str, findings: Sequence[Finding]) -> None:
        if self.ranks.main:
            self.page.section(heading, findings)


def present_bytes(run_folder: Path) -> float:
    """Return the bytes of a run's checkpoints."""
    folder = run_folder / "checkpoints"
    files = folder.rglob("*") if folder.is_dir() else []
    return float(sum(file.stat().st_size for file in files if file.is_file()))

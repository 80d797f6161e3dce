"""What follows from measured rounds: speed, memory, the time and the disk that a run needs, the notice that suffices.

Pure functions of figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gandist.config import Config
from gandist.doctor.figures import count, duration, size
from gandist.doctor.finding import Finding, fail, note, ok, warn
from gandist.doctor.slurm import Job
from gandist.doctor.trial import Figures
from gandist.runtime.probe import Reduction

WAITING_SHARE = 0.05
MUCH_WAITING_SHARE = 0.2
TIGHT_MEMORY_SHARE = 0.92
TIGHT_DISK_SHARE = 0.8
SPARE_NOTICE = 1.5  # disks are slower when many jobs save
LITTLE_USE_SHARE = 0.5
LONG_BLOCK_SHARE = 0.05


@dataclass(frozen=True)
class Need:
    """What is left of a run.

    Attributes:
        images: real images still to be shown.
        seconds: that they take.

    """

    images: float
    seconds: float

    @classmethod
    def of(cls, config: Config, figures: Figures, images_done: int) -> Need:
        """Return what is left after ``images_done``, checkpoints included."""
        images = max(0.0, config.run.total_kimg * 1000 - images_done)
        saves = images / (config.checkpoint.every_kimg * 1000)
        return cls(images, images / figures.images_per_second + saves * figures.play.blocked_seconds)


# --- the rounds --------------------------------------------------------------------------------------------


def speed_findings(figures: Figures, need: Need, done: int) -> list[Finding]:
    """Say how fast rounds are, and how long the run takes at that."""
    each = duration(figures.seconds_per_round)
    fact = f"{figures.images_per_second:,.0f} images/s in {figures.play.precision}, {each} a round"
    findings = [
        ok(
            "speed",
            f"{fact} ({count(figures.rounds, 'round')})",
            images_per_second=figures.images_per_second,
            seconds_per_round=figures.seconds_per_round,
        )
    ]
    if figures.skipped_steps:
        fact = f"{count(figures.skipped_steps, 'step')} skipped: gradients were not finite"
        findings.append(warn("numbers", fact, "gandist train CONFIG --debug names the layer where it begins."))
    what = f"the {need.images / 1000:,.0f} kimg that are left" if done else f"{need.images / 1000:,.0f} kimg"
    if need.images:
        findings.append(ok("time", f"{duration(need.seconds)} for {what}", seconds=need.seconds))
    return findings


def waiting_findings(figures: Figures, workers: int) -> list[Finding]:
    """Say how much of the time the networks waited for images."""
    share = figures.data_wait_share
    fact = f"networks wait for images {share:.0%} of the time with {count(workers, 'worker')} a rank"
    measured = {"data_wait_share": share}
    findings = []
    if workers == 0:
        findings.append(ok("images", f"decoded in the trainer, {share:.0%} of the time", **measured))
    elif share > MUCH_WAITING_SHARE:
        findings.append(warn("images", fact, f"Try --execution.workers {2 * workers}, if there are cores.", **measured))
    elif share > WAITING_SHARE:
        findings.append(note("images", fact, f"Perhaps --execution.workers {2 * workers}", **measured))
    else:
        findings.append(ok("images", fact, **measured))
    if figures.bad_images:
        fact = f"{count(figures.bad_images, 'image')} of those played could not be decoded"
        findings.append(warn("images", fact, "gandist index SHARDS --verify names each of them."))
    return findings


def memory_findings(figures: Figures) -> list[Finding]:
    """Say how much memory was used, and what is left."""
    share = figures.peak_bytes / figures.memory_bytes
    what = "GPU memory" if figures.play.on_gpu else "memory"
    whose = "the fullest rank used" if figures.play.on_gpu else "a rank used, without its workers,"
    fact = f"{whose} {size(figures.peak_bytes)} of {size(figures.memory_bytes)} ({share:.0%})"
    measured = {"peak_bytes": figures.peak_bytes, "memory_bytes": figures.memory_bytes}
    if share > TIGHT_MEMORY_SHARE:
        advice = "Little is left for what varies: --execution.micro_images N (less than a rank's share), or more ranks."
        return [warn(what, fact, advice, **measured)]
    return [ok(what, fact, **measured)]


def traffic_findings(figures: Figures, measured: Sequence[Reduction], compressed: bool) -> list[Finding]:
    """Say how long the gradients of a round travel, if nothing is done meanwhile."""
    if not measured:
        return []
    travelling = figures.play.gradient_numbers * (2 if compressed else 4)
    fitting = min(measured, key=lambda one: abs(math.log(one.bytes / travelling)))
    seconds = fitting.seconds * max(1.0, travelling / fitting.bytes)
    share = seconds / figures.seconds_per_round
    fact = f"{size(travelling)} of gradients a round, {duration(seconds)} ({share:.0%} of it) if nothing overlaps"
    numbers = {"gradient_bytes": float(travelling), "reduction_seconds": seconds}
    if share > 0.5:
        advice = "A larger batch a rank hides it better; --execution.gradient_compression bf16 halves it."
        return [warn("gradients", fact, advice, **numbers)]
    return [ok("gradients", fact, **numbers)]


# --- checkpoints -------------------------------------------------------------------------------------------


def checkpoint_findings(figures: Figures, config: Config) -> list[Finding]:
    """Say what a checkpoint takes: bytes, seconds that it keeps the training, seconds until it is on the disk."""
    if figures.problems:
        return [fail("checkpoint", figures.problems[0], "Without checkpoints a run cannot be continued.")]
    play = figures.play
    between = config.checkpoint.every_kimg * 1000 / figures.images_per_second
    fact = f"{size(figures.checkpoint_bytes)}, holds up training for {duration(play.blocked_seconds)}"
    fact += f", is on the disk after {duration(play.written_seconds)}; one every {duration(between)}"
    measured = {
        "checkpoint_bytes": float(figures.checkpoint_bytes),
        "blocked_seconds": play.blocked_seconds,
        "written_seconds": play.written_seconds,
        "seconds_between": between,
    }
    if play.written_seconds > between or play.blocked_seconds > LONG_BLOCK_SHARE * between:
        advice = f"Save more rarely: --checkpoint.every_kimg {4 * config.checkpoint.every_kimg:g}"
        return [warn("checkpoint", fact, advice, **measured)]
    return [ok("checkpoint", fact, **measured)]


def disk_findings(figures: Figures, config: Config, free_bytes: float, present_bytes: float) -> list[Finding]:
    """Compare all checkpoints that will be kept, and the one being written, with the space that there is."""
    settings = config.checkpoint
    kept = settings.keep + 1 + (settings.best_metric is not None)
    if settings.keep_every_kimg:
        kept += int(config.run.total_kimg / settings.keep_every_kimg)
    needed, room = kept * figures.checkpoint_bytes, free_bytes + present_bytes
    fact = f"{count(kept, 'checkpoint')} at most, {size(needed)} of the {size(room)} that there are"
    measured = {"needed_bytes": float(needed), "room_bytes": room}
    if needed > room:
        advice = "Free some space, keep fewer (--checkpoint.keep, --checkpoint.keep_every_kimg), or another --run.root."
        return [fail("disk", fact, advice, **measured)]
    if needed > TIGHT_DISK_SHARE * room:
        return [warn("disk", fact, "Nearly full: samples and logs need room too.", **measured)]
    return [ok("disk", fact, **measured)]


def exactness_findings(different: Sequence[str], rounds: int, on_gpu: bool, deterministic: bool) -> list[Finding]:
    """Say whether a run that was stopped and continued ends in the same bytes."""
    played = f"{count(rounds, 'round')} in one go and with a stop after {rounds // 2}"
    if not different:
        return [ok("exact resume", f"{played} end in the same bytes")]
    fact = f"{played} end in different bytes, first in {different[0]}"
    if on_gpu and not deterministic:
        advice = "GPUs add up in any order by default; --execution.deterministic true makes a run exact, and slower."
        return [warn("exact resume", fact, advice)]
    return [fail("exact resume", fact, "A continued run would be another one. Please report this with the recipe.")]


# --- the time that Slurm gives -------------------------------------------------------------------------------


def limit_findings(figures: Figures, need: Need, job: Job, config: Config) -> list[Finding]:
    """Compare the time that the run needs with the time limit of the job, over as many attempts as it takes."""
    limit = job.limit_seconds
    if limit is None or not need.images:
        return []
    save = figures.play.written_seconds + figures.seconds_per_round
    ready = figures.play.build_seconds + figures.seconds_per_round
    if job.notice_seconds is None:
        return _without_notice(figures, need, limit - ready, limit, config)
    findings = _notice(job.notice_seconds, save)
    useful = limit - job.notice_seconds - ready
    if useful <= 0:
        fact = f"of {duration(limit)}, {duration(ready)} go by before training and {duration(job.notice_seconds)} after"
        return [*findings, fail("time limit", fact, "Ask for a longer --time.")]
    return findings + _attempts(need, useful, limit, job)


def _notice(notice_seconds: float, save: float) -> list[Finding]:
    fact = f"a round and a save take {duration(save)} of the {duration(notice_seconds)} before the end"
    advice = f"#SBATCH --signal=B:USR1@{math.ceil(max(300.0, 3 * save))}"
    if save > notice_seconds:
        return [fail("notice", fact, advice)]
    if save * SPARE_NOTICE > notice_seconds:
        return [warn("notice", fact, advice)]
    return [ok("notice", fact)]


def _attempts(need: Need, useful: float, limit: float, job: Job) -> list[Finding]:
    attempts = math.ceil(need.seconds / useful)
    if attempts > 1 and useful < LITTLE_USE_SHARE * limit:
        fact = f"only {duration(useful)} of each {duration(limit)} are training: {attempts} attempts"
        return [warn("time limit", fact, "Ask for a longer --time, or a shorter --signal=B:USR1@SECONDS.")]
    if attempts == 1:
        return [ok("time limit", f"{duration(need.seconds)} fit into {duration(limit)}", attempts=1)]
    fact = f"{duration(need.seconds)} take {attempts} attempts of {duration(limit)}"
    if job.requeues is False:
        return [warn("time limit", fact, "sbatch --requeue, or submit the same command again each time.")]
    return [ok("time limit", f"{fact}: the job goes back to the queue by itself", attempts=attempts)]


def _without_notice(figures: Figures, need: Need, useful: float, limit: float, config: Config) -> list[Finding]:
    """Without a notice the time since the last checkpoint is lost at each end."""
    between = config.checkpoint.every_kimg * 1000 / figures.images_per_second
    if need.seconds <= useful:
        return [ok("time limit", f"{duration(need.seconds)} fit into {duration(limit)}", attempts=1)]
    advice = "#SBATCH --signal=B:USR1@300, as in slurm/train.sbatch"
    if between > useful:
        fact = f"a checkpoint every {duration(between)}, and the end after {duration(limit)}: nothing is ever saved"
        return [fail("time limit", fact, f"{advice}; or a smaller --checkpoint.every_kimg.")]
    fact = f"{duration(need.seconds)} take more than one attempt of {duration(limit)}, each losing up to "
    return [warn("time limit", f"{fact}{duration(between)}", advice)]

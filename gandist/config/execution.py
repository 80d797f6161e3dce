"""The knobs that say how a run is carried out: machine, checkpoints, faults, what is written down."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from gandist.config.knobs import Change, Section, knob, section


class CacheConfig(Section):
    """Where shards from afar are kept on this node."""

    change: ClassVar[Change] = "continue"
    dir: Path | None = knob(None, "Folder on a disk of the node; below the temporary folder when left out.")
    gb: float | None = knob(None, "Most that it may hold; no bound but the disk when left out.", unit="GB", gt=0)


class ExecutionConfig(Section):
    """How the run is carried out; none of it changes what is computed beyond rounding."""

    change: ClassVar[Change] = "continue"
    device: Literal["auto", "cpu", "cuda"] = knob("auto", "Where to compute; auto takes a GPU where there is one.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = knob(
        "auto",
        "Number format of the networks' passes; auto takes bf16 where the hardware computes in it.",
        change="warn",
    )
    channels_last: bool = knob(False, "Memory order of images: channels last is faster for bf16 convolutions.")
    compile: bool = knob(False, "torch.compile each network of which no penalty takes the second derivative.")
    micro_images: int | None = knob(
        None, "Images per rank and pass, to bound memory; the rank's whole share when left out.", unit="images", ge=1
    )
    threads: int | None = knob(
        None, "CPU threads of each rank; on CPU its share of the cores when left out, on GPU the environment's.", ge=1
    )
    deterministic: bool = knob(
        False, "Only algorithms that repeat to the bit, also on GPUs, where this costs speed; CPUs always do."
    )
    workers: int = knob(1, "Processes per rank that decode images; 0 decodes in the trainer.", ge=0, le=256)
    prefetch_batches: int = knob(4, "Batches that each worker keeps ready.", unit="batches", ge=1)
    sync_batch_norm: bool = knob(
        True,
        "Batch norms see the images of all ranks; if false those of one rank, and the result depends on the ranks.",
        change="warn",
    )
    gradient_compression: Literal["none", "bf16", "fp16"] = knob(
        "none", "Number format in which gradients travel between ranks; none sends them as they are.", change="warn"
    )
    timeout_seconds: float = knob(
        900.0, "A rank that gets no further for so long prints where it stands and ends the run.", unit="s", ge=5
    )
    cache: CacheConfig = section(CacheConfig, "Read when shards come from afar.")


class CheckpointConfig(Section):
    """When to save, and what to keep."""

    change: ClassVar[Change] = "continue"
    every_kimg: float = knob(50.0, "Images between checkpoints.", unit="kimg", gt=0)
    keep: int = knob(3, "Newest checkpoints that are kept.", ge=1)
    keep_every_kimg: float | None = knob(
        None, "Also keep the first checkpoint in each interval of this length, for ever.", unit="kimg", gt=0
    )
    best_metric: str | None = knob(
        None, "Also keep the checkpoint with the best value of this column of metrics.jsonl; RUN/best leads to it."
    )
    best_mode: Literal["min", "max"] = knob("min", "Whether a lower or a higher best_metric is better.")


class FaultConfig(Section):
    """What to do about numbers that are not finite."""

    change: ClassVar[Change] = "continue"
    skip_steps: int = knob(
        10, "Steps of one network in a row that are skipped because its gradients are not finite.", ge=1
    )
    rollbacks: int = knob(
        1, "Times the run then goes back to its last checkpoint and continues with new noise, before it ends.", ge=0
    )


class SamplesConfig(Section):
    """The picture drawn from fixed latents as the run goes on."""

    change: ClassVar[Change] = "continue"
    every_kimg: float = knob(50.0, "Images between pictures.", unit="kimg", gt=0)
    columns: int = knob(10, "Images in a row; with classes, each row is one class.", ge=1, le=64)
    rows: int = knob(10, "Rows of images.", ge=1, le=64)


class WandbConfig(Section):
    """Weights & Biases."""

    change: ClassVar[Change] = "continue"
    mode: Literal["online", "offline", "disabled"] = knob("disabled", "online, offline (sync later), or disabled.")
    project: str = knob("gandist", "Project that the run appears in.", min_length=1, max_length=128)
    entity: str | None = knob(None, "User or team; the key's own when left out.")
    group: str | None = knob(None, "Groups runs of one experiment.")
    tags: tuple[str, ...] = knob((), "Labels of the run.")


class TrackingConfig(Section):
    """What is written down while training."""

    change: ClassVar[Change] = "continue"
    every_kimg: float = knob(1.0, "Images between rows of metrics.jsonl, W&B and TensorBoard.", unit="kimg", gt=0)
    tensorboard: bool = knob(False, "Also write TensorBoard files (pip install 'gandist[tensorboard]').")
    wandb: WandbConfig = section(WandbConfig, "Weights & Biases.")

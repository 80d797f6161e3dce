"""Every knob of a run, in typed frozen sections: declare, load, override, explain, compare.

A recipe is one YAML file whose keys are the sections below; the command line overrides single knobs with
``--section.key value``. A knob states its default, its range, one sentence, and what a change means to a run
that is continued with it (:data:`Change`). The sections ``execution``, ``tracking``, ``checkpoint`` and
``fault`` say how a run is carried out; every other section says what the run *is*.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from gandist.errors import ConfigError, did_you_mean

Change = Literal["continue", "warn", "refuse"]
"""What resuming with another value means: nothing, a warning, or a different run (``--accept`` to insist)."""


def knob(default: Any, about: str, *, change: Change | None = None, unit: str = "", **limits: Any) -> Any:
    """Declare one knob: default, one sentence, unit, limits (``ge``, ``le``, ...), and the meaning of a change."""
    return Field(default, description=about, json_schema_extra={"change": change, "unit": unit}, **limits)


def section(kind: type[BaseModel], about: str) -> Any:
    """Declare a nested section whose knobs start at their defaults."""
    return Field(default_factory=kind, description=about)


class Section(BaseModel):
    """A frozen group of knobs; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)
    change: ClassVar[Change] = "refuse"  # for the knobs of this section that do not say otherwise

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``batch_images: true``, which pydantic would read as 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("input should not be true or false")
        return value


class Schedule(Section):
    """A factor over images seen: linear warm-up, then constant, then an optional decay to ``final``."""

    change: ClassVar[Change] = "warn"
    shape: Literal["constant", "linear", "cosine"] = knob("constant", "How the value decays after begin_kimg.")
    warmup_kimg: float = knob(0.0, "Rises linearly from 0 over this long.", unit="kimg", ge=0)
    begin_kimg: float = knob(0.0, "Decay begins here.", unit="kimg", ge=0)
    end_kimg: float | None = knob(None, "Decay ends here; the run's length when left out.", unit="kimg", gt=0)
    final: float = knob(0.0, "Factor at and after the end of the decay.", ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end_kimg is not None and self.end_kimg <= self.begin_kimg:
            raise ValueError(f"end_kimg {self.end_kimg:g} must be above begin_kimg {self.begin_kimg:g}")
        return self


class RunConfig(Section):
    """The run as a whole: its folder, its seed, its length."""

    name: str | None = knob(
        None, "Name of the run and of its folder; the recipe's file name when left out.",
        change="continue", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
    )  # fmt: skip
    root: Path = knob(Path("runs"), "Folder that holds the run's folder.", change="continue")
    seed: int = knob(0, "Everything random is a pure function of this and of the position in the run.", ge=0)
    total_kimg: float = knob(
        1000.0, "Length of the run: real images shown to D over all ranks.", change="warn", unit="kimg", gt=0
    )


class StreamConfig(Section):
    """Shards that have no index: read as they come, without epochs and without exact resume."""

    label: str = knob("none", "Where the class number is: a field such as cls, json:KEY, or none.")
    class_count: int = knob(0, "Number of classes; 0 for none.", ge=0, le=1 << 20)
    shuffle_images: int = knob(5000, "Images that are shuffled against each other.", unit="images", ge=1)


class DataConfig(Section):
    """The real images and their order."""

    shards: str = knob(
        "glyphs",
        "Folder or URL of indexed shards; shards to stream, like DIR/{000..099}.tar; or 'glyphs', endless made digits.",
        change="continue",
        min_length=1,
    )
    root: str | None = knob(
        None, "Folder or URL below which the shards lie, when it is not where their index is.", change="continue"
    )
    allow_http: bool = knob(
        False, "Accept http:// where nothing proves who answers; https:// needs no leave.", change="continue"
    )
    resolution: int = knob(32, "Height and width of every image.", unit="px", ge=4, le=4096)
    channels: Literal[1, 3] = knob(3, "1 for greyscale, 3 for RGB.")
    classes: tuple[int, ...] | None = knob(None, "Train on these class numbers only; on all when left out.")
    hflip: bool = knob(False, "Mirror each image with probability one half.")
    bad_images: float = knob(
        0.0001,
        "Share of the images that may turn out undecodable; the next of the shard takes their place.",
        change="continue",
        ge=0,
        le=1,
    )
    chunk: int = knob(32, "Neighbouring samples of a shard that stay together in the shuffle.", unit="samples", ge=1)
    block: int = knob(8192, "Samples shuffled against each other.", unit="samples", ge=1)
    lanes: int = knob(1, "Independent streams through an epoch; above 1 for nodes with separate caches.", ge=1)
    stripe: int = knob(1, "Consecutive samples taken from one lane at a time.", unit="samples", ge=1)
    stream: StreamConfig = section(StreamConfig, "Read when shards names tar files to stream.")


class MlpConfig(Section):
    """The fully connected GAN (Goodfellow et al. 2014, section 5, in its common 28x28 form)."""

    generator_widths: tuple[Annotated[int, Field(ge=1)], ...] = knob(
        (256, 512, 1024), "Hidden layers of G, from the latent on.", min_length=1
    )
    discriminator_widths: tuple[Annotated[int, Field(ge=1)], ...] = knob(
        (1024, 512, 256), "Hidden layers of D, from the image on.", min_length=1
    )
    dropout: float = knob(0.3, "Share of D's hidden units dropped in training.", ge=0, lt=1)


class DcganConfig(Section):
    """DCGAN (Radford et al. 2016) as in the official PyTorch tutorial, at any power-of-two resolution."""

    generator_channels: int = knob(64, "Channels of G's last hidden layer (the tutorial's ngf).", ge=1)
    discriminator_channels: int = knob(64, "Channels of D's first hidden layer (the tutorial's ndf).", ge=1)


class ResnetConfig(Section):
    """The SNGAN residual networks (Miyato et al. 2018, tables 3-6); class-conditional by Miyato & Koyama 2018."""

    generator_channels: int = knob(256, "Channels of G's widest block.", ge=1)
    discriminator_channels: int = knob(128, "Channels of D's blocks at 32 px.", ge=1)


class ModelConfig(Section):
    """The two networks."""

    arch: Literal["mlp", "dcgan", "resnet"] = knob("dcgan", "Which architecture.")
    conditional: bool = knob(False, "Both networks see the class; needs labelled data.")
    latent_dim: int = knob(100, "Length of the latent vector z.", ge=1)
    mlp: MlpConfig = section(MlpConfig, "Read when arch is mlp.")
    dcgan: DcganConfig = section(DcganConfig, "Read when arch is dcgan.")
    resnet: ResnetConfig = section(ResnetConfig, "Read when arch is resnet.")


class LossConfig(Section):
    """The adversarial loss."""

    kind: Literal["minimax", "non_saturating", "hinge", "least_squares", "wasserstein"] = knob(
        "non_saturating", "Which adversarial loss."
    )
    real_label: float = knob(1.0, "D's target for real images; below 1 is label smoothing.", gt=0, le=1)
    fake_label: float = knob(0.0, "D's target for fakes; above 0 is two-sided smoothing.", ge=0, lt=1)
    swap_probability: float = knob(0.0, "Share of D's targets that are swapped between real and fake.", ge=0, lt=0.5)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.real_label <= self.fake_label:
            raise ValueError(f"real_label {self.real_label:g} must be above fake_label {self.fake_label:g}")
        return self


class R1Config(Section):
    """R1 gradient penalty (Mescheder et al. 2018, equation 9), lazily applied (Karras et al. 2020)."""

    gamma: float = knob(0.0, "Weight of the penalty gamma/2 |grad D(x)|^2; 0 switches it off.", ge=0)
    interval_steps: int = knob(
        16, "Applied at every so many D steps, with a weight that many times larger.", unit="D steps", ge=1
    )
    schedule: Schedule = section(Schedule, "Factor on gamma over images seen.")


class RegularizerConfig(Section):
    """Penalties added to the adversarial loss."""

    r1: R1Config = section(R1Config, "Gradient penalty on real images.")


class UpdateConfig(Section):
    """The adversarial round."""

    strategy: Literal["detach"] = knob("detach", "How D's and G's updates share one forward of G.")
    batch_images: int = knob(64, "Real images of one D step over all ranks.", unit="images", ge=1)
    d_steps: int = knob(1, "D steps in a round, before its one G step.", ge=1)


class AdamConfig(Section):
    """Adam (Kingma & Ba 2015) for one network."""

    change: ClassVar[Change] = "warn"
    lr: float = knob(2e-4, "Learning rate before its schedule.", ge=0)
    beta1: float = knob(0.5, "Decay of the first moment, per step.", ge=0, lt=1)
    beta2: float = knob(0.999, "Decay of the second moment, per step.", ge=0, lt=1)
    eps: float = knob(1e-8, "Added to the root of the second moment.", gt=0)
    clip_norm: float | None = knob(None, "Gradients are scaled down to this global norm; off when left out.", gt=0)
    schedule: Schedule = section(Schedule, "Factor on the learning rate over images seen.")


class OptimizerConfig(Section):
    """One optimizer for each network."""

    generator: AdamConfig = section(AdamConfig, "The generator's optimizer.")
    discriminator: AdamConfig = section(AdamConfig, "The discriminator's optimizer.")


class EmaConfig(Section):
    """The moving average of the generator that samples are drawn from."""

    change: ClassVar[Change] = "warn"
    halflife_kimg: float = knob(
        10.0, "Images after which a weight's share in the average has halved.", unit="kimg", ge=0
    )
    rampup: float | None = knob(
        0.05, "The half-life is at most this share of the images seen; no limit when left out.", gt=0
    )


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
    compile: bool = knob(False, "torch.compile G, and D too where no penalty needs its second derivative.")
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


class Config(Section):
    """A whole recipe."""

    run: RunConfig = section(RunConfig, "Folder, seed, length.")
    data: DataConfig = section(DataConfig, "The real images and their order.")
    model: ModelConfig = section(ModelConfig, "The two networks.")
    loss: LossConfig = section(LossConfig, "The adversarial loss.")
    regularizer: RegularizerConfig = section(RegularizerConfig, "Penalties.")
    update: UpdateConfig = section(UpdateConfig, "The adversarial round.")
    optimizer: OptimizerConfig = section(OptimizerConfig, "Adam for each network.")
    ema: EmaConfig = section(EmaConfig, "Moving average of G.")
    samples: SamplesConfig = section(SamplesConfig, "Pictures while training.")
    checkpoint: CheckpointConfig = section(CheckpointConfig, "Saving.")
    fault: FaultConfig = section(FaultConfig, "Numbers that are not finite.")
    tracking: TrackingConfig = section(TrackingConfig, "Metrics, W&B, TensorBoard.")
    execution: ExecutionConfig = section(ExecutionConfig, "Device, precision, workers.")

    @property
    def name(self) -> str:
        """The run's name, which :func:`load` has settled."""
        return self.run.name or "run"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run.root / self.name


# --- reading -----------------------------------------------------------------------------------------------


def embedded_recipe(name: str = "demo") -> Path:
    """Return the path of a recipe that comes with gandist: installed beside the package, or in the checkout."""
    package = Path(__file__).parent
    return next(
        (p for p in (package / "configs" / f"{name}.yaml", package.parent / "configs" / f"{name}.yaml") if p.is_file()),
        package / "configs" / f"{name}.yaml",
    )


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; a missing, unreadable or non-mapping file is a :class:`ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f" Did you mean '{path.parent / near[0]}'?" if near else ""
        raise ConfigError(f"{path}: no such recipe file.{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error}).") from None
    try:
        content = yaml.load(text, _UniqueKeys)  # a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of sections, this is a {type(content).__name__}.")
    return content


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader for which a key that occurs twice in a mapping is an error, not the last one's value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} occurs twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(content: Mapping[str, Any], where: str) -> Config:
    """Validate a mapping into a :class:`Config`; one :class:`ConfigError` lists everything that is wrong in it."""
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        lines = [_problem(problem) for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join([f"{where}: {len(lines)} thing(s) to correct:", *lines])) from None


def load(
    recipe: Path | None, overrides: Sequence[str] = (), *, prog: str = "gandist train [CONFIG]", description: str = ""
) -> Config:
    """Return the resolved configuration of a recipe file (the embedded demo if None) and command-line overrides.

    Raises:
        ConfigError: the recipe is wrong; the message names every fault in it.
        SystemExit: a flag is wrong (code 2, the fault and near misses on standard error), or ``--help`` was asked for.

    """
    path = recipe if recipe is not None else embedded_recipe()
    config = parse(read_recipe(path), str(path))
    config = override(config, overrides, prog=prog, description=description)
    if config.run.name is None:
        config = parse(merge(dump(config), {"run": {"name": path.stem}}), f"{path}, whose name names the run")
    return config


def override(
    config: Config, flags: Sequence[str], *, prog: str = "gandist train [CONFIG]", description: str = ""
) -> Config:
    """Return ``config`` with ``--section.key value`` (or ``--section.key=value``) flags applied.

    ``true``, ``false`` and ``null`` are understood as in YAML; lists are written ``--data.classes 1 2``.
    """
    import tyro  # here, since only a command line needs it

    return tyro.cli(
        tyro.conf.configure(tyro.conf.FlagConversionOff)(Config),
        default=config,
        args=[_as_python(flag) for flag in flags],
        prog=prog,
        description=description,
        use_underscores=True,
        console_outputs=os.environ.get("RANK", "0") == "0",  # one voice for all ranks
    )


def check_knobs(names: Sequence[str], where: str) -> None:
    """Raise a :class:`ConfigError` for the first name that is no knob."""
    known = {leaf.path for leaf in leaves(Config())}
    for name in names:
        if name not in known:
            raise ConfigError(f"{where} {name}: no such knob.{did_you_mean(name, known)}")


_YAML_WORDS = {"true": "True", "false": "False", "null": "None"}


def _as_python(flag: str) -> str:
    name, equals, value = flag.partition("=")
    if flag.startswith("--") and equals:
        return f"{name}={_YAML_WORDS.get(value, value)}"
    return _YAML_WORDS.get(flag, flag)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _problem(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"]) or "the recipe"
    if problem["type"] == "extra_forbidden":
        *parents, key = [str(part) for part in problem["loc"]]
        kind: Any = Config
        for parent in parents:
            kind = kind.model_fields[parent].annotation
        return f"  {path}: no such knob.{did_you_mean(key, kind.model_fields)}"
    reason = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict | BaseModel) else f", not {problem['input']!r}"
    return f"  {path}: {reason[0].lower()}{reason[1:]}{given}"


# --- writing, explaining, comparing ------------------------------------------------------------------------


def dump(config: Config) -> dict[str, Any]:
    """Return the configuration as plain JSON and YAML types, every knob present."""
    return config.model_dump(mode="json")


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as a recipe file that :func:`load` reads back to an equal one."""
    return yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Leaf:
    """One knob: its dotted path, value, default, sentence, unit, and what a change means to a continued run."""

    path: str
    value: Any
    default: Any
    about: str
    unit: str
    change: Change


def leaves(config: Config) -> Iterator[Leaf]:
    """Walk every knob of ``config`` in the order of its sections."""
    yield from _leaves(config, "")


def _leaves(part: Section, prefix: str) -> Iterator[Leaf]:
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Section):
            yield from _leaves(value, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra
        assert isinstance(extra, dict), f"{prefix}{name} is not declared with knob()"
        change = extra["change"] or type(part).change
        yield Leaf(f"{prefix}{name}", value, field.default, field.description or "", str(extra["unit"]), change)  # type: ignore[arg-type]


def explain(config: Config, recipe: Path, overrides: Sequence[str] = ()) -> str:
    """Return a table of every knob: value, unit, where the value came from, what a change on resume means, meaning."""
    in_file = {leaf_path for leaf_path, _ in _flatten(read_recipe(recipe))}
    in_flags = {flag[2:].partition("=")[0].replace("-", "_") for flag in overrides if flag.startswith("--")}
    rows = [("knob", "value", "unit", "from", "on resume", "meaning")]
    for leaf in leaves(config):
        origin = "command line" if leaf.path in in_flags else recipe.name if leaf.path in in_file else "default"
        rows.append((leaf.path, _short(leaf.value), leaf.unit, origin, leaf.change, leaf.about))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[5]]) for row in rows)


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Difference:
    """A knob whose value is not the one a run was saved with."""

    path: str
    saved: Any
    current: Any
    change: Change

    def __str__(self) -> str:
        """Say both values and, where the run would be another one, the two ways on."""
        said = f"{self.path} was {_short(self.saved)}, now {_short(self.current)}"
        if self.change != "refuse":
            return said
        value = " ".join(map(str, self.saved)) if isinstance(self.saved, list) else self.saved
        return f"{said}: set it back with --{self.path} {value}, or insist with --accept {self.path}"


def differences(saved: Mapping[str, Any], current: Config) -> list[Difference]:
    """Return the knobs of ``current`` that differ from a saved :func:`dump`; one that it lacks had its default."""
    old, new = dict(_flatten(saved)), dict(_flatten(dump(current)))
    return [
        Difference(leaf.path, before, new[leaf.path], leaf.change)
        for leaf in leaves(current)
        if (before := old.get(leaf.path, _plain(leaf.default))) != new[leaf.path]
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value

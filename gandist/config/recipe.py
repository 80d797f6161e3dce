"""A whole recipe: read, validated, overridden by flags, written."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from gandist.config.augment import AugmentConfig
from gandist.config.averages import EmaConfig
from gandist.config.balance import BalanceConfig, HealthConfig
from gandist.config.data import DataConfig, RunConfig
from gandist.config.execution import (
    CheckpointConfig,
    ExecutionConfig,
    FaultConfig,
    SamplesConfig,
    TrackingConfig,
)
from gandist.config.knobs import Change, Section, section
from gandist.config.method import LossConfig, OptimizerConfig, UpdateConfig
from gandist.config.models import ModelConfig
from gandist.config.penalties import RegularizerConfig
from gandist.errors import ConfigError, did_you_mean


class Config(Section):
    """A whole recipe."""

    run: RunConfig = section(RunConfig, "Folder, seed, length.")
    data: DataConfig = section(DataConfig, "The real images and their order.")
    model: ModelConfig = section(ModelConfig, "The two networks.")
    loss: LossConfig = section(LossConfig, "The adversarial loss.")
    regularizer: RegularizerConfig = section(RegularizerConfig, "Penalties.")
    augment: AugmentConfig = section(AugmentConfig, "What is done to images before D sees them.")
    update: UpdateConfig = section(UpdateConfig, "The adversarial round.")
    balance: BalanceConfig = section(BalanceConfig, "Who learns in a round.")
    optimizer: OptimizerConfig = section(OptimizerConfig, "Adam for each network.")
    ema: EmaConfig = section(EmaConfig, "Moving average of G.")
    samples: SamplesConfig = section(SamplesConfig, "Pictures while training.")
    health: HealthConfig = section(HealthConfig, "Whether the run is well.")
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
    package = Path(__file__).parents[1]
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


def check_knobs(names: Sequence[str], where: str) -> None:
    """Raise a :class:`ConfigError` for the first name that is no knob."""
    known = {leaf.path for leaf in leaves(Config())}
    for name in names:
        if name not in known:
            raise ConfigError(f"{where} {name}: no such knob.{did_you_mean(name, known)}")

"""Every declared knob is read somewhere, and another value of it changes something that can be seen."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import seen_augment
import seen_averages
import seen_balance
import seen_data
import seen_method
import seen_models
import seen_penalties
import torch
from torch.utils.data import DataLoader

import gandist
from gandist import trainer as trainer_module
from gandist.adversarial.regularizers import PENALTIES
from gandist.assembly import generator_regularizers_of, regularizers_of
from gandist.config import Config, PenaltyConfig, Schedule, dump, leaves, merge, parse
from gandist.errors import ConfigError, RunError
from gandist.trainer import Trainer

PACKAGE = Path(gandist.__file__).parent
TINY: dict[str, Any] = {
    "run": {"name": "tiny", "total_kimg": 0.032},
    "data": {"resolution": 8, "channels": 1, "classes": [0, 1, 2, 3]},
    "model": {
        "arch": "mlp",
        "latent_dim": 4,
        "mlp": {"generator_widths": [8], "discriminator_widths": [8]},
        "dcgan": {"generator_channels": 2, "discriminator_channels": 2},
        "resnet": {"generator_channels": 2, "discriminator_channels": 2},
        "biggan": {"generator_channels": 2, "discriminator_channels": 2, "class_dim": 3},
        "progressive": {"stable_kimg": 0.008, "fade_kimg": 0.016, "channel_base": 64, "channel_max": 4},
        "r3gan": {"channel_base": 64, "channel_max": 4, "group_channels": 2, "class_dim": 3, "stage_blocks": 1},
        "stylegan2": {"style_dim": 4, "mapping_depth": 2, "channel_base": 32, "class_mapping_depth": 2},
        "gat": {"depth": 2, "width": 8, "head_width": 4, "style_dim": 4, "projection_dim": 4, "levels": 2},
        "cips": {"widths": [4, 4], "fourier_features": 4, "position_features": 3},
    },
    "optimizer": {"generator": {"lr": 0.01}, "discriminator": {"lr": 0.01}},
    "regularizer": {"r1": {"gamma": 1.0, "interval_steps": 2}},
    "update": {"batch_images": 8},
    "samples": {"every_kimg": 0.016, "rows": 1, "columns": 1},
    "checkpoint": {"every_kimg": 0.016},
    "tracking": {"every_kimg": 0.008},
    "ema": {"halflife_kimg": 0.01, "rampup": 0.3},
    "execution": {"workers": 0, "precision": "fp32", "device": "cpu", "threads": 1},
}

Changes = dict[str, Any]


def nested(path: str, value: Any) -> Changes:
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


# --- what a tiny run shows -----------------------------------------------------------------------------------


def observe(config: Config) -> str:
    """Run the recipe and return a digest of all that it left: weights, names of files, rows, pictures."""
    from accelerate.state import AcceleratorState

    from gandist.trainer import Trainer

    AcceleratorState._reset_state(reset_partial_state=True)
    assert Trainer(config).train() == 0
    found = hashlib.sha256()
    for path in sorted(config.folder.rglob("*")):
        found.update(str(path.relative_to(config.run.root)).encode())
        if path.suffix in {".safetensors", ".png"}:
            found.update(path.read_bytes())
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            clock = ("time", "speed/", "memory/")
            kept = [{k: v for k, v in row.items() if not k.startswith(clock)} for row in rows]
            found.update(repr(kept).encode())
    return found.hexdigest()


# knob: another value, and the settings under which both values are looked at
SEEN_IN_A_RUN: dict[str, tuple[Any, Changes]] = {
    "run.name": ("other", {}),
    "run.seed": (1, {}),
    "run.total_kimg": (0.024, {}),
    "data.resolution": (16, {}),
    "data.channels": (3, {}),
    "data.classes": ([5, 6], {}),
    "data.hflip": (True, {}),
    "model.arch": ("dcgan", {}),
    "model.conditional": (True, {}),
    "model.latent_dim": (5, {}),
    "model.mlp.generator_widths": ([9], {}),
    "model.mlp.discriminator_widths": ([9], {}),
    "model.mlp.dropout": (0.0, {}),
    "model.dcgan.generator_channels": (3, {"model": {"arch": "dcgan"}}),
    "model.dcgan.discriminator_channels": (3, {"model": {"arch": "dcgan"}}),
    "model.resnet.generator_channels": (3, {"model": {"arch": "resnet"}}),
    "model.resnet.discriminator_channels": (3, {"model": {"arch": "resnet"}}),
    "loss.kind": ("hinge", {}),
    "loss.real_label": (0.9, {}),
    "loss.fake_label": (0.1, {}),
    "loss.swap_probability": (0.3, {}),
    "regularizer.r1.gamma": (0.0, {}),
    "regularizer.r1.interval_steps": (3, {}),
    "regularizer.r1.schedule.shape": ("cosine", {}),
    "regularizer.r1.schedule.warmup_kimg": (1.0, {}),
    "regularizer.r1.schedule.begin_kimg": (0.01, {"regularizer": {"r1": {"schedule": {"shape": "linear"}}}}),
    "regularizer.r1.schedule.end_kimg": (0.02, {"regularizer": {"r1": {"schedule": {"shape": "linear"}}}}),
    "regularizer.r1.schedule.final": (0.5, {"regularizer": {"r1": {"schedule": {"shape": "linear"}}}}),
    "update.batch_images": (4, {}),
    "update.d_steps": (2, {}),
    "ema.halflife_kimg": (0.001, {}),
    "ema.rampup": (None, {}),
    "samples.every_kimg": (
        1.0,
        {"update": {"batch_images": 500}, "run": {"total_kimg": 2.0}, "samples": {"every_kimg": 5}},
    ),
    "samples.columns": (2, {}),
    "samples.rows": (2, {}),
    "checkpoint.every_kimg": (0.008, {}),
    "checkpoint.keep": (1, {}),
    "checkpoint.keep_every_kimg": (0.016, {"checkpoint": {"keep": 1, "every_kimg": 0.008}}),
    "checkpoint.best_metric": ("loss/g", {}),
    "checkpoint.best_mode": ("max", {"checkpoint": {"best_metric": "loss/g", "keep": 1, "every_kimg": 0.008}}),
    "tracking.every_kimg": (0.016, {}),
    "tracking.tensorboard": (True, {}),
    "tracking.wandb.mode": ("offline", {}),
    "execution.precision": ("bf16", {"model": {"arch": "dcgan"}}),
}
SEEN_IN_A_LONG_RUN: dict[str, tuple[Any, Changes]] = {
    **seen_models.ROWS,
    **seen_penalties.ROWS,
    **seen_method.ROWS,
    **seen_augment.ROWS,
    **seen_averages.ROWS,
    **seen_balance.ROWS,
    **seen_data.ROWS,
}
for player in ("generator", "discriminator"):
    decay = {"optimizer": {player: {"schedule": {"shape": "linear"}}}}
    SEEN_IN_A_RUN |= {
        f"optimizer.{player}.lr": (0.02, {}),
        f"optimizer.{player}.beta1": (0.0, {}),
        f"optimizer.{player}.beta2": (0.5, {}),
        f"optimizer.{player}.eps": (0.1, {}),
        f"optimizer.{player}.clip_norm": (0.001, {}),
        f"optimizer.{player}.schedule.shape": ("cosine", {}),
        f"optimizer.{player}.schedule.warmup_kimg": (1.0, {}),
        f"optimizer.{player}.schedule.begin_kimg": (0.01, decay),
        f"optimizer.{player}.schedule.end_kimg": (0.02, decay),
        f"optimizer.{player}.schedule.final": (0.5, decay),
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Changes], str]:
    """Return what the tiny run shows under some settings; each is run once."""
    known: dict[str, str] = {}

    def of(settings: Changes) -> str:
        key = json.dumps(settings)
        if key not in known:
            known[key] = observe(tiny(tmp_path_factory.mktemp("plain"), settings))
        return known[key]

    return of


def tiny(root: Path, *changes: Changes) -> Config:
    content = merge(dump(Config()), TINY)
    for change in ({"run": {"root": str(root)}}, *changes):
        content = merge(content, change)
    return parse(content, "tests")


EVERY_ROW = SEEN_IN_A_RUN | SEEN_IN_A_LONG_RUN


@pytest.mark.parametrize(
    "knob", [*SEEN_IN_A_RUN, *(pytest.param(knob, marks=pytest.mark.long) for knob in SEEN_IN_A_LONG_RUN)]
)
def test_a_run_shows_the_knob(knob: str, tmp_path: Path, plain: Callable[[Changes], str]) -> None:
    value, settings = EVERY_ROW[knob]
    changed = tiny(tmp_path, settings, nested(knob, value))
    before = next(leaf.value for leaf in leaves(tiny(tmp_path, settings)) if leaf.path == knob)
    assert next(leaf.value for leaf in leaves(changed) if leaf.path == knob) != before
    assert observe(changed) != plain(settings)


def test_the_same_recipe_shows_the_same(tmp_path: Path, plain: Callable[[Changes], str]) -> None:
    """Without this, every test above would pass for a knob that does nothing."""
    assert observe(tiny(tmp_path)) == plain({})


# --- knobs that change how, not what ---------------------------------------------------------------------------


def order_of(config: Config) -> list[int]:
    from gandist.data.order import Order

    data = config.data
    shuffle = {"chunk": data.chunk, "block": data.block, "lanes": data.lanes, "stripe": data.stripe}
    order = Order([40, 40, 40], config.run.seed, **shuffle)
    return [int(sample) for sample in order.locate(torch.arange(120).numpy())]


class LoaderMadeError(Exception):
    """Ends the look, and carries how a DataLoader was made."""


def loader_of(config: Config, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the arguments that the trainer's loader gives torch's DataLoader."""
    from gandist.trainer import Trainer

    def caught(_self: object, *_given: Any, **settings: Any) -> None:
        raise LoaderMadeError(settings)

    trainer = Trainer(config)
    monkeypatch.setattr(DataLoader, "__init__", caught)
    with pytest.raises(LoaderMadeError) as look:
        next(trainer._real_images())
    settings: dict[str, Any] = look.value.args[0]
    return settings


def test_order_knobs(tmp_path: Path) -> None:
    plain = order_of(tiny(tmp_path))
    wide = {"data": {"chunk": 4, "block": 60, "lanes": 2, "stripe": 3}}
    assert sorted(plain) == list(range(120))
    for knob, value in (("chunk", 5), ("block", 30), ("lanes", 3), ("stripe", 7)):
        assert order_of(tiny(tmp_path, wide)) != order_of(tiny(tmp_path, wide, {"data": {knob: value}})), knob


def test_shards(tmp_path: Path) -> None:
    from gandist.errors import DataError
    from gandist.trainer import Trainer

    with pytest.raises(DataError, match="nowhere"):
        Trainer(tiny(tmp_path, {"data": {"shards": "nowhere"}}))


def test_margins_and_rows() -> None:
    seen_balance.test_margins_and_rows()


def test_root(tmp_path: Path) -> None:
    assert observe(tiny(tmp_path / "a")) == observe(tiny(tmp_path / "b"))
    assert (tmp_path / "a" / "tiny").is_dir()
    assert (tmp_path / "b" / "tiny").is_dir()


def test_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        many = loader_of(tiny(tmp_path, {"execution": {"workers": 3, "prefetch_batches": 7}}), patch)
    few = loader_of(tiny(tmp_path, {"execution": {"workers": 2, "prefetch_batches": 5}}), monkeypatch)
    assert (many["num_workers"], few["num_workers"]) == (3, 2)
    assert many["prefetch_factor"] != few["prefetch_factor"]


def test_device_and_threads(tmp_path: Path) -> None:
    from gandist.errors import MachineError
    from gandist.trainer import Trainer

    before = torch.get_num_threads()
    try:
        Trainer(tiny(tmp_path, {"execution": {"threads": 2}}))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="no CUDA device"):
            Trainer(tiny(tmp_path, {"execution": {"device": "cuda"}}))


def test_determinism(tmp_path: Path) -> None:
    from gandist.trainer import Trainer

    try:
        Trainer(tiny(tmp_path, {"execution": {"deterministic": True}}))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_channels_last(tmp_path: Path) -> None:
    from gandist.trainer import Trainer

    dcgan = {"model": {"arch": "dcgan"}}
    for wanted in (True, False):
        trainer = Trainer(tiny(tmp_path / str(wanted), dcgan, {"execution": {"channels_last": wanted}}))
        weight = next(p for p in trainer.game.discriminator.module.parameters() if p.ndim == 4 and p.shape[1] > 1)
        assert weight.is_contiguous(memory_format=torch.channels_last) == wanted


def test_compile_leaves_out_a_discriminator_with_penalties(tmp_path: Path) -> None:
    from gandist.trainer import Trainer

    compiling = {"execution": {"compile": True}}
    free = Trainer(tiny(tmp_path / "free", compiling, {"regularizer": {"r1": {"gamma": 0.0}}})).game
    bound = Trainer(tiny(tmp_path, compiling)).game
    compiled = [player.module._compiled_call_impl is not None for player in (free.generator, free.discriminator)]
    assert compiled == [True, True]
    compiled = [player.module._compiled_call_impl is not None for player in (bound.generator, bound.discriminator)]
    assert compiled == [True, False]


def test_passes(tmp_path: Path) -> None:
    from gandist.trainer import Trainer

    forwards = []
    for micro in (None, 2):
        trainer = Trainer(tiny(tmp_path / str(micro), {"execution": {"micro_images": micro}}))
        calls: list[int] = []
        trainer.game.discriminator.module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        trainer.train()
        forwards.append(len(calls))
    assert forwards == [4 * 3, 4 * 4 * 3]


def test_patience_with_numbers_that_are_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that may be skipped, and times that the run may go back; tests/trainer/test_not_finite.py has the rest."""
    to_device = Trainer._to_device

    def spoilt(trainer: Trainer, *given: Any) -> Any:
        real = to_device(trainer, *given)
        real.x[0, 0, 0, 0] = float("nan") if 2 <= trainer.clock.round_index < 2 + 2 * (1 + trainer.rollbacks) else 0
        return real

    monkeypatch.setattr(Trainer, "_to_device", spoilt)
    for name, fault, outcome in (
        ("patient", {"skip_steps": 4, "rollbacks": 0}, (0, "done")),
        ("back", {"skip_steps": 2, "rollbacks": 1}, (1, "failed")),
        ("end", {"skip_steps": 2, "rollbacks": 0}, (0, "failed")),
    ):
        saves = {"fault": fault, "run": {"total_kimg": 0.08}, "checkpoint": {"every_kimg": 0.008, "keep": 9}}
        trainer = Trainer(tiny(tmp_path / name, saves))
        with contextlib.suppress(RunError):
            trainer.train()
        state = json.loads((trainer.folder / "status.json").read_text())["state"]
        assert (trainer.rollbacks, state) == outcome, name


def test_patience_with_ranks_that_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    watchdog = trainer_module.Watchdog

    def noted(folder: Path, rank: int, seconds: float, say: Callable[[str], None]) -> Any:
        given.append(seconds)
        return watchdog(folder, rank, seconds, say)

    monkeypatch.setattr(trainer_module, "Watchdog", noted)
    Trainer(tiny(tmp_path, {"execution": {"timeout_seconds": 77.0}})).train()
    assert given == [77.0]


PENALTY_SECTIONS = {name: part for name, part in dict(Config().regularizer).items() if isinstance(part, PenaltyConfig)}
SCHEDULED = [
    f"regularizer.{name}.{knob}"
    for name in PENALTY_SECTIONS
    for knob in ("interval_steps", *(f"schedule.{key}" for key in Schedule.model_fields))
    if name != "r1"
]


def test_schedules_and_intervals_of_penalties() -> None:
    """They are read for all penalties alike: what is paid when, without a run."""
    decay = {"shape": "linear", "warmup_kimg": 2.0, "begin_kimg": 20.0, "end_kimg": 60.0, "final": 0.1}
    others: dict[str, Any] = {"shape": "cosine", "warmup_kimg": 9.0, "begin_kimg": 30.0, "end_kimg": 70.0, "final": 0.2}

    def paid(name: str, **knobs: Any) -> list[tuple[bool, float]]:
        own = {"name": "test"} if name == "other" else {}
        strength = PENALTY_SECTIONS[name].strength
        changes = {"run": {"total_kimg": 100.0}, "regularizer": {name: {strength: 1.0, **own, **knobs}}}
        config = parse(merge(dump(Config()), changes), name)
        found = [*regularizers_of(config), *generator_regularizers_of(config)]
        (one,) = [r for r in found if r.name == (own.get("name") or name)]
        return [(one.due(step, 1000 * step), one.scale(1000 * step)) for step in range(0, 100, 4)]

    PENALTIES["test"] = PENALTIES["centring"]
    try:
        for name in PENALTY_SECTIONS:
            plain = paid(name, interval_steps=2, schedule=decay)
            assert plain != paid(name, interval_steps=3, schedule=decay), name
            for key, value in others.items():
                assert plain != paid(name, interval_steps=2, schedule={**decay, key: value}), (name, key)
        with pytest.raises(ConfigError, match=r"regularizer.other.name tset: no such penalty. Did you mean 'test'\?"):
            regularizers_of(parse({"regularizer": {"other": {"name": "tset", "weight": 1.0}}}, "x"))
    finally:
        del PENALTIES["test"]


def test_wandb_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the section says of the run's identity reaches the process that talks to W&B."""
    from gandist.runtime import wandb_link

    sent = []
    monkeypatch.setattr(wandb_link.WandbLink, "_launch", lambda link, mode: sent.append(link._start["identity"]))
    identity = {"project": "p", "entity": "e", "group": "g", "tags": ["t"]}
    wandb = tiny(tmp_path, {"tracking": {"wandb": {"mode": "offline", **identity}}}).tracking.wandb
    wandb_link.WandbLink(tmp_path, wandb, name="n", config={}, say=print)
    assert {key: sent[0][key] for key in identity} == identity


def test_stream_knobs(tmp_path: Path) -> None:
    """Ten shards of one image each, whose shade is its number; the label is another number, twice."""
    import io
    import tarfile

    import numpy as np

    from gandist.data.stream.images import StreamedImages
    from gandist.errors import ConfigError
    from gandist.trainer import Trainer

    for shade in range(10):
        image = io.BytesIO()
        np.save(image, np.full((8, 8, 1), shade, dtype=np.uint8))
        content = {"a.npy": image.getvalue(), "a.cls": b"%d" % (9 - shade), "a.json": b'{"id": %d}' % (20 + shade)}
        with tarfile.open(tmp_path / f"{shade}.tar", "w") as archive:
            for name, data in content.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    def seen(**stream: Any) -> tuple[list[int], list[int]]:
        data = {"shards": f"{tmp_path}/*.tar", "classes": None, "stream": {"shuffle_images": 1, **stream}}
        images = Trainer(tiny(tmp_path, {"data": data})).images
        assert isinstance(images, StreamedImages)
        pixels, labels = images.begin(start=0, consumer=0, consumers=1).take(20)
        return pixels[:, 0, 0, 0].tolist(), labels.tolist()

    shades, labels = seen()
    assert labels == [-1] * 20
    assert seen(label="cls", class_count=10)[1] == [9 - shade for shade in shades]
    assert seen(label="json:id", class_count=30)[1] == [20 + shade for shade in shades]
    with pytest.raises(ConfigError, match="class_count"):
        seen(label="cls")
    mixed, _ = seen(shuffle_images=15)
    assert sorted(shades[:10]) == list(range(10))
    assert sorted(mixed[:10]) != list(range(10)), "a buffer above a pass mixes passes"


def test_bad_images(tmp_path: Path) -> None:
    """A run goes on with as many bad images as it may, and says so; with fewer it ends."""
    from gandist.data.making.prepare import prepare
    from gandist.errors import DataError
    from gandist.trainer import Trainer

    prepare("glyphs", tmp_path / "shards", resolution=8, channels=1, max_images=16, workers=0)
    shard = next((tmp_path / "shards").glob("*.tar"))
    shard.write_bytes(shard.read_bytes().replace(b"\x93NUMPY", b"\x00NUMPY", 3))
    data = {"shards": str(tmp_path / "shards"), "classes": None}
    many = tiny(tmp_path / "many", {"data": {**data, "bad_images": 0.3}})
    few = tiny(tmp_path / "few", {"data": {**data, "bad_images": 0.05}})
    assert Trainer(many).train() == 0
    rows = [json.loads(line) for line in (many.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["data/bad_images"] == 3
    assert "takes its place" in (many.folder / "events.log").read_text()
    with pytest.raises(DataError, match=r"data\.bad_images allows"):
        Trainer(few).train()


def test_knobs_of_shards_from_afar(tmp_path: Path) -> None:
    """Nothing is fetched for any of these."""
    from gandist.config import CacheConfig
    from gandist.data.images import open_images
    from gandist.data.remote.cache import open_cache
    from gandist.errors import ConfigError, DataError

    assert open_cache(CacheConfig(dir=tmp_path / "mine", gb=2.0)).folder == tmp_path / "mine"
    assert open_cache(CacheConfig(dir=tmp_path / "mine", gb=2.0)).limit_bytes == 2_000_000_000
    assert open_cache(CacheConfig(dir=tmp_path / "mine")).limit_bytes is None

    def opened(**data: Any) -> None:
        open_images(tiny(tmp_path, {"data": {"classes": None, **data}}).data, 0, CacheConfig(dir=tmp_path / "mine"))

    with pytest.raises(ConfigError, match="ftp://"):
        opened(shards=str(tmp_path), root="ftp://host/set")
    with pytest.raises(DataError, match="holds no index"):
        opened(shards=str(tmp_path), root="https://host/set")
    with pytest.raises(ConfigError, match=r"--data\.allow_http true"):
        opened(shards=str(tmp_path), root="http://host/set")
    with pytest.raises(DataError, match="holds no index"):
        opened(shards=str(tmp_path), root="http://host/set", allow_http=True)


def test_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gandist import feed

    asked = []
    monkeypatch.setattr(feed, "show_by", lambda space, decoder, device: asked.append(decoder))
    Trainer(tiny(tmp_path, {"data": {"decoder": "folder"}}))
    assert asked == ["folder"]


SEEN_ELSEWHERE = {
    **seen_balance.ELSEWHERE,
    "data.decoder": test_decoder,
    "data.root": test_knobs_of_shards_from_afar,
    "data.allow_http": test_knobs_of_shards_from_afar,
    "execution.cache.dir": test_knobs_of_shards_from_afar,
    "execution.cache.gb": test_knobs_of_shards_from_afar,
    "data.bad_images": test_bad_images,
    "data.stream.label": test_stream_knobs,
    "data.stream.class_count": test_stream_knobs,
    "data.stream.shuffle_images": test_stream_knobs,
    "run.root": test_root,
    "data.shards": test_shards,
    "data.chunk": test_order_knobs,
    "data.block": test_order_knobs,
    "data.lanes": test_order_knobs,
    "data.stripe": test_order_knobs,
    "execution.workers": test_workers,
    "execution.prefetch_batches": test_workers,
    "execution.device": test_device_and_threads,
    "execution.threads": test_device_and_threads,
    "execution.deterministic": test_determinism,
    "execution.channels_last": test_channels_last,
    "execution.compile": test_compile_leaves_out_a_discriminator_with_penalties,
    "execution.micro_images": test_passes,
    "execution.timeout_seconds": test_patience_with_ranks_that_hang,
    "fault.skip_steps": test_patience_with_numbers_that_are_not_finite,
    "fault.rollbacks": test_patience_with_numbers_that_are_not_finite,
    **dict.fromkeys(SCHEDULED, test_schedules_and_intervals_of_penalties),
    "regularizer.other.name": test_schedules_and_intervals_of_penalties,
    "regularizer.other.weight": test_schedules_and_intervals_of_penalties,
    "tracking.wandb.project": test_wandb_knobs,
    "tracking.wandb.entity": test_wandb_knobs,
    "tracking.wandb.group": test_wandb_knobs,
    "tracking.wandb.tags": test_wandb_knobs,
}

# knobs that only several ranks show, and the tests in tests/distributed that start those
SEEN_BETWEEN_RANKS = {
    "execution.sync_batch_norm": ("test_same_result.py", "test_a_mistake_would_be_noticed"),
    "execution.gradient_compression": (
        "test_gradients.py",
        "test_compressed_gradients_are_half_the_bytes_and_equal_on_all_ranks",
    ),
}


def test_no_knob_is_left_out() -> None:
    declared = {leaf.path for leaf in leaves(Config())}
    assert declared == EVERY_ROW.keys() | SEEN_ELSEWHERE.keys() | SEEN_BETWEEN_RANKS.keys()
    for file, test in SEEN_BETWEEN_RANKS.values():
        assert f"def {test}(" in (Path(__file__).parents[1] / "distributed" / file).read_text()


def attributes(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value  # a section handed over by the names of its fields


def test_every_knob_is_read() -> None:
    read = {
        name
        for path in PACKAGE.rglob("*.py")
        if "config" not in path.relative_to(PACKAGE).parts
        for name in attributes(path)
    }
    for leaf in leaves(Config()):
        assert leaf.path.rpartition(".")[2] in read | {"name", "root"}, leaf.path  # those two make Config.folder


def test_a_schedule_of_a_value_that_is_off_changes_nothing(tmp_path: Path) -> None:
    off = {"regularizer": {"r1": {"gamma": 0.0}}}
    on = merge(off, {"regularizer": {"r1": {"schedule": {"shape": "linear"}}}})
    assert observe(tiny(tmp_path / "a", off)) == observe(tiny(tmp_path / "b", on))

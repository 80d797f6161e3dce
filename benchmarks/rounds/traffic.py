"""What the processes of a round send each other: every byte that goes through torch.distributed, by operation.

Two processes of one thread each meet over gloo. The players are seated as in training, so the count is that of the
trainer's own wrapping. A round must reduce each network's gradients once for every step of that network, and no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gandist.adversarial.game import Draws, Real
from gandist.adversarial.round import Round
from gandist.adversarial.strategies import STRATEGIES
from gandist.assembly import seat_players
from gandist.config import Config, parse
from gandist.models.build import build
from gandist.models.contract import ImageShape, Networks
from gandist.runtime import rng
from gandist.runtime.distributed import Ranks
from rounds import loops
from rounds.loops import Pair
from rounds.report import Table
from rounds.two_ranks import WORLD, measured_by_two

IMAGES = 8
WARM_UP_ROUNDS = 3
"""DDP settles on its buckets during the first of them, with a message of its own."""


@dataclass(frozen=True)
class Case:
    """A kind of round; R1 is due in all rounds (``r1=1``), in every so many, or never (None).

    ``norms`` is what batch norms see: the images of all ranks, or those of one.
    """

    name: str
    arch: str = "dcgan"
    d_steps: int = 1
    r1: int | None = None
    passes: int = 1
    norms: Literal["all", "one"] = "all"
    travels: Literal["none", "bf16", "fp16"] = "none"
    tutorial: bool = False


CASES = [
    Case("gandist's round"),
    Case("R1 due", r1=1),
    Case("R1 not due", r1=1000),
    Case("two passes for each step", arch="mlp", passes=2),
    Case("two passes for each step, R1 due", arch="mlp", passes=2, r1=1),
    Case("two D steps", d_steps=2),
    Case("batch norms of one rank", norms="one"),
    Case("gradients in bf16, R1 due", travels="bf16", r1=1),
    Case("gradients in fp16, two passes", arch="mlp", travels="fp16", passes=2),
    Case("PyTorch's DCGAN tutorial in DDP", tutorial=True),
]
QUICK = [
    Case("gandist's round"),
    Case("two passes for each step, R1 due", arch="mlp", passes=2, r1=1),
    Case("gradients in bf16, R1 due", travels="bf16", r1=1),
]


@dataclass(frozen=True)
class Traffic:
    """Bytes that one process hands over for reduction or broadcast in one round, and the least that would do.

    The least is that of gradients as they are: half of it travels in a format of two bytes.
    """

    case: Case
    parameters_g: int
    parameters_d: int
    least: int
    reduced: int
    other: int
    statistics: int

    @property
    def multiple(self) -> float:
        """Return the gradients' bytes as a multiple of the least."""
        return self.reduced / self.least

    @property
    def wanted(self) -> float:
        """Return what that multiple should be."""
        return 1.0 if self.case.travels == "none" else 0.5


class Sent(TorchDispatchMode):
    """Counts the bytes of all tensors handed to torch.distributed inside the context, by operation.

    Statistics of batch norms are told from gradients by their number format, fp64.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Pass every operation on."""
        if func.namespace == "c10d":
            name = func.__name__.split(".")[0].rstrip("_")
            for tensor in (leaf for leaf in tree_leaves(args[0]) if isinstance(leaf, Tensor)):
                self.bytes["statistics" if tensor.dtype == torch.float64 else name] += tensor.nbytes
        return func(*args, **(kwargs or {}))


def measure(cases: Sequence[Case]) -> list[Traffic]:
    """Play every case with two processes and return what the first one of them sent."""
    return [Traffic(case, **row) for case, row in zip(cases, measured_by_two(_measure, cases), strict=True)]


def _measure(case: Case, accelerator: Any, ranks: Ranks) -> dict[str, int]:
    config = _config(case)
    networks = build(config.model, ImageShape(config.data.resolution, 3), classes=0, seed=0)
    bytes_g, bytes_d = (_bytes(network) for network in (networks.generator, networks.discriminator))
    play = _tutorial(networks) if case.tutorial else _gandist(config, networks, accelerator, ranks)
    for index in range(WARM_UP_ROUNDS):
        play(index)
    with Sent() as round_:
        play(WARM_UP_ROUNDS)
    with Sent() as after:
        if not case.tutorial and case.norms == "one":
            ranks.average_statistics(networks.generator, networks.discriminator)
    return {
        "parameters_g": bytes_g,
        "parameters_d": bytes_d,
        "least": bytes_g + case.d_steps * bytes_d,
        "reduced": round_.bytes.pop("allreduce"),
        "statistics": round_.bytes.pop("statistics", 0) + after.bytes.total(),
        "other": round_.bytes.total(),
    }


def _bytes(network: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())


def _config(case: Case) -> Config:
    content: dict[str, Any] = {
        "data": {"resolution": 32},
        "model": {"arch": case.arch, "dcgan": {"generator_channels": 16, "discriminator_channels": 16}},
        "update": {"batch_images": WORLD * IMAGES, "d_steps": case.d_steps},
        "execution": {
            "micro_images": IMAGES // case.passes if case.passes > 1 else None,
            "sync_batch_norm": case.norms == "all",
            "gradient_compression": case.travels,
        },
    }
    if case.r1 is not None:
        content["regularizer"] = {"r1": {"gamma": 1.0, "interval_steps": case.r1}}
    return parse(content, "benchmark")


def _gandist(config: Config, networks: Networks, accelerator: Any, ranks: Ranks) -> Callable[[int], None]:
    """Return gandist's round, its players seated as for training."""
    game, _ = seat_players(config, networks, accelerator, "fp32", [1])
    real = _real(config)

    def play(index: int) -> None:
        draws = Draws(partial(rng.generator, 0, "round", index), config.update.batch_images, ranks.rank * IMAGES)
        reals = [Real(real, None) for _ in range(config.update.d_steps)]
        STRATEGIES["detach"](Round(game, draws, index, index * config.update.batch_images), reals)

    return play


def _tutorial(networks: Networks) -> Callable[[int], None]:
    """Return the tutorial's round with each network in DDP as it comes."""
    g, d = (DistributedDataParallel(network) for network in (networks.generator, networks.discriminator))
    adam_g, adam_d = (torch.optim.Adam(network.parameters()) for network in (g, d))
    pair, real = Pair(g, d, adam_g, adam_d, latent_dim=100), torch.zeros(IMAGES, 3, 32, 32)
    return lambda _: loops.tutorial(pair, real)


def _real(config: Config) -> Tensor:
    return torch.zeros(IMAGES, 3, config.data.resolution, config.data.resolution)


def table(found: Sequence[Traffic]) -> Table:
    """Return a row for each kind of round."""
    rows = [
        [
            t.case.name,
            f"{t.parameters_g:,}",
            f"{t.parameters_d:,}",
            f"{t.least:,}",
            f"{t.reduced:,}",
            f"{t.multiple:.3f}",
            f"{t.other:,}",
            f"{t.statistics:,}",
        ]
        for t in found
    ]
    return Table(
        "Bytes reduced by a round",
        f"What each of {WORLD} processes hands to torch.distributed in one round, by DDP over gloo. The least is the "
        "size of G's parameters and, for each D step, of D's; `reduced` are the gradients. `statistics` are those of "
        "batch norms: two numbers of fp64 for each channel, in the forward and in the backward pass, where they see "
        "all ranks; where they see one, their running statistics after the round. `other` is sent besides, such as "
        "buffers in a forward pass. (The trainer also asks all processes before each round whether one was told to "
        "stop: 8 bytes.)",
        ["round", "G bytes", "D bytes", "least", "reduced", "x least", "other", "statistics"],
        rows,
    )


def wasteful(found: Sequence[Traffic]) -> list[str]:
    """Return a complaint for each of gandist's rounds that sends anything but the least."""
    return [
        f"{t.case.name}: reduces {t.reduced:,} bytes, sends {t.other:,} others, where {t.wanted * t.least:,} would do"
        for t in found
        if not t.case.tutorial and (t.multiple != t.wanted or t.other)
    ]

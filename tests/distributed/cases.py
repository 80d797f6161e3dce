"""Short games, each played by several numbers of ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

BATCH = 16
TINY: dict[str, Any] = {
    "data": {"resolution": 16, "channels": 1},
    "model": {
        "arch": "mlp",
        "latent_dim": 8,
        "mlp": {"generator_widths": [24, 16], "discriminator_widths": [24, 16]},
        "dcgan": {"generator_channels": 4, "discriminator_channels": 4},
        "resnet": {"generator_channels": 8, "discriminator_channels": 8},
    },
    "loss": {"swap_probability": 0.1},
    "ema": {"halflife_kimg": 0.05},
    "update": {"batch_images": BATCH},
    "execution": {"device": "cpu"},
}
CLASSES = 3


@dataclass(frozen=True)
class Case:
    """A game of some rounds.

    Args:
        name: its group, a colon, and what it is in the group.
        changes: of the tiny recipe.
        rounds: how many are played.
        passes: cuts each rank's share into so many.
        scalers: both players scale their losses, as for fp16.
        overflow: the network one of whose gradients is infinite on the last rank, in the second round.
        mistake: what a broken trainer might do, to see that the tests would notice.

    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    rounds: int = 8
    precision: Literal["fp32", "bf16"] = "fp32"
    passes: int = 1
    scalers: bool = False
    overflow: Literal["generator", "discriminator"] | None = None
    mistake: Literal["noise", "reduction"] | None = None


R1 = {"regularizer": {"r1": {"gamma": 0.5, "interval_steps": 2}}}
NO_R1 = {"regularizer": {"r1": {"gamma": 0.0}}}
CLIPPED = {"optimizer": {role: {"clip_norm": 0.02} for role in ("generator", "discriminator")}}
CONDITIONAL = {"arch": "resnet", "conditional": True}
ALONE = {"execution": {"sync_batch_norm": False}}
PENALTIES = {"R1": R1, "no R1": NO_R1}


def penalty(**sections: Any) -> dict[str, Any]:
    """Return changes that switch penalties on."""
    return {"regularizer": {"r1": {"gamma": 0.0}, **sections}}


FINITE = {"gamma": 0.5, "method": "finite_difference", "sigma": 0.1, "interval_steps": 2}
PAIRS = {"loss": {"relativistic": "pairs", "swap_probability": 0.0}}
STYLES = {
    "arch": "stylegan2",
    "stylegan2": {"style_dim": 8, "mapping_depth": 2, "channel_base": 128, "channel_max": 8, "minibatch_group": 2},
}
METHODS: dict[str, dict[str, Any]] = {
    **{f"{strategy}": {"update": {"strategy": strategy}, **R1} for strategy in ("retain_graph", "generator_first")},
    "retain_graph, dcgan": {"model": {"arch": "dcgan"}, "update": {"strategy": "retain_graph"}, **R1},
    "fresh latents, two steps each": {"update": {"latents": "fresh", "d_steps": 2, "g_steps": 2}, **R1},
    "pairs with R1 and R2": {**PAIRS, **penalty(r1={"gamma": 0.5, "interval_steps": 1}, r2={"gamma": 0.5})},
    "pairs with finite differences": {
        **PAIRS, **penalty(r1=FINITE, r2={**FINITE, "antithetic": True}, centring={"weight": 0.1})
    },
    "average": {"loss": {"relativistic": "average"}, **R1},
    "wgan-gp": {"loss": {"kind": "wasserstein"}, **penalty(gradient_penalty={"weight": 10.0})},
    "dragan": penalty(gradient_penalty={"weight": 10.0, "kind": "dragan"}),
    "lecam and clipping": penalty(lecam={"weight": 0.3, "start_kimg": 0.04}, clip_weights=0.1),
    "consistency": penalty(bcr={"weight": 0.1}, zcr_d={"weight": 5.0}, zcr_g={"weight": 0.5}),
    "orthogonal": penalty(orthogonal_d={"weight": 0.01}, orthogonal_g={"weight": 0.01}),
    "normalized gradient": penalty(gradient_norm={"on": True}),
    "auxiliary classifier": {"model": {"conditional": True, "head": "auxiliary"}, **R1},
    "augmentation": {
        "augment": {
            "diff": ["colour", "translation", "cutout"],
            "ada": {"pipe": "bgcfnc", "p": 0.5, "adjust_kimg": 0.2, "interval_steps": 1},
            "instance_noise": {"sigma": 0.1},
        },
        **R1,
    },
    "path length": {"model": STYLES, **penalty(path_length={"weight": 2.0, "interval_steps": 2})},
}  # fmt: skip
"""What the method can do, each played by several ranks."""

CASES = [
    Case("few:dcgan", {"model": {"arch": "dcgan"}, **R1}),
    Case("few:conditional resnet", {"model": CONDITIONAL, **R1}),
    Case("few:dcgan, norms of one rank", {"model": {"arch": "dcgan"}, **ALONE, **R1}),
    Case("few:conditional resnet, norms of one rank", {"model": CONDITIONAL, **ALONE, **R1}),
    Case("few:plain", R1),
    Case("few:plain, noise of another rank", R1, mistake="noise"),
    Case("few:plain, gradients not reduced", R1, mistake="reduction"),
    Case("few:clipped", {**CLIPPED, **R1}),
    Case("few:plain and scaled", R1, scalers=True),
    Case("few:clipped and scaled", {**CLIPPED, **R1}, scalers=True),
    Case("few:overflow in generator", R1, scalers=True, overflow="generator"),
    Case("few:overflow in discriminator", R1, scalers=True, overflow="discriminator"),
    *(
        Case(f"few:{form} travels, {passes} passes", {"execution": {"gradient_compression": form}, **R1}, passes=passes)
        for form in ("bf16", "fp16")
        for passes in (1, 2)
    ),
    *(
        Case(f"many:{name}, {passes} passes", penalty, rounds=20, passes=passes)
        for name, penalty in PENALTIES.items()
        for passes in (1, 2, 4)
    ),
    *(
        Case(f"many:bf16, {arch}", {"model": {"arch": arch}, **R1}, precision="bf16")
        for arch in ("mlp", "dcgan", "resnet")
    ),
    Case(
        "many:bf16, dcgan, noise of another rank", {"model": {"arch": "dcgan"}, **R1}, precision="bf16", mistake="noise"
    ),
    Case(
        "many:bf16, dcgan, gradients not reduced",
        {"model": {"arch": "dcgan"}, **R1},
        precision="bf16",
        mistake="reduction",
    ),
    *(
        Case(f"many:{name}, {arch}", {"model": {"arch": arch}, **penalty}, rounds=rounds)
        for name, penalty in PENALTIES.items()
        for arch, rounds in {"dcgan": 20, "resnet": 8}.items()
    ),
    Case("many:conditional dcgan", {"model": {"arch": "dcgan", "conditional": True}, **R1}, rounds=20),
    Case("many:conditional resnet", {"model": CONDITIONAL, **R1}),
    *(
        Case(f"many:channels last, {arch}", {"model": {"arch": arch}, "execution": {"channels_last": True}, **R1})
        for arch in ("dcgan", "resnet")
    ),
    *(Case(f"method:{name}", changes, rounds=6) for name, changes in METHODS.items()),
    Case("many:two D steps", {"model": {"arch": "dcgan"}, "update": {"d_steps": 2}, **R1}),
]

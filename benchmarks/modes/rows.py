"""What is compared: rows of the tables, each a change of the ring's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Changes = Mapping[str, Any]

EVERY_STEP: Changes = {"regularizer": {"r1": {"interval_steps": 1}}}
"""Under all rows, to compare penalties at the same interval; the recipe itself pays R1 at every fourth step."""
FREE: Changes = {"regularizer": {"r1": {"gamma": 0.0}}}


def _free(**regularizer: Any) -> Changes:
    return {"regularizer": {"r1": {"gamma": 0.0}, **regularizer}}


def _critic(d_steps: int, adam: Mapping[str, float], **regularizer: Any) -> Changes:
    """Return the Wasserstein loss with several D steps and without momentum, as its papers play it."""
    return {
        "loss": {"kind": "wasserstein"},
        "update": {"d_steps": d_steps},
        "optimizer": {"generator": adam, "discriminator": adam},
        **_free(**regularizer),
    }


def _loss(kind: str, relativistic: str = "off") -> Changes:
    return {"loss": {"kind": kind, "relativistic": relativistic}}


LOSSES: dict[str, Changes] = {
    "minimax": _loss("minimax"),
    "non-saturating": {},
    "hinge": _loss("hinge"),
    "least squares": _loss("least_squares"),
    "Wasserstein": _loss("wasserstein"),
    "non-saturating, relativistic pairs": _loss("non_saturating", "pairs"),
    "non-saturating, relativistic average": _loss("non_saturating", "average"),
}

TABLES: dict[str, dict[str, Changes]] = {
    "Losses, with R1": LOSSES,
    "Losses, without a penalty": {name: {**changes, **FREE} for name, changes in LOSSES.items()},
    "Strategies, with R1": {
        "detach": {},
        "detach, fresh latents": {"update": {"latents": "fresh"}},
        "retain_graph": {"update": {"strategy": "retain_graph"}},
        "generator_first": {"update": {"strategy": "generator_first"}},
        "generator_first, fresh latents": {"update": {"strategy": "generator_first", "latents": "fresh"}},
        "2 D steps": {"update": {"d_steps": 2}, "run": {"total_kimg": 768}},
        "2 G steps": {"update": {"g_steps": 2}},
    },
    "Regularisers": {
        "none": FREE,
        "R1": {},
        "R1 at every 4th step (the recipe)": {"regularizer": {"r1": {"interval_steps": 4}}},
        "R1, finite differences": {"regularizer": {"r1": {"method": "finite_difference", "sigma": 0.002}}},
        "R1, both sides": {
            "regularizer": {"r1": {"method": "finite_difference", "sigma": 0.002, "antithetic": True}}
        },
        "R2": _free(r2={"gamma": 0.1, "interval_steps": 1}),
        "R1 and R2": {"regularizer": {"r2": {"gamma": 0.1, "interval_steps": 1}}},
        "R1 and R2, relativistic pairs": {
            "loss": {"relativistic": "pairs"},
            "regularizer": {"r2": {"gamma": 0.1, "interval_steps": 1}},
        },
        "DRAGAN": _free(gradient_penalty={"weight": 0.1, "kind": "dragan"}),
        "WGAN-GP, 5 D steps": {
            # the paper's for points (Gulrajani et al. 2017), but for a rate that gets somewhere in 3,000 rounds
            **_critic(5, {"lr": 4e-3, "beta1": 0.0, "beta2": 0.9}, gradient_penalty={"weight": 0.1}),
            "run": {"total_kimg": 1920},
        },
        "Wasserstein, clipped weights": {
            **_critic(3, {"beta1": 0.0}, clip_weights=0.1), "run": {"total_kimg": 768},
        },
        "LeCam": _free(lecam={"weight": 0.01}),
        "centring, relativistic pairs": {**_loss("non_saturating", "pairs"), **_free(centring={"weight": 0.01})},
        "zCR": _free(zcr_d={"weight": 5.0}, zcr_g={"weight": 0.5}),
        "orthogonal D": _free(orthogonal_d={"weight": 1e-4}),
        "orthogonal G": _free(orthogonal_g={"weight": 1e-4}),
        "normalised gradient of G": _free(gradient_norm={"on": True}),
        "instance noise, falling": {
            **FREE, "augment": {"instance_noise": {"sigma": 0.1, "schedule": {"shape": "linear"}}},
        },
    },
    "Balance, without a penalty": {
        "fixed": FREE,
        "by accuracy": {**FREE, "balance": {"kind": "accuracy", "accuracy": {"high": 0.8}}},
        "by loss": {**FREE, "balance": {"kind": "loss", "loss": {"low": 0.8}}},
    },
}  # fmt: skip

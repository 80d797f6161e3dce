"""Rows of test_knobs.py for the knobs of the loss, the round and who moves."""

from typing import Any

# knob: another value, and the settings under which both values are looked at
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "loss.relativistic": ("pairs", {}),
    "loss.auxiliary_weight": (0.1, {"model": {"conditional": True, "head": "auxiliary"}}),
    "update.strategy": ("retain_graph", {}),
    "update.latents": ("fresh", {}),
    "update.g_steps": (2, {}),
    "update.concatenate": (True, {"model": {"arch": "dcgan"}}),
}
for player in ("generator", "discriminator"):
    decay = {"optimizer": {player: {"beta2_schedule": {"shape": "linear"}}}}
    ROWS |= {
        f"optimizer.{player}.beta2_schedule.shape": ("cosine", {}),
        f"optimizer.{player}.beta2_schedule.warmup_kimg": (1.0, {}),
        f"optimizer.{player}.beta2_schedule.begin_kimg": (0.01, decay),
        f"optimizer.{player}.beta2_schedule.end_kimg": (0.02, decay),
        f"optimizer.{player}.beta2_schedule.final": (0.5, decay),
    }

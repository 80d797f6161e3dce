"""Rows of test_knobs.py for the knobs of what is done to what D sees."""

from typing import Any


def augment(**settings: Any) -> dict[str, Any]:
    return {"data": {"channels": 3}, "augment": settings}


def ada(pipe: str = "bgcfnc", **settings: Any) -> dict[str, Any]:
    return augment(ada={"pipe": pipe, **settings})


FIXED = ada(adaptive=False, p=1.0)
EAGER = {"adjust_kimg": 0.1, "interval_steps": 1}
RAMP = {"adaptive": False, "p": 0.2}

# knob: another value, and the settings under which both values are looked at
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "augment.diff": (["colour", "cutout"], {}),
    "augment.ada.pipe": ("blit", ada(**RAMP)),
    "augment.ada.adaptive": (False, ada(p=0.5, **EAGER)),
    "augment.ada.p": (0.5, ada(**EAGER)),
    "augment.ada.target": (-1.0, ada(p=0.5, target=1.0, **EAGER)),
    "augment.ada.interval_steps": (3, ada(p=0.5, **EAGER)),
    "augment.ada.adjust_kimg": (0.01, ada(p=0.5, **EAGER)),
    "augment.ada.ramp.shape": ("linear", ada(**RAMP)),
    "augment.ada.ramp.final": (0.5, ada(**RAMP, ramp={"shape": "linear"})),
    "augment.ada.ramp.begin_kimg": (0.01, ada(**RAMP, ramp={"shape": "linear"})),
    "augment.ada.ramp.end_kimg": (0.02, ada(**RAMP, ramp={"shape": "linear"})),
    "augment.ada.rates.xflip": (0.0, FIXED),
    "augment.ada.rates.rotate90": (0.0, FIXED),
    "augment.ada.rates.integer_translation": (0.0, FIXED),
    "augment.ada.rates.isotropic_scaling": (0.0, FIXED),
    "augment.ada.rates.rotation": (0.0, FIXED),
    "augment.ada.rates.anisotropic_scaling": (0.0, FIXED),
    "augment.ada.rates.fractional_translation": (0.0, FIXED),
    "augment.ada.rates.brightness": (0.0, FIXED),
    "augment.ada.rates.contrast": (0.0, FIXED),
    "augment.ada.rates.luma_flip": (0.0, FIXED),
    "augment.ada.rates.hue": (0.0, FIXED),
    "augment.ada.rates.saturation": (0.0, FIXED),
    "augment.ada.rates.filtering": (0.0, FIXED),
    "augment.ada.rates.noise": (0.0, FIXED),
    "augment.ada.rates.cutout": (0.0, FIXED),
    "augment.instance_noise.sigma": (0.1, {}),
}
for knob, value in (
    ("shape", "cosine"),
    ("warmup_kimg", 1.0),
    ("begin_kimg", 0.01),
    ("end_kimg", 0.02),
    ("final", 0.5),
):
    falling = {"shape": "linear"} if knob != "warmup_kimg" else {}
    ROWS[f"augment.instance_noise.schedule.{knob}"] = (
        value,
        augment(instance_noise={"sigma": 0.2, "schedule": falling}),
    )

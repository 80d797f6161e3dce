"""Rows of test_knobs.py for the knobs of penalties."""

from typing import Any

# knob: another value, and the settings under which both values are looked at
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {}
STYLES = {"model": {"arch": "stylegan2"}}


def switched_on(section: str, **knobs: Any) -> dict[str, Any]:
    """Return settings in which one penalty is paid, and R1 is not."""
    off = {} if section == "r1" else {"r1": {"gamma": 0.0}}
    return {"regularizer": {**off, section: knobs}, **(STYLES if section == "path_length" else {})}


def rows_of(section: str, strength: str, level: float, others: dict[str, Any]) -> None:
    """Add the rows of one penalty: its strength and what its class takes; test_knobs.py looks at the rest."""
    base: dict[str, Any] = {"start_kimg": 0.0} if section == "lecam" else {}
    ROWS[f"regularizer.{section}.{strength}"] = (level, switched_on(section, **base))
    for knob, (value, more) in others.items():
        settings = {strength: level, "interval_steps": 1, **base, **more}
        ROWS[f"regularizer.{section}.{knob}"] = (value, switched_on(section, **settings))


FINITE = {"method": "finite_difference"}
ZERO_CENTRED = {"method": ("finite_difference", {}), "sigma": (0.1, FINITE), "antithetic": (True, FINITE)}
POINTS = {"kind": ("dragan", {}), "target": (0.0, {}), "one_sided": (True, {"target": 0.1})}
rows_of("r2", "gamma", 1.0, ZERO_CENTRED)
rows_of("gradient_penalty", "weight", 10.0, POINTS)
rows_of("centring", "weight", 1.0, {})
rows_of("lecam", "weight", 1.0, {"decay": (0.0, {}), "start_kimg": (0.016, {})})
rows_of("bcr", "weight", 1.0, {"real_weight": (1.0, {}), "fake_weight": (1.0, {}), "shift": (0.3, {})})
rows_of("zcr_d", "weight", 5.0, {"sigma": (0.5, {})})
rows_of("zcr_g", "weight", 5.0, {"sigma": (0.5, {})})
rows_of("orthogonal_d", "weight", 0.1, {})
rows_of("orthogonal_g", "weight", 0.1, {})
rows_of("path_length", "weight", 2.0, {"decay": (0.5, {})})
ROWS |= {
    "regularizer.r1.method": ("finite_difference", {}),
    "regularizer.r1.sigma": (0.1, switched_on("r1", gamma=1.0, **FINITE)),
    "regularizer.r1.antithetic": (True, switched_on("r1", gamma=1.0, **FINITE)),
    "regularizer.gradient_norm.on": (True, {}),
    "regularizer.gradient_norm.decay": (0.1, switched_on("gradient_norm", on=True)),
    "regularizer.clip_weights": (0.01, {}),
}

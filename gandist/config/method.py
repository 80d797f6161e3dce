"""The knobs of the method: loss, penalties, the round, optimizers."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from gandist.config.knobs import Change, Schedule, Section, knob, section


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

"""The knobs of the method: loss, the round, optimizers."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from gandist.config.knobs import Change, Schedule, Section, knob, section


class LossConfig(Section):
    """The adversarial loss."""

    kind: str = knob(
        "non_saturating", "Which adversarial loss: minimax, non_saturating, hinge, least_squares or wasserstein."
    )
    relativistic: Literal["off", "pairs", "average"] = knob(
        "off",
        "What a logit is judged against: nothing, the image of the other kind in the same row (R3GAN), or the mean of "
        "the other kind.",
    )
    auxiliary_weight: float = knob(
        1.0, "Weight of the classification loss of both players; read when model.head is auxiliary (AC-GAN).", ge=0
    )
    real_label: float = knob(1.0, "D's target for real images; below 1 is label smoothing.", gt=0, le=1)
    fake_label: float = knob(0.0, "D's target for fakes; above 0 is two-sided smoothing.", ge=0, lt=1)
    swap_probability: float = knob(0.0, "Share of D's targets that are swapped between real and fake.", ge=0, lt=0.5)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.real_label <= self.fake_label:
            raise ValueError(f"real_label {self.real_label:g} must be above fake_label {self.fake_label:g}")
        return self


class UpdateConfig(Section):
    """The adversarial round."""

    strategy: Literal["detach", "retain_graph", "generator_first"] = knob(
        "detach",
        "Who moves first and what is shared: D then G (detach), both at once (retain_graph: least work), G then D "
        "(generator_first: least memory).",
    )
    latents: Literal["shared", "fresh"] = knob(
        "shared", "One batch of fakes serves both networks, or each draws its own, which costs one more G forward."
    )
    batch_images: int = knob(64, "Real images of one D step over all ranks.", unit="images", ge=1)
    d_steps: int = knob(1, "D steps in a round; each shows D new real images.", ge=1)
    g_steps: int = knob(1, "G steps in a round; those after the first draw latents of their own.", ge=1)
    concatenate: bool = knob(
        False, "D sees real images and fakes as one batch: one forward, and batch norms that mix the two."
    )

    @model_validator(mode="after")
    def _at_once(self) -> Self:
        if self.strategy == "retain_graph" and (self.g_steps > 1 or self.latents == "fresh"):
            raise ValueError("strategy retain_graph moves both networks on the same fakes: g_steps 1, latents shared")
        return self


class AdamConfig(Section):
    """Adam (Kingma & Ba 2015) for one network."""

    change: ClassVar[Change] = "warn"
    lr: float = knob(2e-4, "Learning rate before its schedule.", ge=0)
    beta1: float = knob(0.5, "Decay of the first moment, per step.", ge=0, lt=1)
    beta2: float = knob(0.999, "Decay of the second moment, per step.", ge=0, lt=1)
    eps: float = knob(1e-8, "Added to the root of the second moment.", gt=0)
    clip_norm: float | None = knob(None, "Gradients are scaled down to this global norm; off when left out.", gt=0)
    schedule: Schedule = section(Schedule, "Factor on the learning rate over images seen.")
    beta2_schedule: Schedule = section(Schedule, "Factor on 1 - beta2 over images seen.")


class OptimizerConfig(Section):
    """One optimizer for each network."""

    generator: AdamConfig = section(AdamConfig, "The generator's optimizer.")
    discriminator: AdamConfig = section(AdamConfig, "The discriminator's optimizer.")

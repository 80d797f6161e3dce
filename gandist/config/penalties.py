"""The knobs of the penalties: one section for each row of the tables in :mod:`gandist.adversarial.regularizers`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from gandist.config.knobs import Schedule, Section, knob, section


class PenaltyConfig(Section):
    """A penalty: its weight, when it is due, and what else its class takes, which are the other knobs."""

    strength: ClassVar[str] = "weight"  # the knob that switches it on
    player: ClassVar[Literal["discriminator", "generator"]] = "discriminator"

    interval_steps: int = knob(
        1, "Applied at every so many steps, with a weight that many times larger.", unit="steps", ge=1
    )
    schedule: Schedule = section(Schedule, "Factor on the weight over images seen.")

    @property
    def level(self) -> float:
        """The weight before its schedule."""
        value: float = getattr(self, self.strength)
        return value

    @property
    def settings(self) -> dict[str, Any]:
        """What the penalty's class takes."""
        own = {self.strength, "interval_steps", "schedule"}
        return {name: getattr(self, name) for name in type(self).model_fields if name not in own}


class ZeroCentredConfig(PenaltyConfig):
    """A zero-centred gradient penalty (Mescheder et al. 2018), lazily applied (Karras et al. 2020)."""

    strength = "gamma"

    gamma: float = knob(0.0, "Weight of the penalty gamma/2 |grad D(x)|^2; 0 switches it off.", ge=0)
    interval_steps: int = knob(
        16, "Applied at every so many D steps, with a weight that many times larger.", unit="D steps", ge=1
    )
    method: Literal["exact", "finite_difference"] = knob(
        "exact",
        "By a second derivative, or by the difference of D on images with noise: same gamma, no second derivative.",
    )
    sigma: float = knob(0.01, "Standard deviation of the noise of finite_difference; images span -1 to 1.", gt=0)
    antithetic: bool = knob(
        False, "finite_difference looks at both sides of each image: less bias, one more D forward."
    )


class R1Config(ZeroCentredConfig):
    """R1: on real images (Mescheder et al. 2018, equation 9)."""


class R2Config(ZeroCentredConfig):
    """R2: on fakes (Mescheder et al. 2018, equation 10)."""


class GradientPenaltyConfig(PenaltyConfig):
    """A penalty that draws the norm of D's gradient to a target: WGAN-GP (Gulrajani 2017), DRAGAN (Kodali 2017)."""

    weight: float = knob(
        0.0, "Weight of the penalty (|grad D(x)| - target)^2; WGAN-GP's is 10. 0 switches it off.", ge=0
    )
    kind: Literal["wgan_gp", "dragan"] = knob(
        "wgan_gp", "At points between real images and fakes, or near real images."
    )
    target: float = knob(1.0, "The norm that is not punished.", ge=0)
    one_sided: bool = knob(False, "Only norms above the target are punished.")


class CentringConfig(PenaltyConfig):
    """Keeps relativistic logits near zero (Adversarial Flow Models, 2025)."""

    weight: float = knob(0.0, "Weight of the penalty (D(x) + D(G(z)))^2; 0 switches it off.", ge=0)


class LeCamConfig(PenaltyConfig):
    """LeCam (Tseng et al. 2021), for small data sets."""

    weight: float = knob(0.0, "Weight; the paper's is 0.1 to 0.5. 0 switches it off.", ge=0)
    decay: float = knob(0.99, "Of the averages of D's logits, for each D step.", ge=0, lt=1)
    start_kimg: float = knob(1.0, "Paid from here on; the averages settle meanwhile.", unit="kimg", ge=0)


class BcrConfig(PenaltyConfig):
    """Balanced consistency, bCR (Zhao et al. 2021): D should say the same of a mirrored and shifted image."""

    weight: float = knob(0.0, "Factor on both weights below; 0 switches the penalty off.", ge=0)
    real_weight: float = knob(10.0, "Of real images.", ge=0)
    fake_weight: float = knob(10.0, "Of fakes.", ge=0)
    shift: float = knob(0.125, "Greatest shift as a share of the image's size.", ge=0, lt=1)


class ZcrDConfig(PenaltyConfig):
    """Latent consistency of D, zCR (Zhao et al. 2021): D should say the same of fakes of latents nearby."""

    weight: float = knob(0.0, "Weight; the paper's is 5. 0 switches it off.", ge=0)
    sigma: float = knob(0.03, "Standard deviation of the step from z.", gt=0)


class ZcrGConfig(PenaltyConfig):
    """Latent variety of G, zCR (Zhao et al. 2021): G should draw different images from latents nearby."""

    player = "generator"

    weight: float = knob(0.0, "Weight; the paper's is 0.5. 0 switches it off.", ge=0)
    sigma: float = knob(0.03, "Standard deviation of the step from z.", gt=0)


class OrthogonalDConfig(PenaltyConfig):
    """Orthogonal regularisation of D's filters (Brock et al. 2019, equation 3)."""

    weight: float = knob(0.0, "Weight; the paper's is 1e-4. 0 switches it off.", ge=0)


class OrthogonalGConfig(PenaltyConfig):
    """Orthogonal regularisation of G's filters (Brock et al. 2019, equation 3)."""

    player = "generator"

    weight: float = knob(0.0, "Weight; the paper's is 1e-4. 0 switches it off.", ge=0)


class PathLengthConfig(PenaltyConfig):
    """Path length regularisation of a generator that has styles (Karras et al. 2020, equation 4)."""

    player = "generator"

    weight: float = knob(0.0, "Weight; the paper's is 2. 0 switches it off.", ge=0)
    interval_steps: int = knob(
        4, "Applied at every so many G steps, with a weight that many times larger.", unit="G steps", ge=1
    )
    decay: float = knob(0.99, "Of the mean length, for each step that pays.", ge=0, lt=1)


class OtherPenaltyConfig(PenaltyConfig):
    """A row of the tables of penalties that has no section of its own."""

    name: str | None = knob(None, "Its name in the table.")
    weight: float = knob(0.0, "Weight; 0 switches it off.", ge=0)

    @property
    def settings(self) -> dict[str, Any]:
        """What the penalty's class takes: nothing."""
        return {}


class GradientNormConfig(Section):
    """Normalisation of the gradient that reaches G through D (Adversarial Flow Models, 2025)."""

    on: bool = knob(False, "The gradient of G's adversarial loss by a fake is divided by its running root mean square.")
    decay: float = knob(0.9, "Of the running mean, for each G step.", ge=0, lt=1)


class RegularizerConfig(Section):
    """What players pay beside the adversarial loss, and what is done to D's weights and to G's gradient."""

    r1: R1Config = section(R1Config, "Gradient penalty on real images.")
    r2: R2Config = section(R2Config, "Gradient penalty on fakes.")
    gradient_penalty: GradientPenaltyConfig = section(GradientPenaltyConfig, "WGAN-GP and DRAGAN.")
    centring: CentringConfig = section(CentringConfig, "Keeps relativistic logits near zero.")
    lecam: LeCamConfig = section(LeCamConfig, "For small data sets.")
    bcr: BcrConfig = section(BcrConfig, "Consistency of D under small changes of an image.")
    zcr_d: ZcrDConfig = section(ZcrDConfig, "Consistency of D under small changes of the latent.")
    zcr_g: ZcrGConfig = section(ZcrGConfig, "Variety of G under small changes of the latent.")
    orthogonal_d: OrthogonalDConfig = section(OrthogonalDConfig, "Orthogonal filters of D.")
    orthogonal_g: OrthogonalGConfig = section(OrthogonalGConfig, "Orthogonal filters of G.")
    path_length: PathLengthConfig = section(PathLengthConfig, "Even steps of the image with the style.")
    other: OtherPenaltyConfig = section(OtherPenaltyConfig, "A penalty of your own.")
    gradient_norm: GradientNormConfig = section(GradientNormConfig, "Scales the gradient that D sends to G.")
    clip_weights: float | None = knob(
        None, "D's weights are clipped to this absolute value after each step (Arjovsky 2017); off when left out.",
        gt=0,
    )  # fmt: skip

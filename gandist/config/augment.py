"""The knobs of what is done to images before D sees them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from gandist.config.knobs import Change, Schedule, Section, knob, section


class RampConfig(Section):
    """From a value at the beginning to another, over images seen."""

    change: ClassVar[Change] = "warn"
    shape: Literal["off", "linear", "cosine"] = knob("off", "How the value moves after begin_kimg.")
    final: float = knob(1.0, "The value at and after the end.", ge=0, le=1)
    begin_kimg: float = knob(0.0, "It moves from here on.", unit="kimg", ge=0)
    end_kimg: float | None = knob(None, "It arrives here; at the run's end when left out.", unit="kimg", gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end_kimg is not None and self.end_kimg <= self.begin_kimg:
            raise ValueError(f"end_kimg {self.end_kimg:g} must be above begin_kimg {self.begin_kimg:g}")
        return self


def _rate(what: str) -> Any:
    return knob(None, f"Factor on p for {what}; the pipe's when left out.", ge=0)


class AdaRatesConfig(Section):
    """How often each transform happens, beside p."""

    xflip: float | None = _rate("mirroring")
    rotate90: float | None = _rate("quarter turns")
    integer_translation: float | None = _rate("shifts by whole pixels")
    isotropic_scaling: float | None = _rate("scaling")
    rotation: float | None = _rate("turning by any angle")
    anisotropic_scaling: float | None = _rate("stretching")
    fractional_translation: float | None = _rate("shifts by parts of pixels")
    brightness: float | None = _rate("brightness")
    contrast: float | None = _rate("contrast")
    luma_flip: float | None = _rate("turning dark to bright")
    hue: float | None = _rate("turning the colour wheel")
    saturation: float | None = _rate("saturation")
    filtering: float | None = _rate("amplifying bands of frequencies")
    noise: float | None = _rate("added noise")
    cutout: float | None = _rate("cutting out a square")


class AdaConfig(Section):
    """Adaptive discriminator augmentation (Karras et al. 2020a)."""

    pipe: Literal["none", "blit", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc", "r3gan"] = knob(
        "none", "Which transforms: pixel Blitting, General geometry, Colour, Filtering, Noise, Cutout; or R3GAN's."
    )
    adaptive: bool = knob(True, "Whether p follows how sure D is of real images, or its own ramp.")
    p: float = knob(0.0, "Probability of each transform, at the beginning.", ge=0, le=1)
    target: float = knob(0.6, "The mean sign of D's logits for real images that an adaptive p aims at.", ge=-1, le=1)
    interval_steps: int = knob(4, "An adaptive p moves every so many D steps.", unit="D steps", ge=1)
    adjust_kimg: float = knob(500.0, "Images in which an adaptive p could go from 0 to 1.", unit="kimg", gt=0)
    ramp: RampConfig = section(RampConfig, "How p moves where it is not adaptive.")
    rates: AdaRatesConfig = section(AdaRatesConfig, "Factors on p for single transforms.")

    @model_validator(mode="after")
    def _one_master(self) -> Self:
        if self.pipe != "none" and self.adaptive and self.ramp.shape != "off":
            raise ValueError("an adaptive p has no ramp: set adaptive to false, or ramp.shape to off")
        return self


class InstanceNoiseConfig(Section):
    """Instance noise (Sonderby et al. 2017, section 3.2)."""

    sigma: float = knob(0.0, "Standard deviation of the noise on images in [-1, 1]; 0 switches it off.", ge=0)
    schedule: Schedule = section(Schedule, "Factor on sigma over images seen.")


class AugmentConfig(Section):
    """What is done to real images and fakes before D sees them: DiffAugment, then ADA, then instance noise."""

    diff: tuple[Literal["colour", "translation", "cutout"], ...] = knob(
        (), "Transforms of DiffAugment (Zhao et al. 2020), in this order."
    )
    ada: AdaConfig = section(AdaConfig, "Adaptive augmentation.")
    instance_noise: InstanceNoiseConfig = section(InstanceNoiseConfig, "Noise on every pixel.")

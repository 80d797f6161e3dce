"""The knobs of the two networks: one section for each architecture."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gandist.config.knobs import Section, knob, section


class MlpConfig(Section):
    """The fully connected GAN (Goodfellow et al. 2014, section 5, in its common 28x28 form)."""

    generator_widths: tuple[Annotated[int, Field(ge=1)], ...] = knob(
        (256, 512, 1024), "Hidden layers of G, from the latent on.", min_length=1
    )
    discriminator_widths: tuple[Annotated[int, Field(ge=1)], ...] = knob(
        (1024, 512, 256), "Hidden layers of D, from the image on.", min_length=1
    )
    dropout: float = knob(0.3, "Share of D's hidden units dropped in training.", ge=0, lt=1)


class DcganConfig(Section):
    """DCGAN (Radford et al. 2016) as in the official PyTorch tutorial, at any power-of-two resolution."""

    generator_channels: int = knob(64, "Channels of G's last hidden layer (the tutorial's ngf).", ge=1)
    discriminator_channels: int = knob(64, "Channels of D's first hidden layer (the tutorial's ndf).", ge=1)


class ResnetConfig(Section):
    """The SNGAN residual networks (Miyato et al. 2018, tables 3-6); class-conditional by Miyato & Koyama 2018."""

    generator_channels: int = knob(256, "Channels of G's widest block.", ge=1)
    discriminator_channels: int = knob(128, "Channels of D's blocks at 32 px.", ge=1)


class ModelConfig(Section):
    """The two networks."""

    arch: Literal["mlp", "dcgan", "resnet"] = knob("dcgan", "Which architecture.")
    conditional: bool = knob(False, "Both networks see the class; needs labelled data.")
    head: Literal["own", "projection", "auxiliary"] = knob(
        "own",
        "How a conditional D judges classes: as the architecture's paper does, by projection, or by naming them itself "
        "(AC-GAN).",
    )
    latent_dim: int = knob(100, "Length of the latent vector z.", ge=1)
    mlp: MlpConfig = section(MlpConfig, "Read when arch is mlp.")
    dcgan: DcganConfig = section(DcganConfig, "Read when arch is dcgan.")
    resnet: ResnetConfig = section(ResnetConfig, "Read when arch is resnet.")

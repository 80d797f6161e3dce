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
    normalisation: Literal["spectral", "none"] = knob(
        "spectral", "Of D's weights; a gradient penalty such as WGAN-GP's takes its place."
    )


class StyleGan2Config(Section):
    """StyleGAN2 (Karras et al. 2020), conditional by class as in StyleGAN2-ADA (Karras et al. 2020a)."""

    style_dim: int = knob(512, "Length of the style w.", ge=1)
    mapping_depth: int = knob(8, "Layers of the mapping network from z to w.", ge=1)
    mapping_lr_multiplier: float = knob(0.01, "How fast mapping networks learn, relative to other layers.", gt=0)
    mixing_probability: float = knob(
        0.9, "Share of fakes in training whose later layers take another latent's style.", ge=0, le=1
    )
    channel_base: int = knob(32768, "A resolution has this many feature maps, divided by it.", unit="maps x px", ge=1)
    channel_max: int = knob(512, "At most so many feature maps.", ge=1)
    discriminator: Literal["residual", "plain"] = knob("residual", "Whether D's blocks have shortcuts.")
    minibatch_group: int = knob(4, "Images whose standard deviation D is shown; divides each pass.", ge=1)
    class_mapping_depth: int = knob(8, "Layers of D's mapping network of classes.", ge=1)


class CipsConfig(Section):
    """CIPS (Anokhin et al. 2021); its mapping network and its D are StyleGAN2's, with the knobs of that section."""

    widths: tuple[Annotated[int, Field(ge=1)], ...] = knob(
        (512,) * 7, "Features of each pair of modulated layers; every pair adds to the image.", min_length=1
    )
    fourier_features: int = knob(512, "Sines of learned linear functions of the position.", ge=1)
    fourier_std: float = knob(2.0, "Spread of their frequencies at the beginning.", unit="radians per half image", gt=0)
    position_features: int = knob(512, "Numbers learned for each pixel; 0 for none.", ge=0)
    demodulate: bool = knob(True, "Whether features are brought back to unit variance behind each modulated layer.")


class BigganConfig(Section):
    """BigGAN (Brock et al. 2019, appendix B)."""

    generator_channels: int = knob(64, "Base width of G, the paper's ch (96 for its best network).", ge=1)
    discriminator_channels: int = knob(64, "Base width of D, the paper's ch.", ge=1)
    class_dim: int = knob(128, "Length of the class embedding that all blocks of G share.", ge=1)
    hierarchical: bool = knob(True, "Every block of G sees a piece of z of its own; otherwise the first layer sees z.")
    attention_resolution: int | None = knob(
        None, "Both networks have self-attention at this size of features (the paper's: 64).", unit="px", ge=4
    )


class GatConfig(Section):
    """Transformers of the GAT kind, for the latents of an autoencoder; the defaults are the size S/2."""

    depth: int = knob(12, "Blocks of each network; a multiple of levels.", ge=1)
    width: int = knob(384, "Features of a token (S 384, B 768).", ge=4)
    patch: int = knob(2, "Height and width of the patch that becomes a token.", unit="px", ge=1)
    head_width: int = knob(64, "Features of one attention head; it goes into width, and 4 into it.", ge=4)
    style_dim: int = knob(512, "Length of the style w.", ge=1)
    projection_dim: int = knob(2048, "Features that a conditional D compares with the class.", ge=1)
    levels: int = knob(4, "Depths at which G draws, and levels of noise at which D looks; 1 switches both off.", ge=1)
    attention: Literal["fused", "plain"] = knob(
        "fused", "fused is fast but has no second derivative, which exact gradient penalties take; plain has."
    )


class ProgressiveConfig(Section):
    """Progressive growing (Karras et al. 2018); the run must be long enough for the last resolution to join."""

    stable_kimg: float = knob(800.0, "Each resolution is trained this long before the next joins.", unit="kimg", gt=0)
    fade_kimg: float = knob(800.0, "The next resolution fades in over this long.", unit="kimg", gt=0)
    channel_base: int = knob(16384, "A resolution has this many feature maps, divided by it.", unit="maps x px", ge=1)
    channel_max: int = knob(512, "At most so many feature maps.", ge=1)
    minibatch_group: int = knob(4, "Images whose standard deviation D is shown; divides each pass.", ge=1)


class R3ganConfig(Section):
    """R3GAN (Huang et al. 2024); gandist/models/r3gan.py lists the values of the paper's networks."""

    channel_base: int = knob(24576, "A resolution has this many channels, divided by it.", unit="channels x px", ge=1)
    channel_max: int = knob(768, "At most so many channels.", ge=1)
    stage_blocks: int = knob(2, "Residual blocks at each resolution.", ge=1)
    expansion: int = knob(2, "How many times more channels there are inside a block.", ge=1)
    group_channels: int = knob(16, "Channels inside a block that a group of its 3x3 convolution sees.", ge=1)
    class_dim: int = knob(64, "Length of the class embedding that is appended to z.", ge=1)
    fp32_stages: int = knob(1, "Resolutions from 4 px on that are computed in fp32 whatever the precision is.", ge=0)


class ModelConfig(Section):
    """The two networks."""

    arch: str = knob("dcgan", "Which architecture: a row of the table in gandist/models/build.py.")
    conditional: bool = knob(False, "Both networks see the class; needs labelled data.")
    head: Literal["own", "projection", "auxiliary"] = knob(
        "own",
        "How a conditional D judges classes: as the architecture's paper does, by projection, or by naming them itself "
        "(AC-GAN).",
    )
    initialisation: Literal["own", "orthogonal", "normal", "xavier", "he"] = knob(
        "own",
        "How weights begin: as the architecture's paper says, orthogonal, N(0, 0.02^2), Xavier-uniform, or He-normal.",
    )
    latent_dim: int = knob(100, "Length of the latent vector z.", ge=1)
    mlp: MlpConfig = section(MlpConfig, "Read when arch is mlp.")
    dcgan: DcganConfig = section(DcganConfig, "Read when arch is dcgan.")
    resnet: ResnetConfig = section(ResnetConfig, "Read when arch is resnet.")
    biggan: BigganConfig = section(BigganConfig, "Read when arch is biggan.")
    progressive: ProgressiveConfig = section(ProgressiveConfig, "Read when arch is progressive.")
    r3gan: R3ganConfig = section(R3ganConfig, "Read when arch is r3gan.")
    stylegan2: StyleGan2Config = section(StyleGan2Config, "Read when arch is stylegan2 or cips.")
    cips: CipsConfig = section(CipsConfig, "Read when arch is cips.")
    gat: GatConfig = section(GatConfig, "Read when arch is gat.")

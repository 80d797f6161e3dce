"""Rows of test_knobs.py for the knobs of architectures."""

from typing import Any

BIGGAN = {"model": {"arch": "biggan"}}
PROGRESSIVE = {"model": {"arch": "progressive"}}
R3GAN = {"model": {"arch": "r3gan"}}
STYLEGAN2 = {"model": {"arch": "stylegan2"}}
CIPS = {"model": {"arch": "cips"}}

# knob: another value, and the settings under which both values are looked at
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "model.head": ("projection", {"model": {"conditional": True}}),
    "model.resnet.normalisation": ("none", {"model": {"arch": "resnet"}}),
    "model.biggan.generator_channels": (3, BIGGAN),
    "model.biggan.discriminator_channels": (3, BIGGAN),
    "model.biggan.class_dim": (4, {"model": {"arch": "biggan", "conditional": True}}),
    "model.biggan.hierarchical": (False, BIGGAN),
    "model.biggan.attention_resolution": (
        8,
        {"model": {"arch": "biggan", "latent_dim": 6}, "data": {"resolution": 16}},
    ),
    "model.progressive.stable_kimg": (0.016, PROGRESSIVE),
    "model.progressive.fade_kimg": (0.008, PROGRESSIVE),
    "model.progressive.channel_base": (16, PROGRESSIVE),
    "model.progressive.channel_max": (2, PROGRESSIVE),
    "model.progressive.minibatch_group": (2, PROGRESSIVE),
    "model.r3gan.channel_base": (32, R3GAN),
    "model.r3gan.channel_max": (2, R3GAN),
    "model.r3gan.stage_blocks": (2, R3GAN),
    "model.r3gan.expansion": (3, R3GAN),
    "model.r3gan.group_channels": (1, R3GAN),
    "model.r3gan.class_dim": (4, {"model": {"arch": "r3gan", "conditional": True}}),
    "model.r3gan.fp32_stages": (0, {**R3GAN, "execution": {"precision": "bf16"}}),
    "model.initialisation": ("orthogonal", {}),
    "model.stylegan2.style_dim": (5, STYLEGAN2),
    "model.stylegan2.mapping_depth": (1, STYLEGAN2),
    "model.stylegan2.mapping_lr_multiplier": (0.1, STYLEGAN2),
    "model.stylegan2.mixing_probability": (0.0, STYLEGAN2),
    "model.stylegan2.channel_base": (16, STYLEGAN2),
    "model.stylegan2.channel_max": (3, STYLEGAN2),
    "model.stylegan2.discriminator": ("plain", STYLEGAN2),
    "model.stylegan2.minibatch_group": (2, STYLEGAN2),
    "model.stylegan2.class_mapping_depth": (1, {"model": {"arch": "stylegan2", "conditional": True}}),
    "model.cips.widths": ([4], CIPS),
    "model.cips.fourier_features": (3, CIPS),
    "model.cips.fourier_std": (1.0, CIPS),
    "model.cips.position_features": (0, CIPS),
    "model.cips.demodulate": (False, CIPS),
}

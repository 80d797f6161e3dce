"""The recipe that ``gandist new`` writes: a card, the knobs that matter, and a reason beside what was chosen."""

from __future__ import annotations

import json
import re
from pathlib import Path

from gandist.data.making.look import Look
from gandist.data.making.propose import Choice, Proposal
from gandist.data.making.write import printable

_PAPERS = {
    "dcgan": ["Radford, Metz, Chintala 2016 (DCGAN), https://arxiv.org/abs/1511.06434"],
    "resnet": [
        "Miyato et al. 2018 (SNGAN), https://arxiv.org/abs/1802.05957;",
        "Miyato & Koyama 2018 (projection), https://arxiv.org/abs/1802.05637",
    ],
}
_WORDS = {"dcgan": "DCGAN", "resnet": "SNGAN, conditional by class,"}


def recipe_text(shards: Path, recipe: Path, look: Look, proposal: Proposal, prepared_by: str) -> str:
    """Return the whole file."""
    card = _card(recipe, look, proposal, prepared_by)
    return "\n".join([*card, *_run_and_data(shards, proposal), *_networks(proposal), *_cadence(proposal), ""])


def _card(recipe: Path, look: Look, proposal: Proposal, prepared_by: str) -> list[str]:
    kind = "grey" if proposal.channels == 1 else "RGB"
    classes = f" in {len(look.class_counts)} classes" if look.class_counts else ""
    first, *more = _PAPERS[proposal.arch]
    return [
        f"# {_WORDS[proposal.arch]} on {printable(look.title, 60)} at {proposal.resolution} px.",
        "#",
        f"# paper      {first}",
        *(f"#            {line}" for line in more),
        f"# data       {printable(look.title, 60)}: {look.images:,} {kind} images{classes}:",
        f"#              {prepared_by}",
        "# hardware   one GPU; on CPUs it runs, slowly",
        f"# expected   not run yet; look at runs/{recipe.stem}/samples as it goes on",
        f"# command    accelerate launch train.py {printable(str(recipe))}",
    ]


def _run_and_data(shards: Path, proposal: Proposal) -> list[str]:
    return [
        "run:",
        f"  total_kimg: {proposal.total_kimg}",
        "data:",
        f"  shards: {_quoted(str(shards))}",
        f"  resolution: {proposal.resolution}",
        f"  channels: {proposal.channels}",
        f"  hflip: {_said(proposal.hflip)}",
    ]


def _networks(proposal: Proposal) -> list[str]:
    """Return the sections on networks, loss and optimizers: the settings of the papers."""
    if proposal.arch == "dcgan":
        return [
            "model:",
            "  arch: dcgan",
            f"  conditional: {_said(proposal.conditional)}",
            "  latent_dim: 100",
            "update:",
            f"  batch_images: {proposal.batch_images}",
        ]
    widest = 256 if proposal.resolution <= 32 else min(1024, 8 * proposal.resolution)
    wider = [f"  resnet: {{generator_channels: {widest}, discriminator_channels: {widest}}}"] if widest > 256 else []
    adam = "{lr: 2.0e-4, beta1: 0.0, beta2: 0.9, schedule: {shape: linear}}"
    return [
        "model:",
        "  arch: resnet",
        f"  conditional: {_said(proposal.conditional)}",
        "  latent_dim: 128",
        *wider,
        "loss:",
        "  kind: hinge",
        "update:",
        f"  batch_images: {proposal.batch_images}",
        "  d_steps: 5",
        "optimizer:",
        f"  generator: {adam}",
        f"  discriminator: {adam}",
        "ema:",
        f"  halflife_kimg: {max(10, proposal.total_kimg // 50)}",
    ]


def _cadence(proposal: Proposal) -> list[str]:
    every = proposal.every_kimg
    lines = [f"{section}:\n  every_kimg: {every}" for section in ("samples", "checkpoint")]
    return [*lines, "execution:", "  channels_last: true"]


def _said(choice: Choice) -> str:
    return f"{'true' if choice.value else 'false'} # {choice.why}"


def _quoted(text: str) -> str:
    """Return a text as YAML reads it back."""
    plain = re.fullmatch(r"[A-Za-z./_][A-Za-z0-9./_-]*", text)
    return text if plain else json.dumps(text)

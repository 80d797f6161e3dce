"""How a discriminator judges the class of an image, and by which kind of head each architecture does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.config import ModelConfig
from gandist.errors import ConfigError
from gandist.models.contract import Verdict

HeadKind = Literal["concatenation", "projection", "auxiliary"]
Layer = nn.Linear | nn.Embedding


class NoHead(nn.Module):
    """Leaves the logits as they are: the head of a discriminator without classes."""

    def forward(
        self, logits: Float[Tensor, " batch"], _features: Float[Tensor, "batch width"], _c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        """Return ``logits``."""
        return logits


class Projection(nn.Module):
    """Adds the inner product of the features with the class's embedding (Miyato & Koyama 2018, equation 3).

    D(x, y) = y^T V phi(x) + psi(phi(x)): phi are the features, V the embeddings, and psi gave the logits.

    Args:
        embedding: classes to vectors as long as the features.
        scale: of the inner product, which is about sqrt(width) times larger than a feature where V ~ N(0, 1).

    """

    def __init__(self, embedding: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.embedding, self.scale = embedding, scale

    def forward(
        self, logits: Float[Tensor, " batch"], features: Float[Tensor, "batch width"], c: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        """Return logits of images being real images of their classes."""
        told: Tensor = logits + self.scale * (features * self.embedding(c)).sum(dim=1)
        return told


class Auxiliary(nn.Module):
    """Says which class it sees, instead of being told (AC-GAN: Odena, Olah, Shlens 2017, equations 2 and 3).

    Args:
        classifier: features to class logits.

    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(
        self, logits: Float[Tensor, " batch"], features: Float[Tensor, "batch width"], _c: Int[Tensor, " batch"] | None
    ) -> Verdict:
        """Return the logits of being real beside those of the classes; ``_c`` is not looked at."""
        return Verdict(logits, self.classifier(features))


ClassHead = NoHead | Projection | Auxiliary


def class_head(
    kind: HeadKind, width: int, classes: int, prepare: Callable[[Layer], nn.Module] = lambda layer: layer
) -> ClassHead:
    """Return the head of that kind for features of length ``width``.

    ``prepare`` initialises its one layer, and normalises it where the discriminator's other layers are.
    """
    if not classes or kind == "concatenation":
        return NoHead()
    if kind == "projection":
        return Projection(prepare(nn.Embedding(classes, width)))
    return Auxiliary(prepare(nn.Linear(width, classes)))


def head_kind(model: ModelConfig, own: HeadKind, allowed: Sequence[HeadKind]) -> HeadKind:
    """Return the kind of head that ``model.head`` asks for; ``own`` is the architecture's.

    Raises:
        ConfigError: the architecture has no such head.

    """
    if model.head == "own":
        return own
    if model.head not in allowed:
        others = " or ".join(repr(kind) for kind in ("own", *allowed))
        raise ConfigError(
            f"model.head: the discriminator of {model.arch} has no {model.head} head. Set --model.head to {others}."
        )
    return model.head

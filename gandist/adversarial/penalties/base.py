"""What a penalty is: it looks at one pass of a player's step and names a price.

A *view* is a batch of images that D judges in a pass. There are always ``real`` and ``fake``; a penalty may ask for
more, such as the same images with noise on them. All views of a pass belong to the same backward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gandist.adversarial.losses import Across, alone
from gandist.models.noise import Noise

Images = Float[Tensor, "batch *shape"]
Logits = Float[Tensor, " batch"]


@dataclass(frozen=True)
class View:
    """Images that D judges.

    Attributes:
        x: the images, before augmentation.
        c: their classes, in a conditional game.
        like: the view whose random draws (augmentation, dropout) these images get; None for draws of their own.

    """

    x: Images
    c: Int[Tensor, " batch"] | None
    like: str | None = None


@dataclass
class Scene:
    """One pass of a D step.

    Attributes:
        views: what D judges, by name.
        logits: what it said, by the name of the view, in fp32; filled when it has judged.
        noise: draws for the rows of the pass, by the name of a site.
        fakes_near: G's fakes for the latents of this pass plus noise of some standard deviation, without a graph.
        discriminator: the bare network, for penalties of its weights.
        loss_scale: the factor on losses that keeps small fp16 gradients from vanishing.
        rounding: relative spacing of numbers in the format that D computes in.
        images_seen: real images shown to D before this round.
        real_std: standard deviation of the step's real images, over all of them and all ranks.
        measured: what a penalty wants to be written down, by name.

    """

    views: dict[str, View]
    discriminator: nn.Module
    noise: Callable[[str], Noise]
    fakes_near: Callable[[Noise, float], Images]
    real_std: Callable[[], Tensor]
    loss_scale: float = 1.0
    rounding: float = 2.0**-23
    images_seen: int = 0
    logits: dict[str, Logits] = field(default_factory=dict)
    measured: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, x: Images, like: str, *, same_draws: bool = True) -> None:
        """Let D judge images too, which have the classes and, if so wished, the random draws of another view."""
        self.views[name] = View(x, self.views[like].c, like if same_draws else None)


class Carrying:
    """Something that may carry numbers from step to step; they are equal on all ranks and kept in checkpoints."""

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what a checkpoint kept."""


class Penalty(Carrying, ABC):
    """What D pays.

    Attributes:
        gradients: views whose images must require a gradient.
        joined: D must judge all views as one batch.
        watches: :meth:`observe` wants to hear of each D step.
        second_order: it is paid through a second derivative of D, which a compiled network does not have.

    """

    gradients: ClassVar[tuple[str, ...]] = ()
    second_order: bool = False
    joined: bool = False
    watches: ClassVar[bool] = False

    def prepare(self, scene: Scene) -> None:
        """Add views to those that D judges."""

    @abstractmethod
    def cost(self, scene: Scene) -> Float[Tensor, ""]:
        """Return the mean penalty over the rows of the pass."""

    def observe(self, real_logit: Float[Tensor, ""], fake_logit: Float[Tensor, ""], images_seen: int) -> None:
        """Hear the mean logits of a step over all ranks, after it."""


@dataclass
class Made:
    """One pass of a G step.

    Attributes:
        fake: G's images.
        generator: the bare network, for penalties of its weights.
        near: G's images for the latents of this pass plus noise of some standard deviation, with their graph.
        styled: G's images of this pass once more and the styles that they were made from, with their graph.
        noise: draws for the rows of the pass, by the name of a site.
        loss_scale: the factor on losses that keeps small fp16 gradients from vanishing.
        measured: what a penalty wants to be written down, by name.

    """

    fake: Images
    generator: nn.Module
    near: Callable[[Noise, float], Images]
    styled: Callable[[], tuple[Images, Tensor]]
    noise: Callable[[str], Noise]
    loss_scale: float = 1.0
    measured: dict[str, Tensor] = field(default_factory=dict)


class GeneratorPenalty(Carrying, ABC):
    """What G pays.

    Attributes:
        second_order: it is paid through a second derivative of G, which a compiled network does not have.

    """

    second_order: bool = False

    @abstractmethod
    def cost(self, made: Made) -> Float[Tensor, ""]:
        """Return the mean penalty over the rows of the pass."""

    def end_step(self, measured: Mapping[str, Tensor], across: Across = alone) -> None:
        """Hear what was measured in a step that paid, after it; means of this rank's rows."""


def input_gradient(x: Images, logits: Tensor, loss_scale: float = 1.0) -> Images:
    """Return the gradient of each image's logit by the image, itself differentiable.

    It is taken of scaled logits and scaled back, so that it survives fp16: by ``loss_scale``, but by no more than
    4096, since the scale itself is the first number of this backward pass and fp16 ends at 65504.
    """
    loss_scale = min(loss_scale, 4096.0)
    (gradient,) = torch.autograd.grad((logits * loss_scale).sum(), x, create_graph=True)
    return gradient.float() / loss_scale


def squared_norm(x: Images) -> Float[Tensor, " batch"]:
    """Return the squared Euclidean norm of each image."""
    return x.square().flatten(1).sum(dim=1)

"""What every augmentation is to the round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from gandist.models.noise import Noise

Images = Float[Tensor, "batch channels height width"]


class Augment(ABC):
    """Something done to real images and fakes alike before D sees them, so that D cannot learn real images by heart.

    It is differentiable, since G learns through it, and twice so, since penalties take the gradient of D by the images
    through it. What happens to a row depends on the row's draws alone.
    """

    @abstractmethod
    def __call__(self, x: Images, noise: Noise, images_seen: int) -> Images:
        """Return what D sees of images in [-1, 1], once ``images_seen`` real images were shown to it.

        The same draws are made in the same order whatever the strength, so that a row's draws do not depend on it.
        """

    def observe(self, real_sign: Tensor, images: int) -> None:  # noqa: B027 (most have nothing to learn from D)
        """Hear, after a D step, the mean of sign(D(real)) over the global batch, and its number of images."""

    def statistics(self) -> dict[str, Tensor]:
        """Return scalars on the device that are worth a column of the metrics."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Continue from what a checkpoint kept."""


class Pipeline(Augment):
    """Several augmentations, one after the other."""

    def __init__(self, steps: Sequence[Augment]) -> None:
        self.steps = tuple(steps)

    def __call__(self, x: Images, noise: Noise, images_seen: int) -> Images:
        """Return what D sees of ``x`` after every step."""
        for step in self.steps:
            x = step(x, noise, images_seen)
        return x

    def observe(self, real_sign: Tensor, images: int) -> None:
        """Tell every step."""
        for step in self.steps:
            step.observe(real_sign, images)

    def statistics(self) -> dict[str, Tensor]:
        """Return those of all steps."""
        return {name: value for step in self.steps for name, value in step.statistics().items()}

    def state(self) -> dict[str, Tensor]:
        """Return the state of every step under its place."""
        return {f"{k}.{name}": value for k, step in enumerate(self.steps) for name, value in step.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Give every step its state back."""
        for k, step in enumerate(self.steps):
            own = f"{k}."
            step.restore({name.removeprefix(own): value for name, value in state.items() if name.startswith(own)})

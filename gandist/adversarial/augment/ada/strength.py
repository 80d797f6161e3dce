"""How often ADA transforms an image: the probability p."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor


class Strength(ABC):
    """The probability p of every transform."""

    @abstractmethod
    def p(self, images_seen: int) -> float | Float[Tensor, ""]:
        """Return p after so many images; as a scalar on the device where it is not known beforehand."""

    def observe(self, real_sign: Tensor, images: int) -> None:  # noqa: B027 (a schedule needs no ear)
        """Hear the mean of sign(D(real)) over the global batch of a D step, and its number of images."""

    def statistics(self) -> dict[str, Tensor]:
        """Return scalars worth a column of the metrics."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Continue from what a checkpoint kept."""


class Scheduled(Strength):
    """A function of the images seen."""

    def __init__(self, schedule: Callable[[int], float], device: torch.device) -> None:
        self.schedule = schedule
        self.device = device
        self._last = schedule(0)

    def p(self, images_seen: int) -> float:
        """Return p after so many images."""
        self._last = self.schedule(images_seen)
        return self._last

    def statistics(self) -> dict[str, Tensor]:
        """Return the p that was used last."""
        return {"augment/p": torch.full((), self._last, device=self.device)}


class Adaptive(Strength):
    """Rises while D overfits and falls while it does not (Karras et al. 2020a, section 3, equation 1).

    The heuristic is r_t = E[sign(D(real))]: 0 of a D that knows nothing, 1 of one that knows every training image.
    Every ``interval_steps`` D steps p moves by sign(r_t - target), so fast that it could go from 0 to 1 in
    ``adjust_kimg``.

    Args:
        target: the r_t that is aimed at.
        interval_steps: D steps between two moves; r_t is the mean over them.
        adjust_kimg: thousands of images in which p could go from 0 to 1.
        start: p at the beginning.
        device: where p lives; it is never read by the host.

    """

    def __init__(
        self, target: float, interval_steps: int, adjust_kimg: float, start: float, device: torch.device
    ) -> None:
        self.target, self.interval_steps, self.adjust_kimg = target, interval_steps, adjust_kimg
        self._p = torch.full((), start, device=device)
        self._r = torch.zeros((), device=device)
        self._signs = torch.zeros((), device=device)
        self._images = self._steps = 0

    def p(self, images_seen: int) -> Float[Tensor, ""]:  # noqa: ARG002 (D's answers say it)
        """Return the present p."""
        return self._p

    @torch.no_grad()
    def observe(self, real_sign: Tensor, images: int) -> None:
        """Add a D step to the mean; at the end of an interval, move p."""
        self._signs = self._signs + real_sign * images
        self._images += images
        self._steps += 1
        if self._steps < self.interval_steps:
            return
        self._r = self._signs / self._images
        step = self._images / (self.adjust_kimg * 1000)
        self._p = (self._p + torch.sign(self._r - self.target) * step).clamp(0, 1)
        self._signs = torch.zeros_like(self._signs)
        self._images = self._steps = 0

    def statistics(self) -> dict[str, Tensor]:
        """Return p, and the r_t that moved it last."""
        return {"augment/p": self._p, "augment/r_t": self._r}

    def state(self) -> dict[str, Tensor]:
        """Return p and the interval that is under way."""
        return {
            "p": self._p,
            "r_t": self._r,
            "signs": self._signs,
            "images": torch.tensor(self._images),
            "steps": torch.tensor(self._steps),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue; a checkpoint of a run whose p was not adaptive holds none, and p starts anew."""
        if not state:
            return
        self._p, self._r, self._signs = (state[name].to(self._p) for name in ("p", "r_t", "signs"))
        self._images, self._steps = int(state["images"]), int(state["steps"])

"""Instance noise: D sees real images and fakes through the same fog, which lifts as training goes on."""

from __future__ import annotations

from collections.abc import Callable

from gandist.adversarial.augment.interface import Augment, Images
from gandist.adversarial.augment.pixel_noise import pixel_normal
from gandist.models.noise import Noise


class InstanceNoise(Augment):
    """Adds N(0, sigma^2) to every pixel, so that both distributions have a common support (Sonderby et al. 2017, 3.2).

    Args:
        sigma: the standard deviation as a function of images seen; images lie in [-1, 1].

    """

    def __init__(self, sigma: Callable[[int], float]) -> None:
        self.sigma = sigma

    def __call__(self, x: Images, noise: Noise, images_seen: int) -> Images:
        """Return noisy images; once sigma is 0, the images as they are."""
        sigma = self.sigma(images_seen)
        return x + sigma * pixel_normal(noise, x) if sigma > 0 else x

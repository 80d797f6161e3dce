"""Penalties of D's gradient by its input: R1 and R2, exact or by finite differences, WGAN-GP and DRAGAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gandist.adversarial.penalties.base import Images, Logits, Penalty, Scene, input_gradient, squared_norm


@dataclass
class ZeroCentred(Penalty):
    """Half the mean of |grad_x D(x)|^2 over the images of one view (Mescheder et al. 2018, equation 9).

    ``exact`` differentiates twice. ``finite_difference`` needs no second derivative: with n ~ N(0, I),

        E_n ((D(x + sigma n) - D(x)) / sigma)^2 = |g|^2 + sigma^2 ( (2 |H|_F^2 + (tr H)^2) / 4 + <g, grad tr H> ) + ...

    where g and H are D's gradient and Hessian (Lin et al. 2025, arXiv 2501.08316, section 3.3). One draw of n has the
    standard deviation sqrt(2) |g|^2. ``antithetic`` takes (D(x + sigma n) - D(x - sigma n)) / (2 sigma), in which even
    derivatives cancel. Both images get the same augmentation and dropout, and D judges all views as one batch.

    D's logits are rounded, and the difference of two of them is divided by sigma: ``floor`` in the measured numbers
    is what rounding alone would give for logits that differ by nothing. A penalty near its floor teaches nothing.
    """

    method: Literal["exact", "finite_difference"] = "exact"
    sigma: float = 0.01
    antithetic: bool = False

    view: ClassVar[str] = "real"

    def __post_init__(self) -> None:
        self.joined = self.method == "finite_difference"
        self.second_order = not self.joined

    def prepare(self, scene: Scene) -> None:
        """Ask for the images with noise, or for their gradient."""
        if self.method == "exact":
            return
        x = scene.views[self.view].x.detach()
        shift = self.sigma * scene.noise(f"{self.view}.probe").normal(*x.shape[1:]).to(x.device, non_blocking=True)
        scene.add(f"{self.view}+", x + shift, self.view)
        if self.antithetic:
            scene.add(f"{self.view}-", x - shift, self.view)

    def cost(self, scene: Scene) -> Float[Tensor, ""]:
        """Return the penalty."""
        logits = scene.logits[self.view]
        if self.method == "exact":
            return squared_norm(input_gradient(scene.views[self.view].x, logits, scene.loss_scale)).mean() / 2
        above = scene.logits[f"{self.view}+"]
        below, distance = (scene.logits[f"{self.view}-"], 2 * self.sigma) if self.antithetic else (logits, self.sigma)
        scene.measured[f"penalty/{self.name}_floor"] = _rounding_variance(logits, scene.rounding) / distance**2 / 2
        return ((above - below) / distance).square().mean() / 2

    @property
    def name(self) -> str:
        """The papers' name."""
        return "r1" if self.view == "real" else "r2"


class R1(ZeroCentred):
    """On real images."""

    gradients = ("real",)


class R2(ZeroCentred):
    """On fakes (Mescheder et al. 2018, equation 10)."""

    view = "fake"
    gradients = ("fake",)


@torch.no_grad()
def _rounding_variance(logits: Logits, rounding: float) -> Float[Tensor, ""]:
    """Return the mean variance of the difference of two logits that are rounded to ``rounding``, relatively.

    Numbers from 2^k on are 2^k ``rounding`` apart, and a rounding error is uniform: its variance is the squared
    distance through 12, twice that for two of them.
    """
    _, exponent = torch.frexp(logits.abs().clamp_min(2.0**-30))
    return torch.ldexp(torch.full_like(logits, rounding), exponent - 1).square().mean() / 6


@dataclass
class GradientPenalty(Penalty):
    """Mean of (|grad_x D(x)| - target)^2 at points x between or near images.

    ``wgan_gp``: x = u x_real + (1 - u) x_fake with u uniform in [0, 1] (Gulrajani et al. 2017, equation 3).
    ``dragan``: x = x_real + delta with delta = s u / 2, where s is the standard deviation of the real images and each
    element of u uniform in [0, 1] (Kodali et al. 2017, algorithm 1).
    ``one_sided`` pays for norms above the target only (Petzka et al. 2018, equation 6).
    """

    kind: Literal["wgan_gp", "dragan"] = "wgan_gp"
    target: float = 1.0
    one_sided: bool = False

    second_order = True

    def prepare(self, scene: Scene) -> None:
        """Ask for the points."""
        real, draws = scene.views["real"].x.detach(), scene.noise("between")
        if self.kind == "wgan_gp":
            u = draws.uniform(*[1] * (real.ndim - 1)).to(real, non_blocking=True)
            x = torch.lerp(scene.views["fake"].x.detach().to(real.dtype), real, u)
        else:
            u = draws.uniform(*real.shape[1:]).to(real, non_blocking=True)
            x = real + scene.real_std() * u / 2
        scene.add("between", x.requires_grad_(), "real", same_draws=False)

    def cost(self, scene: Scene) -> Float[Tensor, ""]:
        """Return the penalty."""
        slope = norm(input_gradient(scene.views["between"].x, scene.logits["between"], scene.loss_scale))
        excess = slope - self.target
        return (excess.relu() if self.one_sided else excess).square().mean()


def norm(x: Images) -> Float[Tensor, " batch"]:
    """Return the Euclidean norm of each image; its derivative at zero is zero."""
    squares = squared_norm(x)
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, torch.ones_like(squares)).sqrt(), squares)

"""Adversarial losses, as functions of logits.

Each loss is two costs of a single logit l = D(x): ``as_real``, what D pays for l when it should say real, and
``as_fake``, what it pays when it should say fake. With a target y in [0, 1], the probability that the image counts
as real, D pays the mixture ``y as_real(l) + (1 - y) as_fake(l)``. Hard labels are y = 1 and y = 0; label smoothing
and noisy labels are other values of y. G pays ``for_generator(l)`` on its fakes.

==================  =======================  =======================  ===============  =============================
loss                as_real                  as_fake                  for_generator    source
==================  =======================  =======================  ===============  =============================
``minimax``         softplus(-l)             softplus(l)              -softplus(l)     Goodfellow et al. 2014, eq. 1
``non_saturating``  softplus(-l)             softplus(l)              softplus(-l)     Goodfellow et al. 2014, sec. 3
``hinge``           max(0, 1 - l)            max(0, 1 + l)            -l               Lim & Ye 2017; Miyato 2018
``least_squares``   (l - 1)^2 / 2            l^2 / 2                  (l - 1)^2 / 2    Mao et al. 2017, eq. 9
``wasserstein``     -l                       l                        -l               Arjovsky et al. 2017, eq. 2
==================  =======================  =======================  ===============  =============================

With the logistic costs the mixture is binary cross-entropy against y; with least squares it is (l - y)^2 / 2 up to
a constant. A new loss is a new row of :data:`LOSSES`.

Any of them can be made *relativistic* (Jolicoeur-Martineau 2019): D then says how much more real an image looks than
images of the other kind, and G pays for the real images too. See :class:`Comparison`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Logits = Float[Tensor, " batch"]
Cost = Callable[[Logits], Logits]
Across = Callable[[Tensor], Tensor]
"""The mean of a tensor over all ranks, which can be differentiated; the tensor itself where there is one rank."""

Comparison = Literal["off", "pairs", "average"]
"""What a logit is measured against before it is judged.

``off``: nothing, l = D(x) and l = D(G(z)).
``pairs``: the logit of the image of the other kind in the same row, l = D(x) - D(G(z)). D pays ``as_real(l)`` and G
``for_generator(-l)``, once for each pair (Jolicoeur-Martineau 2019, section 4.1; Huang et al. 2024, equation 3).
``average``: the mean logit of the other kind over the batch, l = D(x) - E D(G(z)) and D(G(z)) - E D(x) (the same paper,
section 4.2). Images of a batch then see each other, so that a step cannot be cut into passes.
"""


def alone(tensor: Tensor) -> Tensor:
    """Return the mean over one rank."""
    return tensor


@dataclass(frozen=True)
class AdversarialLoss:
    """A row of the table above; ``boundary`` is the logit at which D is undecided."""

    as_real: Cost
    as_fake: Cost
    for_generator: Cost
    boundary: float = 0.0
    relativistic: Comparison = "off"

    def compared(self, comparison: Comparison) -> AdversarialLoss:
        """Return this loss of logits that are measured against those of the other kind."""
        return replace(self, relativistic=comparison)

    @property
    def couples_batch(self) -> bool:
        """Whether the cost of an image depends on the whole batch."""
        return self.relativistic == "average"

    @property
    def needs_real(self) -> bool:
        """Whether G's cost depends on D's logits for real images."""
        return self.relativistic != "off"

    def measured(self, real_logits: Logits, fake_logits: Logits, across: Across = alone) -> tuple[Logits, Logits]:
        """Return what D is judged by: both kinds of logits in fp32, measured against each other if relativistic.

        Differences are counted from the boundary, so that no difference means undecided in every loss.
        """
        real, fake = real_logits.float(), fake_logits.float()
        if self.relativistic == "off":
            return real, fake
        if self.relativistic == "pairs":
            return real - fake + self.boundary, fake - real + self.boundary
        return real - across(fake.mean()) + self.boundary, fake - across(real.mean()) + self.boundary

    def mixture(self, logits: Logits, target: Logits | float) -> Float[Tensor, ""]:
        """Return D's mean cost for ``logits`` whose probability of counting as real is ``target``."""
        logits = logits.float()
        if isinstance(target, float) and target in (0.0, 1.0):  # a hard label leaves one of the two costs
            return (self.as_real(logits) if target else self.as_fake(logits)).mean()
        return (target * self.as_real(logits) + (1 - target) * self.as_fake(logits)).mean()

    def discriminator(
        self,
        real_logits: Logits,
        fake_logits: Logits,
        real_target: Logits | float = 1.0,
        fake_target: Logits | float = 0.0,
        across: Across = alone,
    ) -> Float[Tensor, ""]:
        """Return D's mean cost for real images and fakes; a pair is paid for once, by the target of its real image."""
        real, fake = self.measured(real_logits, fake_logits, across)
        on_real = self.mixture(real, real_target)
        return on_real if self.relativistic == "pairs" else on_real + self.mixture(fake, fake_target)

    def generator(
        self, fake_logits: Logits, real_logits: Logits | None = None, across: Across = alone
    ) -> Float[Tensor, ""]:
        """Return G's mean cost for the logits of its fakes and, in a relativistic loss, those of real images."""
        if real_logits is None:
            assert not self.needs_real, "a relativistic loss compares fakes with real images"
            return self.for_generator(fake_logits.float()).mean()
        real, fake = self.measured(real_logits, fake_logits, across)
        on_fake = self.for_generator(fake).mean()
        return on_fake + self.as_fake(real).mean() if self.relativistic == "average" else on_fake


LOSSES: dict[str, AdversarialLoss] = {
    "minimax": AdversarialLoss(
        as_real=lambda logit: F.softplus(-logit),
        as_fake=F.softplus,
        for_generator=lambda logit: -F.softplus(logit),
    ),
    "non_saturating": AdversarialLoss(
        as_real=lambda logit: F.softplus(-logit),
        as_fake=F.softplus,
        for_generator=lambda logit: F.softplus(-logit),
    ),
    "hinge": AdversarialLoss(
        as_real=lambda logit: F.relu(1 - logit),
        as_fake=lambda logit: F.relu(1 + logit),
        for_generator=lambda logit: -logit,
    ),
    "least_squares": AdversarialLoss(
        as_real=lambda logit: (logit - 1).square() / 2,
        as_fake=lambda logit: logit.square() / 2,
        for_generator=lambda logit: (logit - 1).square() / 2,
        boundary=0.5,
    ),
    "wasserstein": AdversarialLoss(
        as_real=lambda logit: -logit,
        as_fake=lambda logit: logit,
        for_generator=lambda logit: -logit,
    ),
}


def auxiliary_loss(class_logits: Float[Tensor, "batch classes"], c: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Return the mean of -log P(C = c | x), which both players of an AC-GAN pay (Odena et al. 2017, equation 3)."""
    return F.cross_entropy(class_logits.float(), c)


@dataclass(frozen=True)
class Targets:
    """D's targets: smoothed labels, of which a random share is swapped between real and fake.

    One-sided smoothing is ``real=0.9, fake=0`` (Salimans et al. 2016, section 3.4); two-sided moves both.
    """

    real: float = 1.0
    fake: float = 0.0
    swap_probability: float = 0.0

    def draw(self, real: bool, uniform: Logits | None) -> Logits | float:
        """Return the targets of a batch: a number, or one per image where ``uniform`` draws decide who is swapped."""
        own, other = (self.real, self.fake) if real else (self.fake, self.real)
        if uniform is None:
            return own
        return uniform.new_tensor(own).where(uniform >= self.swap_probability, uniform.new_tensor(other))

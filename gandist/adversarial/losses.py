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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Cost = Callable[[Float[Tensor, " batch"]], Float[Tensor, " batch"]]


@dataclass(frozen=True)
class AdversarialLoss:
    """A row of the table above; ``boundary`` is the logit at which D is undecided."""

    as_real: Cost
    as_fake: Cost
    for_generator: Cost
    boundary: float = 0.0

    def discriminator(
        self, logits: Float[Tensor, " batch"], target: Float[Tensor, " batch"] | float
    ) -> Float[Tensor, ""]:
        """Return D's mean cost for ``logits`` whose probability of counting as real is ``target``."""
        logits = logits.float()
        if isinstance(target, float) and target in (0.0, 1.0):  # a hard label leaves one of the two costs
            return (self.as_real(logits) if target else self.as_fake(logits)).mean()
        return (target * self.as_real(logits) + (1 - target) * self.as_fake(logits)).mean()

    def generator(self, fake_logits: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return G's mean cost for the logits of its fakes."""
        return self.for_generator(fake_logits.float()).mean()


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


@dataclass(frozen=True)
class Targets:
    """D's targets: smoothed labels, of which a random share is swapped between real and fake.

    One-sided smoothing is ``real=0.9, fake=0`` (Salimans et al. 2016, section 3.4); two-sided moves both.
    """

    real: float = 1.0
    fake: float = 0.0
    swap_probability: float = 0.0

    def draw(self, real: bool, uniform: Float[Tensor, " batch"] | None) -> Float[Tensor, " batch"] | float:
        """Return the targets of a batch: a number, or one per image where ``uniform`` draws decide who is swapped."""
        own, other = (self.real, self.fake) if real else (self.fake, self.real)
        if uniform is None:
            return own
        return uniform.new_tensor(own).where(uniform >= self.swap_probability, uniform.new_tensor(other))

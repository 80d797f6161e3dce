"""Averages of any width after the run, from a few kept ones (Karras et al. 2024, EDM2, section 3 and appendix C).

Symbols as in the paper: ``theta(tau)`` are G's weights after ``tau`` images. The power function average at ``t`` is

    theta_gamma(t) = integral of p_gamma(tau; t) theta(tau) over tau from 0 to t,
    p_gamma(tau; t) = (gamma + 1) tau^gamma / t^(gamma + 1),

and ``sigma_rel`` is the standard deviation of its profile p as a share of t. Averages are linear in the weights, so a
weighted sum of kept averages has the same weighted sum of their profiles as its own, and can be made to come near to
the profile of any other average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from gandist.config import WIDEST_STD


@dataclass(frozen=True)
class Profile:
    """How much each moment of the run counts in a power function average.

    Attributes:
        images_seen: t, where the average stands; above zero.
        std: sigma_rel.

    """

    images_seen: int
    std: float

    @property
    def gamma(self) -> float:
        """Return the exponent of the profile."""
        return gamma_of(self.std)


@dataclass(frozen=True)
class Rebuilt:
    """How one wanted average is made from kept ones.

    Attributes:
        weights: of the kept averages, (kept,); their sum is 1.
        residual: L2 distance between the wanted profile and the one that is made, as a share of the wanted one's norm.

    """

    weights: Float64[Tensor, " kept"]
    residual: float


def gamma_of(std: float) -> float:
    """Return the exponent gamma of the profile whose standard deviation is ``std`` times its length.

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), so gamma is the largest root of

        gamma^3 + 7 gamma^2 + (16 - sigma_rel^-2) gamma + 12 - sigma_rel^-2 = 0.

    Newton's steps from the right of it, where the cubic is convex, come down to it without passing it.
    """
    assert 0 < std <= WIDEST_STD, f"sigma_rel {std} is no width of a profile that grows"
    inverse = std**-2
    gamma = 1 / std  # (gamma + 2)^2 = (gamma + 1) / (gamma + 3) sigma_rel^-2 is below sigma_rel^-2
    while True:
        value = ((gamma + 7) * gamma + 16 - inverse) * gamma + 12 - inverse
        lower = gamma - value / ((3 * gamma + 14) * gamma + 16 - inverse)
        if lower >= gamma:  # rounding has the last word
            return gamma
        gamma = lower


def inner_products(a: Sequence[Profile], b: Sequence[Profile]) -> Float64[Tensor, "a b"]:
    """Return the integrals of p_a(tau) p_b(tau) over tau, for every pair, per image (EDM2, appendix C).

    With t_a <= t_b it is (gamma_a + 1) (gamma_b + 1) (t_a / t_b)^gamma_b / ((gamma_a + gamma_b + 1) t_b).
    """
    t_a, t_b = (_column([profile.images_seen for profile in profiles]) for profiles in (a, b))
    gamma_a, gamma_b = (_column([profile.gamma for profile in profiles]) for profiles in (a, b))
    t_a, gamma_a = t_a[:, None], gamma_a[:, None]
    first, last = torch.minimum(t_a, t_b), torch.maximum(t_a, t_b)
    overlap = (first / last) ** torch.where(t_a <= t_b, gamma_b, gamma_a) / last
    return (gamma_a + 1) * (gamma_b + 1) * overlap / (gamma_a + gamma_b + 1)


def rebuild(kept: Sequence[Profile], wanted: Profile) -> Rebuilt:
    """Return the weighted sum of kept averages whose profile is the nearest to the wanted one (EDM2, algorithm 3).

    Minimising |sum_i x_i p_i - p|^2 gives A x = b with A_ij = <p_i, p_j> and b_i = <p_i, p>, here with all profiles
    scaled to norm 1, since neighbours in time are nearly parallel. The weights are then scaled to sum to 1, so that
    weights that never changed are found again exactly.
    """
    gram, along = inner_products(kept, kept), inner_products(kept, [wanted])[:, 0]
    norms, norm = gram.diagonal().sqrt(), inner_products([wanted], [wanted])[0, 0].sqrt()
    cosines, towards = gram / torch.outer(norms, norms), along / (norms * norm)
    # The smallest singular values of A are rounding: solved without them, the weights stay small.
    solution = torch.linalg.lstsq(cosines, towards[:, None], rcond=1e-13, driver="gelsd").solution[:, 0]
    weights = solution * norm / norms
    weights = weights / weights.sum()
    made = weights * norms / norm
    squared = 1 - 2 * towards @ made + made @ cosines @ made
    return Rebuilt(weights, math.sqrt(max(0.0, squared.item())))


def _column(values: Sequence[int] | Sequence[float]) -> Float64[Tensor, " values"]:
    return torch.tensor(values, dtype=torch.float64)

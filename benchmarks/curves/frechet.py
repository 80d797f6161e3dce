"""The Fréchet distance between two sets of features, each taken for a Gaussian (Heusel et al. 2017, equation 6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Mean (features,) and unbiased covariance (features, features) of a set, in fp64 on the CPU."""

    mean: Tensor
    covariance: Tensor


def moments(features: Iterable[Tensor]) -> Moments:
    """Return the moments of features that come batch by batch, each (batch, features)."""
    x = torch.cat([batch.to("cpu", torch.float64) for batch in features])
    return Moments(x.mean(dim=0), torch.cov(x.T))


def distance(a: Moments, b: Moments) -> float:
    """Return |m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)).

    The eigenvalues of A B are those of the symmetric A^(1/2) B A^(1/2), which has real ones, none below zero but for
    rounding; the trace of the root is the sum of their roots.
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = torch.linalg.eigvalsh(root @ b.covariance @ root)
    traces = a.covariance.trace() + b.covariance.trace() - 2 * product.clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + traces)

"""The benchmark of learning: its distance against closed forms, and its networks."""

from __future__ import annotations

import pytest
import torch
from curves import resnet56
from curves.frechet import Moments, distance, moments
from torch import Tensor


def gaussian(mean: list[float], covariance: Tensor) -> Moments:
    return Moments(torch.tensor(mean, dtype=torch.float64), covariance.double())


def test_distance_of_gaussians_that_share_axes() -> None:
    turn, _ = torch.linalg.qr(torch.tensor([[1.0, 2, 0], [0, 1, 3], [2, 0, 1]], dtype=torch.float64))
    variances = [torch.tensor(v, dtype=torch.float64) for v in ([1.0, 4, 9], [4.0, 0, 1])]
    a, b = (turn @ v.diag() @ turn.T for v in variances)
    # the means differ by (3, 0, 4); along the common axes the deviations are 1 2 3 and 2 0 1
    expected = 25.0 + (1 - 2) ** 2 + (2 - 0) ** 2 + (3 - 1) ** 2
    assert distance(gaussian([0, 0, 0], a), gaussian([3, 0, 4], b)) == pytest.approx(
        expected, abs=1e-6
    )  # root of a rounded zero


def test_distance_of_gaussians_with_other_axes() -> None:
    a, b = torch.tensor([[3.0, 1.0], [1.0, 2.0]]), torch.tensor([[1.0, -0.5], [-0.5, 4.0]])
    product = a.double() @ b.double()
    root_trace = (product.trace() + 2 * product.det().sqrt()).sqrt()  # of the root of a 2x2 matrix
    expected = float(a.trace() + b.trace() - 2 * root_trace)
    assert distance(gaussian([1, 2], a), gaussian([1, 2], b)) == pytest.approx(expected, abs=1e-12)
    assert distance(gaussian([1, 2], b), gaussian([1, 2], a)) == pytest.approx(expected, abs=1e-12)
    assert distance(gaussian([1, 2], a), gaussian([1, 2], a)) == pytest.approx(0, abs=1e-12)


def test_moments_of_batches() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 0.0], [5.0, 7.0]])
    found = moments([x[:1], x[1:]])
    assert found.mean.tolist() == [3.0, 3.0]
    assert found.covariance.tolist() == [[4.0, 5.0], [5.0, 13.0]]  # (4+0+4)/2, (2+0+8)/2, (1+9+16)/2
    assert found.covariance.dtype == torch.float64


def test_resnet56_has_the_size_of_its_paper() -> None:
    network = resnet56.ResNet56()
    convolutions = 27 * 16 + 18 * 9 * 16**2 + sum(9 * w * (w // 2) + 17 * 9 * w**2 for w in (32, 64))
    norms = 2 * (16 + 18 * (16 + 32 + 64))
    expected = convolutions + norms + 65 * 10
    assert sum(p.numel() for p in network.parameters()) == expected  # 0.85 M in He et al. 2016, table 6
    assert network.eval().features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 64)

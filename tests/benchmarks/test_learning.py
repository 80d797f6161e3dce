"""The benchmark of learning: its distance against closed forms, its networks, and that the whole of it runs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from curves import fashion_net, resnet56
from curves.frechet import Moments, distance, moments
from torch import Tensor

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "learning.py"


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


def test_the_pinned_network_is_the_one_that_was_measured() -> None:
    network = fashion_net.pinned()
    assert not network.training
    assert fashion_net.said_accuracy() > 0.88
    assert fashion_net.digest() in (SCRIPT.parent / "results" / "learning-fashion.md").read_text()
    x = torch.arange(2 * 32 * 32).reshape(2, 1, 32, 32).remainder(256).to(torch.uint8)
    assert network.features(x).shape == (2, 64)


def test_resnet56_has_the_size_of_its_paper() -> None:
    network = resnet56.ResNet56()
    convolutions = 27 * 16 + 18 * 9 * 16**2 + sum(9 * w * (w // 2) + 17 * 9 * w**2 for w in (32, 64))
    norms = 2 * (16 + 18 * (16 + 32 + 64))
    expected = convolutions + norms + 65 * 10
    assert sum(p.numel() for p in network.parameters()) == expected  # 0.85 M in He et al. 2016, table 6
    assert network.eval().features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 64)


def write_idx(path: Path, values: Tensor) -> None:
    path.write_bytes(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.numpy().tobytes())


@pytest.mark.long
def test_it_runs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for prefix, count in (("train", 400), ("t10k", 200)):
        x = torch.randint(0, 256, (count, 28, 28), generator=torch.Generator().manual_seed(count)).to(torch.uint8)
        write_idx(data / f"{prefix}-images-idx3-ubyte", x)
        write_idx(data / f"{prefix}-labels-idx1-ubyte", (torch.arange(count) % 10).to(torch.uint8))
    command = [sys.executable, SCRIPT, "fashion", "--quick", "--data", data, "--folder", tmp_path / "out"]
    done = subprocess.run(
        [*command, "--models", "dcgan"], env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path, text=True,
        capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in (
        "learning-fashion.md",
        "learning-fashion.json",
        "learning_fashion.png",
        "learning_fashion_samples.png",
    ):
        assert (tmp_path / "out" / name).stat().st_size > 0
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| DCGAN") and line.count("|") == 10]
    assert all(float(cell) > 0 for cell in row.split("|")[2:-1])

"""The small network whose features measure Fashion-MNIST, trained here once and kept beside this file.

    .venv/bin/python benchmarks/learning.py features --data DIR    # trains it again, and says how well it classifies

The weights are pinned because a distance means nothing across networks: another processor may round otherwise in
training and end with other weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from gandist.runtime import rng
from gandist.runtime.checkpoint import load_module, read_weights

WEIGHTS = Path(__file__).parent / "fashion_net.safetensors"
WIDTHS = (16, 32, 64, 64)
EPOCHS, BATCH, RATE = 4, 128, 2e-3


class FashionNet(nn.Module):
    """Four times a 3x3 convolution, batch norm, ReLU; halved in between, averaged at the end: 64 features."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *WIDTHS[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in zip(inputs, WIDTHS, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)
        self.classify = nn.Linear(WIDTHS[-1], 10)

    def features(self, x: Tensor) -> Tensor:
        """Return features (batch, 64) of bytes (batch, 1, 32, 32)."""
        h = x.float() / 255
        for depth, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            h = F.relu(norm(convolution(F.max_pool2d(h, 2) if depth else h)))
        return h.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, 10) of bytes (batch, 1, 32, 32)."""
        logits: Tensor = self.classify(self.features(x))
        return logits


def pinned() -> FashionNet:
    """Return the network whose weights lie beside this file, in evaluation mode."""
    network = FashionNet()
    load_module(network, read_weights(WEIGHTS)[0], str(WEIGHTS))
    return network.eval().requires_grad_(False)


def digest() -> str:
    """Return the first 16 hexadecimal digits of the weights file's SHA-256."""
    return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:16]


def said_accuracy() -> float:
    """Return the share of the test images that the pinned network classifies rightly, as its file says."""
    return float(read_weights(WEIGHTS)[1]["test accuracy"])


@dataclass(frozen=True)
class Labelled:
    """Bytes (images, 1, 32, 32) and classes (images,)."""

    x: Tensor
    c: Tensor


def train(data: Labelled, seed: int = 0) -> FashionNet:
    """Return a network trained on ``data``: cross-entropy, Adam, the rate falling to zero along a cosine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FashionNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    steps = len(data.x) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(data.x), generator=rng.generator(seed, "fashion net", epoch))
        for chosen in order[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(data.x[chosen]), data.c[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(network: FashionNet, data: Labelled) -> float:
    """Return the share of images whose class the network names."""
    right = [(network(x).argmax(1) == c).sum() for x, c in zip(data.x.split(500), data.c.split(500), strict=True)]
    return float(torch.stack(right).sum()) / len(data.x)


def keep(network: FashionNet, accuracy: float) -> None:
    """Write the weights to their place, with the accuracy on the test images in the header."""
    save_file(network.state_dict(), WEIGHTS, {"network": "FashionNet", "test accuracy": f"{accuracy:.4f}"})

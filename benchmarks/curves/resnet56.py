"""ResNet-56 for CIFAR-10 (He et al. 2016, section 4.2), whose 64 pooled features measure CIFAR-10.

Its weights are not part of the project: a safetensors file with the names of akamaster's pytorch_resnet_cifar10, whose
network classifies 93.39 % of the test images.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandist.runtime.checkpoint import load_module, read_weights

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions beside the identity, which skips every other place and adds zero channels (option A)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.grown = outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2 if self.grown else 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return features, of half the height and width where the channels grow."""
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        skip = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.grown // 2, self.grown // 2)) if self.grown else x
        return F.relu(h + skip)


class ResNet56(nn.Module):
    """Three stages of nine blocks, of 16, 32 and 64 channels."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16)
        self.layer2 = _stage(16, 32)
        self.layer3 = _stage(32, 64)
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """Return features (batch, 64) of bytes (batch, 3, 32, 32)."""
        h = (x.float() / 255 - self.mean) / self.deviation
        h = F.relu(self.bn1(self.conv1(h)))
        pooled: Tensor = self.layer3(self.layer2(self.layer1(h))).mean(dim=(2, 3))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, 10) of bytes (batch, 3, 32, 32)."""
        logits: Tensor = self.linear(self.features(x))
        return logits


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs), *(Block(outputs, outputs) for _ in range(8)))


def load(weights: Path) -> ResNet56:
    """Return the network with the weights of a file, in evaluation mode."""
    network = ResNet56()
    tensors = read_weights(weights)[0]
    kept = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    load_module(network, {**tensors, **kept}, str(weights))
    return network.eval().requires_grad_(False)


def digest(weights: Path) -> str:
    """Return the first 16 hexadecimal digits of the file's SHA-256."""
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]

"""Rounds in plain PyTorch, without gandist around them: what its round is measured against.

Each is one D step and one G step on the same networks and the logistic loss; they differ in what they share between
the two steps, and in what they compute and throw away.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Pair:
    """Two networks, their optimizers, and the context of their forward passes (automatic casts, or nothing)."""

    generator: nn.Module
    discriminator: nn.Module
    optimizer_g: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer
    latent_dim: int
    casts: Callable[[], AbstractContextManager[object]] = nullcontext

    def fake(self, images: int) -> Tensor:
        """Return new fakes, with their graph."""
        drawn: Tensor = self.generator(torch.randn(images, self.latent_dim), None)
        return drawn

    def judge(self, x: Tensor) -> Tensor:
        """Return D's logits."""
        logits: Tensor = self.discriminator(x, None)
        return logits.float()


Loop = Callable[[Pair, Tensor], None]
"""Plays one round on a batch of real images."""


def says_real(logits: Tensor) -> Tensor:
    """Return the cost of not saying real."""
    return F.softplus(-logits).mean()


def says_fake(logits: Tensor) -> Tensor:
    """Return the cost of not saying fake."""
    return F.softplus(logits).mean()


def bare(pair: Pair, real: Tensor) -> None:
    """Do the work of gandist's round and no more: one forward of G serves both steps, D is frozen in G's."""
    with pair.casts():
        fake = pair.fake(len(real))
        loss = says_real(pair.judge(real)) + says_fake(pair.judge(fake.detach()))
    loss.backward()
    pair.optimizer_d.step()
    pair.optimizer_d.zero_grad()
    pair.discriminator.requires_grad_(False)
    with pair.casts():
        loss = says_real(pair.judge(fake))
    loss.backward()
    pair.discriminator.requires_grad_(True)
    pair.optimizer_g.step()
    pair.optimizer_g.zero_grad()


def tutorial(pair: Pair, real: Tensor) -> None:
    """Do what PyTorch's DCGAN tutorial does in each of its rounds.

    D's backward pass runs once for the real and once for the fake batch, G's step also computes the gradient of D's
    weights, which nobody reads, and three means are read out, each of which waits for the device.
    """
    target = torch.full((len(real),), 1.0)
    pair.optimizer_d.zero_grad()
    with pair.casts():
        logits = pair.judge(real)
    F.binary_cross_entropy_with_logits(logits, target).backward()
    logits.sigmoid().mean().item()
    with pair.casts():
        fake = pair.fake(len(real))
        logits = pair.judge(fake.detach())
    F.binary_cross_entropy_with_logits(logits, target.fill_(0.0)).backward()
    logits.sigmoid().mean().item()
    pair.optimizer_d.step()
    pair.optimizer_g.zero_grad()
    with pair.casts():
        logits = pair.judge(fake)
    F.binary_cross_entropy_with_logits(logits, target.fill_(1.0)).backward()
    logits.sigmoid().mean().item()
    pair.optimizer_g.step()


def fresh(pair: Pair, real: Tensor, *, freeze: bool) -> None:
    """Draw fakes anew for each step, those of D's without a graph."""
    pair.optimizer_d.zero_grad()
    with pair.casts():
        with torch.no_grad():
            fake = pair.fake(len(real))
        loss = says_real(pair.judge(real)) + says_fake(pair.judge(fake))
    loss.backward()
    pair.optimizer_d.step()
    pair.optimizer_g.zero_grad()
    pair.discriminator.requires_grad_(not freeze)
    with pair.casts():
        loss = says_real(pair.judge(pair.fake(len(real))))
    loss.backward()
    pair.discriminator.requires_grad_(True)
    pair.optimizer_g.step()


def fresh_frozen(pair: Pair, real: Tensor) -> None:
    """Draw fakes anew for each step; D is frozen in G's."""
    fresh(pair, real, freeze=True)


def fresh_unfrozen(pair: Pair, real: Tensor) -> None:
    """Draw fakes anew for each step; D is not frozen in G's."""
    fresh(pair, real, freeze=False)


def retained(pair: Pair, real: Tensor) -> None:
    """Share D's forward on the fakes between both losses by keeping its graph, then move both networks.

    Old code moved D between the two backward passes, which PyTorch refuses since 1.5. With both steps at the end it
    runs, but each backward pass computes gradients for both networks, and half of them must be dropped.
    """
    with pair.casts():
        fake = pair.fake(len(real))
        fake_logits = pair.judge(fake)
        d_loss = says_real(pair.judge(real)) + says_fake(fake_logits)
        g_loss = says_real(fake_logits)
    pair.optimizer_d.zero_grad()
    d_loss.backward(retain_graph=True)
    kept = [p.grad for p in pair.discriminator.parameters()]
    pair.optimizer_d.zero_grad()
    pair.optimizer_g.zero_grad()
    g_loss.backward()
    for parameter, gradient in zip(pair.discriminator.parameters(), kept, strict=True):
        parameter.grad = gradient
    pair.optimizer_d.step()
    pair.optimizer_g.step()


def simultaneous(pair: Pair, real: Tensor) -> None:
    """Move both networks from where they stand; each backward pass is told whose gradients it is for."""
    with pair.casts():
        fake = pair.fake(len(real))
        fake_logits = pair.judge(fake)
        d_loss = says_real(pair.judge(real)) + says_fake(fake_logits)
        g_loss = says_real(fake_logits)
    pair.optimizer_d.zero_grad()
    pair.optimizer_g.zero_grad()
    d_loss.backward(inputs=list(pair.discriminator.parameters()), retain_graph=True)
    g_loss.backward(inputs=list(pair.generator.parameters()))
    pair.optimizer_d.step()
    pair.optimizer_g.step()

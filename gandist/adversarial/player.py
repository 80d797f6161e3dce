"""One of the two players: a network, its optimizer, and how its gradients travel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gandist.adversarial.guard import FiniteGuard
from gandist.models.noise import random_layers


@dataclass
class Player:
    """One network, its optimizer, and how its gradients travel.

    Args:
        network: what a pass calls when it wants this network's gradients (it may reduce them over ranks).
        module: the same network bare: its parameters, and what a pass calls when it does not want them.
        optimizer: over the parameters of ``module``.
        clip_norm: gradients are scaled down to this global norm, if not None.
        scaler: loss scaling for fp16, one for each network so that neither sees the other's overflows.
        backward: runs the backward pass of a scalar, with the arguments of ``torch.Tensor.backward``.
        no_sync: a context in which a backward pass of ``network`` is not reduced.
        before_step: called before each step; returns when the weights may change.
        rounding: relative spacing of numbers in the format that the network computes in.

    """

    network: nn.Module
    module: nn.Module
    optimizer: torch.optim.Optimizer
    clip_norm: float | None = None
    scaler: torch.amp.GradScaler | None = None
    backward: Callable[..., None] = torch.Tensor.backward
    no_sync: Callable[[], AbstractContextManager[object]] = nullcontext
    before_step: Callable[[], None] = lambda: None
    rounding: float = 2.0**-23

    def __post_init__(self) -> None:
        self.parameters = list(self.module.parameters())
        self.random_layers = random_layers(self.module)
        self.guard = FiniteGuard(self.module)

    @property
    def learning(self) -> list[nn.Parameter]:
        """The parameters that a backward pass gives gradients to."""
        return [parameter for parameter in self.parameters if parameter.requires_grad]

    @property
    def data(self) -> list[Tensor]:
        """The numbers of all parameters, outside of any graph."""
        return [parameter.data for parameter in self.parameters]

    @property
    def loss_scale(self) -> float:
        """The factor that keeps small fp16 gradients from vanishing; 1 in other formats."""
        return 1.0 if self.scaler is None else self.scaler.get_scale()

    def scaled(self, loss: Tensor) -> Tensor:
        """Return ``loss`` times the current loss scale."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def step(self, round_index: int) -> tuple[Tensor, bool]:
        """Apply the gathered gradients and drop them; a step whose gradients are not finite changes nothing.

        Returns:
            the gradients' global norm before clipping, and whether the step counts as one: False where an overflow of
            fp16 skipped it. Other skipped steps are known on the device alone (:class:`FiniteGuard`).

        """
        self.before_step()
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.new_zeros(()) if p.grad is None else p.grad for p in self.parameters]
        norms = torch.stack(torch._foreach_norm(gradients))
        norm = torch.linalg.vector_norm(norms)
        skip = self.guard.judge(norms, round_index)
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        taken = True
        if self.scaler is None:
            self._apply_unless(skip)
        else:
            before = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            taken = self.scaler.get_scale() >= before
        self.optimizer.zero_grad(set_to_none=True)
        return norm, taken

    def _apply_unless(self, skip: Tensor) -> None:
        """Take the optimizer's step unless ``skip``, which a fused optimizer reads where it lies."""
        if self.optimizer.param_groups[0].get("fused"):
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skip:
            self.optimizer.step()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Switch off the gradients of the module's parameters, and on again for those that had them."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)

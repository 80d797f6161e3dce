"""A batch norm that sees all ranks, against PyTorch's: here with one rank, or with a copy of it as the other ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gandist.models.contract import Networks
from gandist.models.layers import SyncedBatchNorm, couples_batch, synchronise_batch_norms


def alone(tensor: Tensor) -> Tensor:
    """Be the mean over a single rank, or over ranks with the same images."""
    return tensor.clone()


def pair(kind: Any = nn.BatchNorm2d, channels: int = 3, ranks: int = 1, **settings: Any) -> tuple[nn.Module, nn.Module]:
    """Return a plain norm and a synchronised one with tensors of its own that have the same values."""
    plain, copied = kind(channels, **settings), kind(channels, **settings)
    if plain.affine:
        with torch.no_grad():
            plain.weight.copy_(torch.linspace(0.5, 2.0, channels))
            plain.bias.copy_(torch.linspace(-1.0, 1.0, channels))
    copied.load_state_dict(plain.state_dict())
    return plain, SyncedBatchNorm(copied, alone, ranks)


def images(*shape: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2 + shift


@pytest.mark.parametrize("shift", [0.0, 300.0])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_training_is_that_of_the_plain_norm(momentum: float | None, affine: bool, shift: float) -> None:
    """Outputs, gradients and running statistics, also where the mean is 150 times the spread."""
    plain, synced = pair(momentum=momentum, affine=affine)
    for step in range(3):
        x = [images(6, 3, 5, 4, seed=step, shift=shift).requires_grad_() for _ in range(2)]
        along = images(6, 3, 5, 4, seed=9)
        out = [norm(each) for norm, each in zip((plain, synced), x, strict=True)]
        torch.testing.assert_close(out[1], out[0], rtol=1e-4, atol=1e-4 if shift else 1e-6)
        for each in out:
            (each * along).sum().backward()
        torch.testing.assert_close(x[1].grad, x[0].grad, rtol=1e-3, atol=1e-3 if shift else 1e-5)
    for (name, ours), theirs in zip(synced.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=name)
    for ours, theirs in zip(synced.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=0.05 if shift else 1e-4)


def test_the_running_variance_is_unbiased_over_all_ranks() -> None:
    """Four ranks with the same 6 x 20 values: their variance, times 480 / 479."""
    plain, synced = pair(ranks=4)
    x = images(6, 3, 5, 4)
    plain(x.repeat(4, 1, 1, 1))
    synced(x)
    torch.testing.assert_close(synced.running_var, plain.running_var, rtol=1e-6, atol=0)
    expected = 0.9 + 0.1 * x.var(dim=(0, 2, 3), correction=0) * 480 / 479
    torch.testing.assert_close(synced.running_var, expected, rtol=1e-6, atol=0)


def test_vectors_are_normalised_too() -> None:
    plain, synced = pair(nn.BatchNorm1d)
    for shape in ((8, 3), (4, 3, 6)):
        torch.testing.assert_close(synced(images(*shape)), plain(images(*shape)))


def test_the_second_derivative_is_exact() -> None:
    _, synced = pair(channels=2)
    synced.double()
    x = images(3, 2, 2, 2).double().requires_grad_()
    weight, bias = (p.detach().clone().requires_grad_() for p in (synced.weight, synced.bias))

    def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(synced, {"weight": weight, "bias": bias}, (x,))
        return out

    assert torch.autograd.gradcheck(normalised, (x, weight, bias))
    assert torch.autograd.gradgradcheck(normalised, (x, weight, bias))


def test_evaluation_asks_nobody_and_is_that_of_the_plain_norm() -> None:
    plain, synced = pair()
    plain(images(6, 3, 5, 4))
    synced.load_state_dict(plain.state_dict())
    asked: list[Tensor] = []
    synced.across = asked.append  # type: ignore[assignment]
    x = images(2, 3, 5, 4, seed=1)
    assert torch.equal(synced.eval()(x), plain.eval()(x))
    assert not asked


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    _, synced = pair()
    x = images(6, 3, 5, 4, shift=5.0).to(dtype)
    exact = synced(x.float())
    with torch.autocast("cpu", dtype):
        out = synced(x)
    assert out.dtype == dtype
    assert torch.equal(out, exact.to(dtype)), "nothing but the result is rounded"


def test_channels_last_stays() -> None:
    plain, synced = pair()
    x = images(6, 3, 5, 4).contiguous(memory_format=torch.channels_last)
    assert synced(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(synced(x), plain(x))


@pytest.mark.parametrize(("arch", "classes"), [("dcgan", 0), ("resnet", 0), ("resnet", 3)])
def test_conversion_keeps_every_tensor_in_its_place(tiny: Callable[..., Networks], arch: str, classes: int) -> None:
    network = tiny(arch, classes=classes).generator
    before = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    parameters, coupled = [id(p) for p in network.parameters()], couples_batch(network)
    plain = [name for name, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert coupled == plain
    synchronise_batch_norms(network, alone, 2)
    after = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    assert after == before
    assert list(after) == list(before)
    assert [id(p) for p in network.parameters()] == parameters
    assert couples_batch(network) == coupled, "passes would still change what is computed"
    modules = dict(network.named_modules())
    assert all(isinstance(modules[name], SyncedBatchNorm) for name in coupled)
    assert modules[coupled[0]].training


def test_a_network_without_batch_norms_stays_as_it_is(tiny: Callable[..., Networks]) -> None:
    network = tiny("mlp").discriminator
    modules = list(network.modules())
    synchronise_batch_norms(network, alone, 2)
    assert list(network.modules()) == modules

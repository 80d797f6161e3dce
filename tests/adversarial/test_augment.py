"""DiffAugment, instance noise, and what every augmentation keeps to."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gandist.adversarial.augment import PRESETS, Ada, Adaptive, Augment, DiffAugment, InstanceNoise, Pipeline, Scheduled
from gandist.adversarial.augment.pixel_noise import pixel_normal
from gandist.models.noise import RowNoise

CPU = torch.device("cpu")
SIZE = 12


def rows(batch: int, start: int = 0, count: int | None = None, seed: int = 0) -> RowNoise:
    generator = torch.Generator().manual_seed(seed)
    return RowNoise(generator, batch, start, batch - start if count is None else count)


def images(batch: int = 5, channels: int = 3, size: int = SIZE) -> Tensor:
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def ada(preset: str, p: float = 1.0, channels: int = 3, size: int = SIZE) -> Ada:
    return Ada(PRESETS[preset], Scheduled(lambda _: p, CPU), size, channels, CPU)


def everything(size: int = SIZE, dtype: torch.dtype = torch.float32) -> Pipeline:
    adaptive = Ada(PRESETS["bgcfnc"], Adaptive(0.6, 2, 500.0, 0.7, CPU), size, 3, CPU, dtype)
    steps = [DiffAugment(["colour", "translation", "cutout"]), adaptive, InstanceNoise(lambda _: 0.1)]
    return Pipeline(steps)


# --- what every augmentation keeps to -------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[5], [1, 4], [2, 2, 1], [1, 1, 1, 1, 1]])
def test_how_a_batch_is_cut_does_not_matter(sizes: list[int]) -> None:
    augment, x = everything(), images()
    whole = augment(x, rows(5), 0)
    start, parts = 0, []
    for size in sizes:
        parts.append(augment(x[start : start + size], rows(5, start, size), 0))
        start += size
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=2e-6)  # sums of a product may be in another order


def test_each_row_has_its_own_fate() -> None:
    x = images(1).expand(6, -1, -1, -1)
    for augment in (*everything().steps, ada("blit"), ada("bg")):
        seen = augment(x, rows(6), 0)
        assert len(torch.unique(seen.flatten(1), dim=0)) > 3


class NoReading(TorchDispatchMode):
    """Fails where a number is read out of a tensor, or its shape depends on numbers: on a GPU, that waits for it."""

    READING = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func._schema.name not in self.READING, func
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_back_from_the_device() -> None:
    augment, x = everything(), images(4).requires_grad_()
    with NoReading():
        for _ in range(2):
            seen = augment(x, rows(4), 0)
            (slope,) = torch.autograd.grad(seen.square().sum(), x, create_graph=True)
            slope.square().sum().backward()
            augment.observe(torch.zeros(()), 4)
            augment.statistics()
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            float(seen.detach().sum())


def test_gradients_reach_the_images_twice() -> None:
    """D(x) = |A(x)|^2 / 2 has the gradient J^T A(x) by the images before their augmentation A, with J constant."""
    augment, x = everything(5, torch.float64), images(2, size=5).double().requires_grad_()
    seen = augment(x, rows(2), 0)
    (slope,) = torch.autograd.grad(seen.square().sum() / 2, x, create_graph=True)
    jacobian = torch.autograd.functional.jacobian(lambda y: augment(y, rows(2), 0), x.detach())
    assert isinstance(jacobian, Tensor)
    flat = jacobian.reshape(x.numel(), x.numel())
    torch.testing.assert_close(slope.flatten(), flat.T @ seen.flatten())
    (second,) = torch.autograd.grad(slope.square().sum() / 2, x)
    torch.testing.assert_close(second.flatten(), flat.T @ (flat @ (flat.T @ seen.flatten())))


def test_a_pipeline_is_its_steps_in_turn() -> None:
    x, steps = images(), everything().steps
    noise, expected = rows(5, seed=3), x
    for step in steps:
        expected = step(expected, noise, 0)
    assert torch.equal(Pipeline(steps)(x, rows(5, seed=3), 0), expected)
    assert not torch.allclose(Pipeline(steps[::-1])(x, rows(5, seed=3), 0), expected)


def test_a_pipeline_keeps_the_state_of_each_step() -> None:
    def pair() -> Pipeline:
        return Pipeline([Ada(PRESETS["blit"], Adaptive(0.6, 2, 1.0, start, CPU), 4, 1, CPU) for start in (0.0, 0.5)])

    before, after = pair(), pair()
    for sign in (0.9, 0.8, 0.7):
        before.observe(torch.tensor(sign), 8)
    state = before.state()
    assert sorted({name.partition(".")[0] for name in state}) == ["0", "1"]
    after.restore(state)
    for augment in (before, after):
        augment.observe(torch.tensor(0.61), 8)
    assert before.state().keys() == after.state().keys()
    for name, value in before.state().items():
        assert torch.equal(after.state()[name], value), name
    assert before.state()["0.p"] != before.state()["1.p"]


def test_an_augmentation_without_memory_keeps_nothing() -> None:
    plain: list[Augment] = [DiffAugment(["colour"]), InstanceNoise(lambda _: 1.0)]
    for augment in (*plain, Pipeline(plain)):
        augment.observe(torch.tensor(1.0), 8)
        augment.restore({})
        assert augment.state() == {}
        assert augment.statistics() == {}


# --- DiffAugment ----------------------------------------------------------------------------------------------


def one_by_one(x: Tensor, noise: RowNoise, change: Callable[[Tensor, list[float]], Tensor]) -> Tensor:
    return torch.stack([change(image, draw.tolist()) for image, draw in zip(x, noise.uniform(3), strict=True)])


def test_colour_of_single_images() -> None:
    def change(image: Tensor, draw: list[float]) -> Tensor:
        brightness, saturation, contrast = draw[0] - 0.5, draw[1] * 2, draw[2] + 0.5
        image = image + brightness
        grey = (image[0] + image[1] + image[2]) / 3
        image = torch.stack([grey + saturation * (channel - grey) for channel in image])
        return image.mean() + contrast * (image - image.mean())

    x = images()
    seen = DiffAugment(["colour"])(x, rows(5), 0)
    torch.testing.assert_close(seen, one_by_one(x, rows(5), change))


def shifted(image: Tensor, down: int, right: int, reach: int) -> Tensor:
    height, width = image.shape[1:]
    padded = F.pad(image, [reach] * 4)
    return padded[:, reach - down : reach - down + height, reach - right : reach - right + width]


def shifts(reach: int) -> Iterator[tuple[int, int]]:
    return ((down, right) for down in range(-reach, reach + 1) for right in range(-reach, reach + 1))


def test_translation_shifts_by_every_whole_number_up_to_an_eighth() -> None:
    x = images(1, size=16)[0] + 2  # nowhere 0, unlike what comes in
    seen = DiffAugment(["translation"])(x.expand(400, -1, -1, -1), rows(400), 0)
    wanted = {shift: shifted(x, *shift, reach=2) for shift in shifts(2)}
    found = {shift: sum(torch.equal(one, image) for one in seen) for shift, image in wanted.items()}
    assert sum(found.values()) == 400
    assert min(found.values()) >= 4, found  # 16 are expected of each of 25


def test_cutout_sets_a_square_of_half_the_size_to_zero() -> None:
    x = torch.ones(600, 2, 8, 8)
    seen = DiffAugment(["cutout"])(x, rows(600), 0)
    assert torch.equal(seen[:, 0], seen[:, 1]), "the same square in every channel"
    holes = [torch.nonzero(image == 0) for image in seen[:, 0]]
    corners = set()
    for hole in holes:
        low, high = hole.min(0).values, hole.max(0).values
        assert len(hole) == (high - low + 1).prod(), "a full rectangle"
        corners.add((*low.tolist(), *high.tolist()))
    # the middle lies anywhere on the border or within: 9 places in each direction
    assert len(corners) == 81
    assert max(len(hole) for hole in holes) == 16
    assert min(len(hole) for hole in holes) == 4


@pytest.mark.parametrize("names", [["colour", "cutout"], ["cutout", "colour"], []])
def test_the_policy_says_what_is_done_in_which_order(names: list[str]) -> None:
    x, noise = images(), rows(5)
    expected = x
    for name in names:
        expected = DiffAugment([name])(expected, noise, 0)
    assert torch.equal(DiffAugment(names)(x, rows(5), 0), expected)


# --- noise ----------------------------------------------------------------------------------------------------


def test_instance_noise_has_the_spread_of_its_schedule() -> None:
    augment = InstanceNoise(lambda seen: 0.3 if seen < 1000 else 0.0)
    x = images(64)
    added = augment(x, rows(64), 999) - x
    assert added.std().item() == pytest.approx(0.3, rel=0.03)
    assert augment(x, rows(64), 1000) is x


def test_pixel_noise_is_standard_normal() -> None:
    field = pixel_normal(rows(40), torch.empty(40, 3, 32, 32)).double()
    count = field.numel()
    assert field.mean().abs() < 5 / count**0.5
    assert (field.square().mean() - 1).abs() < 5 * (2 / count) ** 0.5
    assert (field.pow(4).mean() - 3).abs() < 5 * (96 / count) ** 0.5
    for sigmas, share in ((1, 0.317311), (2, 0.0455003), (3, 0.0026998)):
        expected = pytest.approx(share, abs=5 * (share / count) ** 0.5)
        assert (field.abs() > sigmas).double().mean().item() == expected


def test_pixels_and_rows_of_noise_have_nothing_to_do_with_each_other() -> None:
    field = pixel_normal(rows(40), torch.empty(40, 3, 32, 32)).double()
    pairs = {
        "neighbours": (field[..., :-1], field[..., 1:]),
        "rows of pixels": (field[..., :-1, :], field[..., 1:, :]),
        "channels": (field[:, 0], field[:, 1]),
        "images": (field[:-1], field[1:]),
        "seeds": (field, pixel_normal(rows(40, seed=1), torch.empty(40, 3, 32, 32)).double()),
    }
    for name, (one, other) in pairs.items():
        assert (one * other).mean().abs() < 5 / one.numel() ** 0.5, name
        assert (one.square() * other.square()).mean() - 1 < 5 * (8 / one.numel()) ** 0.5, name

"""ADA: every transform against a derivation of its own, and the probability that adapts itself."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gandist.adversarial.augment import PRESETS, Ada, Adaptive, Scheduled
from gandist.adversarial.augment.ada import colour, wavelets
from gandist.adversarial.augment.ada.pipe import band_gains, cut_out, filter_bands, general_inverse
from gandist.adversarial.augment.ada.resample import Resampler
from gandist.adversarial.augment.ada.transforms import TRANSFORMS, draw_parameters
from gandist.adversarial.augment.geometry import fold, middle, move_pixels, rotate, scale, translate
from gandist.models.noise import RowNoise

CPU = torch.device("cpu")


def rows(batch: int, seed: int = 0) -> RowNoise:
    return RowNoise(torch.Generator().manual_seed(seed), batch, 0, batch)


def images(batch: int = 4, channels: int = 3, size: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1


def ada(rates: dict[str, float], p: float = 1.0, size: int = 16, channels: int = 3, **more: Any) -> Ada:
    return Ada(rates, Scheduled(lambda _: p, CPU), size, channels, CPU, **more)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- pixels that move -----------------------------------------------------------------------------------------


def test_the_reflection_has_its_outermost_pixels_once() -> None:
    assert fold(torch.arange(-7, 9), 4).tolist() == [1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2][-16:]
    assert fold(torch.arange(-2, 3), 1).tolist() == [0] * 5
    assert fold(torch.tensor([-0.25, 3.25, 6.5]), 4).tolist() == [0.25, 2.75, 0.5]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns(turns: int) -> None:
    x = images(1)
    assert torch.equal(move_pixels(x, rotate(torch.tensor([-turns * math.pi / 2]))), x.rot90(turns, dims=(2, 3)))


def test_mirrors() -> None:
    x = images(1)
    assert torch.equal(move_pixels(x, scale(torch.tensor([-1.0]), torch.tensor([1.0]))), x.flip(3))


def shifted(x: Tensor, right: int, down: int) -> Tensor:
    """Shift whole images by cutting them out of their reflection."""
    n, reach = x.shape[-1], x.shape[-1] - 1
    wide = F.pad(x, [reach] * 4, mode="reflect")
    return wide[..., reach - down : reach - down + n, reach - right : reach - right + n]


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (0, -2), (-1, 5), (-15, 15)])
def test_whole_shifts_with_and_without_blending(right: int, down: int) -> None:
    x = images(1)
    inverse = translate(torch.tensor([-float(right)]), torch.tensor([-float(down)]))
    assert torch.equal(move_pixels(x, inverse), shifted(x, right, down))
    # beyond the borders, blending sees a mirrored wavelet, which is not quite symmetric; within, it is exact
    blended = Resampler(16, CPU)(x, inverse)
    kept = blended[..., max(down, 0) : 16 + min(down, 0), max(right, 0) : 16 + min(right, 0)]
    source = x[..., max(-down, 0) : 16 + min(-down, 0), max(-right, 0) : 16 + min(-right, 0)]
    torch.testing.assert_close(kept, source, rtol=0, atol=2e-6)


def test_blitting_is_a_mirror_then_turns_then_a_shift() -> None:
    x = images(64)
    seen = ada(PRESETS["blit"])(x, rows(64), 0)
    drawn = draw_parameters(PRESETS["blit"], 1.0, rows(64), x)
    shifts = (drawn["integer_translation"] * 16).round().int().tolist()
    for k, (right, down) in enumerate(shifts):
        image = x[k : k + 1].flip(3) if drawn["xflip"][k] == 1 else x[k : k + 1]
        image = image.rot90(int(drawn["rotate90"][k]), dims=(2, 3))
        assert torch.equal(seen[k : k + 1], shifted(image, right, down)), k
    assert {tuple(shift) for shift in shifts} > {(2, 0), (-2, -1)}, "an eighth of 16 px in each direction"


# --- pixels that are blended ----------------------------------------------------------------------------------


def test_the_wavelets_are_what_they_are_called() -> None:
    for taps, moments in ((wavelets.SYM6, 6), (wavelets.SYM2, 2)):
        h = torch.tensor(taps, dtype=torch.float64)
        assert len(h) == 2 * moments
        for shift in range(moments):
            product = h[: len(h) - 2 * shift] @ h[2 * shift :]
            assert product.item() == pytest.approx(float(shift == 0), abs=1e-11), "orthonormal to its even shifts"
        k = torch.arange(len(h), dtype=torch.float64)
        for moment in range(moments):
            assert ((-1) ** k * (k - 5) ** moment @ h).abs() < 1e-9, "blind to polynomials at the highest frequency"


@pytest.mark.parametrize("size", [2, 3, 8, 33])
def test_halving_undoes_doubling(size: int) -> None:
    product = wavelets.downsampling(size) @ wavelets.upsampling(size)
    torch.testing.assert_close(product, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-11)


def forward(isotropic: float, before: float, anisotropic: float, after: float, shift: tuple[float, float]) -> Tensor:
    """Return the map of all general transformations, multiplied out from its parts."""

    def turn(angle: float) -> Tensor:  # anticlockwise as seen, with y down
        c, s = math.cos(angle), math.sin(angle)
        return torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=torch.float64)

    first = torch.diag(numbers(isotropic, isotropic, 1))
    stretch = torch.diag(numbers(anisotropic, 1 / anisotropic, 1))
    last = torch.eye(3, dtype=torch.float64)
    last[:2, 2] = numbers(*shift)
    return last @ turn(after) @ stretch @ turn(before) @ first


GENERAL = [
    (1.0, 0.0, 1.0, 0.0, (0.0, 0.0)),
    (1.0, 0.0, 1.0, 0.0, (2.3, -1.6)),
    (1.0, 2.0, 1.0, 0.0, (0.0, 0.0)),
    (1.2, 0.0, 1.0, 0.0, (0.0, 0.0)),
    (1.1, 0.7, 0.85, -2.2, (1.5, 2.5)),
]


@pytest.mark.parametrize("parameters", GENERAL)
def test_a_smooth_picture_under_a_map_is_the_picture_at_the_place_it_came_from(parameters: Any) -> None:
    """A blob, as a function of the plane: at every pixel that comes out, its value where the pixel came from."""
    size = 48
    isotropic, before, anisotropic, after, shift = parameters
    drawn = {
        "isotropic_scaling": numbers(isotropic)[:, None],
        "rotation_before": numbers(before)[:, None],
        "anisotropic_scaling": numbers(anisotropic)[:, None],
        "rotation_after": numbers(after)[:, None],
        "fractional_translation": numbers(*shift)[None] / size,
    }

    def blob(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-((x - 4) ** 2 + 2 * (y + 2.5) ** 2) / 32)

    place = middle(size, numbers(0))
    picture = blob(place, place[:, None])[None, None]
    seen = Resampler(size, CPU, torch.float64)(picture, general_inverse(drawn, picture))
    points = torch.stack(torch.broadcast_tensors(place, place[:, None], torch.ones((), dtype=torch.float64)))
    x, y, _ = torch.linalg.inv(forward(*parameters)) @ points.flatten(1)
    expected = blob(x, y).view(size, size)
    torch.testing.assert_close(seen[0, 0], expected, rtol=0, atol=0.01)


def test_the_geometry_of_the_whole_pipe() -> None:
    """Every map of the pipe, multiplied out, sends a blob where it is seen, except where the frame is left."""
    size, batch = 48, 8
    place = middle(size, numbers(0))

    def blob(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-((x - 4) ** 2 + 2 * (y + 2.5) ** 2) / 32)

    picture = blob(place, place[:, None]).expand(batch, 1, size, size)
    seen = ada(PRESETS["bg"], size=size, channels=1, dtype=torch.float64)(picture, rows(batch), 0)
    drawn = draw_parameters(ada(PRESETS["bg"]).rates, 1.0, rows(batch), picture)
    points = torch.stack(torch.broadcast_tensors(place, place[:, None], torch.ones((), dtype=torch.float64)))
    for k in range(batch):
        of = {name: value[k].tolist() for name, value in drawn.items()}
        mirror = torch.diag(numbers(-1 if of["xflip"][0] else 1, 1, 1))
        turn = forward(1.0, of["rotate90"][0] * math.pi / 2, 1.0, 0.0, (0.0, 0.0))
        shift_x, shift_y = (round(size * share) for share in of["integer_translation"])
        whole = forward(1.0, 0.0, 1.0, 0.0, (shift_x, shift_y))
        scaled = (of["isotropic_scaling"][0], of["rotation_before"][0], of["anisotropic_scaling"][0])
        right, down = (size * share for share in of["fractional_translation"])
        general = forward(*scaled, of["rotation_after"][0], (right, down))
        x, y, _ = torch.linalg.inv(general @ whole @ turn @ mirror) @ points.flatten(1)
        inside = (torch.maximum(x.abs(), y.abs()) < size / 2 - 4).view(size, size)
        error = (seen[k, 0] - blob(x, y).view(size, size))[inside]
        assert inside.float().mean() > 0.3
        assert error.abs().max() < 0.01, k


def test_shrinking_does_not_alias() -> None:
    """Stripes of one pixel, shrunk to half, are grey: no coarser stripes come out of them."""
    size = 32
    stripes = torch.tensor([1.0, -1.0]).repeat(size // 2).expand(1, 1, size, size)
    slanted = rotate(torch.tensor([0.05])) @ scale(torch.tensor([1.9]), torch.tensor([1.9]))
    seen = Resampler(size, CPU)(stripes, slanted)[..., 8:-8, 8:-8]
    assert seen.abs().max() < 0.05
    place = middle(size, slanted)
    nearest = move_pixels(stripes, slanted)[..., 8:-8, 8:-8]
    assert nearest.abs().min() == 1, "which taking the nearest pixel would not show"
    assert len(place) == size


# --- colours --------------------------------------------------------------------------------------------------


def moved(maps: Tensor, *colours: tuple[float, float, float]) -> list[list[float]]:
    x = torch.tensor(colours, dtype=torch.float64).T[None, :, None]
    found: list[list[float]] = colour.recolour(x, maps)[0, :, 0].T.tolist()
    return found


WHITE, BLACK, RED, GREEN, BLUE = (1.0,) * 3, (-1.0,) * 3, (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)


def near(*colours: tuple[float, ...]) -> Any:
    return [pytest.approx(list(colour), abs=1e-12) for colour in colours]


def test_brightness_and_contrast() -> None:
    assert moved(colour.brightness(numbers(0.25)), RED, (0, 0, 0)) == near((1.25, -0.75, -0.75), (0.25,) * 3)
    assert moved(colour.contrast(numbers(2.0)), RED, (0, 0.5, 0)) == near((2, -2, -2), (0, 1, 0))


def test_the_luma_flip_turns_dark_to_bright_and_keeps_the_hue() -> None:
    assert moved(colour.luma_flip(numbers(0.0)), RED) == near(RED)
    flip = colour.luma_flip(numbers(1.0))
    # red is its grey, -1/3, and what it differs from grey by, (4/3, -2/3, -2/3), which stays
    assert moved(flip, WHITE, BLACK, RED) == near(BLACK, WHITE, (5 / 3, -1 / 3, -1 / 3))


def test_a_third_of_the_colour_wheel_turns_red_to_green_to_blue() -> None:
    third = colour.hue(numbers(2 * math.pi / 3))
    assert moved(third, RED, GREEN, BLUE, WHITE) == near(GREEN, BLUE, RED, WHITE)
    sixth = colour.hue(numbers(math.pi / 3))
    torch.testing.assert_close(sixth @ sixth, third)


def test_saturation_is_the_distance_from_grey() -> None:
    assert moved(colour.saturation(numbers(0.0)), RED, WHITE) == near((-1 / 3,) * 3, WHITE)
    assert moved(colour.saturation(numbers(2.0)), RED) == near((-1 / 3 + 8 / 3, -1 / 3 - 4 / 3, -1 / 3 - 4 / 3))


def test_colours_are_changed_in_the_order_of_the_paper() -> None:
    drawn = {name: numbers(value)[:, None] for name, value in zip(colour.COLOURS, (0.3, 1.4, 1, 0.9, 0.6), strict=True)}
    x = images(1, dtype=torch.float64)
    expected = x
    for name in ("brightness", "contrast", "luma_flip", "hue", "saturation"):
        expected = colour.recolour(expected, getattr(colour, name)(drawn[name][:, 0]))
    torch.testing.assert_close(colour.recolour(x, colour.colour_maps(drawn, x)), expected)


def test_grey_images_are_changed_as_grey_colours_are() -> None:
    drawn = {"brightness": numbers(0.3)[:, None], "contrast": numbers(1.7)[:, None], "luma_flip": numbers(1.0)[:, None]}
    x = images(1, channels=1, dtype=torch.float64)
    maps = colour.colour_maps(drawn, x)
    torch.testing.assert_close(colour.recolour(x, maps), -1.7 * (x + 0.3))
    torch.testing.assert_close(colour.recolour(x.expand(1, 3, -1, -1), maps)[:, :1], -1.7 * (x + 0.3))
    assert ada(PRESETS["bgc"], channels=1).rates.keys().isdisjoint({"hue", "saturation"})


# --- bands of frequencies -------------------------------------------------------------------------------------


def test_the_bands_sum_to_one_and_lie_where_they_should() -> None:
    taps = wavelets.bands()
    assert [len(band) for band in taps] == [43, 43, 19, 7]
    total = sum(F.pad(band, [(43 - len(band)) // 2] * 2) for band in taps)
    torch.testing.assert_close(torch.as_tensor(total), F.one_hot(torch.tensor(21), 43).double(), rtol=0, atol=1e-12)
    inside = [(0, 1 / 8), (1 / 8, 1 / 4), (1 / 4, 1 / 2), (1 / 2, 1)]
    for band, (low, high) in zip(taps, inside, strict=True):
        assert torch.allclose(band, band.flip(0), rtol=0, atol=1e-15), "no phase"
        omega = torch.linspace(0, math.pi, 1001, dtype=torch.float64)
        response = (omega[:, None] * (torch.arange(len(band)) - len(band) // 2)).cos() @ band
        power = response.square()
        within = (omega >= low * math.pi) & (omega <= high * math.pi)
        assert power[within].sum() / power.sum() > 0.75
        assert response[within].max() > 0.7


def test_a_wave_is_amplified_by_the_gains_at_its_frequency() -> None:
    """cos(w n), with w a multiple of pi / (size - 1), goes on beyond the borders as its own reflection."""
    size, gains = 33, numbers(0.5, 3.0, 1.5, 0.2)
    n = torch.arange(size, dtype=torch.float64)
    for k, m in ((0, 0), (3, 0), (0, 7), (12, 20), (32, 5)):
        response = 1.0
        for frequency in (k, m):
            w = math.pi * frequency / (size - 1)
            parts = [(w * (torch.arange(len(b)) - len(b) // 2).double()).cos() @ b for b in wavelets.bands()]
            response *= float(gains @ torch.stack(parts))
        wave = (math.pi * k / (size - 1) * n).cos()[:, None] * (math.pi * m / (size - 1) * n).cos()
        seen = filter_bands(wave[None, None], gains[None], wavelets.band_matrices(size))
        torch.testing.assert_close(seen[0, 0], response * wave)


def test_gains_keep_the_power_of_a_natural_image() -> None:
    drawn = numbers(0.4, 2.0, 1.0, 5.0)
    power, gains = numbers(10, 1, 1, 1) / 13, torch.ones(4, dtype=torch.float64)
    for i in range(4):
        t = torch.ones(4, dtype=torch.float64)
        t[i] = drawn[i]
        gains = gains * t / (power * t.square()).sum().sqrt()
    torch.testing.assert_close(band_gains(drawn[None])[0], gains)
    assert torch.equal(band_gains(torch.ones(1, 4)), torch.ones(1, 4)), "exactly, in fp32 too"


# --- corruptions ----------------------------------------------------------------------------------------------


def test_the_square_that_is_cut_out() -> None:
    square = torch.tensor([[0.5, 0.25, 0.5], [0.0, 1.0, 0.5], [0.3, 0.3, 0.0]])
    hole = cut_out(torch.ones(3, 2, 8, 8), square)[:, 0] == 0
    expected = torch.zeros(3, 8, 8, dtype=torch.bool)
    expected[0, 0:4, 2:6] = True  # in the middle from left to right, at the top
    expected[1, 6:8, 0:2] = True
    assert torch.equal(hole, expected)


def test_noise_has_a_spread_of_its_own_for_each_image() -> None:
    """sigma is half-normal with scale 0.1: its mean square is 0.01, and two thirds are below 0.1."""
    x = torch.zeros(4000, 1, 4, 4)
    seen = ada({"noise": 1.0}, size=4, channels=1)(x, rows(4000), 0)
    sigma = draw_parameters({"noise": 1.0}, 1.0, rows(4000), x)["noise"][:, 0]
    assert seen.square().mean().item() == pytest.approx(0.01, rel=0.1)
    assert (sigma < 0.1).float().mean().item() == pytest.approx(0.6827, abs=0.04)
    wild = sigma > 0.2
    assert seen[wild].std() > 4 * seen[sigma < 0.05].std()


# --- how often ------------------------------------------------------------------------------------------------

ALL = dict.fromkeys(TRANSFORMS, 1.0)
MANY = 20_000


@pytest.mark.parametrize(
    ("name", "mean", "deviation"),
    [
        ("xflip", 0.5, 0.5),
        ("rotate90", 1.5, 1.25**0.5),
        ("integer_translation", 0.0, 0.25 / 12**0.5),
        ("rotation_before", 0.0, 2 * math.pi / 12**0.5),
        ("rotation_after", 0.0, 2 * math.pi / 12**0.5),
        ("fractional_translation", 0.0, 0.125),
        ("brightness", 0.0, 0.2),
        ("luma_flip", 0.5, 0.5),
        ("hue", 0.0, 2 * math.pi / 12**0.5),
        ("noise", 0.1 * (2 / math.pi) ** 0.5, 0.1 * (1 - 2 / math.pi) ** 0.5),
    ],
)
def test_numbers_are_drawn_as_the_paper_says(name: str, mean: float, deviation: float) -> None:
    drawn = TRANSFORMS[name].draw(rows(MANY)).double()
    assert (drawn.mean(0) - mean).abs().max() < 5 * deviation / MANY**0.5
    torch.testing.assert_close(drawn.std(0), torch.full_like(drawn.std(0), deviation), rtol=0.04, atol=0)


@pytest.mark.parametrize(
    ("name", "doublings"),
    [
        ("isotropic_scaling", 0.2),
        ("anisotropic_scaling", 0.2),
        ("contrast", 0.5),
        ("saturation", 1.0),
        ("filtering", 1.0),
    ],
)
def test_factors_are_powers_of_two_with_a_normal_exponent(name: str, doublings: float) -> None:
    drawn = TRANSFORMS[name].draw(rows(MANY)).double().log2()
    assert drawn.mean(0).abs().max() < 5 * doublings / MANY**0.5
    torch.testing.assert_close(drawn.std(0), torch.full_like(drawn.std(0), doublings), rtol=0.04, atol=0)


def happened(p: float | Tensor, rates: dict[str, float] = ALL) -> dict[str, Tensor]:
    """Tell of each image whether each transform is another than none."""
    like = torch.empty(4000, 1)
    drawn = draw_parameters(rates, p, rows(4000), like)
    return {name: (drawn[name] != torch.tensor(TRANSFORMS[name].identity)).any(1) for name in rates}


def test_never_and_always() -> None:
    assert not any(found.any() for found in happened(0.0).values())
    whole = {"xflip": 1 / 2, "luma_flip": 1 / 2, "rotate90": 3 / 4}  # these draw "none" among the others
    for name, found in happened(1.0).items():
        assert found.float().mean().item() == pytest.approx(whole.get(name, 1.0), abs=0.04), name


def test_each_transform_happens_with_the_probability_p() -> None:
    for name, found in happened(0.3, {**ALL, "brightness": 0.5}).items():
        p = {"xflip": 0.15, "luma_flip": 0.15, "rotate90": 0.225, "brightness": 0.15, "filtering": 1 - 0.7**4}
        p |= dict.fromkeys(("rotation_before", "rotation_after"), 1 - 0.7**0.5)
        assert found.float().mean().item() == pytest.approx(p.get(name, 0.3), abs=0.037), name
    found = happened(0.3)
    assert (found["rotation_before"] | found["rotation_after"]).float().mean().item() == pytest.approx(0.3, abs=0.037)
    assert (found["contrast"] & found["hue"]).float().mean().item() == pytest.approx(0.09, abs=0.023), "independently"


def test_what_happens_at_a_lower_p_happens_at_a_higher() -> None:
    few, many = happened(0.2), happened(torch.tensor(0.6))
    for name in ALL:
        assert not (few[name] & ~many[name]).any()


def test_the_same_numbers_are_drawn_whatever_p_is() -> None:
    like = torch.empty(50, 1)
    noises = [rows(50), rows(50)]
    often, always = (draw_parameters(ALL, p, noise, like) for p, noise in zip((0.5, 1.0), noises, strict=True))
    for name in ALL:
        identity = torch.tensor(TRANSFORMS[name].identity)
        assert ((often[name] == always[name]) | (often[name] == identity)).all(), name
    assert torch.equal(noises[0].normal(2), noises[1].normal(2)), "the next to draw draws the same"


@pytest.mark.parametrize("preset", PRESETS)
def test_at_p_zero_nothing_changes(preset: str) -> None:
    """Pixels that are doubled and halved come back up to rounding; all else is exact."""
    x = images()
    for rates in (
        PRESETS[preset],
        {k: v for k, v in PRESETS[preset].items() if k in colour.COLOURS or k == "filtering"},
    ):
        seen = ada(rates, p=0.0)(x, rows(4), 0)
        exact = not rates.keys() & {"rotation", "isotropic_scaling"}
        torch.testing.assert_close(seen, x, rtol=0, atol=0 if exact else 1e-6)
    if preset != "none":
        assert not torch.allclose(ada(PRESETS[preset])(x, rows(4), 0), x, atol=0.1)


def test_a_p_on_the_device_is_a_p() -> None:
    x = images()
    adaptive = Ada(PRESETS["bgcfnc"], Adaptive(0.6, 4, 500.0, 0.4, CPU), 16, 3, CPU)
    torch.testing.assert_close(adaptive(x, rows(4), 0), ada(PRESETS["bgcfnc"], p=0.4)(x, rows(4), 0), rtol=0, atol=0)


def test_rates_of_zero_leave_a_transform_out() -> None:
    x = images()
    off = {**PRESETS["bgc"], "rotation": 0.0, "hue": 0.0}
    without = {name: rate for name, rate in PRESETS["bgc"].items() if name not in {"rotation", "hue"}}
    assert torch.equal(ada(off)(x, rows(4), 0), ada(without)(x, rows(4), 0))
    assert ada({"rotation": 0.0})(x, rows(4), 0) is x


# --- derivatives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_derivatives_of_the_whole_pipe_once_and_twice(channels: int) -> None:
    x = images(2, channels, size=5, dtype=torch.float64).requires_grad_()
    augment = ada(PRESETS["bgcfnc"], size=5, channels=channels, dtype=torch.float64)

    def seen(x: Tensor) -> Tensor:
        return augment(x, rows(2), 0).sin()  # so that there is a second derivative

    assert torch.autograd.gradcheck(seen, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(seen, x, fast_mode=True)


@pytest.mark.long
def test_every_derivative_of_the_whole_pipe_once_and_twice() -> None:
    x = images(1, 3, size=3, dtype=torch.float64).requires_grad_()
    augment = ada(PRESETS["bgcfnc"], size=3, dtype=torch.float64)
    for seed in range(2):
        assert torch.autograd.gradcheck(lambda x, s=seed: augment(x, rows(1, s), 0).sin(), x)
        assert torch.autograd.gradgradcheck(lambda x, s=seed: augment(x, rows(1, s), 0).sin(), x)


# --- adaptive p -----------------------------------------------------------------------------------------------


def test_p_moves_by_the_sign_of_how_far_the_mean_is_from_the_target() -> None:
    """Three steps of 100 images and a thousand images from 0 to 1: 0.3 at a time, within 0 and 1."""
    strength = Adaptive(target=0.6, interval_steps=3, adjust_kimg=1.0, start=0.0, device=CPU)
    found = []
    for signs in ((1.0, 0.3, 0.6), (0.9, 0.9, 0.9), (0.1, 1.0, 0.7), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.6, 0.6, 0.6)):
        for sign in signs:
            assert float(strength.p(0)) == pytest.approx(found[-1] if found else 0.0), "it waits for the interval's end"
            strength.observe(torch.tensor(sign), 100)
        found.append(float(strength.p(0)))
    # means .633, .9, .6, 1, 1, .6 in fp32
    assert found[:2] == pytest.approx([0.3, 0.6])
    assert found[3:5] == pytest.approx([min(1.0, found[2] + 0.3), 1.0])
    for sign in (0.0, 0.0, 0.0) * 5:
        strength.observe(torch.tensor(sign), 100)
    assert strength.p(0) == 0.0
    assert strength.statistics()["augment/r_t"] == 0.0


def test_at_the_target_p_stays() -> None:
    strength = Adaptive(target=0.5, interval_steps=1, adjust_kimg=1.0, start=0.25, device=CPU)
    strength.observe(torch.tensor(0.5), 64)
    assert strength.p(0) == 0.25


def test_the_mean_counts_images_not_steps() -> None:
    strength = Adaptive(target=0.0, interval_steps=2, adjust_kimg=1.0, start=0.5, device=CPU)
    strength.observe(torch.tensor(1.0), 10)
    strength.observe(torch.tensor(-0.5), 30)
    assert strength.statistics()["augment/r_t"] == pytest.approx(-0.125)
    assert strength.p(0) == pytest.approx(0.46)


@pytest.mark.parametrize("stop", [0, 1, 2, 5])
def test_an_adaptive_p_goes_on_bitwise(stop: int) -> None:
    def fresh() -> Adaptive:
        return Adaptive(0.6, 3, 2.0, 0.1, CPU)

    whole, first, second = fresh(), fresh(), fresh()
    signs = torch.rand(7, generator=torch.Generator().manual_seed(2))
    for sign in signs:
        whole.observe(sign, 100)
    for sign in signs[:stop]:
        first.observe(sign, 100)
    kept = {name: value.clone() for name, value in first.state().items()}
    second.restore(kept)
    for sign in signs[stop:]:
        second.observe(sign, 100)
    for name, value in whole.state().items():
        assert torch.equal(second.state()[name], value), name


def test_a_checkpoint_without_p_starts_it_anew() -> None:
    strength = Adaptive(0.6, 3, 2.0, 0.1, CPU)
    strength.restore({})
    assert strength.p(0) == pytest.approx(0.1)


def test_a_scheduled_p_is_reported() -> None:
    augment = Ada(PRESETS["blit"], Scheduled(lambda seen: seen / 1000, CPU), 16, 3, CPU)
    augment(images(), rows(4), 250)
    assert augment.statistics() == {"augment/p": torch.tensor(0.25)}

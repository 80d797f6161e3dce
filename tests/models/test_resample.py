"""Blur resampling against its definition, pixel by pixel."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gandist.models.resample import BINOMIAL_3, BINOMIAL_4, BlurDownsample, BlurUpsample, blur_downsample, blur_upsample

BOTH = pytest.mark.parametrize("taps", [BINOMIAL_3, BINOMIAL_4], ids=["three taps", "four taps"])


def normalised(taps: tuple[int, ...]) -> Tensor:
    return torch.tensor(taps, dtype=torch.float64)


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def halving(taps: tuple[int, ...], size: int) -> Tensor:
    """Return the matrix that halves a row of so many pixels: row i holds the taps from pixel 2 i - 1 on."""
    matrix = torch.zeros(size // 2, size, dtype=torch.float64)
    for i in range(size // 2):
        for k, tap in enumerate(taps):
            if 0 <= 2 * i - 1 + k < size:
                matrix[i, 2 * i - 1 + k] = tap / sum(taps)
    return matrix


@BOTH
def test_halving_is_a_matrix_for_rows_and_columns(taps: tuple[int, ...]) -> None:
    x = picture(2, 3, 8, 6)
    down, across = halving(taps, 8), halving(taps, 6)
    torch.testing.assert_close(blur_downsample(x, normalised(taps)), down @ x @ across.T)


@BOTH
def test_doubling_is_its_transpose_times_four(taps: tuple[int, ...]) -> None:
    x = picture(2, 3, 4, 3)
    down, across = halving(taps, 8), halving(taps, 6)
    torch.testing.assert_close(blur_upsample(x, normalised(taps)), 4 * down.T @ x @ across)


@BOTH
def test_constant_images_stay_constant_away_from_the_border(taps: tuple[int, ...]) -> None:
    x = torch.full((1, 2, 8, 8), 0.7, dtype=torch.float64)
    for out in (blur_upsample(x, normalised(taps)), blur_downsample(x, normalised(taps))):
        torch.testing.assert_close(out[:, :, 1:-1, 1:-1], torch.full_like(out[:, :, 1:-1, 1:-1], 0.7))


def test_four_taps_interpolate_bilinearly_when_doubling() -> None:
    """[1, 3, 3, 1] on zeros and pixels weighs neighbours 3 : 1, as bilinear interpolation of pixel areas does."""
    x = picture(1, 1, 6, 6)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(blur_upsample(x, normalised(BINOMIAL_4))[inside], expected[inside])


def test_the_highest_frequency_is_taken_away() -> None:
    """A chessboard, which picking every second pixel would turn into one colour."""
    board = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).mul(2.0).sub(1)[None, None]
    assert board[:, :, ::2, ::2].unique().tolist() == [-1]
    for taps in (BINOMIAL_3, BINOMIAL_4):
        assert blur_downsample(board, torch.tensor(taps, dtype=torch.float32))[:, :, 1:-1, 1:-1].abs().max() < 1e-6


@pytest.mark.long
@BOTH
def test_two_derivatives(taps: tuple[int, ...]) -> None:
    x = picture(1, 2, 4, 4).requires_grad_()
    for resample in (blur_upsample, blur_downsample):
        torch.autograd.gradcheck(lambda x, resample=resample: resample(x, normalised(taps)).square(), x)
        torch.autograd.gradgradcheck(lambda x, resample=resample: resample(x, normalised(taps)).pow(3), x)


def test_modules_keep_the_memory_order_the_format_and_nothing_in_checkpoints() -> None:
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    for module, side in ((BlurUpsample(), 16), (BlurDownsample(), 4)):
        with torch.autocast("cpu", torch.bfloat16):
            out = module(x)
            assert module(x.bfloat16()).dtype == torch.bfloat16
        assert out.shape == (2, 4, side, side)
        assert out.dtype == torch.float32
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert not module.state_dict()

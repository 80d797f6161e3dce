"""Every kind of image that people have in their folders: read right, or rejected with the reason."""

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture, png
from PIL import Image, ImageDraw

from gandist.data.decode import Decoder
from gandist.data.making.payload import Broken, Payload, Pixels, WholeFile, ZipMember
from gandist.data.making.pixels import PIXEL_LIMIT, Recipe, Rejected, make, make_all

CROP = Recipe(8, 3, "crop", "lanczos", "npy", 95, False)
GREY = Recipe(8, 1, "crop", "lanczos", "npy", 95, False)


def file(tmp_path: Path, image: Image.Image | bytes, ending: str = "png", **options: object) -> WholeFile:
    path = tmp_path / f"image.{ending}"
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return WholeFile(path)


def pixels_of(payload: Payload, recipe: Recipe = CROP) -> np.ndarray:
    made = make(payload, recipe)
    assert isinstance(made, bytes), made
    out = np.empty((recipe.resolution, recipe.resolution, recipe.channels), dtype=np.uint8)
    Decoder(recipe.resolution, recipe.channels).into(made, out)
    return out


def reason(payload: Payload, recipe: Recipe = CROP) -> str:
    made = make(payload, recipe)
    assert isinstance(made, Rejected), "was accepted"
    return made.reason


RGB = np.asarray(picture())
ONE = np.asarray(picture(channels=1))


def test_plain_images_pass_unchanged(tmp_path: Path) -> None:
    for ending, options in [("png", {}), ("webp", {"lossless": True}), ("bmp", {}), ("tiff", {}), ("ppm", {})]:
        assert (pixels_of(file(tmp_path, picture(), ending, **options)) == RGB).all(), ending
    assert (pixels_of(Pixels(RGB)) == RGB).all()


def test_grey_becomes_three_equal_channels_and_colour_its_luma(tmp_path: Path) -> None:
    grey = file(tmp_path, picture(channels=1))
    assert (pixels_of(grey) == ONE[..., None]).all()
    assert (pixels_of(grey, GREY)[..., 0] == ONE).all()
    luma = pixels_of(file(tmp_path, picture()), GREY)[..., 0].astype(float)
    assert np.abs(luma - RGB @ [0.299, 0.587, 0.114]).max() <= 1


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    half = np.concatenate([RGB, np.full((8, 8, 1), 128, np.uint8)], 2)
    expected = RGB * (128 / 255) + 255 * (127 / 255)
    assert np.abs(pixels_of(file(tmp_path, Image.fromarray(half))).astype(float) - expected).max() <= 1
    clear = file(tmp_path, Image.new("LA", (8, 8), (0, 0)))
    assert (pixels_of(clear) == 255).all()
    assert (pixels_of(clear, GREY) == 255).all()


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    plain = picture().quantize(16)
    assert (pixels_of(file(tmp_path, plain)) == np.asarray(plain.convert("RGB"))).all()
    assert (pixels_of(file(tmp_path, plain, "gif")) == np.asarray(plain.convert("RGB"))).all()
    red = Image.new("P", (8, 8), 1)
    red.putpalette([0, 0, 0, 255, 0, 0])
    assert (pixels_of(file(tmp_path, red)) == [255, 0, 0]).all()
    assert (pixels_of(file(tmp_path, red, transparency=1)) == 255).all()
    assert (pixels_of(file(tmp_path, red, transparency=0)) == [255, 0, 0]).all()


def test_black_and_white(tmp_path: Path) -> None:
    image = Image.fromarray(ONE > 127)
    assert image.mode == "1"
    assert (pixels_of(file(tmp_path, image), GREY)[..., 0] == (ONE > 127) * 255).all()


def test_cmyk(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert np.abs(pixels_of(file(tmp_path, cyan, "jpg", quality=100)).astype(int) - [0, 255, 255]).max() <= 4
    assert (pixels_of(file(tmp_path, cyan, "tiff")) == [0, 255, 255]).all()


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, ending: str) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = pixels_of(file(tmp_path, Image.fromarray(values), ending), GREY)[..., 0]
    assert np.abs(found - values / 257).max() <= 0.51
    assert found.min() == 0
    assert found.max() == 255
    assert len(np.unique(found)) == 64


def test_numbers_of_unknown_range_are_rejected(tmp_path: Path) -> None:
    assert "floating point" in reason(file(tmp_path, Image.fromarray(np.ones((8, 8), np.float32)), "tiff"))
    assert "32-bit" in reason(file(tmp_path, Image.fromarray(np.full((8, 8), 70_000, np.int32)), "tiff"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (16, 8), (0, 0, 0))
    ImageDraw.Draw(upright).rectangle((4, 0, 7, 3), fill=(255, 255, 255))  # top left of the middle square
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    bright = pixels_of(file(tmp_path, stored, "png", exif=exif)).mean(2) > 127
    assert bright[:4, :4].all()
    assert bright.sum() == 16


def test_the_middle_square_is_kept(tmp_path: Path) -> None:
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = RGB
    assert (pixels_of(file(tmp_path, Image.fromarray(wide))) == RGB).all()
    assert (pixels_of(file(tmp_path, Image.fromarray(wide.transpose(1, 0, 2)))) == RGB.transpose(1, 0, 2)).all()


def test_making_smaller_averages(tmp_path: Path) -> None:
    """A fine checkerboard becomes grey; skipping pixels would make it black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    for resample in ("lanczos", "box"):
        recipe = Recipe(8, 1, "crop", resample, "npy", 95, False)  # type: ignore[arg-type]
        found = pixels_of(file(tmp_path, Image.fromarray(board.astype(np.uint8))), recipe)
        assert np.abs(found.astype(int) - 127).max() <= 8


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (100, 7), (7, 100), (1, 5000)])
def test_enlarging_must_be_allowed(tmp_path: Path, size: tuple[int, int]) -> None:
    payload = file(tmp_path, picture(size))
    made = make(payload, CROP)
    assert isinstance(made, Rejected)
    assert made.size == size
    assert f"{size[0]}x{size[1]} px, smaller than 8 px" in made.reason
    allowed = Recipe(8, 3, "crop", "lanczos", "npy", 95, True)
    assert pixels_of(payload, allowed).shape == (8, 8, 3)


def test_padding_surrounds_with_black_and_enlarges_only_if_allowed(tmp_path: Path) -> None:
    pad = Recipe(8, 1, "pad", "lanczos", "npy", 95, False)
    white = Image.new("L", (4, 2), 255)
    found = pixels_of(file(tmp_path, white), pad)[..., 0]
    assert (found[3:5, 2:6] == 255).all()
    assert int(found.astype(int).sum()) == 8 * 255
    enlarged = pixels_of(file(tmp_path, white), Recipe(8, 1, "pad", "box", "npy", 95, True))[..., 0]
    assert (enlarged[2:6] == 255).all()
    assert int((enlarged > 0).sum()) == 32
    shrunk = pixels_of(file(tmp_path, Image.new("L", (32, 16), 255)), pad)[..., 0]
    assert (shrunk[2:6] == 255).all()
    assert int((shrunk > 0).sum()) == 32
    thin = pixels_of(file(tmp_path, Image.new("L", (4000, 1), 255)), pad)[..., 0]
    assert int((thin > 0).any(1).sum()) == 1


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that claims any size and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not an image of a known format"),
        (png()[:-40], "cannot be decoded"),
        (png()[:20], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "is not an image of a known format"),
        (header_only_png(5000, 5000), f"has 5000x5000 pixels, the limit is {PIXEL_LIMIT}"),
        (header_only_png(60_000, 60_000), "exceeds limit"),
        (header_only_png(2**31 - 1, 2**31 - 1), "cannot be decoded"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_the_reason(tmp_path: Path, content: bytes, complaint: str) -> None:
    assert complaint in reason(file(tmp_path, content))


def test_a_truncated_photo_is_rejected(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture((64, 64)).save(buffer, "JPEG")
    assert "truncated" in reason(file(tmp_path, buffer.getvalue()[:-500], "jpg"))


def test_files_that_cannot_be_opened_are_rejected(tmp_path: Path) -> None:
    assert "No such file" in reason(WholeFile(tmp_path / "gone.png"))
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in reason(WholeFile(tmp_path / "pipe.png"))
    with (tmp_path / "huge.png").open("wb") as huge:
        huge.truncate(65 << 20)
    assert "limit is 67108864" in reason(WholeFile(tmp_path / "huge.png"))
    assert reason(Broken("because")) == "because"


def test_a_zip_bomb_is_stopped_at_its_promise(tmp_path: Path) -> None:
    """A member that claims to be small and inflates without end costs no more than it claims."""
    deflate = zlib.compressobj(1, wbits=-15)
    bomb = deflate.compress(bytes(70 << 20)) + deflate.flush()
    path = tmp_path / "bomb.zip"
    path.write_bytes(struct.pack("<4s22xHH", b"PK\3\4", 0, 0) + bomb)
    tracemalloc.start()
    assert "does not match its size" in reason(ZipMember(path, 0, len(bomb), 1000, 8, 0))
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()
    assert "limit is 67108864" in reason(ZipMember(path, 0, len(bomb), 70 << 20, 8, 0))
    assert "has no header" in reason(ZipMember(path, 5, len(bomb), 1000, 8, 0))
    assert "cut short" in reason(ZipMember(path, 0, len(bomb) + 10, 1000, 8, 0))
    path.write_bytes(struct.pack("<4s22xHH", b"PK\3\4", 0, 0) + b"\xff" * 50)
    assert "cannot be inflated" in reason(ZipMember(path, 0, 50, 1000, 8, 0))


@given(
    st.integers(0, 10**6), st.integers(1, 255), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
)
def test_no_damage_raises(tmp_path_factory: pytest.TempPathFactory, at: int, change: int, kind: str) -> None:
    buffer = io.BytesIO()
    picture((12, 12)).save(buffer, kind)
    raw = bytearray(buffer.getvalue())
    raw[at % len(raw)] ^= change
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(raw)
    (made,) = make_all([WholeFile(path)], CROP)
    assert isinstance(made, Rejected) or len(made) == 320

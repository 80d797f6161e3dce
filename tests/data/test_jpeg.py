"""Two decoders, one verdict: what is an image, and its pixels, must not depend on what is installed."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gandist.data import decode
from gandist.data.decode import DecodeError, Decoder, plain_jpeg_components, quietly

pytest.importorskip("simplejpeg")


def scene(size: int, channels: int, seed: int = 0) -> Image.Image:
    """Something like a photograph: smooth shapes, edges, and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = np.stack([np.sin(7 * x + k + seed) * np.cos(5 * y - k) for k in range(channels)], axis=-1)
    value = 128 + 80 * waves + 60 * ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.1)[..., None]
    pixels = (value + rng.normal(0, 8, value.shape)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def decoded(raw: bytes, size: int, channels: int, *, fast: bool) -> bytes | None:
    """Return the pixels, or None where the bytes are refused."""
    out = np.empty((size, size, channels), dtype=np.uint8)
    try:
        with quietly():
            Decoder(size, channels, fast=fast).into(raw, out)
    except DecodeError:
        return None
    return out.tobytes()


def agree(raw: bytes, size: int, channels: int) -> bytes | None:
    slow = decoded(raw, size, channels, fast=False)
    assert decoded(raw, size, channels, fast=True) == slow, (len(raw), size, channels)
    return slow


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("quality", [1, 50, 92, 100])
def test_both_decoders_give_the_same_pixels(subsampling: str, quality: int) -> None:
    kinds = itertools.product((8, 13, 32, 33, 47, 64), (False, True), (False, True))
    for number, (size, progressive, optimize) in enumerate(kinds):
        how: dict[str, object] = {"quality": quality, "progressive": progressive, "optimize": optimize}
        if subsampling != "grey":
            how["subsampling"] = subsampling
        if number % 3 == 0:
            how["restart_marker_rows"] = 1
        raw = jpeg(scene(size, 1 if subsampling == "grey" else 3, seed=number), **how)
        assert bool(plain_jpeg_components(raw, size)) != progressive
        assert agree(raw, size, 3) is not None
        if subsampling == "grey":
            assert agree(raw, size, 1) is not None
        else:
            assert agree(raw, size, 1) is None, "colours are no grey"


def test_what_is_plain_does_not_reach_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparison above would compare Pillow to itself."""
    raw = jpeg(scene(32, 3), quality=92)
    expected = decoded(raw, 32, 3, fast=False)
    monkeypatch.setattr(decode.Image, "open", None)
    assert decoded(raw, 32, 3, fast=True) == expected
    assert decoded(raw, 32, 3, fast=False) is None


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "L"])
def test_odd_jpegs_are_left_to_pillow(mode: str) -> None:
    image = scene(16, 3).convert(mode)
    raws = [
        jpeg(image, quality=90, exif=Image.Exif().tobytes() + b"Exif\0\0II*\0"),
        jpeg(image, icc_profile=b"x" * 200),
        jpeg(image, comment=b"hello"),
        jpeg(image) + b"trailing rubbish",
        jpeg(image).replace(b"JFIF", b"JUNK"),
        jpeg(image)[:-2],
    ]
    if mode == "RGB":
        raws += [jpeg(image, keep_rgb=True), jpeg(image.resize((17, 16)))]
    for raw in raws:
        agree(raw, 16, 3)
        agree(raw, 16, 1)


BASES = [
    jpeg(scene(24, channels, seed=number), quality=quality, optimize=optimize, **more)
    for number, (channels, quality, optimize, more) in enumerate(
        [(3, 90, False, {"subsampling": "4:2:0"}), (3, 70, True, {"subsampling": "4:4:4"}), (1, 80, False, {})]
    )
]


@given(st.sampled_from(BASES), st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3))
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_damaged_bytes_meet_the_same_verdict(base: bytes, flips: list[tuple[int, int]]) -> None:
    raw = bytearray(base)
    for at, bits in flips:
        raw[at % len(raw)] ^= bits
    agree(bytes(raw), 24, 3)
    agree(bytes(raw), 24, 1)


def test_every_damaged_byte_before_the_pixels_meets_the_same_verdict() -> None:
    for base in BASES:
        for at in range(base.index(b"\xff\xda") + 16):
            for value in (0x00, 0xFF, base[at] ^ 1, base[at] ^ 0x80):
                agree(base[:at] + bytes([value]) + base[at + 1 :], 24, 3)


@pytest.mark.parametrize("base", BASES)
def test_every_cut_meets_the_same_verdict(base: bytes) -> None:
    for end in range(0, len(base), 3):
        agree(base[:end], 24, 3)
    assert agree(base[:-40], 24, 3) is None


@pytest.mark.long
def test_many_damaged_files_meet_the_same_verdict() -> None:
    rng = np.random.default_rng(0)
    for number in range(30_000):
        raw = bytearray(BASES[number % len(BASES)])
        for at in rng.integers(0, len(raw), rng.integers(1, 6)):
            raw[at] = rng.integers(0, 256)
        agree(bytes(raw), 24, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_colour_sets_hold_grey_images_too(kind: str) -> None:
    grey = scene(16, 1)
    buffer = io.BytesIO()
    grey.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    pixels = decoded(buffer.getvalue(), 16, 3, fast=True)
    assert pixels is not None
    if kind != "JPEG":
        assert pixels == np.repeat(np.asarray(grey)[..., None], 3, axis=2).tobytes()


def test_palettes_and_black_and_white_are_decoded() -> None:
    for image in (scene(16, 3).quantize(40), scene(16, 3).convert("1")):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        assert decoded(buffer.getvalue(), 16, 3, fast=True) == np.asarray(image.convert("RGB")).tobytes()
    assert decoded(buffer.getvalue(), 16, 1, fast=True) == np.asarray(image.convert("L")).tobytes()

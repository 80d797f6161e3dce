import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pictures import fill, opened, picture
from PIL import Image

from gandist.data.decode import DecodeError, Decoder, npy_header
from gandist.data.making.prepare import prepare
from gandist.data.shards.index import Shard
from gandist.data.shards.store import LocalPlaces, Store
from gandist.errors import DataError


def test_an_epoch_is_the_source(photos: Path, shards: Path) -> None:
    images = opened(shards)
    assert (images.samples, images.resolution, images.channels) == (53, 8, 3)
    assert images.class_names == ("cat", "dog", "emu")
    assert images.class_counts == (20, 22, 11)
    sources = {
        (np.asarray(Image.open(path)).tobytes(), images.class_names.index(path.parent.name))
        for path in photos.rglob("*.png")
    }
    for epoch in range(3):
        pixels, labels = images.read(np.arange(53 * epoch, 53 * epoch + 53))
        assert pixels.dtype == np.uint8
        assert labels.dtype == np.int64
        assert {(p.tobytes(), int(label)) for p, label in zip(pixels, labels, strict=True)} == sources


def test_a_filter_renumbers_the_classes(shards: Path) -> None:
    images = opened(shards, classes=(0, 2))
    assert images.class_names == ("cat", "emu")
    assert images.class_counts == (20, 11)
    assert images.samples == 31
    everything, labels = opened(shards).read(np.arange(53))
    kept, kept_labels = images.read(np.arange(31))
    expected = {(p.tobytes(), [0, -1, 1][label]) for p, label in zip(everything, labels, strict=True) if label != 1}
    assert {(p.tobytes(), int(label)) for p, label in zip(kept, kept_labels, strict=True)} == expected


@pytest.mark.parametrize("kind", ["npy", "png", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_give_the_pixels_back(tmp_path: Path, photos: Path, kind: str, channels: int) -> None:
    prepare(str(photos), tmp_path / "s", resolution=8, channels=channels, format=kind, workers=0)  # type: ignore[arg-type]
    images = opened(tmp_path / "s", channels=channels)
    pixels, _ = images.read(np.arange(53))
    mode = "L" if channels == 1 else "RGB"
    sources = {np.asarray(Image.open(path).convert(mode)).tobytes() for path in photos.rglob("*.png")}
    assert {image.tobytes() for image in pixels} == sources


def test_jpeg_is_near_the_source(tmp_path: Path, photos: Path) -> None:
    prepare(str(photos), tmp_path / "j", resolution=8, format="jpeg", quality=100, workers=0)
    prepare(str(photos), tmp_path / "n", resolution=8, workers=0)
    near, exact = (opened(tmp_path / name).read(np.arange(53))[0].astype(int) for name in "jn")
    assert np.abs(near - exact).mean() < 3


def test_images_without_classes(tmp_path: Path) -> None:
    fill(tmp_path / "loose", {".": 9})
    prepare(str(tmp_path / "loose"), tmp_path / "s", resolution=8, workers=0)
    images = opened(tmp_path / "s")
    assert images.class_names == images.class_counts == ()
    assert images.read(np.arange(9))[1].tolist() == [-1] * 9
    with pytest.raises(DataError, match=r"data\.classes is \[0\], but the images have no labels"):
        opened(tmp_path / "s", classes=(0,))


def test_another_size_names_both_ways_out(shards: Path) -> None:
    with pytest.raises(
        DataError, match=r"images of 8 px, but data\.resolution is 32.*--data\.resolution 8.*--resolution 32"
    ):
        opened(shards, resolution=32)
    with pytest.raises(
        DataError, match=r"RGB \(3 channels\) images, but data\.channels is 1.*--data\.channels 3.*--channels 1"
    ):
        opened(shards, channels=1)


def test_fingerprints_tell_sets_and_orders_apart(shards: Path, photos: Path, tmp_path: Path) -> None:
    prepare(str(photos), tmp_path / "other", resolution=8, seed=1, workers=0)
    different = [
        opened(shards), opened(shards, seed=1), opened(shards, chunk=5), opened(shards, block=5),
        opened(shards, lanes=2), opened(shards, stripe=2), opened(shards, classes=(0, 1)), opened(tmp_path / "other"),
        opened("glyphs"), opened("glyphs", seed=1), opened("glyphs", channels=1), opened("glyphs", classes=(1, 2)),
    ]  # fmt: skip
    assert len({images.fingerprint for images in different}) == len(different)
    assert opened(shards, classes=(1, 0)).fingerprint == opened(shards, classes=(0, 1)).fingerprint
    assert opened(shards).fingerprint == opened(shards).fingerprint


def test_glyphs_are_a_set_without_an_end() -> None:
    images = opened("glyphs", resolution=16, classes=(4, 2))
    assert images.samples is None
    assert images.class_names == ("2", "4")
    assert images.class_counts == (1, 1)
    pixels, labels = images.read(np.array([10**15, 3]))
    assert pixels.shape == (2, 16, 16, 3)
    assert (images.read(np.array([3]))[0][0] == pixels[1]).all()
    assert labels.dtype == np.int64
    with pytest.raises(DataError, match=r"names \[10\]"):
        opened("glyphs", classes=(10,))


def test_damage_after_indexing_is_named_with_its_place(shards_copy: Path) -> None:
    images = opened(shards_copy)
    shard = shards_copy / "shard-000001.tar"
    raw = bytearray(shard.read_bytes())
    start = raw.index(b"\x93NUMPY")
    raw[start] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(DataError, match=rf"shard-000001\.tar: byte {start}: the image cannot be decoded"):
        images.read(np.arange(53))
    os.truncate(shard, len(raw) - 1024)
    with pytest.raises(DataError, match="the shard changed since it was indexed"):
        opened(shards_copy)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-000001\.tar: cannot be read"):
        _fresh(images).read(np.arange(53))


def _fresh(images: object) -> object:
    return pickle.loads(pickle.dumps(images))  # noqa: S301 - how a worker gets it


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


PIXELS = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "cannot be decoded"),
        (b"hello", "cannot be decoded"),
        (npy(PIXELS)[:-1], "has 319 bytes, not 320"),
        (npy(PIXELS) + b"x", "has 321 bytes, not 320"),
        (npy(PIXELS[:7]), "uint8 of shape (7, 8, 3), not uint8 of (8, 8, 3)"),
        (npy(PIXELS.astype(np.int16)), "int16 of shape (8, 8, 3)"),
        (npy(np.array([{}], dtype=object)), "raw image cannot be read"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "raw image cannot be read"),
        (encoded(picture((9, 8)), "PNG"), "9x8 px, not 8x8"),
        (encoded(picture((4000, 4000), 1).convert("1"), "PNG"), "4000x4000 px, not 8x8"),
        (encoded(picture(channels=4), "PNG"), "mode is RGBA, not RGB"),
        (encoded(picture().convert("CMYK"), "JPEG"), "mode is CMYK, not RGB"),
        (encoded(picture(channels=2), "PNG"), "mode is LA, not RGB"),
        (encoded(picture().quantize(8), "PNG", transparency=3), "transparent in places"),
        (encoded(picture(), "PNG", transparency=(1, 2, 3)), "transparent in places"),
        (encoded(picture(channels=1), "PNG", transparency=9), "transparent in places"),
        (encoded(Image.fromarray(np.zeros((8, 8), np.uint16)), "PNG"), "mode is I;16, not RGB"),
        (encoded(picture(), "PNG")[:-30], "cannot be decoded"),
        (encoded(picture(), "JPEG")[:300], "cannot be decoded"),
        (encoded(picture(), "GIF"), "cannot be decoded"),
        (encoded(picture(), "TIFF"), "cannot be decoded"),
    ],
)
def test_only_the_promised_image_is_decoded(raw: bytes, complaint: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Decoder(8, 3).into(raw, np.empty((8, 8, 3), dtype=np.uint8))
    assert complaint in str(caught.value)


def test_arrays_of_other_writers_are_read() -> None:
    out = np.empty((8, 8, 3), dtype=np.uint8)
    for raw in (npy(PIXELS), npy(np.asfortranarray(PIXELS)), npy_header(8, 3) + PIXELS.tobytes()):
        out[:] = 0
        Decoder(8, 3).into(raw, out)
        assert (out == PIXELS).all()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_store_keeps_few_files_open(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}" for number in range(300)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%04d" % number)
    store = Store(LocalPlaces(tmp_path, [Shard(path.name, 4, 1, None) for path in paths]))
    before = open_files()
    for number in (*range(300), *range(299, -1, -1)):
        assert store.read(number, 0, 4) == b"%04d" % number
    assert open_files() - before <= 256
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert copy.read(7, 1, 3) == b"007"
    copy.close()
    store.close()
    assert open_files() == before


def test_the_store_goes_on_after_a_passing_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"abcd")
    store = Store(LocalPlaces(tmp_path, [Shard("a", 4, 1, None)]))
    failures = [OSError(116, "Stale file handle"), OSError(5, "Input/output error")]
    pread = os.pread

    def flaky(descriptor: int, size: int, offset: int) -> bytes:
        if failures:
            raise failures.pop()
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", flaky)
    monkeypatch.setattr("gandist.data.shards.store._FIRST_PAUSE_SECONDS", 0)
    assert store.read(0, 1, 2) == b"bc"
    failures += [OSError(5, "Input/output error")] * 3
    with pytest.raises(DataError, match=r"a: cannot be read \(Input/output error\)"):
        store.read(0, 1, 2)
    store.close()


def test_the_store_reads_into_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcdefgh")
    store = Store(LocalPlaces(tmp_path, [Shard("a", 8, 1, None)]))
    head, row = bytearray(2), np.zeros(3, dtype=np.uint8)
    store.read_into(0, 1, 5, (memoryview(head), row.data))
    assert (bytes(head), row.tobytes()) == (b"bc", b"def")
    with pytest.raises(DataError, match="a: ends at byte 8"):
        store.read_into(0, 5, 5, (memoryview(head), row.data))
    store.close()


def test_the_store_lets_go_of_deleted_shards(tmp_path: Path) -> None:
    """An open file keeps its space on the disk, however often the cache deletes its name."""
    paths = [tmp_path / f"{number}" for number in range(40)]
    for path in paths:
        path.write_bytes(b"abcd")
    store = Store(LocalPlaces(tmp_path, [Shard(path.name, 4, 1, None) for path in paths]))
    before = open_files()
    for number in range(30):
        store.read(number, 0, 4)
    for path in paths[:12]:
        path.unlink()
    assert store.read(3, 0, 4) == b"abcd", "what is open can still be read"
    store.read(30, 0, 4)
    assert open_files() - before == 30 - 11 + 1, "all but the one that was just used"
    for number in range(13, 40):
        store.read(number, 0, 4)
    assert open_files() - before == 28
    store.close()


def test_a_forked_store_leaves_its_parents_files_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcd")
    store = Store(LocalPlaces(tmp_path, [Shard("a", 4, 1, None)]))
    store.read(0, 0, 4)
    descriptor = store._open[0]
    store._owner = -1  # as it is after a fork
    assert store.read(0, 0, 4) == b"abcd"
    assert store._open[0] != descriptor
    assert os.pread(descriptor, 4, 0) == b"abcd", "the parent's is still open"
    os.close(descriptor)
    store.close()
